"""The page of a run in which people label, as a real browser shows it."""

import json
import os
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from svgd_monai.report import run_page
from svgd_monai.report.page import png
from svgd_monai.report.run_page import learning_figure, write_run_page
from svgd_monai.report.worklist_panel import worklist_panel

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CURVE = """round,unique_labels,training_items,val_dice,test_dice,seconds_train,seconds_score
0,4,4,,,1.5,2.5
1,6,5,0.5,,1.5,2.5
2,8,7,0.6,,1.5,2.5
"""


@pytest.fixture(scope="module")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)}")
    return found


def label(slot="", **values):
    return {"slot": slot, "annotator": "ann", "file": "labels_accepted/a.nii.gz", "sha256": "0", "source": "x",
            "time": "2026-01-02T03:04:05+00:00", "volume_ml": {"organ": 1.25}, "corrected_voxels": None,
            "corrected_surface_voxels": None, "presegmentation_dice": None, **values}  # fmt: skip


def record(**values):
    return {"role": "pool", "labelled": False, "labelled_in_round": None, "declined": None, "labels": [], "minutes": {},
            "agreement": None, **values}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A run's folder after three rounds, with names that are markup."""
    folder = tmp_path / "a run"
    worklist = folder / "worklist/round_001"
    worklist.mkdir(parents=True)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    rng = np.random.default_rng(0)
    mask = np.zeros((20, 24, 10), np.uint8)
    mask[5:12, 6:14, 3:8] = 1
    for name, values in (("image", rng.random(mask.shape, np.float32)), ("seg", mask),
                         ("uncertainty", rng.random(mask.shape, np.float32))):  # fmt: skip
        nib.save(nib.Nifti1Image(values, affine), folder / f"{name}.nii.gz")
    odd = "<img src=x>&'\"b"
    files = [folder / f"{name}.nii.gz" for name in ("image", "seg", "uncertainty")]
    (worklist / "c.png").write_bytes(png(worklist_panel(*files, ["background", "organ_$x$"])))
    (worklist / f"{odd}.png").write_bytes(png(worklist_panel(files[0])))
    cases = {
        "a": record(labelled=True, labels=[label(corrected_voxels=31, corrected_surface_voxels=17)],
                    labelled_in_round=0, minutes={"a": 12.0}),
        "b": record(declined={"reason": "motion & metal", "time": "t"}),
        "c": record(),
        odd: record(agreement={"annotators": ["ann", "bob"], "dice": {"organ": 0.8125}}),
    }  # fmt: skip
    entry = {"annotators": ["ann"], "why": "uncertainty 0.5 <b>", "presegmentation": None, "terms": {}}
    refused = [{"file": "labels/x", "sha256": "", "time": "t", "sentence": "labels/x is empty."}]
    ledger = {"cases": cases, "worklists": [[], [{"case": "c", **entry}, {"case": odd, **entry}]], "refused": refused}
    (folder / "ledger.json").write_text(json.dumps(ledger))
    (folder / "learning_curve.csv").write_text(CURVE)
    (folder / "round_002").mkdir()
    (folder / "round_002/advice.txt").write_text("Round 2, 8 labels. Advice: go on.\n")
    return folder


def test_a_line_joins_what_was_measured_on_the_same_cases_only():
    rows = [{"unique_labels": str(4 + 2 * n), "val_dice": str(0.5 + n / 10), "test_dice": "0.5"} for n in range(4)]
    small, grown = frozenset("ab"), frozenset("abc")
    axis = learning_figure(rows, [small, small, grown, grown]).axes[0]
    lines = [list(line.get_xdata()) for line in axis.lines]
    assert lines == [[4, 6, 8, 10], [4, 6], [8, 10]]  # the test set, which is fixed, and two validation sets
    assert [text.get_text() for text in axis.texts] == ["2", "3"]
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert names == ["test", "validation, on the working grid"]


class References(HTMLParser):
    """Whatever a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        assert tag not in ("script", "link", "iframe", "object")


def test_the_page_holds_everything_and_loads_nothing(run):
    text = write_run_page(run).read_text()
    references = References()
    references.feed(text)
    assert len(references.found) == 3, "the curve and two cases"
    assert all(value.startswith("data:image/png;base64,") for value in references.found)
    for piece in ("Round 2, 8 labels. Advice: go on.", "motion &amp; metal", "organ 0.812", "31", "17", "12.0",
                  "labels/x is empty.", "Worklist 1", "0.6000"):  # fmt: skip
        assert piece in text, piece


def table_rows(text):
    """The cells of every row of the page's tables, as texts."""
    found = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    return [[re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in found]


def test_the_page_tells_what_became_of_each_case_and_what_its_labels_cost(run):
    ledger = json.loads((run / "ledger.json").read_text())
    entry = {"annotators": ["ann"], "why": "why", "presegmentation": None, "terms": {}}
    ledger["cases"]["d"] = record(
        labelled=True, labelled_in_round=1, minutes={"ann/d": 5.0, "bob/d": 7.0},
        labels=[label("ann", presegmentation_dice=0.5), label("bob", presegmentation_dice=0.75)],
    )  # fmt: skip
    ledger["worklists"].append([{"case": case, **entry} for case in "abcx"])
    (run / "ledger.json").write_text(json.dumps(ledger))
    (run / "round_000").mkdir()
    (run / "round_000/advice.txt").write_text("Round 0, 4 labels. Advice: go on.\n")
    text = write_run_page(run).read_text()
    assert "Round 0, 4 labels" not in text, "the newest advice stands"
    rows = table_rows(text)
    states = [(row[1], row[3]) for row in rows if len(row) == 5]
    assert states == [("a", "labelled"), ("b", "declined"), ("c", "to do"), ("x", "held out")]
    labels = [(row[0], *row[5:]) for row in rows if len(row) == 10]
    assert labels == [
        ("a", "1.25", "31", "17", "–", "12.0"),
        ("d", "1.25", "–", "–", "0.500", "5.0"),
        ("d", "1.25", "–", "–", "0.750", "7.0"),
    ]


def test_the_page_tells_since_when_each_file_is_used_and_minutes_once(run):
    ledger = json.loads((run / "ledger.json").read_text())
    ledger["cases"]["a"] = record(
        labelled=True,
        labelled_in_round=0,
        minutes={"a": 0.0},
        labels=[label(file=f"labels_accepted/a.{n}.nii.gz") for n in "012"],
    )
    ledger["cases"]["v"] = record(
        labelled=True, role="validation", labelled_in_round=1, minutes={"v": 4.0, "bob/v": 3.0},
        labels=[label("bob", file="labels_accepted/v.0.nii"), label(file="labels_accepted/v.1.nii")],
    )  # fmt: skip
    (run / "ledger.json").write_text(json.dumps(ledger))
    for name, training, validation in (
        ("000", "a.0", []),
        ("001", "a.1", ["v.1"]),
        ("002", "a.1", ["v.1"]),
        ("old", "a.2", []),
    ):
        items = [{"case": "a", "label": f"./labels_accepted/{training}.nii.gz"}] * 2
        content = {
            "training": items,
            "validation": [{"case": "v", "label": f"./labels_accepted/{file}.nii"} for file in validation],
        }
        (run / f"round_{name}").mkdir(exist_ok=True)
        (run / f"round_{name}/datalist.json").write_text(json.dumps(content))
    rows = [row for row in table_rows(write_run_page(run).read_text()) if len(row) == 10]
    assert [(row[0], row[2], row[-1]) for row in rows] == [
        ("a", "0", "0.0"), ("a", "1", "–"), ("a", "–", "–"), ("v", "–", "3.0"), ("v", "1", "4.0"),
    ]  # fmt: skip


def test_the_page_counts_what_has_become_of_a_worklist(run):
    assert "2 cases: 0 labelled, 0 declined, 2 to do." in write_run_page(run).read_text()
    ledger = json.loads((run / "ledger.json").read_text())
    entry = {"annotators": [], "why": "why", "presegmentation": None, "terms": {}}
    ledger["worklists"].append([{"case": case, **entry} for case in "abbcx"])
    (run / "ledger.json").write_text(json.dumps(ledger))
    text = write_run_page(run).read_text()
    assert "5 cases: 1 labelled, 2 declined, 1 held out, 1 to do." in text
    assert "to label." not in text


@pytest.mark.parametrize("name", ["a b  c", " lead", "no\u00a0break", "hidden\u200b", "<b>  x"])
def test_a_name_that_a_page_cannot_show_is_said_to_be_copied_from_the_table(run, name):
    told = "Copy these names from the column save_as of worklist.csv"
    assert told not in write_run_page(run).read_text()
    ledger = json.loads((run / "ledger.json").read_text())
    ledger["worklists"][-1].append({**ledger["worklists"][-1][0], "case": name})
    (run / "ledger.json").write_text(json.dumps(ledger))
    text = write_run_page(run).read_text()
    shown = escape(" ".join(name.replace("\u200b", " ").split()))
    assert re.search(rf"<p>{told}, because [^<]*: {re.escape(shown)}\.</p>", text)


def test_the_curve_knows_the_validation_cases_of_each_round(run, monkeypatch):
    for number, cases in ((1, "x"), (2, "xy")):
        (run / f"round_{number:03d}").mkdir(exist_ok=True)
        content = {"training": [], "validation": [{"case": case, "label": f"{case}.nii.gz"} for case in cases]}
        (run / f"round_{number:03d}/datalist.json").write_text(json.dumps(content))
    given = []
    monkeypatch.setattr(
        run_page, "learning_figure", lambda curve, sets: given.extend(sets) or learning_figure(curve, sets)
    )
    write_run_page(run)
    assert given == [frozenset(), frozenset("x"), frozenset("xy")]


def test_a_run_without_a_round_has_a_page(run):
    (run / "learning_curve.csv").unlink()
    assert "No round has been trained yet" in write_run_page(run).read_text()


def in_browser(browser, page, tmp_path):
    """The page's elements after loading; a script beside the page notes what became of its images."""
    probe = tmp_path / "probe.html"
    text = page.read_text()
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>\n', text)
    assert policy is not None
    check = (
        "<script>addEventListener('load', () => { const images = [...document.images];"
        "const drawn = images.filter(i => i.complete && i.naturalWidth > 0 && i.width > 0).length;"
        "document.title = `images ${images.length} drawn ${drawn} height ${document.body.scrollHeight} "
        "tables ${document.querySelectorAll('table').length}`; });</script>"
    )
    # The page forbids scripts, its own too; the probe is the page without that line and with one script.
    probe.write_text(text.replace(policy.group(), "").replace("</body>", f"{check}</body>"))
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", probe.as_uri()],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_browser_renders_the_page_and_no_image_is_broken(browser, run, tmp_path):
    found = in_browser(browser, write_run_page(run), tmp_path)
    numbers = re.search(r"<title>images (\d+) drawn (\d+) height (\d+) tables (\d+)</title>", found)
    assert numbers is not None, found[:500]
    images, drawn, height, tables = map(int, numbers.groups())
    assert (images, drawn) == (3, 3)
    assert height > 1500
    assert tables == 5
    assert '<img src="x"' not in found, "a case's name has become markup"


def test_the_pages_own_policy_lets_its_pictures_through(browser, run, tmp_path):
    shot = tmp_path / "shot.png"
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,3000", f"--screenshot={shot}",
         write_run_page(run).as_uri()],
        capture_output=True, timeout=120, check=True, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    pixels = imread(shot)[..., :3]
    coloured = (pixels.max(-1) - pixels.min(-1)) > 0.3
    assert coloured.sum() > 5000, "the uncertainty map's colours are not on the page"


def test_a_broken_image_would_be_noticed(browser, run, tmp_path):
    page = write_run_page(run)
    text = page.read_text()
    page.write_text(re.sub(r"base64,[A-Za-z0-9+/=]+", "base64,AAAA", text, count=1))
    assert "images 3 drawn 2" in in_browser(browser, page, tmp_path)
