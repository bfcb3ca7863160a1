"""The part of a cached volume's key that says how it was preprocessed."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svgd_monai.errors import SettingsError

#: Goes up when the package's own transforms give other values for the same arguments.
FORMAT = 3
#: Packages whose code a version or :data:`FORMAT` stands for, or that do not decide values.
_KNOWN = frozenset({"monai", "svgd_monai", "torch", "numpy"}) | sys.stdlib_module_names


def transform_key(transforms: Sequence[Any]) -> bytes:
    """A hash of transforms: their classes and arguments, MONAI's version, and the code of those that users wrote.

    With the class and its arguments alone, a user who edits a transform would get the volumes of the earlier code.

    Args:
        transforms: deterministic ones.

    Raises:
        SettingsError: one of them holds something without a name, such as a lambda, which has no key of its own.
    """
    digest = hashlib.sha256(f"{FORMAT} {monai.__version__}\n".encode())
    for transform in transforms:
        try:
            content = _pickled(transform)
        except (pickle.PicklingError, AttributeError, TypeError, RuntimeError) as error:
            raise SettingsError(
                f"{type(transform).__name__} cannot be part of a cache's key ({error}); define the function that it "
                "calls in a module, and give its dotted path."
            ) from error
        digest.update(content)
        modules = _Modules(io.BytesIO(content))
        modules.load()
        for name in sorted(modules.found):
            file = getattr(sys.modules.get(name), "__file__", None)
            if name.partition(".")[0] not in _KNOWN and file is not None:
                digest.update(Path(file).read_bytes())
    return digest.hexdigest().encode()


class _Pickler(pickle.Pickler):
    """Writes sets and tensors as every process would: pickle goes by a set's own order, torch adds an address."""

    def persistent_id(self, obj: Any) -> Any:
        """What makes ``obj``, and with which arguments; None for all else, which is written as ever."""
        if type(obj) in (set, frozenset):
            return type(obj), sorted(obj, key=_pickled)
        if isinstance(obj, Tensor) and obj.layout is torch.strided and not obj.is_quantized:
            values = obj.detach().cpu().as_subclass(Tensor).clone(memory_format=torch.contiguous_format)
            content = values.reshape(-1).view(torch.uint8).numpy()
            return _tensor, content, obj.dtype, tuple(obj.shape), type(obj), vars(obj)
        return None


def _pickled(value: Any) -> bytes:
    content = io.BytesIO()
    _Pickler(content, protocol=4).dump(value)
    return content.getvalue()


def _tensor(content: NDArray[np.uint8], dtype: torch.dtype, shape: tuple[int, ...], *_: Any) -> Tensor:
    return torch.from_numpy(content).view(dtype).reshape(shape)


class _Modules(pickle.Unpickler):
    """Finds the modules of the classes, of those that they inherit from, and of the functions in what was pickled."""

    def __init__(self, content: io.BytesIO) -> None:
        super().__init__(content)
        self.found: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        self.found |= {module, *(base.__module__ for base in getattr(found, "__mro__", ()))}
        return found

    def persistent_load(self, pid: Any) -> Any:
        make, *arguments = pid
        return make(*arguments)
