"""The stock app serves both bundles unchanged; with the committee's two lines it scores and hands out as well."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from command import run_bundle, words
from label_data import CASES, LABELLED, NAMES, make_studies, new_committee, small_bundle

pytest.importorskip("monailabel.interfaces", reason="MONAI Label is not installed: tests/monailabel/requirements.txt")

from monailabel.interfaces.utils.app import app_instance, clear_cache

from svgd_monai.monailabel import PoolScorer
from svgd_monai.monailabel.interfaces import stock_file

pytestmark = pytest.mark.monailabel

MAIN = "from svgd_monai.monailabel.app import CommitteeApp  # noqa: F401\n"


class Served:
    """An app on a datastore, started as MONAI Label starts it."""

    def __init__(self, task, phantom, folder, main, **conf):
        self.task, self.name, self.folder = task, NAMES[task], folder
        self.bundle = small_bundle(task, folder / "app/model")
        self.studies = make_studies(phantom, folder / "studies")
        (folder / "app/main.py").write_text(main)
        self.conf = {"models": self.name, "zoo_source": "local", "sam2": "false", **conf}
        self.start()

    def start(self):
        clear_cache()
        self.app = app_instance(str(self.folder / "app"), str(self.studies.root), self.conf)

    def infer(self, image):
        result = self.app.infer({"model": self.name, "image": image, "device": "cpu"})
        return nib.load(result["file"]), result["params"]


@pytest.fixture(params=list(NAMES))
def stock(request, phantoms, tmp_path):
    return Served(request.param, phantoms[request.param], tmp_path, stock_file().read_text())


@pytest.fixture
def served(phantoms, tmp_path):
    return Served("mr", phantoms["mr"], tmp_path, MAIN)


def turn(path):
    """Give an image an oblique affine with voxels of three sizes."""
    volume = nib.load(path)
    angle = np.deg2rad(20)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(volume.header.get_zooms()) @ np.diag([-1, 1, 1.3])
    affine[:3, 3] = [12, -30, 7]
    nib.save(nib.Nifti1Image(np.asarray(volume.dataobj), affine), path)


def own_mask(served, image, folder):
    """What the bundle's own command line says of an image."""
    (folder / "in").mkdir(parents=True)
    shutil.copy(served.studies.root / f"{image}.nii.gz", folder / "in")
    config = served.bundle / "configs/inference.yaml"
    done = run_bundle(*words(config, dataset_dir=folder / "in", output_dir=folder / "out"))
    assert done.exit_code == 0, done.stderr
    return nib.load(folder / f"out/{image}_seg.nii.gz")


def agreement(a, b):
    """Share of equal voxels."""
    return float((np.asarray(a.dataobj) == np.asarray(b.dataobj)).mean())


def test_the_stock_app_infers_in_the_geometry_of_the_image(stock, tmp_path):
    image = max(stock.studies.unlabelled)
    turn(stock.studies.unlabelled[image])
    original = nib.load(stock.studies.unlabelled[image])
    mask, params = stock.infer(image)
    assert mask.shape == original.shape
    np.testing.assert_allclose(mask.affine, original.affine, atol=1e-4)
    assert len(np.unique(mask.dataobj)) > 1
    assert agreement(mask, own_mask(stock, image, tmp_path / "own")) > 0.9999
    assert sorted(params["label_names"].values()) == [1, 2]


def test_the_stock_app_trains_on_the_labelled_and_infers_with_what_it_learnt(stock, tmp_path):
    image = max(stock.studies.unlabelled)
    before, _ = stock.infer(image)
    weights = (stock.bundle / "models/model.pt").read_bytes()
    stock.app.train({"model": stock.name, "max_epochs": 6, "device": "cpu", "val_split": 0.25})
    assert (stock.bundle / "models/model.pt").read_bytes() != weights
    after, _ = stock.infer(image)
    assert agreement(after, before) < 0.99
    assert agreement(after, own_mask(stock, image, tmp_path / "own")) > 0.9999


def test_training_goes_on_from_the_committee_that_is_there(stock):
    """MONAI's own CheckpointLoader puts model.pt into the training."""
    config = stock.bundle / "configs/train.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.05", "learning_rate: 1.0e-09"))
    stock.start()
    new_committee(stock.bundle, seed=7)
    before = PoolScorer(stock.bundle, stock.folder / "before")(stock.studies.unlabelled, {})
    stock.app.train({"model": stock.name, "max_epochs": 1, "device": "cpu", "val_split": 0.25})
    after = PoolScorer(stock.bundle, stock.folder / "after")(stock.studies.unlabelled, {})
    for b, a in zip(before, after, strict=True):
        assert (b.image, b.uncertainty) == (a.image, pytest.approx(a.uncertainty, rel=1e-4))


def test_more_epochs_than_the_bundle_plans_are_trained(stock):
    stock.app.train({"model": stock.name, "max_epochs": 5, "device": "cpu", "val_split": 0.25})
    record = json.loads((stock.bundle / "eval/training.json").read_text())
    assert [v["step"] for v in record["validations"]] == [2, 4, 6, 8, 10], "the bundle alone would end at 4"


def test_training_needs_no_validation(stock):
    """With one or two labels MONAI Label leaves nothing to validate on."""
    weights = (stock.bundle / "models/model.pt").read_bytes()
    stock.app.train({"model": stock.name, "max_epochs": 1, "device": "cpu", "val_split": 0})
    assert (stock.bundle / "models/model.pt").read_bytes() != weights


def test_a_label_of_unknown_classes_ends_the_training_with_the_case(stock):
    image = next(iter(stock.studies.labelled))
    path = stock.studies.root / f"labels/final/{image}.nii.gz"
    volume = nib.load(path)
    values = np.asarray(volume.dataobj).copy()
    values[0, 0, 0] = 9
    nib.save(nib.Nifti1Image(values, volume.affine), path)
    with pytest.raises(SystemExit, match=f"Case {image}: .* label value 9"):
        stock.app.train({"model": stock.name, "max_epochs": 1, "device": "cpu"})


def test_the_stock_app_infers_in_batches(stock):
    result = stock.app.batch_infer(
        {"model": stock.name, "images": "unlabeled", "multi_gpu": False, "device": "cpu", "max_workers": 1}
    )
    assert set(result) == set(stock.studies.unlabelled)
    for image, path in stock.studies.unlabelled.items():
        mask = nib.load(stock.app.datastore().get_label_uri(image, "original"))
        np.testing.assert_allclose(mask.affine, nib.load(path).affine, atol=1e-4)


def test_the_app_offers_the_committee_beside_all_that_the_stock_app_has(served):
    info = served.app.info()
    assert set(info["strategies"]) == {"first", "random", served.name}
    assert set(info["scoring"]) == {served.name}
    assert set(info["models"]) == set(info["trainers"]) == {served.name}


def test_score_label_train_and_score_again_through_the_app(served):
    app, name = served.app, served.name
    summary = app.scoring({"method": name, "device": "cpu"})
    assert summary["total"] == CASES - LABELLED
    first, second = (app.next_sample({"strategy": name, "client_id": client}) for client in "ab")
    assert [first["rank"], second["rank"]] == [1, 2]
    assert Path(first["path"]).is_file()
    app.infer({"model": name, "image": first["id"], "device": "cpu", "save_label": True})  # to be corrected
    assert app.next_sample({"strategy": name, "client_id": "a"})["id"] == first["id"]
    app.datastore().save_label(first["id"], str(served.studies.phantom / f"labelsTr/{first['id']}.nii.gz"), "final", {})
    assert app.next_sample({"strategy": name, "client_id": "a"})["id"] not in {first["id"], second["id"]}
    app.train({"model": name, "max_epochs": 1, "device": "cpu", "val_split": 0.25})
    again = app.scoring({"method": name, "device": "cpu"})
    assert again["committee"] != summary["committee"]
    assert again["total"] == again["written"] == CASES - LABELLED - 1


def test_nothing_is_left_as_monai_label_says_it(served):
    for image in served.studies.unlabelled:
        label = served.studies.phantom / f"labelsTr/{image}.nii.gz"
        served.app.datastore().save_label(image, str(label), "final", {})
    assert served.app.next_sample({"strategy": served.name, "client_id": "a"}) == {}


def test_what_is_kept_of_a_remote_datastore_lies_in_the_apps_folder_and_of_each_apart(tmp_path):
    from svgd_monai.monailabel.app import CommitteeApp

    def folder(studies):
        return CommitteeApp._folder(SimpleNamespace(app_dir=str(tmp_path / "app"), studies=studies))

    remote = [folder(f"https://pacs.example/{name}") for name in "ab"]
    assert {path.parent for path in remote} == {tmp_path / "app/.svgd_monai"}
    assert remote[0] != remote[1]
    assert folder(str(tmp_path / "scans")) == tmp_path / "scans/.svgd_monai"


def test_a_mistyped_conf_key_is_refused_and_those_of_monai_label_are_not():
    from svgd_monai.errors import SettingsError
    from svgd_monai.monailabel.app import check_names

    with pytest.raises(SettingsError, match=r"--conf aquisition: there is no such key; did you mean acquisition\?"):
        check_names({"models": "hippocampus_mri_svgd", "aquisition": "bald"})
    check_names(
        ["models", "preload", "skip_trainers", "sam2", "server_mode", "auth_token", "model_filename", "zoo_repo",
         "zoo_source", "epistemic_model", "epistemic_max_samples", "epistemic_simulation_size", "epistemic_dropout"]
    )  # fmt: skip


def test_the_app_takes_the_query_and_the_life_of_a_lease_from_conf(phantoms, tmp_path):
    served = Served("mr", phantoms["mr"], tmp_path, MAIN, acquisition="bald", lease_hours="2")
    assert "bald" in served.app.info()["scoring"][served.name]["description"]
    assert served.app._strategies[served.name].leases.seconds == 7200


@pytest.mark.parametrize(
    "conf", [{"lease_hours": "never"}, {"lease_hours": "-1"}, {"acquisition": "best"}, {"normalize": "rank"}]
)
def test_a_wrong_conf_is_refused_by_name(conf, phantoms, tmp_path):
    from svgd_monai.errors import SettingsError

    with pytest.raises(SettingsError, match=next(iter(conf))):
        Served("mr", phantoms["mr"], tmp_path, MAIN, **conf)
