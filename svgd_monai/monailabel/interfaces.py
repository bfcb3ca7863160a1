"""What this room builds on in MONAI Label, or the one sentence that says how to get it."""

from __future__ import annotations

import importlib.util
import site
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    import monailabel
    from monailabel.interfaces.datastore import Datastore
    from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException
    from monailabel.interfaces.tasks.scoring import ScoringMethod
    from monailabel.interfaces.tasks.strategy import Strategy
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "monailabel":  # something that it needs in turn
        raise
    raise ImportError("MONAI Label is not installed: pip install svgd_monai[monailabel]") from None

__all__ = [
    "Datastore",
    "ImageNotFoundException",
    "MONAILabelError",
    "MONAILabelException",
    "ScoringMethod",
    "Strategy",
    "app_base",
    "device_of",
    "stock_app",
    "stock_file",
]


def app_base() -> Any:
    """``MONAILabelApp``, whose module reaches every kind of datastore and server; imported where an app is made."""
    from monailabel.interfaces.app import MONAILabelApp

    return MONAILabelApp


def device_of(request: Mapping[str, Any]) -> str | None:
    """The device that a request names, as torch does; None where it names none."""
    from monailabel.utils.others.generic import name_to_device

    device = request.get("device")
    return str(name_to_device(device)) if device else None


def stock_app() -> Any:
    """``MyApp`` of the installed sample app ``monaibundle``.

    Raises:
        ImportError: MONAI Label came without its sample apps.
    """
    spec = importlib.util.spec_from_file_location("svgd_monai_stock_monaibundle", stock_file())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MyApp


def stock_file() -> Path:
    """``main.py`` of the installed sample app ``monaibundle``.

    Raises:
        ImportError: MONAI Label came without its sample apps.
    """
    prefixes = (sysconfig.get_path("data"), site.getuserbase())  # where pip puts a package's data files
    places = (Path(monailabel.__file__).parents[1], *(Path(prefix) / "monailabel" for prefix in prefixes))
    files = [place / "sample-apps" / "monaibundle" / "main.py" for place in places]
    for file in files:
        if file.is_file():
            return file
    raise ImportError(f"MONAI Label's sample app monaibundle was not found; looked for {', '.join(map(str, files))}.")
