"""What is held of whole volumes while a pool is scored, counted in tensors: it depends on no number of members."""

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.inferers import SlidingWindowInferer
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from svgd_monai.acquisition import AcquisitionHandler, reduction
from svgd_monai.committee import CommitteeEvaluator, CommitteeMean

SHAPE = (32, 32, 24)
CLASSES = 3
VOLUME = 32 * 32 * 24 * 4  # bytes of a float32 volume
STATISTICS = CLASSES + 2


class LiveMemory(TorchDispatchMode):
    """The greatest number of bytes that tensors of this thread's operations held at one time."""

    def __init__(self):
        super().__init__()
        self.live = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.live = {key: entry for key, entry in self.live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result


class Images(Dataset):
    """A pool whose images are made as they are asked for, with as much memory as resampling takes for its grid."""

    def __init__(self, count):
        super().__init__([{"case": f"case_{number}"} for number in range(count)])

    def __getitem__(self, index):
        grid = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(index))
        return {**self.data[index], "image": grid[:1].clone()}


def peak_in_volumes(folder, members, cases, acquisition="entropy", how="mean"):
    """Peak of a pool's scoring, in float32 volumes."""
    torch.manual_seed(0)
    committee = CommitteeMean([nn.Conv3d(1, CLASSES, 3, padding=1) for _ in range(members)])
    evaluator = CommitteeEvaluator(
        device="cpu",
        val_data_loader=DataLoader(Images(cases), batch_size=1, num_workers=0),
        network=committee,
        inferer=SlidingWindowInferer((8, 8, 8), 1, overlap=0.25, mode="gaussian"),
        val_handlers=[AcquisitionHandler(folder, acquisition, reduction=how)],
    )
    with LiveMemory() as memory:
        evaluator.run()
    assert len((folder / "scores.csv").read_text().splitlines()) == cases + 1
    return memory.peak / VOLUME


@pytest.fixture(autouse=True)
def thin_slabs(monkeypatch):
    monkeypatch.setattr(reduction.slabs, "__defaults__", (2 * 32 * 24,))


def test_memory_does_not_grow_with_the_members_nor_with_the_cases(tmp_path):
    few = peak_in_volumes(tmp_path, members=1, cases=1)
    assert STATISTICS + 1 < few < STATISTICS + 3  # the image, the statistics and the weights of the windows
    assert peak_in_volumes(tmp_path, members=6, cases=1) < few + 0.3
    assert peak_in_volumes(tmp_path, members=6, cases=3) < few + 0.3


@pytest.mark.parametrize(("acquisition", "how"), [("bald", "foreground"), ("variance", "top"), ("entropy", "sum")])
def test_no_map_and_no_reduction_needs_more(tmp_path, acquisition, how):
    assert peak_in_volumes(tmp_path, 2, 1, acquisition, how) < STATISTICS + 3


def test_maps_of_whole_volumes_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(reduction.slabs, "__defaults__", (1 << 40,))
    assert peak_in_volumes(tmp_path, members=2, cases=1) > STATISTICS + 4
