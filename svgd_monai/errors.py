"""What can go wrong for reasons a user can mend.

Library code raises these; only :mod:`svgd_monai.workflow.boundary` turns them into an exit of the program.
"""

from __future__ import annotations

from collections.abc import Iterator


class SvgdMonaiError(Exception):
    """Base of all errors whose message is one plain sentence that names the file, case or key at fault."""


class SettingsError(SvgdMonaiError):
    """A configuration key is unknown, of the wrong type, or out of range."""


class DataError(SvgdMonaiError):
    """A data set, data list, split or volume is missing or wrong."""


class CheckpointError(SvgdMonaiError):
    """A committee file is missing, damaged, or does not fit the network."""


class TrainingError(SvgdMonaiError):
    """A training cannot go on: its particles are no longer finite, or no longer differ."""


class RunFolderError(SvgdMonaiError):
    """A run's folder is in use, damaged, or belongs to other settings."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it or was being handled as it was raised, and so on; each once.

    They can go round in a circle: a writer that raises its first error again as it is closed, while another that this
    one caused is handled, makes that the context of its own cause.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
