"""No two annotators hold one image: among threads, among processes, and when one of them dies."""

import json
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock

from svgd_monai.monailabel import LeaseBook

FORK = multiprocessing.get_context("fork")  # a spawned process would import torch for seconds; the book needs none
IMAGES = [f"scan_{number:02d}" for number in range(12)]


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def book(tmp_path, clock):
    return LeaseBook(tmp_path / "store/leases.json", seconds=60, clock=clock)


def ask(book, client, images=IMAGES, unlabelled=None):
    return book.take(client, lambda: (images, images if unlabelled is None else unlabelled))


def test_each_gets_the_best_image_that_is_free(book):
    assert [ask(book, client) for client in "abc"] == IMAGES[:3]


def test_who_asks_again_gets_what_he_holds(book):
    ask(book, "a")
    second = ask(book, "b")
    assert ask(book, "b") == second
    assert ask(book, "b", images=list(reversed(IMAGES))) == second


def test_a_labelled_image_is_free_of_its_lease_and_its_holder_goes_on(book):
    assert ask(book, "a") == IMAGES[0]
    left = IMAGES[1:]
    assert ask(book, "a", left) == IMAGES[1]
    assert list(json.loads(book.path.read_text())["leases"]) == [IMAGES[1]]


def test_a_label_taken_back_makes_the_image_free_again(book):
    ask(book, "a")
    ask(book, "a", IMAGES[1:])
    assert ask(book, "b") == IMAGES[0]


def test_an_expired_lease_is_handed_out_again(book, clock):
    assert ask(book, "a") == IMAGES[0]
    clock.now += 59
    assert ask(book, "b") == IMAGES[1]
    clock.now += 2
    assert ask(book, "c") == IMAGES[0]
    assert ask(book, "a") == IMAGES[2], "his time was up, and another has it"


def test_asking_again_renews_the_lease(book, clock):
    for _ in range(3):
        assert ask(book, "a") == IMAGES[0]
        clock.now += 50
    assert ask(book, "b") == IMAGES[1]


def test_nothing_is_left_when_all_are_held(book):
    assert ask(book, "a", IMAGES[:1]) == IMAGES[0]
    assert ask(book, "b", IMAGES[:1]) is None
    assert ask(book, "a", IMAGES[:1]) == IMAGES[0]


def test_without_a_name_every_request_is_another_person(book):
    assert [ask(book, None) for _ in range(3)] == IMAGES[:3]


def test_a_request_for_some_of_the_images_leaves_the_leases_of_others(book):
    assert ask(book, "a") == IMAGES[0]
    assert ask(book, "b", images=IMAGES[5:], unlabelled=IMAGES) == IMAGES[5]
    assert ask(book, "c") == IMAGES[1]


def test_a_client_holds_one_image_at_a_time(book):
    """As one who asks with another filter: what he held is free."""
    assert ask(book, "a") == IMAGES[0]
    assert ask(book, "a", images=IMAGES[5:], unlabelled=IMAGES) == IMAGES[5]
    assert list(json.loads(book.path.read_text())["leases"]) == [IMAGES[5]]
    assert ask(book, "b") == IMAGES[0]
    assert ask(book, "a", images=IMAGES) == IMAGES[5]


def test_a_lease_is_over_when_its_last_second_is(book, clock):
    assert ask(book, "a") == IMAGES[0]
    clock.now += 60
    assert ask(book, "b") == IMAGES[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"format": 2, "leases": {}}',
        b'{"format": 1, "leases": {"scan_00": 3}}',
        b'{"format": 1, "leases": {"scan_00": {"client": "a", "until": 1e999}}}',
    ],
)
def test_a_damaged_file_is_reported_and_starts_anew(book, content, caplog):
    ask(book, "a")
    book.path.write_bytes(content)
    assert ask(book, "b") == IMAGES[0]
    assert "damaged" in caplog.text
    assert ask(book, "c") == IMAGES[1]


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_lease_lasts_a_finite_time(tmp_path, seconds):
    with pytest.raises(ValueError, match="finite"):
        LeaseBook(tmp_path / "leases.json", seconds)


def test_the_file_is_read_while_the_lock_is_held(book):
    """Else two processes could rank before either takes."""
    seen = []

    def ranked():
        other = FileLock(f"{book.path}.lock", timeout=0)
        seen.append(_is_free(other))
        return IMAGES, IMAGES

    book.take("a", ranked)
    assert seen == [False]
    assert _is_free(FileLock(f"{book.path}.lock", timeout=0))


def test_the_lock_is_free_again_after_an_error(book):
    def ranked():
        raise RuntimeError("the datastore is gone")

    with pytest.raises(RuntimeError, match="gone"):
        book.take("a", ranked)
    assert ask(book, "b") == IMAGES[0]


def test_threads_never_share_an_image(tmp_path):
    book = LeaseBook(tmp_path / "leases.json")
    with ThreadPoolExecutor(12) as pool:
        taken = list(pool.map(lambda client: ask(book, f"client {client}"), range(12)))
    assert sorted(taken) == IMAGES


def _take_in_a_process(path, name, clients, start, results):
    book = LeaseBook(path)
    start.wait()
    results.put([ask(book, f"{name} {number}") for number in range(clients)])


def test_processes_never_share_an_image(tmp_path):
    start, results = FORK.Barrier(3), FORK.Queue()
    arguments = [(tmp_path / "leases.json", name, 4, start, results) for name in "abc"]
    processes = [FORK.Process(target=_take_in_a_process, args=some) for some in arguments]
    for process in processes:
        process.start()
    taken = [image for _ in processes for image in results.get(timeout=120)]
    for process in processes:
        process.join(timeout=60)
    assert sorted(taken) == IMAGES


def _hold(path, ready):
    with FileLock(path):
        ready.set()
        time.sleep(600)


def test_a_process_killed_with_the_lock_in_its_hands_stops_nobody(book):
    ask(book, "a")
    ready = FORK.Event()
    holder = FORK.Process(target=_hold, args=(f"{book.path}.lock", ready))
    holder.start()
    assert ready.wait(120)
    assert not _is_free(FileLock(f"{book.path}.lock", timeout=0))
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert ask(book, "b") == IMAGES[1]


def _is_free(lock):
    try:
        lock.acquire()
    except TimeoutError:
        return False
    lock.release()
    return True
