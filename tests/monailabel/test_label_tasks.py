"""Scoring and strategy on MONAI Label's own local datastore."""

import json
import logging
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from label_data import new_committee

pytest.importorskip("monailabel.interfaces", reason="MONAI Label is not installed: tests/monailabel/requirements.txt")

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.exception import MONAILabelException

from svgd_monai.monailabel import CommitteeScoring, CommitteeStrategy, LeaseBook, PoolScorer

pytestmark = pytest.mark.monailabel

NAME = "committee"
KEY = "svgd_monai_committee"
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def datastore(studies):
    return LocalDatastore(str(studies.root))


@pytest.fixture
def scorer(small, studies):
    return PoolScorer(small, studies.root / ".svgd_monai" / NAME)


@pytest.fixture
def scoring(scorer):
    return CommitteeScoring(NAME, scorer)


def strategy_of(scorer, root):
    return CommitteeStrategy(NAME, scorer, LeaseBook(root / ".svgd_monai/leases.json"))


@pytest.fixture
def strategy(scorer, studies):
    return strategy_of(scorer, studies.root)


def ask(strategy, datastore, client):
    found = strategy({"strategy": NAME, "client_id": client}, datastore)
    return None if found is None else found["id"]


def label(studies, datastore, image):
    """Save a final label as a client of the server does."""
    datastore.save_label(image, str(studies.phantom / f"labelsTr/{image}.nii.gz"), "final", {})


def records(datastore):
    return {image: datastore.get_image_info(image).get(KEY) for image in datastore.list_images()}


def test_the_unlabelled_images_get_the_scores_of_the_pool(scoring, scorer, datastore, studies):
    summary = scoring({"method": NAME}, datastore)
    assert (summary["total"], summary["written"]) == (5, 5)
    found = records(datastore)
    assert all(found[image] is None for image in studies.labelled)
    for score in scorer(studies.unlabelled, studies.labelled):
        record = found[score.image]
        assert record["ts"] > 0
        assert {key: value for key, value in record.items() if key != "ts"} == {
            "rank": score.rank,
            "score": score.score,
            "uncertainty": score.uncertainty,
            "mutual_information": score.mutual_information,
            "foreground_ml": score.foreground_ml,
            "acquisition": "entropy_mi",
            "committee": scorer.version(),
        }


def test_another_process_reads_the_scores_and_json_has_no_infinity(scoring, datastore, studies):
    image, path = next(iter(studies.unlabelled.items()))
    volume = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(volume.shape, 7, np.int16), volume.affine), path)
    scoring({}, datastore)
    text = (studies.root / "datastore_v2.json").read_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    other = LocalDatastore(str(studies.root))
    assert records(other) == records(datastore)
    assert (records(other)[image]["rank"], records(other)[image]["score"]) == (5, None)


def test_scoring_again_writes_what_has_changed_alone(scoring, datastore, studies):
    scoring({}, datastore)
    before = records(datastore)
    assert scoring({}, datastore)["written"] == 0
    assert records(datastore) == before
    best = min(studies.unlabelled, key=lambda image: before[image]["rank"])
    label(studies, datastore, best)
    assert scoring({}, datastore)["written"] == 4
    assert sorted(records(datastore)[image]["rank"] for image in studies.unlabelled if image != best) == [1, 2, 3, 4]


def test_a_label_that_another_process_saves_meanwhile_is_not_lost(scoring, scorer, datastore, studies):
    """The datastore writes all that it knows at every update."""
    image = next(iter(studies.unlabelled))
    other = LocalDatastore(str(studies.root))

    class Slow(PoolScorer):
        def __call__(self, *arguments):
            scores = super().__call__(*arguments)
            other.save_label(image, str(studies.phantom / f"labelsTr/{image}.nii.gz"), "final", {"by": "somebody"})
            return scores

    scoring.scorer = Slow(scorer.bundle, scorer.folder)
    scoring({}, datastore)
    assert LocalDatastore(str(studies.root)).get_label_info(image, "final")["by"] == "somebody"


def test_an_image_that_leaves_the_datastore_meanwhile_is_passed_over(scoring, scorer, datastore, studies, caplog):
    image, path = next(iter(studies.unlabelled.items()))

    class Slow(PoolScorer):
        def __call__(self, *arguments):
            scores = super().__call__(*arguments)
            Path(path).unlink()
            return scores

    scoring.scorer = Slow(scorer.bundle, scorer.folder)
    with caplog.at_level(logging.INFO):
        summary = scoring({}, datastore)
    assert (summary["total"], summary["written"]) == (5, 4)
    assert f"image {image} has left the datastore while it was scored" in caplog.text
    assert {name for name, record in records(datastore).items() if record} == set(studies.unlabelled) - {image}


@pytest.mark.parametrize("fault", ["committee", "image", "device"])
def test_what_is_wrong_is_said_in_one_sentence_and_the_server_goes_on(fault, scoring, scorer, datastore, studies):
    image, path = next(iter(studies.unlabelled.items()))
    words = {"committee": "model.pt does not exist", "image": image, "device": "device"}[fault]
    request = {"device": "abacus"} if fault == "device" else {}
    if fault == "committee":
        scorer.committee_file.unlink()
    elif fault == "image":
        with Path(path).open("r+b") as file:
            file.truncate(200)
    with pytest.raises(MONAILabelException) as raised:
        scoring(request, datastore)
    assert words in raised.value.msg
    assert "\n" not in raised.value.msg


def test_images_go_out_in_the_order_of_their_ranks(scoring, strategy, datastore, studies):
    scoring({}, datastore)
    ranked = sorted(studies.unlabelled, key=lambda image: records(datastore)[image]["rank"])
    found = [strategy({"client_id": f"annotator {n}"}, datastore) for n in range(5)]
    assert [f["id"] for f in found] == ranked != sorted(ranked)
    assert [f["rank"] for f in found] == [1, 2, 3, 4, 5]
    assert [f["score"] for f in found] == sorted((f["score"] for f in found), reverse=True)
    assert strategy({"client_id": "one too many"}, datastore) is None


def test_an_annotator_keeps_his_image_until_it_is_labelled(scoring, strategy, datastore, studies):
    scoring({}, datastore)
    first = ask(strategy, datastore, "a")
    other = ask(strategy, datastore, "b")
    assert ask(strategy, datastore, "a") == first
    label(studies, datastore, first)
    assert ask(strategy, datastore, "a") not in {first, other}


def test_an_image_labelled_by_way_of_another_process_is_not_handed_out(scoring, strategy, datastore, studies):
    scoring({}, datastore)
    best = min(studies.unlabelled, key=lambda image: records(datastore)[image]["rank"])
    label(studies, LocalDatastore(str(studies.root)), best)
    assert {ask(strategy, datastore, f"annotator {n}") for n in range(4)} == set(studies.unlabelled) - {best}
    assert ask(strategy, datastore, "one too many") is None


class Filtered(LocalDatastore):
    """Heeds a request's filter, as remote datastores may."""

    def get_unlabeled_images(self, label_tag=None, labels=None):
        images = super().get_unlabeled_images(label_tag, labels)
        return images if labels is None else [image for image in images if image in labels]


def test_a_requests_filter_chooses_among_its_images_and_ends_no_lease_of_others(strategy, studies):
    datastore = Filtered(str(studies.root))
    first, _, third, *_ = sorted(studies.unlabelled)
    assert ask(strategy, datastore, "a") == first
    assert strategy({"client_id": "b", "labels": [third]}, datastore)["id"] == third
    assert strategy({"client_id": "c", "labels": [first]}, datastore) is None
    assert ask(strategy, datastore, "a") == first


def test_without_scores_images_go_out_by_name_and_the_log_says_so(strategy, datastore, studies, caplog):
    found = strategy({"client_id": "a"}, datastore)
    assert found == {"id": min(studies.unlabelled)}
    assert "no image has a score yet, they go out in the order of their names" in caplog.text


def test_an_image_without_a_score_comes_behind_those_with_one(scoring, strategy, datastore, studies):
    scoring({}, datastore)
    datastore.add_image("a_new_one", next(iter(studies.unlabelled.values())), {})
    order = [ask(strategy, datastore, f"annotator {n}") for n in range(6)]
    assert order[-1] == "a_new_one"
    scoring({}, datastore)
    assert records(datastore)["a_new_one"]["rank"] in range(1, 7)


def test_scores_of_an_earlier_committee_are_known_as_stale(scoring, strategy, scorer, datastore, studies, caplog):
    scoring({}, datastore)
    old = records(datastore)
    new_committee(scorer.bundle, seed=1)
    with caplog.at_level(logging.INFO):
        assert old[ask(strategy, datastore, "a")]["rank"] == 1, "the best that is known"
    assert "5 of 5 scores are of an earlier committee" in caplog.text
    last = max(studies.unlabelled, key=lambda image: old[image]["rank"])
    datastore.update_image_info(last, {KEY: {**old[last], "committee": scorer.version()}})
    assert ask(strategy, datastore, "b") == last, "a present committee's word comes first"
    scoring({}, datastore)
    assert {record["committee"] for record in records(datastore).values() if record} == {scorer.version()}


def test_scores_of_another_strategy_are_known_as_stale(scoring, strategy, scorer, datastore, studies, caplog):
    scoring({}, datastore)
    old = records(datastore)
    scorer.acquisition = "bald"  # as after a restart with --conf acquisition bald
    with caplog.at_level(logging.INFO):
        assert old[ask(strategy, datastore, "a")]["rank"] == 1, "the best that is known"
    assert "5 of 5 scores are of an earlier committee or another strategy" in caplog.text
    last = max(studies.unlabelled, key=lambda image: old[image]["rank"])
    datastore.update_image_info(last, {KEY: {**old[last], "acquisition": "bald"}})
    assert ask(strategy, datastore, "b") == last, "a score of the present strategy comes first"


@pytest.mark.parametrize("record", [7, "best", {}, {"rank": "first"}, {"rank": None}, []])
def test_a_record_that_is_none_counts_as_no_score(record, strategy, datastore, studies):
    datastore.update_image_info(max(studies.unlabelled), {KEY: record})
    assert ask(strategy, datastore, "a") == min(studies.unlabelled)


def test_threads_of_one_server_never_share_an_image(scoring, strategy, datastore, studies):
    scoring({}, datastore)
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda n: ask(strategy, datastore, f"annotator {n}"), range(5)))
    assert sorted(found) == sorted(studies.unlabelled)


def _ask_in_a_process(bundle, root, name, start, results):
    scorer = PoolScorer(bundle, root / ".svgd_monai" / NAME)
    datastore, strategy = LocalDatastore(str(root)), strategy_of(scorer, root)
    start.wait()
    results.put([ask(strategy, datastore, f"{name} {n}") for n in range(2)])


def test_processes_on_one_datastore_never_share_an_image(scoring, scorer, datastore, studies):
    scoring({}, datastore)
    start, results = FORK.Barrier(2), FORK.Queue()
    processes = [
        FORK.Process(target=_ask_in_a_process, args=(scorer.bundle, studies.root, name, start, results))
        for name in "ab"
    ]
    for process in processes:
        process.start()
    found = [image for _ in processes for image in results.get(timeout=60)]
    for process in processes:
        process.join(timeout=60)
    ranks = records(datastore)
    assert sorted(ranks[image]["rank"] for image in found) == [1, 2, 3, 4]
