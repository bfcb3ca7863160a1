"""Writes what a committee says of each image: segmentation, uncertainty map, and a row of a table."""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys
from numpy.typing import NDArray

from svgd_monai.errors import SettingsError
from svgd_monai.evaluation.transforms import UNCERTAINTY
from svgd_monai.files import write_bytes, write_csv
from svgd_monai.statistics import VOTES, agreement_row
from svgd_monai.temporaries import remove_temporaries
from svgd_monai.words import count

logger = logging.getLogger(__name__)

INFERENCE_FILE = "inference.csv"
#: Where voxels lie, as a NIfTI header says it twice, and in what unit.
GEOMETRY = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
            "srow_x", "srow_y", "srow_z", "xyzt_units")  # fmt: skip


class CaseWriter:
    """Writes ``<case>_seg.nii.gz``, ``<case>_uncertainty.nii.gz`` and the case's row of ``inference.csv``.

    This handler takes the place of MONAI's ``SaveImaged``, which writes in place, so that a kill leaves half a mask;
    makes a volume of one slice 2D; writes a header of its own, which viewers may read otherwise than the scan's; and
    hides a full disk behind "cannot find a suitable writer". Each file here appears at once and whole, the row last.

    All numbers of a row are measured on the files as written, except the agreement, measured on the working grid.

    A mask is of the smallest unsigned type that holds its values, so a post-processing may give the classes other
    numbers, as ``MapLabelValued`` does. Where a mask holds a value that is none of ``classes``, nobody here knows which
    class it stands for: the volumes of that row are empty. Numbers that are exchanged among the classes go unnoticed.

    Args:
        folder: where.
        classes: name of each label value, background 0 included.
        num_members: M, of the committee.
    """

    def __init__(self, folder: str | os.PathLike[str], classes: Mapping[int, str], num_members: int) -> None:
        self.folder = Path(folder)
        self.classes = {value: name for value, name in sorted(classes.items()) if value > 0}
        self.num_members = num_members
        self.rows: list[dict[str, Any]] = []
        self._written = 0  # rows in the table on disk
        self.columns = ["case", "image"]
        self.columns += [f"volume_ml_{name}" for name in self.classes.values()]
        self.columns += ["uncertainty", "uncertainty_foreground", "agreement_dice"]
        self.columns += [f"agreement_dice_{name}" for name in self.classes.values()]

    def attach(self, engine: Engine) -> None:
        """Attach to a :class:`~svgd_monai.committee.evaluator.CommitteeEvaluator` that counts votes."""
        engine.add_event_handler(Events.STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def reset(self, engine: Engine) -> None:
        """Forget the last run, and remove what one that was killed has left half written."""
        self.rows.clear()
        self._written = 0
        remove_temporaries(self.folder)

    def write(self, engine: Engine) -> None:
        """Write the cases of a batch, post-processed: ``pred`` (1, X, Y, Z) classes, ``uncertainty`` (1, X, Y, Z).

        Raises:
            SettingsError: a volume is not on the grid of its image's file, or a mask holds fractions or values below 0.
            OSError: the file system refuses; what stood there stands.
        """
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            case, scan = str(item["case"]), str(item[Keys.IMAGE].meta["filename_or_obj"])
            mask = _whole_numbers(output[Keys.PRED].squeeze(0).cpu().numpy(), case)
            uncertainty = output[UNCERTAINTY].squeeze(0).cpu().numpy().astype(np.float32)
            images = {"seg": volume_like(mask, scan), UNCERTAINTY: volume_like(uncertainty, scan)}
            for name, image in images.items():
                write_bytes(self.folder / f"{case}_{name}.nii.gz", gzip.compress(image.to_bytes(), 1, mtime=0))
            agreement = agreement_row(output[VOTES], self.num_members, list(self.classes.values()))
            voxel_ml = float(abs(np.linalg.det(images["seg"].affine[:3, :3]))) / 1000.0
            self.rows.append({"case": case, "image": scan} | self._row(mask, uncertainty, voxel_ml) | agreement)
            # A run that is cut off has the rows of what it left; of many, all but the last in a hundred, for each time
            # the whole table is written.
            if len(self.rows) - self._written > self._written // 100:
                self._write_table()

    def finish(self, engine: Engine) -> None:
        """Write the rows that are not on disk yet."""
        if len(self.rows) > self._written:
            self._write_table()
        logger.info("%s segmented in %s", count(len(self.rows), "image"), self.folder)

    def _write_table(self) -> None:
        write_csv(self.folder / INFERENCE_FILE, self.columns, self.rows)
        self._written = len(self.rows)

    def _row(self, mask: NDArray[Any], uncertainty: NDArray[Any], voxel_ml: float) -> dict[str, Any]:
        inside = uncertainty[mask > 0]
        voxels = {name: np.count_nonzero(mask == value) for value, name in self.classes.items()}
        known = sum(voxels.values()) == inside.size
        row: dict[str, Any] = {
            f"volume_ml_{name}": float(count) * voxel_ml if known else None for name, count in voxels.items()
        }
        row["uncertainty"] = float(uncertainty.mean(dtype=np.float64))
        row["uncertainty_foreground"] = float(inside.mean(dtype=np.float64)) if inside.size else None
        return row


def _whole_numbers(values: NDArray[Any], case: str) -> NDArray[Any]:
    """The values in the smallest unsigned type that holds them."""
    low, high = values.min(), values.max()
    if low >= 0 and float(high) < 2.0**64:
        mask = values.astype(np.min_scalar_type(int(high)))
        if np.array_equal(mask, values):
            return mask
    raise SettingsError(
        f"postprocessing: the segmentation of case {case} holds values from {low:g} to {high:g} that are not all whole "
        "numbers from 0; it must end with one class a voxel."
    )


def volume_like(values: NDArray[Any], scan: str | os.PathLike[str]) -> Any:
    """A NIfTI image of ``values`` that every viewer lays over the scan, whichever part of the header it reads.

    The header's geometry (sform, qform, their codes, voxel sizes, unit) is the scan's to the last bit; nothing else of
    it goes on, for its texts may name a patient.

    Args:
        values: (X, Y, Z), in the order of the scan's voxels.
        scan: its file, NIfTI-1 or NIfTI-2.

    Raises:
        SettingsError: ``values`` has another shape than the scan.
    """
    source = nib.load(scan)
    if values.shape != source.shape[:3]:
        raise SettingsError(
            f"postprocessing: a result of the shape {values.shape} does not lie on the grid of {scan}, which is "
            f"{source.shape[:3]}; the postprocessing must end with the inverse of the preprocessing."
        )
    header = type(source.header)()
    header.set_data_shape(values.shape)
    header.set_data_dtype(values.dtype)
    for field in GEOMETRY:
        header[field] = source.header[field]
    header["pixdim"][:4] = source.header["pixdim"][:4]
    return type(source)(values, header.get_best_affine(), header)
