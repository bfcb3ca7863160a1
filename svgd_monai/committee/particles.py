"""A committee of M networks of one architecture, held as one parameter."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from svgd_monai.committee.architecture import check_network, check_window
from svgd_monai.errors import SettingsError
from svgd_monai.seeding import derive_seed

T = TypeVar("T")


class Particles(nn.Module):
    """M particles θ_1..θ_M, each the flattened parameters of one network.

    All parameters live in ``values``, one ``nn.Parameter`` of shape (M, D): one optimiser, one tensor in a checkpoint,
    and the matrices X and G of SVGD without a copy. The network itself is kept once, on the meta device, as a skeleton
    that ``torch.func.functional_call`` fills with views of a row.

    Args:
        network: a network, of which each member is a copy, initialised anew by its layers' ``reset_parameters``; or a
            callable that returns a fresh network, for architectures with an initialisation of their own.
        num_particles: M.
        seed: of the initialisation. Member m depends on ``seed`` and m alone, not on M.
        window: (C_in, ...), the shape of its future input, which is tried at once; None tries nothing.
        num_classes: C, the number of channels that its logits must have; None does not check.

    Raises:
        SettingsError: M is below 1; the network has buffers (batch normalisation) or no parameters; one of its
            parameters is tied, frozen, lazy, or initialised by no ``reset_parameters``; or it does not turn a window
            into logits of the same size.
    """

    def __init__(
        self,
        network: nn.Module | Callable[[], nn.Module],
        num_particles: int,
        seed: int = 0,
        window: Sequence[int] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if num_particles < 1:
            raise SettingsError(f"num_particles: {num_particles} is below 1.")
        rows = []
        for member in range(num_particles):
            with _seeded(derive_seed(seed, "member", member)):
                fresh = _reinitialised(network) if isinstance(network, nn.Module) else fresh_network(network)
            if member == 0:
                check_network(fresh)
                skeleton = copy.deepcopy(fresh).to("meta")
                if window is not None:
                    check_window(copy.deepcopy(skeleton), window, num_classes)
            rows.append(torch.cat([p.detach().reshape(-1).float() for p in fresh.parameters()]))
        self.values = nn.Parameter(torch.stack(rows))
        # In a tuple, for nn.Module would register it as a submodule, and its meta tensors cannot move to a device.
        self._skeleton = (skeleton,)
        self._layout = [(name, tuple(p.shape)) for name, p in skeleton.named_parameters()]
        self._sizes = [math.prod(shape) for _, shape in self._layout]

    @property
    def num_particles(self) -> int:
        """M."""
        return self.values.shape[0]

    @property
    def layout(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of every parameter, in the order in which a row of ``values`` holds them."""
        return list(self._layout)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of all members: (B, C_in, ...) -> (M, B, C, ...), differentiable in ``values``."""
        return torch.stack(list(self.members(x)))

    def members(self, x: Tensor) -> Iterator[Tensor]:
        """Logits of one member after the other, each (B, C, ...): the memory of one network."""
        for row in self.values.unbind(0):
            yield functional_call(self._skeleton[0], self.unflatten(row), (x,))

    def unflatten(self, row: Tensor) -> dict[str, Tensor]:
        """Views of a flat row (D,) as the network's named parameters."""
        pieces = torch.split(row, self._sizes)
        return {name: piece.view(shape) for (name, shape), piece in zip(self._layout, pieces, strict=True)}

    def member(self, index: int, x: Tensor) -> Tensor:
        """Logits (B, C, ...) of one member whose gradient lands in place in row ``index`` of ``values.grad``.

        ``values.grad`` must exist: see :meth:`zero_grad`.
        """
        return self.with_member(index, lambda network: cast(Tensor, network(x)))

    def with_member(self, index: int, work: Callable[[nn.Module], T]) -> T:
        """``work(network)``, where the network is a member until ``work`` returns; gradients as in :meth:`member`.

        A network with activation checkpointing (``torch.utils.checkpoint``) runs parts of itself again in the backward
        pass, so its ``backward()`` belongs into ``work``.

        The leaves of the graph are views of the row, and their ``.grad`` views of the gradient's row, so that a
        ``backward()`` needs no memory of size (M, D).

        Args:
            index: the member's row, 0 to M − 1.
            work: takes the network, from (B, C_in, ...) to logits (B, C, ...).

        Returns:
            What ``work`` returns.

        Raises:
            RuntimeError: ``values.grad`` does not exist.
        """
        if self.values.grad is None:
            raise RuntimeError("call zero_grad() first: values.grad is where the members' gradients land.")
        leaves = self.unflatten(self.values.detach()[index])
        gradients = self.unflatten(self.values.grad[index])
        for name, leaf in leaves.items():
            leaf.requires_grad_()
            leaf.grad = gradients[name]
        within = _Within(self._skeleton[0])
        return cast(T, functional_call(within, {f"network.{name}": leaf for name, leaf in leaves.items()}, (work,)))

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Make ``values.grad`` zero and keep its memory (None would send the members' gradients nowhere)."""
        if set_to_none:
            self.values.grad = None
        elif self.values.grad is None:
            self.values.grad = torch.zeros_like(self.values)
        else:
            self.values.grad.zero_()

    def train(self, mode: bool = True) -> Particles:
        """Set the mode of the skeleton as well: dropout is in it."""
        super().train(mode)
        self._skeleton[0].train(mode)
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load ``values``, or the parameters of as many plain networks.

        The second is the form of :class:`~svgd_monai.committee.mean.CommitteeMean`, and so of a bundle's
        ``models/model.pt``: MONAI's own ``CheckpointLoader`` puts it into a training.

        Args:
            state_dict: ``{"values": (M, D)}`` or ``{"networks.<member>.<parameter>": tensor}``.
            strict: as for any module.
            assign: likewise.

        Raises:
            RuntimeError: a key is missing or left over (``strict``; of plain networks in any case), or a shape differs.
        """
        if "values" not in state_dict and state_dict:
            state_dict = self._flattened(state_dict)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _flattened(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """``{"values": (M, D)}`` of the parameters of M networks."""
        names = [f"networks.{member}.{name}" for member in range(self.num_particles) for name, _ in self._layout]
        if set(state) != set(names):
            odd = sorted(set(state) ^ set(names))
            raise RuntimeError(f"the state is not that of {self.num_particles} networks of this kind: see {odd[0]}.")
        shapes = [shape for _ in range(self.num_particles) for _, shape in self._layout]
        for name, shape in zip(names, shapes, strict=True):
            if tuple(state[name].shape) != shape:
                raise RuntimeError(f"{name} has the shape {tuple(state[name].shape)}, but {shape} is needed.")
        flat = torch.cat([state[name].detach().reshape(-1).to(self.values) for name in names])
        return {"values": flat.reshape(self.values.shape)}

    def network(self, index: int) -> nn.Module:
        """A plain module with a copy of member ``index``, for export."""
        module = copy.deepcopy(self._skeleton[0]).to(self.values.dtype).to_empty(device=self.values.device)
        with torch.no_grad():
            for name, value in self.unflatten(self.values.detach()[index]).items():
                module.get_parameter(name).copy_(value)
        return module


class _Within(nn.Module):
    """Hands a network on while ``functional_call`` fills it, which it does for one call of a module."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, work: Callable[[nn.Module], Any]) -> Any:
        return work(self.network)


#: What stands between a call and a constructor that MONAI decorates, and finds the arguments that do not fit.
_CALLS = {"monai.utils.deprecate_utils", "inspect"}


def fresh_network(architecture: Callable[[], nn.Module]) -> nn.Module:
    """A network of an architecture.

    Raises:
        SettingsError: its arguments do not fit it.
    """
    try:
        return architecture()
    except TypeError as error:
        within = {frame.f_globals.get("__name__") for frame, _ in list(walk_tb(error.__traceback__))[1:]}
        if within <= _CALLS:  # the call itself, nothing within
            raise SettingsError(f"architecture: {error}.") from error
        raise


def _reinitialised(network: nn.Module) -> nn.Module:
    fresh = copy.deepcopy(network)
    covered: set[int] = set()
    for module in fresh.modules():
        reset: Any = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            covered.update(id(p) for p in module.parameters())
    missed = [name for name, p in fresh.named_parameters() if id(p) not in covered]
    if missed:
        raise SettingsError(
            f"architecture: {type(network).__name__} has parameters that no reset_parameters() initialises "
            f"({missed[0]}); give Particles a callable that returns a fresh network."
        )
    return fresh


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would change the GPUs' streams as well
        yield
