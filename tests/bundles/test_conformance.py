"""What MONAI's own tools ask of a bundle; everything offline."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, create_workflow, verify_metadata, verify_net_in_out

from svgd_monai.committee import Particles, convert_committee, load_committee, save_committee

SMALL = {"features": [4, 4, 4, 4, 4, 4], "num_particles": 2, "device": "cpu"}


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


def test_the_version_stands_in_the_changelog(bundle):
    content = json.loads((bundle / "configs/metadata.json").read_text())
    assert content["version"] in content["changelog"]


@pytest.mark.parametrize("name", ["docs/README.md", "LICENSE", "configs/logging.conf", "configs/metadata.json"])
def test_the_bundle_has_what_the_model_zoo_asks_for(bundle, name):
    assert (bundle / name).stat().st_size > 0


def test_the_network_takes_and_gives_what_the_metadata_say(bundle):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs/metadata.json"),
        config_file=str(bundle / "configs/inference.yaml"),
        device="cpu",
        p=1,
        n=1,
        any=16,
    )


@pytest.mark.parametrize(
    ("config", "kind"), [("train", "train"), ("inference", "infer"), ("evaluate", "infer"), ("acquire", "infer")]
)
def test_no_property_is_missing(bundle, phantom_mr, tmp_path, config, kind):
    workflow = ConfigWorkflow(
        config_file=str(bundle / f"configs/{config}.yaml"),
        workflow_type=kind,
        logging_file=False,
        dataset_dir=str(phantom_mr),
        output_dir=str(tmp_path),
        **SMALL,
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_a_workflow_gives_its_parts(bundle, phantom_mr, tmp_path):
    workflow = create_workflow(
        config_file=str(bundle / "configs/inference.yaml"),
        workflow_type="infer",
        dataset_dir=str(phantom_mr),
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
