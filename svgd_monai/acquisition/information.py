"""How much one preprocessed image tells about another: mutual information from their joint histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

# Voxels binned at a time: on a CPU one pair, whose indices stay in the cache; on a GPU many, to amortise a launch.
_CHUNK = {"cpu": 1}
_CHUNK_ON_ACCELERATOR = 1 << 24
# Cells of histograms whose entropies are computed at a time.
_CELLS = 1 << 17
# Voxels of an image up to which n log n comes from a table of 8 bytes a voxel: on a CPU half a logarithm's time.
_TABLE = 1 << 21

#: Share of the voxels, at either end, that makes no image of a constant.
STRAY = 0.005


def image_mutual_information(a: Tensor, b: Tensor, bins: int = 64, value_range: Sequence[float] = (0.0, 1.0)) -> Tensor:
    """Mutual information of two images (the diversity term of Nath et al. 2021, arXiv 2101.02323).

    MI(a, b) = Σ_ij P_ij log( P_ij / (P_i P_j) ),    P_ij = (voxels with a in bin i and b in bin j) / voxels
             = H(P_i) + H(P_j) − H(P_ij)

    with equal bins over `value_range`. MI(a, a) is the entropy of a's histogram; the MI of unrelated images is near
    (bins − 1)² / (2 · voxels), the bias of a histogram.

    Args:
        a: image of any shape.
        b: image of the same shape, on the same device.
        bins: number of bins of each image.
        value_range: lowest and highest value, the outer edges of the bins; values beyond fall into the end bins.

    Returns:
        () float64, nats, from 0 to log `bins`.

    Raises:
        ValueError: the shapes differ or hold no voxel, a value is not finite, or the bins make no sense.
    """
    return pairwise_mutual_information(a[None], b[None], bins, value_range)[0, 0]


def pairwise_mutual_information(
    a: Tensor, b: Tensor, bins: int = 64, value_range: Sequence[float] = (0.0, 1.0)
) -> Tensor:
    """Compute :func:`image_mutual_information` of every image of `a` with every image of `b`.

    Args:
        a: (N, ...), N images.
        b: (K, ...), K images of the same shape, on the same device. Beside its input, the function holds K binned
            images and a bounded number of histograms.
        bins: number of bins of each image.
        value_range: lowest and highest value, the outer edges of the bins.

    Returns:
        (N, K) float64, nats.

    Raises:
        ValueError: the shapes differ or hold no voxel, a value is not finite, or the bins make no sense.
    """
    if a.dim() < 1 or b.dim() < 1 or a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"Mutual information needs images of one shape, got {tuple(a.shape[1:])} and {tuple(b.shape[1:])}."
        )
    result = torch.empty((len(a), len(b)), dtype=torch.float64, device=a.device)
    columns = [digitise(image, bins, value_range) for image in b]
    for number, image in enumerate(a):
        result[number] = binned_mutual_information(digitise(image, bins, value_range), columns, bins)
    return result


def is_constant(images: Tensor, bins: int = 64, value_range: Sequence[float] = (0.0, 1.0)) -> Tensor:
    """Tell which images are constant to the eye of the histogram: all voxels in one bin, but a few stray ones.

    Under a clip of 0 to 2048, 33 of the 260 volumes of MSD's Task04 keep fewer than 0.1 % of their voxels below the
    upper end. Such an image, be it one value or a faint pattern within one bin, has an MI near 0 with every other and
    with itself: not because it is unlike them but because the histogram sees nothing in it. Its MI counts as undefined.

    Args:
        images: (N, ...), N images.
        bins: number of bins.
        value_range: lowest and highest value, the outer edges of the bins; a value beyond counts as that edge.

    Returns:
        (N,) bool.

    Raises:
        ValueError: an image has no voxel, a value is not finite, or the bins make no sense.
    """
    found = [is_one_bin(digitise(image, bins, value_range)) for image in images]
    return torch.tensor(found, dtype=torch.bool, device=images.device)


def digitise(image: Tensor, bins: int, value_range: Sequence[float] = (0.0, 1.0)) -> Tensor:
    """Replace every voxel by the number of its bin.

    index = floor( (v − low) / (high − low) · bins ), cut to 0 .. bins − 1

    as in `numpy.histogram2d`: a bin holds its lower edge, the last one its upper edge too.

    Args:
        image: any shape, V voxels.
        bins: number of bins, at least 2.
        value_range: (low, high).

    Returns:
        (V,) of the smallest integer type that holds `bins` values: uint8 up to 256.

    Raises:
        ValueError: the image has no voxel, a value is not finite, or the bins make no sense.
    """
    low, high = _checked_range(bins, value_range)
    values = image.detach().reshape(-1).to(torch.float64)
    if values.numel() == 0:
        raise ValueError("An image without voxels has no histogram.")
    if not bool(torch.isfinite(values).all()):
        raise ValueError("An image holds values that are not finite, so it has no histogram.")
    index = values.sub(low).div_(high - low).mul_(bins)  # a copy first: `values` may be the caller's own memory
    return index.floor_().clamp_(0, bins - 1).to(index_type(bins))


def is_one_bin(index: Tensor) -> bool:
    """Tell whether all voxels of a digitised image, (V,), but :data:`STRAY` at either end, are in one bin."""
    tail = int(STRAY * len(index))
    below = torch.bincount(index).cumsum(0)  # voxels in a bin and those before it
    # The bins of two voxels in the order of their values.
    low, high = torch.searchsorted(below, below.new_tensor([tail, len(index) - 1 - tail]), right=True).tolist()
    return bool(low == high)


def binned_mutual_information(row: Tensor, columns: Sequence[Tensor], bins: int) -> Tensor:
    """Mutual information of one digitised image with K others, see :func:`mutual_information_of_counts`.

    Args:
        row: (V,), an output of :func:`digitise`.
        columns: K outputs of it, each (V,).
        bins: the number of bins they were made with.

    Returns:
        (K,) float64, nats.
    """
    voxels, cells = len(row), bins * bins
    together = max(1, _CHUNK.get(row.device.type, _CHUNK_ON_ACCELERATOR) // max(voxels, cells))
    row_offset = row.to(index_type(together * cells)) * bins  # the smaller, the more are added at a time
    result = torch.empty(len(columns), dtype=torch.float64, device=row.device)
    group = max(1, _CELLS // cells // together) * together
    for start in range(0, len(columns), group):
        some = columns[start : start + group]
        parts = [_joint_counts(row_offset, some[i : i + together], cells) for i in range(0, len(some), together)]
        counts = torch.cat(parts).view(len(some), bins, bins)
        result[start : start + len(some)] = mutual_information_of_counts(counts, voxels)
    return result


def mutual_information_of_counts(counts: Tensor, voxels: int) -> Tensor:
    """Mutual information from joint histograms.

    With counts n_ij of the joint histogram, n_i and n_j its margins and V voxels,

    MI = (1/V) ( V log V + Σ n_ij log n_ij − Σ n_i log n_i − Σ n_j log n_j )

    The sums are of whole numbers, n log n in units of :func:`_unit`, and so the same in whatever order: MI(a, b) is
    MI(b, a) to the last bit, on every device, for every way to share out the work.

    Args:
        counts: (K, bins, bins) of any integer type, each of K histograms with the sum V.
        voxels: V.

    Returns:
        (K,) float64, nats.
    """
    joint, own, other = (_sum_n_log_n(n, voxels) for n in (counts.flatten(1), counts.sum(2), counts.sum(1)))
    whole = _n_log_n(torch.full((1,), voxels, device=counts.device), voxels)
    # Rounding leaves the MI of independent images at ±1e-15.
    return (whole + joint - own - other).to(torch.float64).mul_(_unit(voxels) / voxels).clamp_(min=0)


def _joint_counts(row_offset: Tensor, columns: Sequence[Tensor], cells: int) -> Tensor:
    """Joint histograms of one image, its bins times their number, with K others: (K · cells,) int64."""
    if len(columns) == 1:
        return torch.bincount(columns[0].to(row_offset.dtype, copy=True).add_(row_offset), minlength=cells)
    # All of them in a few calls: on a GPU calls of a column each would take longer than its counts.
    places = torch.arange(len(columns), device=row_offset.device, dtype=row_offset.dtype) * cells
    joint = torch.stack(list(columns)).to(row_offset.dtype).add_(row_offset).add_(places[:, None])
    return torch.bincount(joint.view(-1), minlength=len(columns) * cells)


def _sum_n_log_n(counts: Tensor, voxels: int) -> Tensor:
    """(K, cells) of up to `voxels` -> (K,) int64, Σ n log n in units; 0 log 0 = 0."""
    if voxels > _TABLE:
        return _n_log_n(counts, voxels).sum(1)
    return _table(voxels, counts.device).index_select(0, counts.reshape(-1)).view(counts.shape).sum(1)


@lru_cache(maxsize=2)
def _table(voxels: int, device: torch.device) -> Tensor:
    """What n log n is for 0 to `voxels`, in units; it is kept, for the images of a run are of one size."""
    return _n_log_n(torch.arange(voxels + 1, device=device), voxels)


def _n_log_n(counts: Tensor, voxels: int) -> Tensor:
    """Of counts, n log n in whole units, int64."""
    exact = counts.to(torch.float64)
    return torch.xlogy(exact, exact).div_(_unit(voxels)).round_().to(torch.int64)


def _unit(voxels: int) -> float:
    """The unit of n log n: the least power of two for which no sum leaves int64; some V log V / 2^61.

    No sum exceeds V log V, and a mutual information adds two of them. 4096 cells that are each half a unit off change
    it by less than 1e-14 nats.
    """
    return 2.0 ** (math.frexp(max(1.0, voxels * math.log(voxels)))[1] - 61)


def _checked_range(bins: int, value_range: Sequence[float]) -> tuple[float, float]:
    if bins < 2:
        raise ValueError(f"Mutual information needs at least 2 bins, got {bins}.")
    low, high = value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"The range of values must be two finite numbers, the lower first, got {low} and {high}.")
    return float(low), float(high)


def index_type(bins: int) -> torch.dtype:
    """The smallest integer type that holds 0 .. `bins` − 1."""
    for kind in (torch.uint8, torch.int16, torch.int32):
        if bins - 1 <= torch.iinfo(kind).max:
            return kind
    return torch.int64
