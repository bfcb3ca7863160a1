"""A tiny run of the real command line to disturb, what must come of it, and the judgement of one disturbance."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from injection import Point, run
from runs import arguments, outcome

from svgd_monai.data import make_phantom

SMALL = Path(__file__).parent / "small.yaml"
CASES = 7
#: One query and the round that trains on it; seconds on one core.
KEYS = {
    "rounds": 1,
    "validation_cases": 1,
    "test_cases": 1,
    "steps_per_round": 2,
    "initial_labelled": 2,
    "queries_per_round": 1,
}


class Finding(NamedTuple):
    """What one disturbance did."""

    fault: str  # the row of the table
    place: str
    end: str  # how the disturbed command ended, and the user's last line
    next: str  # what the same command did then
    sound: bool
    trouble: str = ""  # why not


class Lab:
    """A data set, an undisturbed run of it, and folders to disturb.

    Args:
        root: a scratch folder of its own.
    """

    def __init__(self, root):
        self.root = Path(root).resolve()
        self.dataset = make_phantom(self.root / "data", "mr", CASES)
        self.undisturbed = self.root / "undisturbed"
        trace = self.root / "trace"
        if not (self.undisturbed / "run.json").is_file():
            end = run(self.argv(self.undisturbed), self.undisturbed, trace=trace)
            assert end.code == 0, end.err
        self.expected = outcome(self.undisturbed)
        lines = [line.split("\t") for line in trace.read_text().splitlines()]
        self.points = [Point(act, path, int(number)) for act, path, number in lines]
        self._snapshots = {}

    def argv(self, folder, dataset=None, **keys):
        """The words of the command; the same ones again go on."""
        return arguments(dataset or self.dataset, folder, SMALL, **{**KEYS, **keys})

    def fresh(self, source=None):
        """An empty folder to run in, or a copy of ``source``."""
        folder = self.root / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        if source is not None:
            shutil.copytree(source, folder)
        return folder

    def copy_of_data(self):
        """The data set once more, to be damaged."""
        copy = self.root / "data_copy"
        shutil.rmtree(copy, ignore_errors=True)
        return Path(shutil.copytree(self.dataset, copy))

    def stopped_at(self, fault):
        """The folder of a run that ``fault`` has ended, made once; to be copied."""
        if fault not in self._snapshots:
            folder = self.root / f"stopped_{len(self._snapshots)}"
            shutil.rmtree(folder, ignore_errors=True)  # of a sweep that this one goes on with
            run(self.argv(folder), folder, fault)
            self._snapshots[fault] = folder
        # The settings hold no path that decides anything, so a copy elsewhere is the same run.
        return self._snapshots[fault]

    def plain(self, text):
        """A line as the table has it, without the paths of this machine."""
        names = {"trial": "<output_dir>", "data_copy": "<dataset_dir>", "data": "<dataset_dir>"}
        for name, shown in names.items():
            text = re.sub(rf"{re.escape(str(self.root))}/{name}(?![a-z_])", shown, text)
        text = re.sub(r"[0-9a-f]{64,}", "<hash>", text)
        return re.sub(r"pid\(?s?\)? \d+", "pid <number>", text)

    def judge(self, fault, place, folder, end, again, expected_code=1, remedy=None, made=None):
        """Whether nothing was lost and nobody was left without a word.

        Args:
            fault: the row of the table.
            place: where it struck.
            folder: the run's.
            end: of the disturbed command; None where nothing was running.
            again: runs the same command once more.
            expected_code: of the disturbed command; it may also have coped, with 0.
            remedy: does what the refusal of the next command asks for; None: it must not refuse.
            made: the queries that had been made; None: those in the folder, which the fault has not touched.
        """
        trouble = [] if end is None else self._trouble(end, expected_code)
        made = queries(folder) if made is None else made
        following = again()
        if following.code == 0:
            then = "goes on, ends as undisturbed"
        elif remedy is not None and _is_refusal(following):
            then = f"refuses: {self.plain(following.last_line)}"
            remedy()
            following = again()
            then += " That done, it goes on and ends as undisturbed"
        else:
            then = f"fails: {self.plain(following.last_line)}"
        if following.code != 0:
            trouble.append(f"the next command ends with {following.code}: {following.err[-3000:]}")
        elif (found := _outcome(folder)) is None:
            trouble.append("a file of the run cannot be read, and nobody has said so")
        else:
            trouble += [f"another {key} than undisturbed" for key in found if found[key] != self.expected[key]]
            trouble += [f"{path} stays behind" for path in folder.rglob("*.tmp")]
            known = [case for chosen in found["queries"] for case in chosen]
            if [case for chosen in made for case in chosen] != known[: sum(map(len, made))]:
                trouble.append(f"queries {made} became {known}")
        shown = "" if end is None else self._shown(end)
        return Finding(fault, place, shown, then, not trouble, "; ".join(trouble))

    def expected_split(self):
        """Who plays which role."""
        return json.loads((self.undisturbed / "run.json").read_text())["split"]

    def failed(self, fault, place, end, trouble):
        """A trial that did not come to its second command."""
        return Finding(fault, place, self._shown(end), "", False, f"{trouble}: {end.err[-3000:]}")

    def _trouble(self, end, expected_code):
        if end.code not in (0, expected_code):
            return [f"ends with {end.code}: {end.err[-3000:]}"]
        if end.code == 1 and not _is_refusal(end):
            return [f"no sentence but {end.err[-3000:]}"]
        return []

    def _shown(self, end):
        if end.code < 0:
            return f"killed by signal {-end.code}"
        return "goes on by itself" if end.code == 0 else self.plain(end.last_line)


def _outcome(folder):
    """What a run has come to; None where a file of it is damaged."""
    try:
        return outcome(folder)
    except (OSError, ValueError, RuntimeError, LookupError, EOFError):
        return None


def queries(folder):
    """The queries that a folder holds, by round."""
    found = []
    for path in sorted(folder.glob("round_*/queries.json")):
        try:
            found.append(json.loads(path.read_text()))
        except ValueError:
            return found  # damaged on purpose
    return found


def _is_refusal(end):
    """Whether a command ended with one sentence, and no traceback."""
    return end.code == 1 and "Traceback" not in end.err and re.search(r"[\w)\]]\.$", end.last_line) is not None
