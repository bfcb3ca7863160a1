"""Two processes train the committee that one trains."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from monai.networks.nets import BasicUNet
from torch import multiprocessing

from svgd_monai import LogDiceLoss, Particles
from svgd_monai.committee import CommitteeTrainer, PosteriorStep
from svgd_monai.errors import SettingsError

STEPS = 3
COMMITTEES = ("svgd", "ensemble")
SHARED_BATCHES = (2, 3)  # items of one particle's batch, for two processes
REFUSED = {"num_particles": {"items": 1}, "loss": {"batch": True}}  # other losses: test_sharing.py


def trained(num_particles=3, committee="svgd", items=2, optimizer=torch.optim.Adam, **loss):
    generator = torch.Generator().manual_seed(0)
    data = [
        {
            "image": torch.rand(items, 1, 16, 16, 32, generator=generator),
            "label": torch.randint(0, 2, (items, 1, 16, 16, 32), generator=generator),
        }
        for _ in range(STEPS)
    ]
    particles = Particles(BasicUNet(3, 1, 2, (2, 2, 2, 2, 2, 2)), num_particles, seed=4)
    trainer = CommitteeTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=data,
        network=particles,
        optimizer=optimizer([particles.values], lr=0.01),
        loss_function=LogDiceLoss(softmax=True, to_onehot_y=True, **loss),
        step=PosteriorStep(committee, likelihood_scale=5.0, prior_std=2.0),
        decollate=False,
    )
    trainer.run()
    return {
        "values": particles.values.detach(),
        "losses": trainer.state.member_losses,
        "prediction": trainer.state.output["pred"],
        "repulsion": trainer.state.balance.repulsion,
    }


def shared(items):
    """One particle; Adam would turn what the order of a sum leaves of a vanishing gradient into whole steps."""
    return trained(num_particles=1, items=items, optimizer=torch.optim.SGD)


def process(rank, ranks, folder):
    """All that two processes have to show, for starting them takes the longest."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    try:
        for committee in COMMITTEES:
            torch.save(trained(committee=committee), f"{folder}/{committee}_{rank}.pt")
        for items in SHARED_BATCHES:
            torch.save(shared(items), f"{folder}/shared_{items}_{rank}.pt")
        for name, options in REFUSED.items():
            try:
                trained(num_particles=1, **options)
            except SettingsError as error:
                Path(folder, f"{name}_{rank}.txt").write_text(str(error))
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(process, args=(2, str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("committee", COMMITTEES)
def test_two_gloo_processes_train_the_same_particles_as_one(committee, two_processes):
    alone = trained(committee=committee)
    for rank in range(2):
        result = torch.load(two_processes / f"{committee}_{rank}.pt")
        assert torch.equal(result["values"], alone["values"])
        assert torch.equal(result["losses"], alone["losses"])
        assert torch.equal(result["repulsion"], alone["repulsion"])
        torch.testing.assert_close(result["prediction"], alone["prediction"])
    before = Particles(BasicUNet(3, 1, 2, (2, 2, 2, 2, 2, 2)), 3, seed=4).values
    assert not torch.equal(before, alone["values"])


@pytest.mark.parametrize("items", SHARED_BATCHES)
def test_two_processes_that_share_a_particles_batch_train_it_as_one(items, two_processes):
    alone = shared(items)
    results = [torch.load(two_processes / f"shared_{items}_{rank}.pt") for rank in range(2)]
    for result in results:
        for name, value in alone.items():
            torch.testing.assert_close(result[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert torch.equal(results[0]["values"], results[1]["values"])


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shared_out_is_refused_in_every_process(name, two_processes):
    for rank in range(2):
        assert (two_processes / f"{name}_{rank}.txt").read_text().startswith(f"{name}: ")
