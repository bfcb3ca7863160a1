"""What MONAI's own tools ask of a bundle, for each of the two; everything offline."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import (
    ConfigParser,
    ConfigWorkflow,
    ckpt_export,
    create_workflow,
    download,
    load,
    verify_metadata,
    verify_net_in_out,
)

import svgd_monai
from svgd_monai.committee import Particles, convert_committee, load_committee, save_committee
from svgd_monai.data import make_phantom

SMALL = {"features": [4, 4, 4, 4, 4, 4], "num_particles": 2, "device": "cpu"}
BUNDLES = sorted((Path(__file__).parents[2] / "bundles").iterdir())


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda path: path.name)
def bundle(request):
    """Each bundle's folder in turn."""
    return request.param


@pytest.fixture(scope="module")
def phantom(bundle, phantom_mr, tmp_path_factory):
    """A data set in the form of the bundle's own."""
    if "mri" in bundle.name:
        return phantom_mr
    return make_phantom(tmp_path_factory.mktemp("data") / "phantom_ct", "ct", 6)


@pytest.fixture(scope="module")
def published(bundle, tmp_path_factory):
    """A copy of the bundle with weights, as the model zoo keeps it."""
    folder = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("zoo") / bundle.name))
    parser = ConfigParser(ConfigParser.load_config_file(str(folder / "configs/inference.yaml")))
    particles = Particles(parser.get_parsed_content("architecture"), parser["num_particles"], seed=1)
    committee = save_committee(folder / "committee.pt", particles)
    convert_committee(committee, folder / "models/model.pt")
    committee.unlink()
    return folder


def schema_file():
    """The schema that metadata.json names, where it lies beside the checkout or the data."""
    places = [Path(__file__).parents[3] / "shared/schema"]
    if root := os.environ.get("SVGD_MONAI_MSD_ROOT"):
        places.append(Path(root).parent / "schema")
    for place in places:
        for path in sorted(place.glob("meta_schema_*.json")):
            return path
    pytest.skip("no copy of the metadata schema beside the checkout; verify_metadata would download it")


def test_the_metadata_follow_the_schema(bundle, tmp_path):
    schema = Path(shutil.copy(schema_file(), tmp_path))
    verify_metadata(meta_file=str(bundle / "configs/metadata.json"), filepath=str(schema))


def test_metadata_that_break_the_schema_are_noticed(bundle, tmp_path):
    schema = Path(shutil.copy(schema_file(), tmp_path))
    content = json.loads((bundle / "configs/metadata.json").read_text())
    del content["network_data_format"]
    broken = tmp_path / "metadata.json"
    broken.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="network_data_format"):
        verify_metadata(meta_file=str(broken), filepath=str(schema))


def test_the_metadata_say_what_the_configuration_says(bundle):
    data = json.loads((bundle / "configs/metadata.json").read_text())["network_data_format"]
    config = ConfigParser.load_config_file(str(bundle / "configs/inference.yaml"))
    for of, key, channels in (("inputs", "image", "in_channels"), ("outputs", "pred", "num_classes")):
        found = data[of][key]
        assert (found["num_channels"], found["spatial_shape"]) == (config[channels], config["roi_size"])
        assert [int(channel) for channel in found["channel_def"]] == list(range(config[channels]))


def test_the_versions_of_the_metadata_are_those_that_the_tests_pass_with(bundle):
    content = json.loads((bundle / "configs/metadata.json").read_text())
    lines = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    pinned = dict(line.lower().split("==") for line in lines if "==" in line)
    named = {
        "monai": content["monai_version"],
        "torch": content["pytorch_version"],
        "numpy": content["numpy_version"],
        **content["required_packages_version"],
    }
    del named["svgd_monai"]
    assert {name: pinned[name] for name in named} == named


@pytest.mark.parametrize("name", ["docs/README.md", "LICENSE", "configs/logging.conf", "configs/metadata.json"])
def test_the_bundle_has_what_the_model_zoo_asks_for(bundle, name):
    assert (bundle / name).stat().st_size > 0


@pytest.mark.parametrize(
    ("config", "kind"), [("train", "train"), ("inference", "infer"), ("evaluate", "infer"), ("acquire", "infer")]
)
def test_no_property_is_missing(bundle, phantom, tmp_path, config, kind):
    workflow = ConfigWorkflow(
        config_file=str(bundle / f"configs/{config}.yaml"),
        workflow_type=kind,
        logging_file=False,
        dataset_dir=str(phantom),
        output_dir=str(tmp_path),
        **SMALL,
        **({} if config == "inference" else {"initial_labelled": 2}),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_a_workflow_gives_its_parts(bundle, phantom, tmp_path):
    workflow = create_workflow(
        config_file=str(bundle / "configs/inference.yaml"),
        workflow_type="infer",
        dataset_dir=str(phantom),
        output_dir=str(tmp_path),
        **SMALL,
    )
    assert len(workflow.dataset) > 0
    assert workflow.network_def(torch.rand(1, 1, 32, 32, 32)).shape == (1, 3, 32, 32, 32)
    assert Path(workflow.bundle_root) == bundle.resolve()


def test_the_committee_exports_to_torchscript_with_the_same_numbers(bundle, tmp_path):
    parser = ConfigParser(ConfigParser.load_config_file(str(bundle / "configs/inference.yaml")))
    parser.update(SMALL)
    particles = Particles(parser.get_parsed_content("architecture"), 2, seed=1)
    committee = save_committee(tmp_path / "committee.pt", particles)
    model = convert_committee(committee, tmp_path / "model.pt")
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(model),
        meta_file=str(bundle / "configs/metadata.json"),
        config_file=str(bundle / "configs/inference.yaml"),
        key_in_ckpt="",
        use_trace=False,
        **{key: value for key, value in SMALL.items() if key != "device"},
    )
    network = parser.get_parsed_content("network_def").eval()
    load_committee(model, network)
    x = torch.rand(1, 1, 32, 32, 32)
    exported = torch.jit.load(str(tmp_path / "model.ts")).eval()
    torch.testing.assert_close(exported(x), network(x))
    torch.testing.assert_close(exported(x), torch.softmax(particles(x), 2).mean(0), rtol=1e-5, atol=1e-6)


class TestModelZoo:
    """The checks of the model zoo's ``verify_bundle``, in its order and with its arguments, and what its users do."""

    def test_the_metadata_are_where_they_must_be_and_no_weights_in_the_repository(self, bundle):
        assert (bundle / "configs/metadata.json").is_file()
        assert not list(bundle.glob("large_files.*"))

    def test_the_version_is_the_packages_and_stands_in_the_changelog(self, bundle):
        content = json.loads((bundle / "configs/metadata.json").read_text())
        assert content["version"] in content["changelog"]
        assert content["required_packages_version"]["svgd_monai"] == content["version"] == svgd_monai.__version__

    def test_the_shapes_hold_at_the_bundles_own_size(self, published):
        verify_net_in_out(
            net_id="network_def",
            meta_file=str(published / "configs/metadata.json"),
            config_file=str(published / "configs/inference.yaml"),
            bundle_root=str(published),
        )

    def test_the_weights_export_to_torchscript(self, published):
        ckpt_export(
            net_id="network_def",
            filepath=str(published / "models/model.ts"),
            ckpt_file=str(published / "models/model.pt"),
            meta_file=str(published / "configs/metadata.json"),
            config_file=str(published / "configs/inference.yaml"),
            bundle_root=str(published),
        )
        exported, metadata, _ = load(
            published.name, bundle_dir=str(published.parent), load_ts_module=True, device="cpu"
        )
        assert metadata["name"] == json.loads((published / "configs/metadata.json").read_text())["name"]
        size = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
        with torch.no_grad():
            result = exported.eval()(torch.rand(1, 1, *size))
        torch.testing.assert_close(result.sum(1), torch.ones(1, *size))

    def test_load_fills_the_network_from_models_model_pt(self, published):
        """``monai.bundle.load`` builds networks from JSON only; with a YAML bundle the network is handed to it."""
        parser = ConfigParser(ConfigParser.load_config_file(str(published / "configs/inference.yaml")))
        network = parser.get_parsed_content("network_def")
        weights = torch.load(published / "models/model.pt", weights_only=True)
        loaded = load(published.name, model=network, bundle_dir=str(published.parent), device="cpu")
        assert loaded.state_dict().keys() == weights.keys()
        for name, value in loaded.state_dict().items():
            torch.testing.assert_close(value, weights[name], rtol=0, atol=0)

    def test_a_bundle_that_was_downloaded_is_whole(self, bundle, tmp_path):
        source = Path(shutil.copytree(bundle, tmp_path / "zoo" / bundle.name, ignore=shutil.ignore_patterns("*.pt")))
        archive = shutil.make_archive(str(tmp_path / f"{bundle.name}_v0.1.0"), "zip", source.parent, bundle.name)
        download(bundle.name, bundle_dir=str(tmp_path / "got"), url=Path(archive).as_uri(), progress=False)
        got = tmp_path / "got" / bundle.name
        assert {p.relative_to(got) for p in got.rglob("*")} == {p.relative_to(source) for p in source.rglob("*")}
        config = str(got / "configs/inference.yaml")
        workflow = create_workflow(config_file=config, workflow_type="infer", logging_file=False, **SMALL)
        assert workflow.network_def(torch.rand(1, 1, 32, 32, 32)).shape == (1, 3, 32, 32, 32)
        assert Path(workflow.bundle_root) == got
