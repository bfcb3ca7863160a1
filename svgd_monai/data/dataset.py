"""Volumes that are read and preprocessed once, and training batches that depend on the seed and the step alone."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import PersistentDataset
from monai.transforms import Compose
from monai.utils import convert_to_tensor
from torch.utils.data import Sampler

from svgd_monai.data.cache_key import transform_key
from svgd_monai.data.check_cache import CHECKS_FILE, check_unchanged, file_stamp
from svgd_monai.data.checks import check_cases
from svgd_monai.data.nifti import case_id
from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_torch, write_torch
from svgd_monai.seeding import derive_seed

logger = logging.getLogger(__name__)

#: Bytes of preprocessed volumes that one data set keeps in memory beside its disk cache.
MEMORY_BYTES = 4 << 30


class Draw(int):
    """The index of an item in any data set, with the number of a draw, which seeds random transforms.

    Args:
        item: the index.
        number: of the draw.
    """

    number: int

    def __new__(cls, item: int, number: int = 0) -> Draw:
        """An int is made here, not in ``__init__``."""
        draw = super().__new__(cls, item)
        draw.number = number
        return draw


class VolumeDataset(PersistentDataset):
    """MONAI's disk cache, keyed by the files' content; random transforms are seeded by the draw, not by the process.

    Item ``i`` of the data is ``dataset[i]``, its random transforms as MONAI's loader seeds them.
    ``dataset[Draw(i, d)]`` is the same item at draw ``d``, with the random transforms seeded by ``(seed, d)``: with
    :class:`StepSampler` a batch depends on nothing but its step, whatever the number of workers and whenever a killed
    training continues.

    Args:
        data: items with ``image``, ``label`` and, as ``fingerprint``, the hash of their files that the checks have
            found, or what a user takes for their content; without one, path, size and time of the files stand for it.
        transform: deterministic transforms (cached) followed by random ones.
        cache_dir: where preprocessed volumes are kept; None keeps none on disk.
        seed: of the random transforms.
        num_classes: check the items that have no fingerprint, because nobody has checked them, such as those that MONAI
            Label puts in place of a data list, and their labels against this number of classes. None: trust them.
        memory: bytes of preprocessed volumes kept in memory beside the disk cache; 0 where each is read but once. None:
            :data:`MEMORY_BYTES`.

    Raises:
        DataError: an item is bad, or no longer what was checked when it is read; the sentence names it.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Compose,
        cache_dir: str | os.PathLike[str] | None,
        seed: int = 0,
        num_classes: int | None = None,
        memory: int | None = None,
    ) -> None:
        items = list(data) if num_classes is None else _checked(data, num_classes, cache_dir)
        super().__init__(
            items,
            transform,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            hash_func=_content_hash,
            hash_transform=transform_key,
        )
        self.seed = seed
        self.memory = MEMORY_BYTES if memory is None else memory
        self._memory: dict[int, Any] = {}
        self._memory_bytes = 0

    def prepare(self, item: int) -> Any:
        """Have an item in the cache on disk, without keeping it in memory; the deterministic transforms' result."""
        return self._cachecheck(copy.deepcopy(self.data[item]))

    def _transform(self, index: int) -> Any:
        item = range(len(self.data))[index]
        if isinstance(index, Draw):
            # 32 bits are what numpy's legacy RandomState, on which MONAI's transforms rest, takes.
            self.transform.set_random_state(seed=derive_seed(self.seed, index.number) % (1 << 32))
        volume = self._preprocessed(item)
        return self._post_transform(copy.deepcopy(volume) if item in self._memory else volume)

    def _cachecheck(self, item_transformed: Mapping[str, Any]) -> Any:
        """The preprocessed item, from the disk cache or into it.

        In place of MONAI's, whose file a kill can leave in part, and which then refuses to start again.
        """
        name = f"{_content_hash(item_transformed).decode()}{self.transform_hash}.pt"
        file = None if self.cache_dir is None else self.cache_dir / name
        if file is not None and file.is_file():
            try:
                return read_torch(file)
            except RunFolderError as error:
                logger.warning("%s The volume is preprocessed again.", error)
        volume = self._pre_transform(dict(item_transformed))  # a transform may change what it is given
        check_unchanged(item_transformed)  # or a cache would for ever give one file's volume for the other
        if file is not None:
            with contextlib.suppress(PermissionError):  # a cache that may only be read
                write_torch(file, convert_to_tensor(volume, convert_numeric=False, track_meta=False), durable=False)
        return volume

    def _preprocessed(self, item: int) -> Any:
        if item not in self._memory:
            volume = self.prepare(item)
            size = sum(v.nbytes for v in volume.values() if hasattr(v, "nbytes"))
            if self._memory_bytes + size > self.memory:
                return volume
            self._memory[item] = volume
            self._memory_bytes += size
        return self._memory[item]


class StepSampler(Sampler[list[int]]):
    """Batches of draws for a training counted in steps: an endless shuffle of the labelled multiset.

    Draw d is position ``d mod N`` of permutation ``d // N``; each permutation comes from the seed and its number. Batch
    s holds the draws ``s B ... s B + B − 1``, as indices into a data set of the N items, see :class:`Draw`.

    With several streams, a batch holds B draws of each stream, one stream after the other, and each stream has its own
    shuffles: for a committee whose members do not share their batches.

    Args:
        size: N, length of the training list, in which a case that was drawn twice occurs twice.
        batch_size: B.
        steps: batches in all.
        seed: of the shuffles.
        streams: independent shuffles.

    Raises:
        ValueError: N, B or the number of streams is below 1.
    """

    def __init__(self, size: int, batch_size: int, steps: int, seed: int = 0, streams: int = 1) -> None:
        if size < 1 or batch_size < 1 or streams < 1:
            raise ValueError(f"{streams} batches of {batch_size} cannot be drawn from {size} items.")
        self.size = size
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.streams = streams
        #: Steps to pass over, set when a training continues.
        self.start = 0

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of :class:`Draw`."""
        streams = [self._draws(stream) for stream in range(self.streams)]
        for _ in range(self.start, self.steps):
            yield [next(stream) for stream in streams for _ in range(self.batch_size)]

    def _draws(self, stream: int) -> Iterator[Draw]:
        """Indices of a stream's draws; no two streams share a draw, whose number seeds the random transforms."""
        seed = self.seed if stream == 0 else derive_seed(self.seed, "stream", stream)
        number, order = -1, np.empty(0, dtype=np.int64)
        for draw in count(self.start * self.batch_size):
            if draw // self.size != number:
                number = draw // self.size
                order = np.random.default_rng(derive_seed(seed, "shuffle", number)).permutation(self.size)
            yield Draw(int(order[draw % self.size]), draw * self.streams + stream)


def fingerprints(dataset: Any) -> list[str]:
    """What the items of a data set are made of: a hash of the content of each, in their order.

    Args:
        dataset: of this package, or of MONAI's or a user's own over a list ``data`` of items.
    """
    return [_content_hash(item).decode() for item in getattr(dataset, "data", ())]


def epoch_length(steps: int, validations: int) -> int:
    """Steps between validations: the least length with which ``validations`` epochs hold all steps."""
    return math.ceil(steps / validations)


def epochs(steps: int, validations: int) -> int:
    """Epochs of :func:`epoch_length` that hold all steps; the last may be shorter."""
    return math.ceil(steps / epoch_length(steps, validations))


def _checked(
    data: Sequence[Mapping[str, Any]], num_classes: int, cache_dir: str | os.PathLike[str] | None
) -> list[Mapping[str, Any]]:
    """The items, with case and fingerprint where they had none."""
    items = [
        item if "fingerprint" in item else {"case": case_id(item["image"]) or item["image"], **item} for item in data
    ]
    fresh = {_files(item): item for item in items if "fingerprint" not in item}
    # Files of one name in several folders, or several labels of one image, are checked each, under their paths.
    times = Counter(item["case"] for item in fresh.values())
    names = {files: item["case"] if times[item["case"]] == 1 else " and ".join(files) for files, item in fresh.items()}
    classes = {value: "background" if value == 0 else f"class {value}" for value in range(num_classes)}
    facts = check_cases(
        [{**item, "case": names[files]} for files, item in fresh.items()],
        classes,
        None if cache_dir is None else Path(cache_dir) / CHECKS_FILE,
    )
    return [
        item
        if "fingerprint" in item
        else {**item, "fingerprint": facts[names[_files(item)]].fingerprint("label" in item)}
        for item in items
    ]


def _files(item: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(item[name]) for name in ("image", "label") if name in item)


def _content_hash(item: Mapping[str, Any]) -> bytes:
    """The cache's key of an item: what its files hold, not where they lie."""
    parts = [f"{name}={item[name]}" for name in ("case", "fingerprint") if name in item]
    parts.append("labelled" if "label" in item else "unlabelled")
    if "fingerprint" not in item:
        parts += [":".join(map(str, file_stamp(Path(file)))) for file in _files(item)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest().encode()
