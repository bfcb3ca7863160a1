"""Names, headers and files that mean harm do none, in anything that a run leaves."""

import csv
import gzip
import html
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from command import TINY, run_bundle, words
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from svgd_monai.data import make_phantom, read_dataset
from svgd_monai.errors import DataError
from svgd_monai.files import read_csv
from svgd_monai.report.__main__ import main as report

#: Of formulas, markup, MONAI's own expressions, mathematics, formats, and what a shell takes for an option.
NAMES = (
    "=HYPERLINK(1)", "@SUM(1)", "-rf", "+1+1", "<img src=x onerror=alert(1)>", "a\"b'c, d|e", "$print(1)", "$\\frac{$",
    "%(name)s {0} `x` **y**", "日本 ünï",
)  # fmt: skip
SECRET = "DOE^JOHN"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A phantom whose names are hostile and whose headers name a patient."""
    root = make_phantom(tmp_path_factory.mktemp("hostile") / "data", "mr", len(NAMES))
    content = json.loads((root / "dataset.json").read_text())
    content["labels"] = {"0": "background", "1": "<b>$1/0</b>", "2": "=1+1"}
    for entry, name in zip(content["training"], NAMES, strict=True):
        for key in ("image", "label"):
            old = root / entry[key]
            volume = nib.load(old)
            values = np.asanyarray(volume.dataobj)
            named = nib.Nifti1Image(values, volume.affine, volume.header)
            for field in ("descrip", "aux_file", "intent_name", "db_name"):
                named.header[field] = SECRET
            named.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SECRET.encode()))
            old.unlink()
            new = old.with_name(f"{name}.nii.gz")
            nib.save(named, new)
            entry[key] = f"./{new.parent.name}/{new.name}"
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def run(bundle, dataset, tmp_path_factory):
    """A loop over it, and an inference, and a report."""
    root = tmp_path_factory.mktemp("runs")
    keys = {**TINY, "dataset_dir": dataset, "output_dir": root / "run", "queries_per_round": 4}
    done = run_bundle(*words(bundle / "configs/active_learning.yaml", **keys))
    assert done.exit_code == 0, done.stderr
    (root / "log.txt").write_text(done.stdout + done.stderr)
    tiny = {key: TINY[key] for key in ("device", "num_particles", "features", "spacing", "roi_size")}
    keys = {**tiny, "dataset_dir": dataset, "output_dir": root / "inference",
            "committee_file": root / "run/round_001/committee.pt"}  # fmt: skip
    done = run_bundle(*words(bundle / "configs/inference.yaml", **keys))
    assert done.exit_code == 0, done.stderr
    report([str(root)])
    return root


def files(root, *endings):
    found = [path for path in root.rglob("*") if path.is_file() and path.name.endswith(endings)]
    assert found, endings
    return found


def test_every_case_is_found_again_under_its_own_name(run):
    split = json.loads((run / "run/run.json").read_text())["split"]
    assert sorted(case for cases in split.values() for case in cases) == sorted(NAMES)
    pool = {*split["initial"], *split["pool"]}
    assert {row["case"] for row in read_csv(run / "run/round_001/scores.csv")} == pool
    assert {path.name for path in (run / "inference").glob("*.nii.gz")} >= {f"{name}_seg.nii.gz" for name in NAMES} or (
        len(list((run / "inference").rglob("*.nii.gz"))) >= len(NAMES)
    )


def test_no_cell_of_a_table_is_a_formula(run):
    for path in files(run, ".csv"):
        with path.open(newline="", encoding="utf-8") as file:
            for cell in (cell for row in csv.reader(file) for cell in row):
                assert not re.match(r"[=+@\t\r]|-(?![\d.])", cell) or re.fullmatch(r"-(inf|nan)", cell), (path, cell)


def test_no_page_holds_markup_that_a_name_brought(run):
    for path in files(run, ".html"):
        text = path.read_text(encoding="utf-8")
        assert "<img src=x" not in text
        assert "<b>$1/0" not in text
        assert html.escape("<b>$1/0</b>", quote=True) in text, "the class stands there as text"
    for path in files(run, ".md"):
        text = path.read_text(encoding="utf-8")
        assert "<img src=x" not in text
        assert "<b>" not in text


def test_tensorboard_takes_them_for_plain_text(run):
    events = EventAccumulator(str(run / "run/tensorboard"), size_guidance={"images": 0}).Reload()
    assert any(tag.startswith("queried/") for tag in events.Tags()["images"])
    assert not any("<" in tag and "onerror" in tag for kind in ("images", "scalars") for tag in events.Tags()[kind])


def test_no_text_of_a_header_is_copied_anywhere(run, dataset):
    image = next(dataset.glob("imagesTr/*"))
    assert SECRET.encode() in gzip.decompress(image.read_bytes()), "the input names somebody"
    for path in (path for path in run.rglob("*") if path.is_file()):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.name.endswith(".gz") else content
        assert SECRET.encode() not in content, path


@pytest.mark.parametrize(
    "name", ["../secret.nii.gz", "/etc/hostname.nii.gz", "link.nii.gz", "imagesTr/../../secret.nii.gz"]
)
def test_a_data_set_s_list_does_not_lead_outside(dataset, tmp_path, name):
    root = Path(shutil.copytree(dataset, tmp_path / "data"))
    secret = tmp_path / "secret.nii.gz"
    shutil.copy2(next(dataset.glob("imagesTr/*")), secret)
    (root / "link.nii.gz").symlink_to(secret)
    content = json.loads((root / "dataset.json").read_text())
    content["training"][0]["image"] = name
    (root / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"outside the folder|does not exist"):
        read_dataset(root)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemError('executed')",))


@pytest.mark.parametrize("file", ["round_000/committee.pt", "round_001/training.pt", "cache/volumes"])
def test_a_pickle_in_place_of_tensors_is_never_executed(bundle, dataset, run, tmp_path, file):
    output = Path(shutil.copytree(run / "run", tmp_path / "run"))
    for name in ("committee.pt", "metrics.json", "cases.csv", "scores.csv", "training.json"):
        (output / "round_001" / name).unlink()
    record = output / "run.json"
    record.write_text(record.read_text().replace('"finished": true', '"finished": false'))
    path = next((output / file).glob("*.pt")) if file == "cache/volumes" else output / file
    torch.save({"values": Bomb()}, path)
    (output / "round_000/metrics.json").unlink()  # so that its committee is loaded once more
    keys = {**TINY, "dataset_dir": dataset, "output_dir": output, "queries_per_round": 4}
    result = run_bundle(*words(bundle / "configs/active_learning.yaml", **keys))
    assert "executed" not in result.stderr
    if file == "round_000/committee.pt":
        assert result.exit_code == 1
        assert "committee.pt" in result.last_line
    else:
        assert result.exit_code == 0, result.stderr
