"""Whatever stands in a file or behind a key: a sentence or a value, never a traceback, or memory on its word."""

import json
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from svgd_monai.data import check_cases, read_dataset, read_images, read_split
from svgd_monai.errors import DataError, RunFolderError, SettingsError
from svgd_monai.files import read_csv, read_json, read_torch, write_torch
from svgd_monai.workflow import KEYS
from svgd_monai.workflow.settings import check_setting

MEMORY = 64 << 20
CLASSES = {0: "background", 1: "organ"}
many = settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])

names = st.one_of(
    st.text(max_size=30), st.sampled_from(["a.nii.gz", "./a.nii.gz", "../a.nii.gz", "/a.nii.gz", "a.nii"])
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


def value_or(error, function, *arguments):
    """What ``function`` gives, or the sentence of its error; any other error fails the test."""
    try:
        return function(*arguments)
    except error as refusal:
        sentence = str(refusal)
        assert sentence
        assert sentence.isprintable() or "\n" not in sentence
        return sentence


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """The bytes of a small image and its label."""
    folder = tmp_path_factory.mktemp("case")
    volume = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / "image.nii")
    nib.save(nib.Nifti1Image((volume > 30).astype(np.uint8), np.eye(4)), folder / "label.nii")
    return {key: (folder / f"{key}.nii").read_bytes() for key in ("image", "label")}


@many
@given(
    key=st.sampled_from(["image", "label"]),
    changes=st.lists(st.tuples(st.integers(0, 351), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
    cut=st.integers(0, 400),
)
def test_headers_of_images_and_labels(case, tmp_path, key, changes, cut):
    content = dict(case)
    damaged = bytearray(content[key])
    for place, new in changes:
        damaged[place : place + len(new)] = new
    content[key] = bytes(damaged[: len(damaged) - cut])
    for name, raw in content.items():
        (tmp_path / f"{name}.nii").write_bytes(raw)
    item = {"case": "a", **{name: str(tmp_path / f"{name}.nii") for name in content}}
    tracemalloc.start()
    try:
        value_or(DataError, check_cases, [item], CLASSES)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


@many
@given(
    shape=st.lists(st.integers(-32768, 32767), min_size=8, max_size=8), kind=st.sampled_from([2, 4, 16, 64, 128, 1792])
)
def test_a_shape_that_is_claimed_costs_no_memory(case, tmp_path, shape, kind):
    content = bytearray(case["image"])
    content[40:56] = struct.pack("<8h", *shape)
    content[70:72] = struct.pack("<h", kind)
    path = tmp_path / "image.nii"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        value_or(DataError, check_cases, [{"case": "a", "image": str(path)}], CLASSES)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


@many
@given(content=plain, training=plain, labels=plain, modality=plain)
def test_data_lists(tmp_path, content, training, labels, modality):
    (tmp_path / "a.nii.gz").write_bytes(b"not read")
    listed = {
        **(content if isinstance(content, dict) else {}),
        "training": training,
        "labels": labels,
        "modality": modality,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(listed), encoding="utf-8")
    value_or(DataError, read_dataset, tmp_path)
    value_or(DataError, read_images, tmp_path / "dataset.json")
    (tmp_path / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    value_or(DataError, read_dataset, tmp_path)


@many
@given(entries=st.lists(names | st.fixed_dictionaries({"image": names, "label": names}), max_size=4))
def test_entries_of_a_data_list(tmp_path, entries):
    (tmp_path / "a.nii.gz").write_bytes(b"not read")
    listed = {"training": entries, "labels": {"0": "background", "1": "organ"}}
    (tmp_path / "dataset.json").write_text(json.dumps(listed), encoding="utf-8")
    found = value_or(DataError, read_dataset, tmp_path)
    if not isinstance(found, str):
        assert all(
            path.startswith(f"{tmp_path}/a.nii.gz") or "/./" in path
            for i in found.items.values()
            for path in (i["image"],)
        )
    bad = {}
    value_or(DataError, read_dataset, tmp_path, False, bad)
    assert all(isinstance(words, str) for words in bad.values())


@many
@example(content={"\n": None}, roles=dict.fromkeys(("initial", "pool", "validation", "test")))
@given(content=plain, roles=st.fixed_dictionaries(dict.fromkeys(("initial", "pool", "validation", "test"), plain)))
def test_split_files(tmp_path, content, roles):
    path = tmp_path / "split.json"
    for text in (
        json.dumps(content),
        json.dumps(roles),
        json.dumps({"seeds": {"0": roles}}),
        json.dumps({"seeds": content}),
    ):
        path.write_text(text, encoding="utf-8")
        value_or(DataError, read_split, path, ["a", "b"], 0)


@many
@given(content=st.binary(max_size=300))
def test_files_of_a_run(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    for read in (read_json, read_csv, read_torch):
        value_or(RunFolderError, read, path)


@many
@given(
    places=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 50),
)
def test_committee_files(tmp_path, places, cut):
    import torch

    path = write_torch(tmp_path / "committee.pt", {"values": torch.ones(2, 20), "layout": [["a", [20]]]})
    content = bytearray(path.read_bytes())
    for place, mask in places:
        content[place % len(content)] ^= mask
    path.write_bytes(content[: len(content) - cut])
    found = value_or(RunFolderError, read_torch, path)
    if isinstance(found, dict) and torch.is_tensor(found.get("values")):
        assert torch.equal(found["values"], torch.ones(2, 20)), "a flipped bit was loaded as a weight"


@settings(max_examples=400, deadline=5000)
@given(name=st.sampled_from(sorted(KEYS)), value=plain | st.text(max_size=40))
def test_values_of_keys(name, value):
    found = value_or(SettingsError, check_setting, name, value)
    if not isinstance(found, str):
        assert value_or(SettingsError, check_setting, name, found) == found, "a checked value stays what it is"
