import copy
import json
import logging
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from svgd_monai.acquisition import (
    InformationStore,
    aggregate_information,
    digitise,
    image_mutual_information,
    information,
    information_images,
    information_store,
    is_constant,
    pairwise_mutual_information,
)
from svgd_monai.acquisition.information import mutual_information_of_counts
from svgd_monai.acquisition.information_file import read_pairs, write_pairs
from svgd_monai.acquisition.information_table import PairTable


def images(count, shape=(6, 7, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand((1, *shape), generator=generator)
    return (0.6 * base + 0.4 * torch.rand((count, *shape), generator=generator)).clamp(0, 1)


def naive(a, b, bins, low=0.0, high=1.0):
    """The defining sum, one cell after the other."""
    joint, _, _ = np.histogram2d(
        np.clip(a.double().numpy().ravel(), low, high),
        np.clip(b.double().numpy().ravel(), low, high),
        bins=bins,
        range=[[low, high], [low, high]],
    )
    p = joint / joint.sum()
    total = 0.0
    for i in range(bins):
        for j in range(bins):
            if p[i, j] > 0:
                total += p[i, j] * math.log(p[i, j] / (p[i].sum() * p[:, j].sum()))
    return total


@pytest.mark.parametrize("bins", [2, 16, 64])
def test_equals_the_defining_sum_and_scikit_learn(bins):
    a, b = images(2, shape=(9, 8, 7))
    result = image_mutual_information(a, b, bins)
    assert result.shape == ()
    assert result.dtype == torch.float64
    assert result.item() == pytest.approx(naive(a, b, bins), abs=1e-12)
    binned = [np.minimum(np.floor(x.double().numpy() * bins), bins - 1).astype(int).ravel() for x in (a, b)]
    assert result.item() == pytest.approx(mutual_info_score(*binned), abs=1e-10)
    assert result.item() > 0.01


def test_other_value_ranges_and_values_beyond_them():
    generator = torch.Generator().manual_seed(1)
    a = 40 * torch.randn(400, generator=generator)
    b = a + 20 * torch.randn(400, generator=generator)
    assert a.min() < -50  # some values do lie beyond
    result = image_mutual_information(a, b, 10, (-50, 70)).item()
    assert result == pytest.approx(naive(a, b, 10, -50.0, 70.0), abs=1e-12)
    assert result == pytest.approx(image_mutual_information(a.clamp(-50, 70), b.clamp(-50, 70), 10, (-50, 70)).item())


@pytest.mark.parametrize("bins", [7, 64, 256, 257, 40_000])
def test_bins_are_those_of_numpy(bins):
    low, high = -1.5, 2.0
    edges = np.linspace(low, high, bins + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    near = np.concatenate([edges[1:-1] - 1e-6, edges[1:-1] + 1e-6])
    values = np.concatenate([[low, high, low - 1, high + 1], centres, near])
    expected = np.clip(np.searchsorted(edges, np.clip(values, low, high), side="right") - 1, 0, bins - 1)
    index = digitise(torch.from_numpy(values), bins, (low, high))
    assert index.tolist() == expected.tolist()
    assert index[1] == bins - 1  # the right edge belongs to the last bin
    assert (index.dtype == torch.uint8) == (bins <= 256)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int16])
def test_digitising_leaves_the_image_alone(dtype):
    image = torch.arange(10).to(dtype)
    kept = image.clone()
    digitise(image, 4, (0, 9))
    assert torch.equal(image, kept)


def test_information_of_an_image_with_itself_is_the_entropy_of_its_histogram():
    image = images(1)[0]
    p = np.histogram(image.numpy(), bins=32, range=(0, 1))[0] / image.numel()
    own_entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
    assert image_mutual_information(image, image, 32).item() == pytest.approx(own_entropy, abs=1e-6)
    assert image_mutual_information(image, 1 - image, 32).item() == pytest.approx(own_entropy, abs=0.02)


def test_independent_images_share_only_the_bias_of_the_histogram():
    a, b = torch.rand(2, 40_000, generator=torch.Generator().manual_seed(0))
    bias = 15**2 / (2 * 40_000)
    assert image_mutual_information(a, b, 16).item() == pytest.approx(bias, rel=0.25)


def test_pairwise_equals_the_loop_and_is_symmetric():
    a, b = images(4, seed=2), images(3, seed=2)
    result = pairwise_mutual_information(a, b, 16)
    assert result.shape == (4, 3)
    for i in range(4):
        for j in range(3):
            assert result[i, j].item() == pytest.approx(naive(a[i], b[j], 16), abs=1e-12)
    torch.testing.assert_close(pairwise_mutual_information(b, a, 16), result.T, atol=1e-12, rtol=0)


@pytest.mark.parametrize("bins", [8, 15, 181])  # the places of all columns take a larger type than one column
def test_pairwise_does_not_depend_on_the_chunks(bins, monkeypatch):
    a = images(7, seed=4)
    whole = pairwise_mutual_information(a, a, bins)
    for chunk in (1 << 20, 500, 1):  # all columns at a time, two or one, one
        monkeypatch.setitem(information._CHUNK, "cpu", chunk)
        assert torch.equal(pairwise_mutual_information(a, a, bins), whole)


@pytest.mark.parametrize("bins", [2, 64, 300])
def test_logarithms_from_a_table_are_those_of_their_counts(bins, monkeypatch):
    images = torch.rand(5, 11, 13, generator=torch.Generator().manual_seed(1))
    tabled = pairwise_mutual_information(images, images, bins)
    monkeypatch.setattr(information, "_TABLE", 11 * 13 - 1)
    assert torch.equal(pairwise_mutual_information(images, images, bins), tabled)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_gives_the_same_values():
    a, b = images(5), images(3)
    on_gpu = pairwise_mutual_information(a.cuda(), b.cuda())
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), pairwise_mutual_information(a, b), atol=1e-12, rtol=0)
    assert is_constant(a.cuda()).is_cuda


@pytest.mark.parametrize("voxels", [5, 18432, (1 << 21) + 8])
def test_it_is_the_same_to_the_last_bit_either_way_round(voxels):
    """So no result depends on which of two images came first, in a cache that runs share."""
    images = torch.rand(12 if voxels < 1 << 20 else 3, voxels, generator=torch.Generator().manual_seed(0)) ** 2
    images[1] = 0.5 * (images[0] + images[1])
    found = pairwise_mutual_information(images, images)
    assert torch.equal(found, found.T)


def test_the_sums_of_the_largest_images_stay_within_whole_numbers():
    """Half of 2^31 voxels in each of two cells: log 2 nats, from counts alone."""
    counts = torch.zeros(1, 64, 64, dtype=torch.int64)
    counts[0, 3, 5] = counts[0, 40, 60] = 1 << 30
    assert float(mutual_information_of_counts(counts, 1 << 31)) == pytest.approx(math.log(2), abs=1e-14)


def test_a_file_of_sums_that_depend_on_their_order_is_not_taken(path, caplog):
    pool = Pool()
    InformationStore(path, SETTINGS).matrix(keys(0, 1), keys(2), pool.load)
    header, codes, values = read_pairs(path)
    before = {key: value for key, value in header["settings"].items() if key != "sums"}
    write_pairs(path, before, header["keys"], codes, values + 1)
    with caplog.at_level(logging.INFO):
        found = InformationStore(path, SETTINGS).matrix(keys(0, 1), keys(2), pool.load)
    assert "other settings" in caplog.text
    assert torch.equal(found, InformationStore(path.with_name("new.npz"), SETTINGS).matrix(
        keys(0, 1), keys(2), pool.load))  # fmt: skip


def test_exactly_independent_images_share_nothing_and_rounding_gives_no_negative_value():
    for count in range(2, 40):
        grid = torch.arange(count) / (count - 1)
        a, b = torch.meshgrid(grid, grid, indexing="ij")
        value = image_mutual_information(a, b, count).item()
        assert 0 <= value < 1e-12


def test_a_constant_image_shares_nothing():
    image = images(1)
    constant = torch.full_like(image, 0.3)
    assert pairwise_mutual_information(constant, image).item() == pytest.approx(0, abs=1e-12)
    assert pairwise_mutual_information(constant, constant).item() == pytest.approx(0, abs=1e-12)


def test_constant_is_what_the_histogram_sees_as_one_bin():
    found = is_constant(
        torch.tensor(
            [
                [0.3, 0.3, 0.3],  # constant
                [1.0, 1.0, 7.0],  # constant after the clamp
                [-3.0, 0.0, 0.001],  # clamp and bin
                [0.3, 0.3, 0.9],
                [0.0, 0.0, 1.0],
            ]
        )
    )
    assert found.tolist() == [True, True, True, False, False]
    assert found.dtype == torch.bool
    assert is_constant(torch.tensor([[0.30, 0.31]]), bins=8).tolist() == [True]
    assert is_constant(torch.tensor([[0.30, 0.31]]), bins=256).tolist() == [False]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad):
    good, spoilt = images(2)
    spoilt[1, 2, 3] = bad
    for first, second in ((good, spoilt), (spoilt, good)):
        with pytest.raises(ValueError, match="not finite"):
            image_mutual_information(first, second)
    with pytest.raises(ValueError, match="not finite"):
        is_constant(spoilt[None])


def test_shapes_bins_and_ranges_that_make_no_sense_are_refused():
    image = images(1)[0]
    with pytest.raises(ValueError, match="one shape"):
        image_mutual_information(image, image[:-1])
    with pytest.raises(ValueError, match="without voxels"):
        image_mutual_information(torch.ones(0), torch.ones(0))
    with pytest.raises(ValueError, match="at least 2 bins"):
        image_mutual_information(image, image, bins=1)
    for value_range in ((1, 0), (0, 0), (0, math.inf)):
        with pytest.raises(ValueError, match="lower first"):
            image_mutual_information(image, image, value_range=value_range)


def test_aggregation_leaves_undefined_labelled_images_out():
    nan = math.nan
    matrix = torch.tensor([[1.0, nan, 3.0], [nan, nan, nan], [0.5, nan, 0.1]], dtype=torch.float64)
    mean = aggregate_information(matrix)
    highest = aggregate_information(matrix, "max")
    np.testing.assert_allclose(mean.numpy(), [2.0, nan, 0.3])
    np.testing.assert_allclose(highest.numpy(), [3.0, nan, 0.5])
    assert aggregate_information(torch.empty(2, 0), "max").tolist() == [0, 0]
    with pytest.raises(ValueError, match="'median'; known are mean, max"):
        aggregate_information(matrix, "median")
    with pytest.raises(ValueError, match=r"\(N, K\)"):
        aggregate_information(matrix[0])


SETTINGS = {"bins": 16, "value_range": (0.0, 1.0), "grid": [6, 7, 5]}


class Pool:
    """Images by key, which counts how often each was loaded."""

    def __init__(self, count=8, constant=()):
        self.images = {f"key{number}": image for number, image in enumerate(images(count, seed=9))}
        for key in constant:
            self.images[key] = torch.full((6, 7, 5), 0.2)
        self.loaded = []

    def load(self, key):
        self.loaded.append(key)
        return self.images[key]

    def reference(self, rows, columns):
        return pairwise_mutual_information(
            torch.stack([self.images[key] for key in rows]), torch.stack([self.images[key] for key in columns]), 16
        )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "information.npz"


def keys(*numbers):
    return [f"key{number}" for number in numbers]


def test_store_gives_the_pairwise_values_and_loads_each_image_once(path):
    pool, store, seen = Pool(), InformationStore(path, SETTINGS), []
    rows, columns = keys(0, 1, 2, 3, 4), keys(3, 5)
    result = store.matrix(rows, columns, pool.load, lambda done, total: seen.append((done, total)))
    assert result.dtype == torch.float64
    torch.testing.assert_close(result, pool.reference(rows, columns), atol=1e-12, rtol=0)
    assert sorted(pool.loaded) == keys(0, 1, 2, 3, 4, 5)
    assert store.computed == 10 + 6 - 1  # pairs, and entropies of six images, one of them among the pairs
    assert seen == [(done, 5) for done in range(1, 6)]


def test_store_computes_only_pairs_that_it_lacks(path):
    pool = Pool()
    store = InformationStore(path, SETTINGS)
    store.matrix(keys(0, 1, 2, 3), keys(4), pool.load)
    pool.loaded.clear()
    rows, columns = keys(0, 1, 2, 3), keys(4, 5)
    torch.testing.assert_close(
        store.matrix(rows, columns, pool.load), pool.reference(rows, columns), atol=1e-12, rtol=0
    )
    assert store.computed == (4 + 5) + (4 + 1)
    assert pool.loaded == keys(5), "digitised images are kept"
    # a pair is the same pair the other way round
    store.matrix(keys(4), keys(0, 1), pool.load)
    assert store.computed == 14


def test_a_damaged_digitised_image_is_made_again(path, caplog):
    pool = Pool()
    expected = InformationStore(path, SETTINGS).matrix(keys(0, 1), keys(2), pool.load)
    pool.loaded.clear()
    path.unlink()
    one = next((path.parent / "digitised").iterdir())
    content = bytearray(one.read_bytes())
    content[20] ^= 1
    one.write_bytes(content)
    again = InformationStore(path, SETTINGS)
    assert torch.equal(again.matrix(keys(0, 1), keys(2), pool.load), expected)
    assert len(pool.loaded) == 1
    assert f"{one} is damaged" in caplog.text


def test_digitised_images_of_other_settings_are_not_taken(path):
    pool = Pool()
    for bins in (8, 300):
        expected = pairwise_mutual_information(pool.images["key0"][None], pool.images["key1"][None], bins)
        for _ in range(2):  # into the file and from it
            path.unlink(missing_ok=True)
            found = InformationStore(path, {**SETTINGS, "bins": bins}).matrix(keys(0), keys(1), pool.load)
            torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert len(pool.loaded) == 4


def test_store_computes_a_pair_once_where_rows_and_columns_overlap_or_repeat(path):
    pool, store = Pool(), InformationStore(path, SETTINGS)
    everything = keys(0, 1, 2, 1)
    result = store.matrix(everything, everything, pool.load)
    assert store.computed == 6
    assert sorted(pool.loaded) == keys(0, 1, 2)
    torch.testing.assert_close(result, pool.reference(everything, everything), atol=1e-12, rtol=0)


def test_store_reads_back_exactly_and_loads_nothing(path):
    pool = Pool()
    first = InformationStore(path, SETTINGS).matrix(keys(0, 1, 2), keys(3, 4), pool.load)
    pool.loaded.clear()
    again = InformationStore(path, dict(reversed(SETTINGS.items())))
    assert torch.equal(again.matrix(keys(2, 1, 0), keys(4, 3), pool.load), first.flip(0, 1))
    assert again.computed == 0
    assert pool.loaded == []


def test_an_image_that_was_loaded_leaves_its_entropy(path):
    pool = Pool(constant=("key2",))
    store = InformationStore(path, SETTINGS)
    store.matrix(keys(0, 1, 2), keys(3), pool.load)
    pool.loaded.clear()
    found = [InformationStore(path, SETTINGS).matrix([key], [key], pool.load).item() for key in keys(0, 1, 2, 3)]
    assert pool.loaded == []
    expected = pool.reference(keys(0, 1, 3), keys(0, 1, 3)).diag().tolist()
    assert [found[0], found[1], found[3]] == pytest.approx(expected, abs=1e-12)
    assert math.isnan(found[2])


@pytest.mark.parametrize("known", [0, 1, 40, 100])
def test_a_table_lacks_what_is_not_among_its_codes(known):
    rng = np.random.default_rng(known)
    codes = np.sort(rng.choice(100, known, replace=False))
    asked = rng.integers(-2, 103, (7, 9))
    lacks = PairTable((), codes, np.zeros(known)).lacks(asked)
    assert lacks.tolist() == [[code not in codes.tolist() for code in row] for row in asked.tolist()]


def test_store_of_nothing(path):
    store = InformationStore(path, SETTINGS)
    assert store.matrix([], keys(1), Pool().load).shape == (0, 1)
    assert store.matrix(keys(1, 2), [], Pool().load).shape == (2, 0)
    assert not path.exists()


def test_store_keeps_pairs_with_a_constant_image_as_undefined(path):
    pool = Pool(constant=("key1", "key5"))
    store = InformationStore(path, SETTINGS)
    result = store.matrix(keys(0, 1, 2), keys(4, 5), pool.load)
    assert result.isnan().tolist() == [[False, True], [True, True], [False, True]]
    again = InformationStore(path, SETTINGS)
    assert again.matrix(keys(0, 1, 2), keys(4, 5), pool.load).isnan().tolist() == result.isnan().tolist()
    assert again.computed == 0


@pytest.mark.parametrize("change", [{"bins": 8}, {"value_range": (0, 2)}, {"grid": [1, 2, 3]}, {"extra": 1}])
def test_store_of_other_settings_starts_anew_and_says_so(path, change, caplog):
    pool = Pool()
    InformationStore(path, SETTINGS).matrix(keys(0, 1), keys(2), pool.load)
    with caplog.at_level(logging.INFO):
        store = InformationStore(path, {**SETTINGS, **change})
    assert "other settings" in caplog.text
    assert str(path) in caplog.text
    store.matrix(keys(0, 1), keys(2), pool.load)
    assert store.computed == 2 + 3
    again = InformationStore(path, {**SETTINGS, **change})
    again.matrix(keys(0, 1), keys(2), pool.load)
    assert again.computed == 0


def test_settings_left_out_are_the_defaults(path):
    pool = Pool()
    store = InformationStore(path, {})
    value = store.matrix(keys(0), keys(1), pool.load).item()
    assert value == pytest.approx(image_mutual_information(pool.images["key0"], pool.images["key1"]).item(), abs=1e-12)
    InformationStore(path, {"bins": 64, "value_range": (0, 1)}).matrix(keys(0), keys(1), pool.load)
    assert pool.loaded == keys(1, 0)


def test_a_flipped_byte_or_a_cut_gives_a_warning_and_never_a_wrong_value(path, caplog):
    pool = Pool()
    rows, columns = keys(0, 1, 2), keys(3, 4)
    expected = InformationStore(path, SETTINGS).matrix(rows, columns, pool.load)
    sound = path.read_bytes()
    warnings = 0
    damaged = [sound[:length] for length in range(0, len(sound), 97)]
    for place in range(0, len(sound), 11):
        damaged.append(sound[:place] + bytes([sound[place] ^ 0x10]) + sound[place + 1 :])
    for content in damaged:
        caplog.clear()
        path.write_bytes(content)
        store = InformationStore(path, SETTINGS)
        if caplog.records:
            warnings += 1
            assert str(path) in caplog.text
            assert caplog.records[0].levelno == logging.WARNING
        torch.testing.assert_close(store.matrix(rows, columns, pool.load), expected, atol=0, rtol=0)
        assert store.computed == (6 + 5 if caplog.records else 0)
    assert warnings > len(damaged) / 2


@pytest.mark.parametrize("fault", ["position", "order", "length", "format"])
def test_parts_that_do_not_fit_together_are_damage(path, caplog, fault):
    pool = Pool()
    InformationStore(path, SETTINGS).matrix(keys(0, 1, 2), keys(3), pool.load)
    with np.load(path) as content:
        parts = dict(content)
    header = json.loads(parts["header"].tobytes())
    if fault == "position":
        header["keys"].pop()
    elif fault == "order":
        parts["codes"] = parts["codes"][::-1]
    elif fault == "length":
        parts["values"] = parts["values"][1:]
    else:
        header["format"] = 99
    parts["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **parts)
    store = InformationStore(path, SETTINGS)
    assert "cannot be read" in caplog.text
    store.matrix(keys(0, 1, 2), keys(3), pool.load)
    assert store.computed == 3 + 4


def test_what_was_computed_before_a_crash_is_kept(path):
    pool = Pool()

    def load(key):
        if key == "key2":
            raise RuntimeError("the disk went away")
        return pool.load(key)

    with pytest.raises(RuntimeError, match="went away"):
        InformationStore(path, SETTINGS).matrix(keys(0, 1, 2, 3), keys(4), load)
    store = InformationStore(path, SETTINGS)
    rows = keys(0, 1, 2, 3)
    torch.testing.assert_close(
        store.matrix(rows, keys(4), pool.load), pool.reference(rows, keys(4)), atol=1e-12, rtol=0
    )
    assert store.computed == 2 + 2


def test_long_computations_are_saved_in_between(path, monkeypatch):
    monkeypatch.setattr(information_store, "_SECONDS_BETWEEN_SAVES", 0.0)
    pool, stored = Pool(), []

    def load(key):
        # what a process killed at this moment would leave behind
        stored.append(len(np.load(path)["codes"]) if path.exists() else 0)
        return pool.load(key)

    InformationStore(path, SETTINGS).matrix(keys(0, 1, 2), keys(4), load)
    assert stored == [0, 0, 3, 5]  # the column's entropy, and with each row its entropy and the pair
    assert [file.name for file in path.parent.iterdir() if file.is_file()] == [path.name]


def test_saves_in_between_leave_a_file_that_reads_back_where_rows_hold_the_columns(path, monkeypatch, caplog):
    """A pool that keeps its labelled cases: their entropies are there before their rows come."""
    monkeypatch.setattr(information_store, "_SECONDS_BETWEEN_SAVES", -1.0)
    pool, rows = Pool(), keys(0, 1, 2, 3, 4)
    for labelled in (keys(3), keys(3, 1), keys(3, 1, 4)):  # rounds
        store = InformationStore(path, SETTINGS)
        found = store.matrix(rows, labelled, pool.load)
        torch.testing.assert_close(found, pool.reference(rows, labelled), atol=1e-12, rtol=0)
        assert store.computed == {1: 4 + 5, 2: 3, 3: 2}[len(labelled)]
    assert not caplog.text


def test_entropies_are_the_diagonal_in_one_pass(path, monkeypatch):
    pool, written = Pool(constant=("key2",)), []
    InformationStore(path, SETTINGS).matrix(keys(5), keys(6), pool.load)
    writes = information_store.write_pairs
    monkeypatch.setattr(information_store, "write_pairs", lambda *call: written.append(call) or writes(*call))
    store, seen = InformationStore(path, SETTINGS), []
    pool.loaded.clear()
    found = store.entropies(keys(6, 0, 1, 2, 0), pool.load, lambda done, total: seen.append((done, total)))
    assert pool.loaded == keys(0, 1, 2)
    assert (store.computed, len(written), seen) == (3, 1, [(1, 3), (2, 3), (3, 3)])
    expected = pool.reference(keys(6, 0, 1, 0), keys(6, 0, 1)).tolist()
    assert found[[0, 1, 2, 4]].tolist() == pytest.approx(
        [expected[0][0], expected[1][1], expected[2][2], expected[3][1]]
    )
    assert math.isnan(found[3])
    again = InformationStore(path, SETTINGS)
    assert torch.equal(again.entropies(keys(6, 0, 1, 2, 0), pool.load).nan_to_num(), found.nan_to_num())
    assert again.entropies([], pool.load).shape == (0,)
    assert again.computed == 0
    pool.images["small"] = torch.rand(2, 2, 2)
    with pytest.raises(ValueError, match="image small has 8 voxels, another 210"):
        again.entropies(["key3", "small"], pool.load)


def test_the_file_is_written_once_a_minute_however_many_the_rows(path, monkeypatch):
    pool, seconds, written = Pool(), [0], []

    def load(key):
        seconds.append(seconds[-1] + 25)
        return pool.load(key)

    monkeypatch.setattr(information_store, "time", SimpleNamespace(monotonic=lambda: seconds[-1]))
    monkeypatch.setattr(information_store, "write_pairs", lambda *_: written.append(seconds[-1]))
    InformationStore(path, SETTINGS).matrix(keys(0, 1, 2, 3, 5, 6, 7), keys(4), load)
    assert written == [100, 175, 200]  # the column is read first; behind the third row and the sixth, and at the end


def test_a_folder_that_may_only_be_read_gives_the_same_values(path, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(information_images.files, "write_bytes", refuse)
    pool = Pool()
    found = InformationStore(path, SETTINGS).matrix(keys(0, 1), keys(2), pool.load)
    torch.testing.assert_close(found, pool.reference(keys(0, 1), keys(2)), atol=1e-12, rtol=0)


def test_an_image_that_may_not_be_read_is_made_again(path, monkeypatch):
    pool = Pool()
    expected = InformationStore(path, SETTINGS).matrix(keys(0, 1), keys(2), pool.load)
    path.unlink()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert torch.equal(InformationStore(path, SETTINGS).matrix(keys(0, 1), keys(2), pool.load), expected)


class Together:
    """Processes that share a pool, as threads."""

    def __init__(self, monkeypatch, ranks):
        self.own = threading.local()
        self.parts = [None] * ranks
        self.barrier = threading.Barrier(ranks, timeout=20)
        monkeypatch.setattr(information_store, "processes", lambda: (getattr(self.own, "rank", 0), ranks))
        monkeypatch.setattr(information_store, "is_first", lambda: getattr(self.own, "rank", 0) == 0)
        monkeypatch.setattr(information_store, "everyones", self.everyones)
        monkeypatch.setattr(information_store, "agreed", lambda value: self.everyones(value)[0])

    def everyones(self, value):
        self.parts[self.own.rank] = copy.deepcopy(value)
        self.barrier.wait()
        parts = copy.deepcopy(self.parts)
        self.barrier.wait()
        return parts

    def run(self, *calls):
        def one(rank):
            self.own.rank = rank
            return calls[rank]()

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(one, range(len(calls))))


def test_processes_share_the_pairs_and_agree_on_what_is_known(path, monkeypatch):
    """Also where the first has written to the file since another has read it."""
    pool, rows, columns = Pool(), keys(0, 1, 2, 3), keys(4, 5)
    # Digitised before, for threads have one number of process in the names of their temporary files.
    InformationStore(path.with_name("other.npz"), SETTINGS).matrix(rows, columns, pool.load)
    late = InformationStore(path, SETTINGS)
    InformationStore(path, SETTINGS).matrix(keys(6), keys(7, 5), pool.load)
    first = InformationStore(path, SETTINGS)
    together = Together(monkeypatch, 2)
    found = together.run(*(lambda store=store: store.matrix(rows, columns, pool.load) for store in (first, late)))
    for matrix in found:
        torch.testing.assert_close(matrix, pool.reference(rows, columns), atol=1e-12, rtol=0)
    # Each the pairs of two rows, and of them and of the columns the entropies; key5's is known.
    assert [store.computed for store in (first, late)] == [4 + 2 + 1, 4 + 2 + 1]
    monkeypatch.undo()
    again = InformationStore(path, SETTINGS)
    again.matrix([*rows, "key6"], columns[1:], pool.load)
    assert again.computed == 0


def test_processes_share_the_entropies(path, monkeypatch):
    pool, all_keys = Pool(), keys(0, 1, 2, 3, 4)
    InformationStore(path.with_name("other.npz"), SETTINGS).entropies(all_keys, pool.load)  # digitised, see above
    stores = [InformationStore(path, SETTINGS) for _ in range(2)]
    together = Together(monkeypatch, 2)
    found = together.run(*(lambda store=store: store.entropies(all_keys, pool.load) for store in stores))
    assert torch.equal(*found)
    assert found[0].tolist() == pytest.approx(pool.reference(all_keys, all_keys).diag().tolist())
    assert [store.computed for store in stores] == [3, 2]
    monkeypatch.undo()
    again = InformationStore(path, SETTINGS)
    again.entropies(all_keys, pool.load)
    assert again.computed == 0


def test_images_that_cannot_be_compared_are_named(path):
    pool = Pool()
    pool.images["key1"] = torch.full((6, 7, 5), math.nan)
    pool.images["key2"] = torch.rand(3, 3)
    store = InformationStore(path, SETTINGS)
    with pytest.raises(ValueError, match=r"image key1 .*not finite"):
        store.matrix(keys(0, 1), keys(3), pool.load)
    with pytest.raises(ValueError, match="image key2 has 9 voxels, another 210"):
        store.matrix(keys(2), keys(3), pool.load)
    with pytest.raises(ValueError, match="image key2 has 9 voxels, another 210"):
        store.matrix(keys(0), keys(4, 2), pool.load)


def test_a_few_stray_voxels_make_no_image_of_a_constant():
    image = torch.ones(1, 10, 20, 10)
    image[0, 0, :4, 0] = 0.0  # 0.2 %
    assert is_constant(image).tolist() == [True]
    image[0, 0] = torch.linspace(0, 1, 200).reshape(20, 10)  # 10 %
    assert is_constant(image).tolist() == [False]
