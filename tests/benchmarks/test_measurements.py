"""What the benchmarks do where a part of them fails, and what they hand to a GPU: the rest can only be seen there."""

import math
from types import SimpleNamespace

import fused
import gpu_information
import gpu_ways
import measuring
import peers
import pytest
import step
import torch
import variants
import workloads
from torch.autograd import DeviceType
from torch.overrides import TorchFunctionMode

from svgd_monai.files import read_csv

CPU, META = torch.device("cpu"), torch.device("meta")
SIZES = {"least": workloads.TINY._replace(members=2, batch=1)}


@pytest.fixture
def clock():
    return measuring.Clock(CPU)


def refuse(*_, **__):
    raise RuntimeError("no")


def test_an_error_of_one_part_leaves_the_others_their_turn(capsys):
    done = []

    def program():
        with measuring.independent() as part:
            for name in ("first", "second", "third"):
                with part(name):
                    if name == "second":
                        refuse()
                    done.append(name)

    with pytest.raises(SystemExit, match="failed: second"):
        program()
    assert done == ["first", "third"]
    assert "RuntimeError: no" in capsys.readouterr().err


def test_ways_that_were_measured_are_kept_where_the_next_one_ends_the_process(clock, tmp_path):
    def end():
        raise KeyboardInterrupt

    more = {"least": {"nothing": lambda: lambda: None, "refused": refuse, "the end": end, "never": refuse}}
    with pytest.raises(KeyboardInterrupt):
        variants.variants(clock, SIZES, 1, tmp_path / "ways.csv", more, usual=False)
    rows = {row["way"]: row for row in read_csv(tmp_path / "ways.csv")}
    assert list(rows) == ["loop (kept)", "nothing", "refused"]
    assert rows["refused"]["note"] == "RuntimeError: no"
    nothing = rows["nothing"]
    assert float(nothing["ratio"]) == pytest.approx(float(nothing["seconds"]) / float(nothing["loop"]), rel=1e-3)


def test_a_peer_that_fails_is_left_out(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "OTHERS", {"broken": ("math", refuse), "not there": ("no_such_module", refuse)})
    with pytest.raises(SystemExit, match=r"failed: broken, D = 1000$"):
        peers.peers(clock, {}, 1, tmp_path, tiny=True)
    assert [row["who"] for row in read_csv(tmp_path / "peers.csv")] == ["ours", "textbook"]


def test_a_way_to_count_that_fails_is_left_out(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_information, "by_additions", refuse)
    with pytest.raises(SystemExit, match="failed: index_add_, 4 others"):
        gpu_information.information(clock, 1, tmp_path, tiny=True)
    assert [row["way"] for row in read_csv(tmp_path / "information.csv")] == ["package"]


def test_growth_is_kept_point_by_point_and_needs_no_plot(clock, tmp_path, monkeypatch):
    size = SIZES["least"]
    monkeypatch.setattr(step, "find_spec", lambda _: None)
    monkeypatch.setattr(step, "axes_of_growth", lambda *_: {"M": [(2, size)]})
    step.growth(clock, size, False, 1, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["growth.csv"]
    points = {"M": [(2, size), (0, size._replace(members=0))], "batch": [(1, size)]}
    monkeypatch.setattr(step, "axes_of_growth", lambda *_: points)
    with pytest.raises(SystemExit, match="failed: M"):
        step.growth(clock, size, False, 1, tmp_path / "cut off")
    assert [(row["axis"], row["value"]) for row in read_csv(tmp_path / "cut off/growth.csv")] == [
        ("M", "2"), ("batch", "1"),
    ]  # fmt: skip


def test_named_ranges_are_no_kernels(monkeypatch):
    kernel = SimpleNamespace(device_type=DeviceType.CUDA, is_user_annotation=False, count=3, self_device_time_total=5e6)
    named = SimpleNamespace(device_type=DeviceType.CUDA, is_user_annotation=True, count=1, self_device_time_total=9e6)
    launch = SimpleNamespace(device_type=DeviceType.CPU, is_user_annotation=False, count=3, self_device_time_total=0)

    class Trace:
        def __init__(self, activities):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def key_averages(self):
            return [kernel, named, launch]

    monkeypatch.setattr(measuring, "profile", Trace)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    assert measuring.busy(lambda: None, torch.device("cuda")) == (5.0, 3)


def test_a_gpu_s_rate_is_that_of_large_matrices_and_its_unit_that_of_the_matrix_itself():
    streams = measuring.Streams(2, 3, META)
    assert streams.matrices[0].numel() * 4 == measuring.Streams.LARGE
    times = {"copy": [2.0], "sum": [6.0]}
    assert streams.rate(times) == measuring.Streams.LARGE
    assert streams.unit(times) == 24 / measuring.Streams.LARGE
    assert measuring.Streams(2, 3, CPU).matrices[0].numel() == 6


def test_what_runs_on_a_device_is_the_trainer_s_step_there():
    given = []
    for device in (CPU, META):
        matrix = torch.ones(2, 3, device=device)
        workloads.direction(lambda *a: given.append(a[2]), matrix, matrix.clone(), torch.ones(2, device=device))
    assert given[0] is None
    assert given[1].device == META


def test_indices_of_the_fused_step_lie_on_its_device():
    devices = []

    class Record(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.tril_indices:
                devices.append((kwargs or {}).get("device"))
            return func(*args, **(kwargs or {}))

    with Record():
        fused.symmetric(torch.zeros(3, dtype=torch.float64, device=META), torch.zeros(3, device=META))
    assert devices == [META]


def test_only_a_way_with_other_convolutions_takes_the_image_in_another_order(monkeypatch):
    orders, usual = [], gpu_ways.loop_of
    monkeypatch.setattr(gpu_ways, "loop_of", lambda ours, **keys: orders.append(keys) or usual(ours, **keys))
    for patches in (gpu_ways.UNPADDED, gpu_ways.LAST):
        gpu_ways.patched_loop(SIZES["least"], CPU, patches, amp=False)
    assert [keys["channels_last"] for keys in orders if "channels_last" in keys] == [False, True]


def test_a_compiled_norm_sees_weights_in_a_memory_of_their_own(monkeypatch):
    """Compiled kernels assume where a tensor begins; a member's weights are views of its row."""
    seen = []
    monkeypatch.setattr(gpu_ways, "compiled_norm", lambda: lambda *given: seen.extend(given[1:3]) or given[0])
    row = torch.arange(12.0)
    image = torch.randn(1, 4, 2, 2, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "instance_norm", gpu_ways.normalise_compiled)
        torch.func.functional_call(
            torch.nn.InstanceNorm3d(4, affine=True), {"weight": row[3:7], "bias": row[7:11]}, (image,)
        )
    assert [tensor.storage_offset() for tensor in seen] == [0, 0]
    assert [tensor.tolist() for tensor in seen] == [row[3:7].tolist(), row[7:11].tolist()]


def test_counts_by_additions_are_the_package_s(clock, tmp_path):
    gpu_information.information(clock, 1, tmp_path, tiny=True)
    rows = read_csv(tmp_path / "information.csv")
    assert [row["way"] for row in rows] == ["package", "index_add_"]
    assert all(math.isfinite(float(row["seconds_a_pair"])) for row in rows)
