"""Whether the components that a configuration names are there, before the hours that pass until one is made."""

from __future__ import annotations

import inspect
import pydoc
import warnings

from monai.bundle import ConfigComponent, ConfigExpression, ConfigParser, ReferenceResolver

from svgd_monai.errors import SettingsError
from svgd_monai.workflow.sentences import no_component


def check_targets(parser: ConfigParser) -> None:
    """Look every component up and compare its keywords with those that it takes; nothing is made.

    What is disabled, or found by an expression, is left to its time, and so are the keywords' values.

    Args:
        parser: of a configuration, parsed and not evaluated.

    Raises:
        SettingsError: there is no such component, or it takes other keywords.
        pydoc.ErrorDuringImport: the module of one cannot be imported.
    """
    for item in parser.ref_resolver.items.values():
        if isinstance(item, ConfigComponent) and not _is_left(item):
            with warnings.catch_warnings():  # of a name that several components have; MONAI says so when it makes one
                warnings.simplefilter("ignore")
                name = item.resolve_module_name()
            _check(name, item)


def _is_left(item: ConfigComponent) -> bool:
    target, disabled = (item.get_config().get(key) for key in ("_target_", "_disabled_"))
    return not isinstance(target, str) or any(map(_is_computed, (target, disabled))) or item.is_disabled()


def _is_computed(word: object) -> bool:
    return ConfigExpression.is_expression(word) or bool(ReferenceResolver.match_refs_pattern(str(word)))


def _check(name: str, item: ConfigComponent) -> None:
    component = pydoc.locate(name)
    if component is None:
        raise SettingsError(no_component(repr(name)))
    if not callable(component):
        return
    try:
        signature = inspect.signature(component)
    except (TypeError, ValueError):  # of some that are written in C
        return
    given = item.resolve_args()
    try:
        signature.bind_partial(**given)  # which tells of one that is unknown before one that is missing
        if item.get_config().get("_mode_") != "callable":
            signature.bind(**given)
    except TypeError as error:
        raise SettingsError(f"_target_: {name}() {error}.") from error
