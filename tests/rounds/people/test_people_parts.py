"""The parts of a run in which people label, each by itself."""

import hashlib
from collections import Counter
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from svgd_monai.data import RoundDatalist, write_datalist
from svgd_monai.data.datalist import MSDDataset
from svgd_monai.data.roles import read_datalist
from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_csv, write_csv
from svgd_monai.rounds import RunFolder
from svgd_monai.rounds.people import advice, loop, state
from svgd_monai.rounds.people.advice import PoolState, advise, pool_state, write_advice
from svgd_monai.rounds.people.agreement import PoolAgreement
from svgd_monai.rounds.people.handed import handed_files
from svgd_monai.rounds.people.ledger import Entry, Label, PeopleLedger
from svgd_monai.rounds.people.loop import PeopleLearning
from svgd_monai.rounds.people.notes import Complaint, read_notes
from svgd_monai.rounds.people.selection import (
    added,
    assign,
    choose_validation,
    cold_entry,
    next_cases,
    scored_entry,
    training_list,
)
from svgd_monai.rounds.people.sheet import state_of, write_sheet
from svgd_monai.rounds.people.state import admit, take_round
from svgd_monai.rounds.people.table import read_assignments
from svgd_monai.rounds.people.worklists import Worklists
from svgd_monai.rounds.round import Round
from svgd_monai.rounds.stages import Stages
from svgd_monai.statistics import VOTES

CASES = [f"case_{n}" for n in range(10)]


def label(slot="", sha="a", **values):
    return Label(slot, slot or None, f"labels_accepted/x.{sha}.nii.gz", sha, "2026-01-01T00:00:00+00:00", "labels/x",
                 {"organ": 1.0}, **values)  # fmt: skip


class TestNotes:
    @pytest.mark.parametrize(
        "line", ["case_1: motion", "case_1 motion", "case_1.nii.gz\tmotion", "case_1, motion ", "  case_1.nii : motion"]
    )
    def test_a_decline_is_read_however_it_is_set_apart(self, line, tmp_path):
        (tmp_path / "declined.txt").write_text(f"\ufeff# ours\n\n{line}\n", encoding="utf-8")
        notes = read_notes(tmp_path, CASES)
        assert notes.declined == {"case_1": "motion"}
        assert notes.complaints == []

    def test_a_name_may_hold_blanks_and_begin_like_another(self, tmp_path):
        (tmp_path / "empty.txt").write_text("scan 1 left\nscan 1\r\n")
        assert read_notes(tmp_path, ["scan 1", "scan 1 left"]).empty == {"scan 1 left", "scan 1"}

    @pytest.mark.parametrize(
        ("name", "line"), [("empty", "pat 99"), ("confirmed", "pat 99"), ("declined", "pat 99 : motion")]
    )
    def test_a_name_that_is_no_case_is_told_as_a_whole(self, name, line, tmp_path):
        (tmp_path / f"{name}.txt").write_text(f"{line}\n")
        (complaint,) = read_notes(tmp_path, ["pat 9"]).complaints
        assert complaint.sentence == f"labels/{name}.txt, line 1: there is no case of the name 'pat 99'."

    @pytest.mark.parametrize("name", ["empty", "confirmed"])
    def test_a_mistyped_name_does_not_mean_a_case_that_it_begins_like(self, name, tmp_path):
        (tmp_path / f"{name}.txt").write_text("scan 3\nscan_7 repeat\nscan 2.nii.gz\nscan_7,\n")
        notes = read_notes(tmp_path, ["scan", "scan 2", "scan_7"])
        assert getattr(notes, name) == {"scan 2", "scan_7"}
        assert [each.sentence for each in notes.complaints] == [
            f"labels/{name}.txt, line {line}: {rest!r} follows the case {case}, so the line is ignored; "
            "write one case on each line."
            for line, rest, case in ((1, "3", "scan"), (2, "repeat", "scan_7"))
        ]

    def test_a_mistyped_name_declines_no_case_that_it_begins_like(self, tmp_path):
        (tmp_path / "declined.txt").write_text("scan 3: motion\nscan 2: as in scan 3: motion\nscan\tcut: below\n")
        notes = read_notes(tmp_path, ["scan", "scan 2"])
        assert notes.declined == {"scan 2": "as in scan 3: motion", "scan": "cut: below"}
        (complaint,) = notes.complaints
        assert complaint.sentence == "labels/declined.txt, line 1: there is no case of the name 'scan 3'."

    @pytest.mark.parametrize("reason", ["moved at 10:30", "see http://tickets/7", "- motion: left", "motion"])
    def test_a_reason_may_hold_a_colon(self, reason, tmp_path):
        (tmp_path / "declined.txt").write_text(f"scan {reason}\n")
        notes = read_notes(tmp_path, ["scan"])
        assert (notes.declined, notes.complaints) == ({"scan": reason}, [])

    def test_a_file_that_is_no_text_is_complained_of(self, tmp_path):
        (tmp_path / "confirmed.txt").write_bytes(b"\xff\xfe\x00x")
        (complaint,) = read_notes(tmp_path, CASES).complaints
        assert complaint.sentence.startswith("labels/confirmed.txt cannot be read as UTF-8 text (")
        assert complaint.sentence.endswith(")."), "nothing that it said before stands"


class TestHandedFiles:
    def test_half_written_and_hidden_files_are_passed_over(self, tmp_path):
        (tmp_path / ".snapshots").mkdir()
        for name in (
            ".case_1.nii.gz", "case_1.nii.gz.part", "case_1.nii.gz.tmp", "case_1.nii.gz~", "declined.txt",
        ):  # fmt: skip
            (tmp_path / name).write_bytes(b"")
        assert handed_files(tmp_path, CASES) == ([], [])

    def test_of_two_files_of_a_case_the_compressed_one_counts(self, tmp_path):
        for name in ("case_1.nii", "case_1.nii.gz", "case_2.nii"):
            (tmp_path / name).write_bytes(b"")
        files, complaints = handed_files(tmp_path, CASES, prefix="labels/")
        assert [each.shown for each in files] == ["labels/case_1.nii.gz", "labels/case_2.nii"]
        assert [each.file for each in complaints] == ["labels/case_1.nii"]

    def test_annotators_have_folders_and_strangers_have_not(self, tmp_path):
        for name in ("ann", "zed"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "case_3.nii.gz").write_bytes(b"")
        files, complaints = handed_files(tmp_path, CASES, ["ann"], prefix="labels/")
        assert [(each.case, each.slot, each.shown) for each in files] == [("case_3", "ann", "labels/ann/case_3.nii.gz")]
        assert "nobody of that name is an annotator" in complaints[0].sentence

    def test_a_folder_within_an_annotators_is_nobodys(self, tmp_path):
        (tmp_path / "ann" / "ann").mkdir(parents=True)
        files, complaints = handed_files(tmp_path, CASES, ["ann"], prefix="labels/")
        assert files == []
        assert [each.file for each in complaints] == ["labels/ann/ann"]

    def test_a_name_that_begins_with_a_case_is_asked_about(self, tmp_path):
        (tmp_path / "case_10_seg.nii.gz").write_bytes(b"")
        _, (complaint,) = handed_files(tmp_path, ["case_1", "case_10", "case_2"], prefix="labels/")
        assert complaint.sentence.endswith("of the name case_10_seg; did you mean case_10.nii.gz?")

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("Case_10.nii.gz", "no image of the name Case_10; did you mean case_10.nii.gz?"),
            ("case_10.seg.nrrd", "must be that of the image, <case>.nii.gz; save it as NIfTI, case_10.nii.gz."),
            ("case_11.nrrd", "must be that of the image, <case>.nii.gz."),
            ("case_12.nii.gz", "there is no image of the name case_12."),
            ("notes.docx", "must be that of the image, <case>.nii.gz."),
        ],
    )
    def test_another_case_of_letters_and_another_format_get_a_hint(self, tmp_path, name, hint):
        (tmp_path / name).write_bytes(b"")
        _, (complaint,) = handed_files(tmp_path, ["case_1", "case_10"], prefix="labels/")
        assert complaint.sentence.endswith(hint)

    def test_a_label_of_a_held_out_case_is_refused(self, tmp_path):
        (tmp_path / "test_1.nii.gz").write_bytes(b"")
        assert "held-out set" in handed_files(tmp_path, CASES, (), ["test_1"])[1][0].sentence


class TestTable:
    HEADER = "rank,case,annotator,save_as,minutes\n"

    def table(self, tmp_path, text, encoding="utf-8"):
        path = tmp_path / "worklist/round_000/worklist.csv"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding=encoding)
        return read_assignments([path])

    def test_what_people_filled_in_is_read(self, tmp_path):
        found = self.table(tmp_path, self.HEADER + "1,case_1,ann,x,12\n2,case_2,,x,\n")
        assert (found.annotators, found.minutes, found.complaints) == ({"case_1": "ann"}, {"case_1": 12.0}, [])

    def test_blanks_around_what_people_filled_in_do_not_count(self, tmp_path):
        rows = "1, case_1 ,ann ,x, 12 \n2,case_2,ann,x,3\n2,case_2 ,bob,y,4\n"
        found = self.table(tmp_path, self.HEADER + rows)
        assert found.annotators == {"case_1": "ann"}
        assert found.minutes == {"case_1": 12.0, "ann/case_2": 3.0, "bob/case_2": 4.0}

    def test_a_name_that_a_spreadsheet_would_take_for_a_formula_is_read_as_the_case_that_it_is(self, tmp_path):
        found = self.table(tmp_path, self.HEADER + "1,'-a,ann,labels/-a.nii.gz,7\n2,''=b,,x,5\n")
        assert (found.annotators, found.minutes) == ({"-a": "ann"}, {"-a": 7.0, "'=b": 5.0})

    def test_a_spreadsheet_may_use_semicolons_a_byte_order_mark_and_decimal_commas(self, tmp_path):
        text = self.HEADER.replace(",", ";") + "1;case_1;ann;x;7,5\r\n"
        assert self.table(tmp_path, text, "utf-8-sig").minutes == {"case_1": 7.5}

    def test_a_case_of_two_annotators_has_the_minutes_of_each(self, tmp_path):
        found = self.table(tmp_path, self.HEADER.replace(",", "\t") + "1\tcase_1\tann\tx\t5\n1\tcase_1\tbob\ty\t0\n")
        assert (found.annotators, found.minutes) == ({}, {"ann/case_1": 5.0, "bob/case_1": 0.0})

    @pytest.mark.parametrize("minutes", ["ten", "-3", "nan", "inf"])
    def test_minutes_that_are_none_are_complained_of_and_nothing_else_is_lost(self, minutes, tmp_path):
        found = self.table(tmp_path, self.HEADER + f"1,case_1,ann,x,{minutes}\n2,case_2,bob,x,4\n")
        assert found.annotators == {"case_1": "ann", "case_2": "bob"}
        assert found.minutes == {"case_2": 4.0}
        assert minutes in found.complaints[0].sentence

    @pytest.mark.parametrize(
        ("text", "annotators", "minutes"),
        [
            ("rank,case,annotator,minutes\n1,case_1,ann\n2\n", {"case_1": "ann"}, {}),
            ("case,annotator,minutes\ncase_1,ann,4,too long\n", {"case_1": "ann"}, {"case_1": 4.0}),
            ("case,minutes\ncase_1,4\n", {}, {"case_1": 4.0}),
            ("case,annotator\ncase_1,ann\n", {"case_1": "ann"}, {}),
        ],
    )
    def test_rows_and_columns_that_are_missing_or_too_many_lose_nothing_else(self, text, annotators, minutes, tmp_path):
        found = self.table(tmp_path, text)
        assert (found.annotators, found.minutes, found.complaints) == (annotators, minutes, [])

    @pytest.mark.parametrize("text", ["a,b\n1,2\n", '"'])
    def test_a_table_that_is_none_is_complained_of(self, text, tmp_path):
        found = self.table(tmp_path, text)
        assert found.annotators == {}
        assert len(found.complaints) == (0 if text == '"' else 1)


SCORES = [{"case": case, "rank": str(rank)} for rank, case in enumerate(CASES[::-1], start=1)]


class TestSelection:
    def test_the_list_holds_the_queries_first_and_then_the_next_best(self):
        assert next_cases(SCORES, ["case_2", "case_9"], CASES, 4) == ["case_2", "case_9", "case_8", "case_7"]

    def test_labelled_and_declined_cases_are_passed_over(self):
        eligible = ["case_1", "case_3", "case_7"]
        assert next_cases(SCORES, ["case_9", "case_3"], eligible, 2) == ["case_3", "case_7"]
        assert next_cases(SCORES, [], eligible, 5) == ["case_7", "case_3", "case_1"]

    def test_cases_go_round_and_everybody_gets_a_share(self):
        asked = assign(CASES, ["ann", "bob", "cleo"], 0, 0, {})
        counts = [sum(names == (who,) for names in asked.values()) for who in ("ann", "bob", "cleo")]
        assert sorted(counts) == [3, 3, 4]

    def test_why_a_case_is_asked_for_is_told_without_what_nobody_knows(self):
        assert cold_entry("a", None, 2, True).why.startswith("its image is constant after preprocessing; ")
        row = {"case": "a", "score": "0.5", "uncertainty": "0.5", "mutual_information": ""}  # of entropy alone
        entry = scored_entry(row, 1, 4)
        assert entry.why == "uncertainty 0.5000 (number 1 of 4 unlabelled cases)"
        assert entry.terms == {"score": 0.5, "uncertainty": 0.5, "mutual_information": None}

    def test_a_case_that_is_drawn_is_not_said_to_be_there_for_its_uncertainty(self):
        row = {"case": "a", "score": "0.5", "uncertainty": "0.5", "mutual_information": "0.25"}
        entry = scored_entry(row, 5, 5, at_random=True)
        assert entry.why == "drawn at random"
        assert entry.terms == {"score": 0.5, "uncertainty": 0.5, "mutual_information": 0.25}
        assert scored_entry(row, 5, 5, "why not", True).why == "drawn at random; added as the next best: why not"

    def test_each_case_that_tops_a_list_up_takes_the_place_of_one_that_was_chosen(self):
        scores = [{"case": case, "labelled": str(case in "pqr").lower()} for case in "pqrabcdef"]
        free = "a labelled case that is drawn again needs no new label"
        gone = "a case that was chosen is labelled, declined or held out by now"
        assert added("abcd", scores, "apqb", False) == {"c": free, "d": free}
        assert added("acd", scores, "apb", False) == {"c": free, "d": gone}
        assert added("ab", scores, "abp", False) == {}
        assert added("cd", scores, "abp", True) == dict.fromkeys(
            "cd", "no case that was on the list before is left to label"
        )

    def test_who_begins_changes_from_list_to_list(self):
        first = [assign(["case_1"], ["ann", "bob", "cleo"], 0, number, {})["case_1"] for number in range(4)]
        assert first == [("ann",), ("bob",), ("cleo",), ("ann",)]

    def test_a_case_that_was_asked_of_somebody_stays_there(self):
        assert assign(["case_1"], ["ann", "bob"], 0, 1, {"case_1": ["ann"]}) == {"case_1": ("ann",)}
        assert assign(["case_1"], ["bob"], 0, 1, {"case_1": ["ann"]}) == {"case_1": ("bob",)}
        assert assign(["case_1"], ["ann", "bob"], 0, 1, {"case_1": ["bob", "ann"]}) == {"case_1": ("bob", "ann")}

    def test_the_wanted_number_goes_to_two_different_people(self):
        asked = assign(CASES, ["ann", "bob"], 3, 0, {})
        assert sum(len(names) == 2 for names in asked.values()) == 3
        assert all(len(set(names)) == len(names) for names in asked.values())
        shares = Counter(chain(*assign(CASES, ["ann", "bob", "cleo"], 5, 0, {}).values()))
        assert shares == {"ann": 5, "bob": 5, "cleo": 5}
        assert assign(CASES, [], 3, 0, {}) == dict.fromkeys(CASES, ())
        assert assign(CASES, ["ann"], 3, 0, {}) == dict.fromkeys(CASES, ("ann",))

    def test_validation_grows_with_the_labels_and_never_loses_a_case(self):
        cases, kept = [f"case_{n}" for n in range(300)], []
        for count in range(1, len(cases) + 1):
            before, kept = kept, choose_validation(cases[:count], kept, None, 5)
            assert before == kept[: len(before)]
            assert len(kept) == len(set(kept)) == (0 if count < 5 else min(count // 5, 50))

    @pytest.mark.parametrize(("size", "least"), [(None, 20), (2, 2), (0, 2), (20, 2)])
    def test_a_case_that_validates_goes_on_where_fewer_are_wanted_or_none(self, size, least):
        kept = ["case_7", "case_2", "case_5"]
        assert choose_validation(CASES, kept, size, least)[:3] == kept
        if (size or 0) < 3:
            assert choose_validation(CASES, kept, size, least) == kept

    def test_what_two_people_label_and_what_validates_goes_by_ids_and_not_by_rank(self):
        def doubled(cases, number):
            return {case for case, names in assign(cases, ["ann", "bob"], 3, number, {}).items() if len(names) == 2}

        assert doubled(CASES, 0) == doubled(CASES[::-1], 0)
        assert any(doubled(CASES, number) != doubled(CASES, 0) for number in range(1, 4))
        by_hash = sorted(CASES, key=lambda case: hashlib.sha256(f"validation/{case}".encode()).digest())
        assert choose_validation(CASES, [], 3, 2) == choose_validation(CASES[::-1], [], 3, 2) == by_hash[:3]

    def test_validation_leaves_a_case_to_train_on_and_bars_what_it_must(self):
        assert len(choose_validation(CASES[:3], [], 8, 2)) == 2
        assert set(choose_validation(CASES, [], 4, 2, CASES[:8])) == {"case_8", "case_9"}


class TestLedger:
    def ledger(self):
        ledger = PeopleLedger(images={case: f"sha_{case}" for case in CASES})
        ledger.labels = {"case_1": [label()], "case_2": [label("ann", "b"), label("bob", "c")]}
        ledger.declined = {"case_3": {"reason": "motion", "time": "t"}}
        ledger.worklists = [[Entry("case_1"), Entry("case_2", ("bob", "ann")), Entry("case_3"), Entry("case_4")]]
        return ledger

    def test_reads_back_as_it_was_written(self):
        ledger = self.ledger()
        ledger.minutes, ledger.agreement = {"case_1": 3.0, "bob/case_2": 5.0}, {"case_2": {"dice": {"organ": 0.5}}}
        ledger.refused = [{"file": "x", "sha256": "y", "time": "t", "sentence": "no."}]
        ledger.held_out = {"validation": {"v": "sha_v"}, "test": {"t": "sha_t"}}
        found = PeopleLedger.from_dict(ledger.as_dict())
        assert found.as_dict() == ledger.as_dict()
        assert found.worklists == ledger.worklists
        assert found.minutes == ledger.minutes
        assert found.held_out == ledger.held_out

    def test_a_case_has_its_own_minutes_and_not_those_of_a_longer_name(self):
        ledger = PeopleLedger(images={"1": "", "11": ""}, minutes={"11": 3.0, "ann/1": 2.0})
        cases = ledger.as_dict()["cases"]
        assert (cases["1"]["minutes"], cases["11"]["minutes"]) == ({"ann/1": 2.0}, {"11": 3.0})

    def test_records_are_those_of_their_definitions(self):
        rng = np.random.default_rng(0)
        ledger = self.ledger()
        draws = [sorted(map(str, rng.choice(CASES, 4, replace=False))) for _ in range(12)]
        ledger.training, ledger.validation, ledger.queries = draws[:4], [[], *draws[4:7]], draws[7:10]
        ledger.minutes = {"case_1": 1.0, "ann/case_1": 2.0, "bob/case_10": 3.0, "gone": 4.0}
        ledger.images["case_10"] = "sha"
        for case, record in ledger.as_dict()["cases"].items():
            used = [n for n in range(4) if case in (*ledger.training[n], *ledger.validation[n])]
            assert record["labelled_in_round"] == (used[0] if used else None)
            assert record["times_drawn"] == sum(case in chosen for chosen in ledger.queries)
            assert record["role"] == ("validation" if case in draws[6] else "pool")
            own = {key: value for key, value in ledger.minutes.items() if key in (case, f"ann/{case}", f"bob/{case}")}
            assert record["minutes"] == own

    def test_a_round_counts_what_is_new_in_it(self):
        ledger = self.ledger()
        ledger.labels = {"case_1": [label(presegmentation_dice=0.5)], "case_2": [label(presegmentation_dice=0.7)],
                         "case_4": [label(presegmentation_dice=0.9)]}  # fmt: skip
        ledger.training = [["case_1"], ["case_1", "case_1", "case_4"]]
        ledger.validation, ledger.queries = [["case_2"], ["case_2"]], [["case_1"], ["case_1", "case_4"]]
        assert [ledger.unique_labels(number) for number in (0, 1)] == [2, 3]
        assert [ledger.agreement_with_presegmentation(number) for number in (0, 1)] == [[0.5, 0.7], [0.9]]
        ledger.labels["case_1"] = [label()]  # nothing to compare it with
        assert ledger.agreement_with_presegmentation(0) == [None, 0.7]
        content = ledger.as_dict()
        assert [each["new_labels"] for each in content["rounds"]] == [["case_1", "case_2"], ["case_4"]]
        first = {case: content["cases"][case]["labelled_in_round"] for case in CASES[1:5]}
        assert first == {"case_1": 0, "case_2": 0, "case_3": None, "case_4": 1}
        assert [content["cases"][case]["times_drawn"] for case in CASES[1:5]] == [2, 0, 0, 1]
        assert [case for case in CASES if content["cases"][case]["role"] == "validation"] == ["case_2"]

    def test_the_sheet_says_which_label_trains_where_it_is_neither_annotators(self):
        ledger = self.ledger()
        places = [f"labels/{name}/case_2.nii.gz" for name in ("bob", "ann", "cleo")]
        before = [state_of("case_2", place, ledger, []) for place in places]
        assert [state.partition(",")[0] for state in before] == ["accepted by bob", "accepted by ann", "to do"]
        ledger.labels["case_2"].append(label("", "d"))
        after = [state_of("case_2", place, ledger, []) for place in places]
        assert after == [f"{state}; the training uses labels/x instead" for state in before]
        assert ledger.label("case_2").sha256 == "d"

    def test_the_sheet_tells_in_its_own_row_what_became_of_a_file(self):
        ledger = self.ledger()
        ledger.labels["case_1"], ledger.labels["case_2"] = [label("zoe")], [label("bob")]
        told = [
            Complaint("labels/case_1.nii.gz", "The later one is bad.", "case_1"),
            Complaint("labels/ann/case_2.nii.gz", "Ann's is bad.", "case_2"),
            Complaint("labels/declined.txt", "Say why.", "case_4"),
        ]
        accepted = "accepted by {}, 2026-01-01 00:00 UTC"
        for place, expected in {
            "labels/case_1.nii.gz": f"{accepted.format('zoe')}; a later file is refused: The later one is bad.",
            "labels/ann/case_2.nii.gz": "refused: Ann's is bad.",
            "labels/bob/case_2.nii.gz": accepted.format("bob"),
            "labels/case_3.nii.gz": "declined: motion",
            "labels/case_4.nii.gz": "to do",
        }.items():
            assert state_of(place.rpartition("/")[2].removesuffix(".nii.gz"), place, ledger, told) == expected

    def test_what_belongs_to_no_case_is_told_on_the_newest_sheet(self, tmp_path):
        ledger = self.ledger()
        ledger.worklists.append([Entry("case_5")])
        told = [Complaint("labels/x", "labels/x is no label."), Complaint("labels/y", "y is bad.", "case_4")]
        sheets = [write_sheet(tmp_path, number, ledger, told, {}).read_text() for number in (0, 1)]
        assert ["labels/x is no label" in sheet for sheet in sheets] == [False, True]
        assert ["y is bad" in sheet for sheet in sheets] == [True, True]

    def test_a_name_that_the_sheet_cannot_show_is_said_to_be_copied_from_the_table(self, tmp_path):
        ledger, told = self.ledger(), "Copy these names from the column save"
        assert told not in write_sheet(tmp_path, 0, ledger, [], {}).read_text()
        ledger.worklists[0].append(Entry("a b  c"))
        text = write_sheet(tmp_path, 0, ledger, [], {}).read_text()
        (line,) = [line for line in text.splitlines() if line.startswith(told)]
        assert line.endswith(": a b c.")
        assert "case_" not in line

    def test_the_newest_worklist_says_who_is_asked(self):
        ledger = self.ledger()
        ledger.worklists.append([Entry("case_2", ("ann", "bob"))])
        assert ledger.entry("case_2").annotators == ("ann", "bob")
        assert ledger.label("case_2").slot == "ann"

    @pytest.mark.parametrize("content", [{}, {"cases": 3}, {"rounds": []}, []])
    def test_what_is_no_such_ledger_is_refused(self, content):
        with pytest.raises(RunFolderError, match=r"ledger\.json"):
            PeopleLedger.from_dict(content)

    def test_tells_what_is_outstanding_and_what_is_new(self):
        ledger = self.ledger()
        assert ledger.outstanding(0) == ["case_4"]
        assert ledger.fresh == ["case_1", "case_2"]
        ledger.training, ledger.validation = [["case_1"]], [[]]
        assert ledger.fresh == ["case_2"]
        ledger.validation = [["case_2"]]
        assert ledger.fresh == [], "validation has used it"
        ledger.validation.append(["case_2", "case_5"])
        assert ledger.kept_validation == ["case_2", "case_5"]
        assert "case_3" not in ledger.unlabelled

    def test_a_label_is_pending_until_the_newest_round_uses_its_file(self):
        ledger = self.ledger()
        ledger.held_out["validation"] = {"own": "sha"}
        assert ledger.pending == ["case_1", "case_2"]
        items = [
            {"case": case, "label": f"/run/labels_accepted/x.{sha}.nii.gz"}
            for case, sha in (("case_1", "a"), ("case_2", "c"))
        ]
        own = [{"case": "own", "label": "/sets/own.nii.gz"}]
        take_round(ledger, RoundDatalist([items[0]] * 2, [items[1], *own], [], []))
        assert (ledger.training, ledger.validation) == ([["case_1"] * 2], [["case_2"]])
        assert ledger.validating == [{"case_2", "own"}]
        assert (ledger.pending, ledger.fresh) == ([], [])
        ledger.labels["case_2"].append(label("ann", "d"))
        assert ledger.pending == [], "bob's, who was asked first, still trains"
        ledger.labels["case_1"].append(label("", "e"))
        assert ledger.pending == ["case_1"]
        ledger.labels["case_2"].append(label("bob", "f"))
        assert ledger.pending == ["case_1", "case_2"], "those that validate too"
        assert ledger.fresh == []
        ledger.labels["case_1"].append(label("", "a"))
        assert ledger.pending == ["case_2"], "back at what it was"

    def test_of_two_labels_the_one_of_who_was_asked_first_trains(self):
        ledger = self.ledger()
        assert ledger.label("case_2").slot == "bob"
        ledger.labels["case_2"].append(label("", "d"))
        assert ledger.label("case_2").slot == "", "that in labels/ itself goes first"
        ledger.labels["case_1"].append(label("", "e"))
        assert ledger.label("case_1").sha256 == "e", "the newest"

    def test_a_label_of_one_who_was_not_asked_trains_where_there_is_no_other(self):
        ledger = self.ledger()
        ledger.labels["case_2"] = [label("zoe", "f"), label("cleo", "g")]
        assert ledger.label("case_2").slot == "cleo"
        assert list(ledger.current("case_2")) == ["cleo", "zoe"]

    def test_a_training_list_goes_on_from_the_one_before(self):
        previous, redrawn = ["a", "b", "a"], ["b", "c", "n"]
        assert training_list(previous, redrawn, ["a", "b", "n", "m"], []) == ["a", "b", "a", "b", "m", "n"]
        assert training_list(previous, redrawn, ["a", "b", "n", "m"], ["b", "m"]) == ["a", "a", "n"]


class TestStages:
    @pytest.mark.parametrize(
        ("validation", "test", "unlabeled", "keep_labelled", "expected"),
        [
            ("v", "t", "u", False, ["train", "measure", "score"]),
            ("v", "", "", False, ["train", "measure", "score_nothing"]),
            ("", "t", "", True, ["train", "measure", "score"]),
            ("", "", "u", False, ["train", "measure_nothing", "score"]),
        ],
    )
    def test_what_there_is_is_measured_and_scored(self, validation, test, unlabeled, keep_labelled, expected):
        people, stages = PeopleLearning.__new__(PeopleLearning), Mock(keys={}, trained=True)
        people.settings = {"warm_start": True, "keep_labelled": keep_labelled}
        people.classes, people.data, people._round = {}, SimpleNamespace(fingerprint=str), lambda _: stages
        stages.complete.return_value = False
        datalist = RoundDatalist(*([{"case": case} for case in cases] for cases in ("a", validation, test, unlabeled)))
        people._stages(0, False, datalist)
        assert [name for name, *_ in stages.method_calls] == ["complete", *expected]
        (warm_start,), keys = stages.train.call_args
        assert warm_start is True
        assert keys.get("validate#evaluator", "the bundle's") == ("the bundle's" if validation else None)


class TestBeginning:
    """When a round begins, and on what."""

    def people(self, **settings):
        people = PeopleLearning.__new__(PeopleLearning)
        people.settings = {"min_new_labels": None, "warm_start": False, "validation_cases": None, **settings}
        people.people = PeopleLedger(images=dict.fromkeys(CASES, ""), training=[CASES[:4]], validation=[[]])
        people.people.worklists = [list(map(Entry, CASES[:4])), list(map(Entry, CASES[4:7]))]
        people.people.labels = {case: [label()] for case in CASES[:4]}
        people.people.queries = [CASES[4:7]]
        people.worklists, people.folder = MagicMock(), RunFolder("run")
        return people

    def test_labels_that_a_round_has_used_are_not_new(self):
        people = self.people(min_new_labels=2)
        begins = []
        for case in CASES[4:6]:
            people.people.labels[case] = [label()]
            begins.append(people._may_begin(1))
        assert begins == [False, True]

    def test_a_changed_label_begins_a_round_where_nothing_is_left_to_do_and_not_before(self, caplog):
        people = self.people(min_new_labels=1)
        ledger = people.people
        ledger.in_use = dict.fromkeys(CASES[:4], "x.a.nii.gz")
        ledger.labels["case_0"].append(label(sha="b"))
        ledger.declined = {case: {} for case in CASES[5:]}
        assert not people._may_begin(1), "case_4 is still to do"
        ledger.declined["case_4"] = {}
        assert people._may_begin(1)
        ledger.in_use["case_0"] = "x.b.nii.gz"
        caplog.set_level("INFO")
        assert not people._may_begin(1)
        assert caplog.messages == ["No case is left to label (4 labelled, 6 declined). The run in run waits."]

    @pytest.mark.parametrize("warm_start", [False, True])
    def test_what_has_trained_may_validate_only_where_each_training_starts_anew(self, warm_start, monkeypatch):
        people = self.people(warm_start=warm_start, min_validation=2)
        people.people.labels["case_4"] = [label()]
        people.data = SimpleNamespace(pool={case: {"case": case} for case in CASES}, validation={}, test={})
        people._round, people.dataset = Mock(), None
        for name in ("write_datalist", "write_json"):
            monkeypatch.setattr(f"svgd_monai.rounds.people.loop.{name}", Mock())
        people._begin(1)
        (validating,) = people.people.validation[1]
        assert (validating == "case_4") == warm_start, "nothing to tell; choose other cases"


class TestPoolAgreement:
    @pytest.mark.parametrize("enabled", [True, False])
    def test_members_vote_while_the_pool_is_scored_and_neither_before_nor_after(self, enabled, tmp_path):
        def score(engine, batch):
            voted.append(engine.statistics.votes)
            return [{VOTES: torch.ones(2, 1, 1, 1)} for _ in batch]

        engine, voted = Engine(score), []
        engine.statistics = SimpleNamespace(votes=False)
        PoolAgreement(tmp_path, {0: "background", 1: "organ"}, 2, enabled).attach(engine)
        for cases in ("ab", "bc"):  # again, after a stop
            engine.run([[{"case": case}] for case in cases])
            assert engine.statistics.votes is False
        assert voted == [enabled] * 4
        assert (tmp_path / "agreement.csv").exists() == enabled
        if enabled:
            assert [row["case"] for row in read_csv(tmp_path / "agreement.csv")] == ["b", "c"]


class TestWorklists:
    def test_a_case_that_is_asked_for_again_stays_with_its_annotator(self, tmp_path):
        ledger = PeopleLedger(images=dict.fromkeys("abc", ""), worklists=[[Entry("a", ("ann",)), Entry("b", ("bob",))]])
        settings = {"annotators": ["ann", "bob"], "double_annotated": 0, "acquisition": "entropy"}
        lists = Worklists(RunFolder(tmp_path), Stages({}, {}), settings, {}, ledger, SimpleNamespace(pool={}))
        lists._scored = lambda number, eligible: [Entry(case) for case in eligible]
        lists.handout = Mock(write=lambda number, entries, *_: entries)
        lists.follow(1)
        asked = {entry.case: entry.annotators for entry in ledger.worklists[1]}
        assert asked == {"a": ("ann",), "b": ("bob",), "c": ("bob",)}

    @pytest.mark.parametrize(
        ("keys", "why"),
        [
            ({"acquisition": "entropy"}, "uncertainty 0.{} (number {} of 4 unlabelled cases)"),
            ({"acquisition": "random"}, "drawn at random"),
            ({"acquisition": "random_foreground"}, "drawn at random"),
            ({"acquisition": "entropy", "shuffle_scores": True}, "drawn at random"),
        ],
    )
    def test_cases_that_join_a_declined_list_are_not_said_to_be_there_for_one_drawn_again(self, keys, why, tmp_path):
        ledger = PeopleLedger(images=dict.fromkeys("abcdl", ""), labels={"l": [label()]}, queries=[["a", "l"]])
        settings = {"annotators": None, "double_annotated": 0, "queries_per_round": 2, "shuffle_scores": False, **keys}
        lists = Worklists(RunFolder(tmp_path), Stages({}, {}), settings, {}, ledger, SimpleNamespace(pool={}))
        lists.handout = Mock(write=lambda number, entries, *_: entries)
        rows = [{"case": case, "uncertainty": f"0.{9 - rank}", "mutual_information": None, "score": 0, "rank": rank,
                 "labelled": str(case == "l").lower()} for rank, case in enumerate("albcd", start=1)]  # fmt: skip
        write_csv(tmp_path / "round_000/scores.csv", list(rows[0]), rows)
        lists.follow(1)
        ledger.declined = {"a": {}, "b": {}}
        lists.follow(1)
        more = "; added as the next best: "
        free = f"{more}a labelled case that is drawn again needs no new label"
        again = f"{more}no case that was on the list before is left to label"
        numbers = [("8000", 1), ("6000", 2), ("5000", 3), ("4000", 4)]
        ends = ["", free, again, again]
        assert [(entry.case, entry.why) for entry in ledger.worklists[1]] == [
            (case, why.format(*given) + end) for case, given, end in zip("abcd", numbers, ends, strict=True)
        ]

    @pytest.mark.parametrize(("declined", "listed"), [("", "ab"), ("ab", "c"), ("abc", "")])
    def test_of_images_that_joined_as_many_are_asked_for_as_after_any_round(self, declined, listed, tmp_path):
        """And of none nothing is handed out."""
        ledger = PeopleLedger(images=dict.fromkeys("abc", ""), declined={case: {} for case in declined})
        settings = {"annotators": None, "double_annotated": 0, "initial_labelled": 3, "queries_per_round": 2,
                    "cold_start": "random"}  # fmt: skip
        lists = Worklists(RunFolder(tmp_path), Stages({}, {}), settings, {}, ledger, SimpleNamespace(pool={}))
        lists._scored = lambda number, eligible: []
        lists._unscored = lambda eligible, count, *_: [(case, None) for case in eligible[:count]]
        lists.handout.write = Mock(side_effect=lambda number, entries, *_: entries)
        lists.follow(1)
        assert [entry.case for entry in ledger.worklists[1]] == list(listed)
        assert lists.handout.write.call_count == bool(listed)

    def test_of_two_worklists_with_a_case_the_newer_says_who_labels_it_and_how_long_it_took(self, tmp_path):
        ledger = PeopleLedger(worklists=[[Entry("a")], [Entry("a")]])
        lists = Worklists(RunFolder(tmp_path), Stages({}, {}), {}, {}, ledger, SimpleNamespace(pool={}))
        for number, name in enumerate(("ann", "bob")):
            row = {"case": "a", "annotator": name, "minutes": number}
            write_csv(tmp_path / f"worklist/round_{number:03d}/worklist.csv", list(row), [row])
        found = lists.assignments()
        assert (found.annotators, found.minutes) == ({"a": "bob"}, {"a": 1.0})


class TestState:
    def test_the_folders_and_the_leave_to_go_outside_are_handed_on(self, monkeypatch):
        monkeypatch.setattr(state, "find_people_data", lambda *folders, **keys: (folders, keys))
        settings = {"images": "i", "validation": "v", "test": "t", "allow_outside": True, "on_bad_case": "skip",
                    "double_annotated": 0, "annotators": None, "classes": ["background", "organ"],
                    "num_classes": 2}  # fmt: skip
        found, classes = state.find_people(settings, Path("metadata.json"))
        assert found == (("i", "v", "t"), {"allow_outside": True, "on_bad_case": "skip"})
        assert classes == {0: "background", 1: "organ"}

    @pytest.mark.parametrize(
        ("goes_on", "known", "unlabelled", "files", "anew"),
        [
            (True, "b", "bc", ["scores.csv"], True),
            (True, "", "bc", ["scores.csv"], True),
            (True, "", "bc", [], True),
            (True, "b", "bc", [], False),
            (True, "b", "bc", ["scores.csv", "queries.json"], False),
            (True, "b", "b", ["scores.csv"], False),
            (True, "b", "", ["scores.csv"], False),
            (False, "b", "bc", ["scores.csv"], False),
        ],
    )
    def test_a_round_asks_anew_where_it_was_the_last_or_had_nothing_to_ask_of(
        self, goes_on, known, unlabelled, files, anew, tmp_path
    ):
        data = SimpleNamespace(pool={case: {"case": case, "image": str(tmp_path / case)} for case in "abc"})
        ledger = PeopleLedger(images=dict.fromkeys(unlabelled, ""))
        dataset = MSDDataset(tmp_path, "people", {0: "background", 1: "organ"}, 1, data.pool)
        each = Round(RunFolder(tmp_path), Stages({}, {}), 0)
        datalist = RoundDatalist([], [], [], [data.pool[case] for case in known])
        write_datalist(each.datalist_file, datalist, dataset)
        for name in files:
            (each.folder / name).touch()
        for found in (
            state.begun(each, goes_on, ledger, data, dataset),
            read_datalist(each.datalist_file, dataset),
        ):
            assert [item["case"] for item in found.unlabeled] == list(unlabelled if anew else known)

    @pytest.mark.parametrize(
        ("labels", "declined", "rounds", "done", "end"),
        [
            ("ab", "c", 4, True, ": no case is left to label (2 labelled, 1 declined)"),
            ("ab", "c", 0, True, ": no case is left to label (2 labelled, 1 declined)"),
            ("ab", "", 0, True, "; a higher number of rounds continues it"),
            ("abc", "", 0, True, "; a higher number of rounds continues it"),
            ("ab", "", 4, False, None),
            ("abc", "", 4, False, None),
            ("aB", "c", 0, True, "; a higher number of rounds continues it"),
            ("aB", "c", 4, False, None),
        ],
    )
    def test_a_run_is_done_where_nothing_is_left_and_says_what_continues_it(self, labels, declined, rounds, done, end):
        """A capital is a case whose label has changed since the round."""
        ledger = PeopleLedger(images=dict.fromkeys("abc", ""), training=[["a", "b"]], validation=[[]])
        ledger.in_use = dict.fromkeys("ab", "x.a.nii.gz")
        ledger.labels = {case.lower(): [label(sha="a" if case.islower() else "b")] for case in labels}
        ledger.declined = {case: {} for case in declined}
        folder = SimpleNamespace(lacks_tables=lambda rounds: False)
        assert state.is_done(ledger, folder, rounds) is done
        assert end is None or state.finished(ledger) == end
        assert not state.is_done(ledger, SimpleNamespace(lacks_tables=lambda rounds: True), rounds)

    def test_a_label_of_other_content_is_another_item(self, tmp_path):
        data, items = SimpleNamespace(fingerprint=lambda case: {"v": "sha_v+truth"}.get(case, f"sha_{case}")), []
        digests = [hashlib.sha256(content).hexdigest() for content in (b"one", b"two")]
        for content, digest in zip((b"one", b"two"), digests, strict=True):
            (tmp_path / f"a.{digest[:12]}.nii.gz").write_bytes(content)
            items.append({"case": "a", "label": str(tmp_path / f"a.{digest[:12]}.nii.gz")})
        validation = [{"case": "v", "label": "elsewhere"}]
        found = state.with_content(RoundDatalist(items, validation, [], [{"case": "b"}]), data)
        assert [item["fingerprint"] for item in found.training] == [f"sha_a+{digest}" for digest in digests]
        assert [item["fingerprint"] for item in (*found.validation, *found.unlabeled)] == ["sha_v+truth", "sha_b"]


class TestAdmit:
    """Which cases a command may bring to a run that knows some."""

    def data(self, pool, validation="", test="", bad=(), changed=""):
        sets = {"pool": pool, "validation": validation, "test": test}
        return SimpleNamespace(
            **{role: dict.fromkeys(cases) for role, cases in sets.items()},
            bad=dict.fromkeys(bad, "not gzip-compressed"),
            fingerprint=lambda case: f"{'new' if case in changed else 'sha'}_{case}",
        )

    def ledger(self):
        ledger = PeopleLedger()
        admit(ledger, self.data("abc", "v", "t"))
        ledger.labels = {"a": [label()]}
        return ledger

    def test_images_join_and_one_that_nobody_has_labelled_may_be_held_out(self, caplog):
        caplog.set_level("INFO")
        ledger = PeopleLedger()
        admit(ledger, self.data("abc"))
        assert caplog.messages == [], "the first images join nothing"
        admit(ledger, self.data("acd", "b"))
        assert caplog.messages == ["1 new images join the pool: d."]
        assert ledger.images == {case: f"sha_{case}" for case in "acd"}
        assert ledger.held_out == {"validation": {"b": "sha_b"}, "test": {}}

    @pytest.mark.parametrize(
        ("data", "sentence"),
        [
            ({"pool": "bc", "validation": "v", "test": "ta"}, "test: the set is not the one .* differ in the case a"),
            ({"pool": "abc", "validation": "v", "test": "t", "changed": "v"}, "validation: .* differ in the case v"),
            ({"pool": "abc", "validation": "v"}, "test: the set is not the one .* differ in the case t"),
            ({"pool": "abc", "validation": "v", "test": "tu"}, "test: the set is not the one .* differ in the case u"),
            ({"pool": "abc", "validation": "v", "test": "t", "changed": "c"}, "case c is no longer the one"),
            ({"pool": "ab", "validation": "v", "test": "t"}, "the image of the case c, which the run knows, is gone"),
            ({"pool": "ab", "validation": "v", "test": "t", "bad": "c"}, "the case c, .* is bad: not gzip-compressed"),
        ],
    )
    def test_what_a_run_knows_neither_goes_nor_changes(self, data, sentence):
        with pytest.raises(RunFolderError, match=sentence):
            admit(self.ledger(), self.data(**data))

    def test_a_case_that_people_have_labelled_cannot_be_held_out_any_more(self):
        ledger = PeopleLedger()
        admit(ledger, self.data("abc"))
        ledger.labels = {"a": [label()]}
        with pytest.raises(RunFolderError, match="validation: people have labelled the case a for the run"):
            admit(ledger, self.data("bc", "a"))


def row(number, labels, test=None, val=None):
    return {"round": number, "unique_labels": labels, "test_dice": test, "val_dice": val}


def first(number):
    """A validation set: the first cases."""
    return frozenset(CASES[:number])


POOL = [PoolState(20 - n, 0.5 + 0.05 * n) for n in range(5)]


class TestAdvice:
    def rounds(self, values, **keys):
        return [row(n, 4 + 2 * n, **{"test": v, **keys}) for n, v in enumerate(values)]

    def test_rounds_of_changed_labels_alone_have_a_gain_and_none_per_label(self):
        curve = [row(0, 4, 0.5), row(1, 4, 0.75)]
        text = advise(curve, [PoolState(0, None)] * 2, [first(0)] * 2, [], 0.001)
        assert "With no label more than in round 0 the test Dice went from 0.5000 to 0.7500." in text
        assert "no earlier one" not in text

    def test_it_is_too_early_before_three_rounds(self):
        text = advise(self.rounds([0.5, 0.5, 0.5]), POOL[:3], [first(4)] * 3, [], 0.01)
        assert "go on, for it takes 3 rounds" in text

    def test_little_gain_is_a_reason_to_stop_and_much_to_go_on(self):
        flat, steep = self.rounds([0.3, 0.8, 0.8, 0.8, 0.803]), self.rounds([0.3, 0.5, 0.6, 0.7, 0.8])
        assert "Advice: stop, for over the last 3 rounds a label gained 0.00050, less" in advise(
            flat, POOL, [first(4)] * 5, [], 0.001
        )
        text = advise(steep, POOL, [first(4)] * 5, [0.7, 0.9], 0.001)
        assert (
            "With 6 labels more than in round 1 the test Dice went from 0.5000 to 0.8000, +0.05000 per label." in text
        )
        assert "Advice: go on, for over the last 3 rounds a label gained 0.05000" in text
        assert "The 2 labels that came back last agreed with their pre-segmentations to a Dice of 0.800." in text
        for back, said in (
            ([None, 1.0, None], "Of the 3 labels that came back last 1 could be compared with its pre-segmentation: "),
            (
                [0.7, None, 0.9],
                "last 2 could be compared with their pre-segmentations: they agreed to a Dice of 0.800.",
            ),
            ([0.7], "The label that came back last agreed with its pre-segmentation to a Dice of 0.700."),
        ):
            assert said in advise(steep, POOL, [first(4)] * 5, back, 0.001)
        assert "came back" not in advise(steep, POOL, [first(4)] * 5, [None], 0.001)
        assert "On the 16 unlabelled cases" in text
        assert "0.700 (0.650 in the round before)" in text

    def test_a_gain_of_just_as_much_as_was_asked_for_goes_on(self):
        curve = self.rounds([0.0, 0.25, 0.25, 0.25, 1.0])  # 0.75 by 6 labels
        assert "Advice: go on, for over the last 3 rounds a label gained 0.12500, not less" in advise(
            curve, POOL, [first(4)] * 5, [], 0.125
        )

    def test_a_first_prediction_has_none_before_it(self):
        pool = [PoolState(9, None), PoolState(7, 0.6)]
        text = advise(self.rounds([0.5, 0.6]), pool, [first(4)] * 2, [], 0.01)
        assert "to a Dice of 0.600. This predicts" in text

    def test_without_a_test_set_validation_counts_and_then_the_prediction(self):
        measured = self.rounds([None] * 5, val=0.6)
        text = advise(measured, POOL, [first(4)] * 5, [], 0.001)
        assert "the validation Dice went" in text
        assert "The validation Dice is" not in text, "once is enough"
        text = advise(self.rounds([None] * 5), POOL, [first(0)] * 5, [], 0.001)
        assert "the Dice predicted for the pool went from 0.5500 to 0.7000, +0.02500 per label" in text

    def test_a_validation_set_that_has_just_begun_does_not_stop_a_run(self):
        curve = [row(n, 4 + 2 * n, val=0.8 if n > 2 else None) for n in range(5)]
        pool = [PoolState(9, None)] * 5
        assert "Advice: go on" in advise(curve, pool, [first(n) for n in (0, 0, 0, 4, 4)], [], 0.001)

    @pytest.mark.parametrize("sizes", [(0, 2, 2, 3, 3), (0, 2, 3, 3, 3)])
    def test_a_validation_set_that_has_grown_is_no_measure_of_gain(self, sizes):
        flat = self.rounds([None] * 5, val=0.6)
        grown = [first(n) for n in sizes]
        assert "Advice: stop" in advise(flat, POOL, [first(2)] * 5, [], 0.001)
        text = advise(flat, POOL, grown, [], 0.001)
        assert "the Dice predicted for the pool went from" in text
        assert "The validation Dice is 0.6000, on 3 cases." in text
        assert "Advice: go on" in text
        alone = advise(flat, [PoolState(9, None)] * 5, grown, [], 0.001)
        assert "The validation Dice is 0.6000; there is no earlier one to compare it with." in alone
        assert "Advice: go on" in alone

    def test_another_validation_set_of_the_same_size_is_no_measure_either(self):
        flat = self.rounds([None] * 5, val=0.6)
        other = [*[first(2)] * 4, frozenset(CASES[5:7])]
        assert "validation Dice went" not in advise(flat, POOL, other, [], 0.001)

    def test_the_pool_is_what_is_unlabelled_and_advice_stands_as_it_was_given(self, tmp_path):
        rows = [{"case": case, "labelled": case == "a"} for case in "abcd"]
        write_csv(tmp_path / "scores.csv", ["case", "labelled"], rows)
        agreed = [
            {"case": case, "agreement_dice": dice} for case, dice in {"a": 0.1, "b": 0.5, "c": 0.75, "d": None}.items()
        ]
        write_csv(tmp_path / "agreement.csv", ["case", "agreement_dice"], agreed)
        assert pool_state(tmp_path) == PoolState(3, 0.625)
        for dice in ([0.5], [0.9]):
            write_advice([tmp_path], self.rounds([0.5]), [first(1)], dice, 0.001)
        text = (tmp_path / "advice.txt").read_text()
        assert "On the 3 unlabelled cases" in text
        assert "agreed with its pre-segmentation to a Dice of 0.500." in text, "as was known then"

    def test_no_round_is_read_that_the_newest_is_not_compared_with(self, tmp_path, monkeypatch):
        curve, read = self.rounds([0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.75]), []
        people = PeopleLearning.__new__(PeopleLearning)
        people.people = PeopleLedger(labels={"a": [label()]}, training=[["a"]] * 7, validation=[[]] * 7,
                                     validating=[first(2)] * 7)  # fmt: skip
        people.folder, people.classes, people.curve = RunFolder(tmp_path), {0: "background"}, curve[:-1]
        people.settings, people._round = {"stop_gain": 0.001}, lambda n: SimpleNamespace(folder=people.folder.round(n))
        monkeypatch.setattr(loop, "curve_row", lambda *_: curve[-1])
        monkeypatch.setattr(loop, "write_curve", Mock())
        monkeypatch.setattr(advice, "pool_state", lambda folder: read.append(folder.name) or POOL[len(read)])
        people._record(6, True)
        assert read == [f"round_{number:03d}" for number in range(3, 7)]
        whole = advise(curve, [POOL[0]] * 3 + POOL[1:], [first(2)] * 7, [], 0.001)
        assert (people.folder.round(6) / "advice.txt").read_text() == f"{whole}\n"

    def test_nothing_left_or_nothing_measured(self):
        assert "stop, for no case is left" in advise(self.rounds([0.5]), [PoolState(0, None)], [first(1)], [], 0.001)
        text = advise(self.rounds([None]), [PoolState(3, None)], [first(0)], [], 0.001)
        assert "Nothing was measured" in text
