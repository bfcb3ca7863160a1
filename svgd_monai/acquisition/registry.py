"""A strategy of the user's own, named in a configuration by its dotted path.

A file ``mine.py`` in the current folder or on PYTHONPATH,

    from svgd_monai.acquisition import strategy

    @strategy(uncertainty_map="bald", uses_information=True)
    def least_known(view, options, query):
        return -view.information

is run by ``acquisition: mine.least_known``. Without the decorator, or attributes of its names on the function, the
strategy gets the entropy and no mutual information.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from svgd_monai.acquisition.uncertainty import UNCERTAINTY_NAMES, UncertaintyName
from svgd_monai.acquisition.view import ScoreFunction, Strategy
from svgd_monai.errors import SettingsError
from svgd_monai.files import reason


def strategy(
    uncertainty_map: UncertaintyName = "entropy", uses_information: bool = False
) -> Callable[[ScoreFunction], Strategy]:
    """Decorate a function ``(PoolView, ScoreOptions, Query) -> (N,) scores``: it becomes a :class:`Strategy`'s `score`.

    Args:
        uncertainty_map: the map whose reduction `PoolView.uncertainty` holds.
        uses_information: whether `PoolView.information` and `PoolView.pairs` are needed.

    Raises:
        SettingsError: there is no such map.
    """
    if uncertainty_map not in UNCERTAINTY_NAMES:
        known = ", ".join(UNCERTAINTY_NAMES)
        raise SettingsError(f"@strategy(uncertainty_map=...) takes one of {known}, got {uncertainty_map!r}.")

    def make(function: ScoreFunction) -> Strategy:
        return Strategy(getattr(function, "__name__", "strategy"), uncertainty_map, uses_information, function)

    return make


def is_dotted_path(name: str) -> bool:
    """Tell whether a name has the form ``module.function``."""
    return "." in name and all(part.isidentifier() for part in name.split("."))


def resolve_strategy(path: str) -> Strategy:
    """Import a user's strategy.

    Args:
        path: ``module.attribute`` or ``package.module.attribute``, of a :class:`Strategy` or a function
            ``(PoolView, ScoreOptions, Query) -> (N,) scores``; case counts.

    Returns:
        The strategy, its name being the path.

    Raises:
        SettingsError: the module is not there or fails to import, has no such attribute, or the attribute is neither.
    """
    module, _, attribute = path.rpartition(".")
    found = _attribute(path, module, attribute)
    if isinstance(found, Strategy):
        return Strategy(path, found.uncertainty_map, found.uses_information, found.score)
    if not callable(found) or inspect.isclass(found) or not _takes_three(found):
        if inspect.isclass(found):
            kind = "is a class"
        else:
            kind = "takes others" if callable(found) else f"is of the type {type(found).__name__}"
        wanted = "a function of three arguments (view, options, query)"
        raise _refusal(path, f"{attribute} must be {wanted} and {kind}")
    uncertainty_map: Any = getattr(found, "uncertainty_map", "entropy")
    if uncertainty_map not in UNCERTAINTY_NAMES:
        raise _refusal(path, f"its uncertainty_map {uncertainty_map!r} is not one of {', '.join(UNCERTAINTY_NAMES)}")
    return Strategy(path, uncertainty_map, bool(getattr(found, "uses_information", False)), found)


def _attribute(path: str, module: str, attribute: str) -> Any:
    try:
        imported = importlib.import_module(module)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            where = "the current folder or on PYTHONPATH"
            raise _refusal(path, f"there is no module {missing} in {where}") from error
        raise _refusal(path, f"importing {module} ended with {reason(error).rstrip('.')}") from error
    if not hasattr(imported, attribute):
        raise _refusal(path, f"the module {module} has no {attribute}")
    return getattr(imported, attribute)


def _takes_three(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return True
    return True


def _refusal(path: str, why: str) -> SettingsError:
    return SettingsError(f"acquisition: {path} cannot be used, {why}.")
