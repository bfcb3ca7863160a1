"""What a run says of how long it will take."""

import logging

import pytest
from ignite.engine import Engine, Events

from svgd_monai.workflow import Pace, duration, pace


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def lines(caplog):
    """What has been said, without ignite's own lines."""
    caplog.set_level(logging.INFO, logger=pace.__name__)
    return lambda: [record.getMessage() for record in caplog.records if record.name == pace.__name__]


def run(clock, seconds, epochs=1, start=0, **options):
    """An engine whose iterations take what ``seconds`` says of their number."""

    def work(engine, _):
        clock[0] += seconds(engine.state.iteration)

    engine = Engine(work)
    if start:
        engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "iteration", start))
    Pace("Training, round 3", **options).attach(engine)
    engine.run(range(100), max_epochs=epochs, epoch_length=100)


def test_a_run_says_early_what_it_will_take(clock, lines):
    run(clock, lambda i: 30 if i == 1 else 2)  # the first reads files
    assert lines() == ["Training, round 3: a step takes 30 s, so 100 of them about 50 min."]


def test_the_first_iteration_does_not_count_where_there_are_more(clock, lines):
    run(clock, lambda i: 14 if i == 1 else 2, unit="case", total=50, rounds=11)
    assert lines() == ["Training, round 3: a case takes 2 s, so 50 of them about 2 min, and 11 such rounds 18 min."]


def test_a_short_run_says_nothing(clock, lines):
    run(clock, lambda i: 0.1)
    assert not lines()


def test_a_long_run_says_again_what_is_left(clock, lines):
    run(clock, lambda i: 60, epochs=2)
    first, *later = lines()
    assert first == "Training, round 3: a step takes 60 s, so 200 of them about 3 h 20 min."
    assert later[0] == "Training, round 3: step 11 of 200, about 3 h 9 min to go."
    assert len(later) == 19
    assert later[-1] == "Training, round 3: step 191 of 200, about 9 min to go."


def test_a_continued_run_counts_from_where_it_begins(clock, lines):
    run(clock, lambda i: 20, start=60)
    assert lines()[0] == "Training, round 3: a step takes 20 s, so 40 of them about 13 min."
    assert lines()[1] == "Training, round 3: step 91 of 100, about 3 min to go."


def test_the_rounds_behind_a_continued_one_are_whole(clock, lines):
    run(clock, lambda i: 20, start=60, rounds=11)  # 40 steps and ten times 100
    first = "Training, round 3: a step takes 20 s, so 40 of them about 13 min, and all 11 rounds 5 h 47 min."
    assert lines()[0] == first


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.148, "0.15 s"), (3, "3 s"), (59.6, "60 s"), (100, "2 min"), (1200, "20 min"), (12000, "3 h 20 min"),
        (7200, "2 h"), (172_000, "47 h 47 min"), (234_000, "2 days 17 h"), (864_000, "10 days"), (2_600_000, "30 days"),
    ],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words
