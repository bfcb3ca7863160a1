"""Which optimisers can move particles."""

from __future__ import annotations

from torch.optim import Optimizer

from svgd_monai.errors import SettingsError

#: Of torch, of MONAI and of others: one norm, factor or search over a whole tensor, in which all particles lie.
MIXING = ("Adafactor", "LAMB", "LARS", "LBFGS", "Lamb", "Muon", "Novograd")


def check_optimizer(optimizer: Optimizer) -> None:
    """Whether an optimiser moves each particle by that particle's own row of −φ alone.

    All particles are one tensor (M, D): an optimiser that works element by element, as Adam and SGD do, keeps them
    apart; one with a statistic over a whole tensor mixes them.

    Raises:
        SettingsError: it mixes them, has a weight decay, or ascends.
    """
    name = type(optimizer).__name__
    if any(kind.__name__ in MIXING for kind in type(optimizer).__mro__):
        raise SettingsError(
            f"optimizer: {name} takes a statistic over a whole tensor, which would mix the particles; choose one that "
            "works element by element, such as Adam or SGD."
        )
    if any(group.get("maximize") for group in optimizer.param_groups):
        raise SettingsError(f"optimizer: {name} with maximize goes up along −φ, away from the posterior; leave it out.")
    decay = max(group.get("weight_decay", 0) for group in optimizer.param_groups)
    if decay:
        raise SettingsError(
            f"optimizer: {name} has a weight_decay of {decay:g}, but the prior is part of the posterior's step; "
            "set weight_decay: 0, and prior_std for the prior."
        )
