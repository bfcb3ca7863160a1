"""The picture of a case on a worklist."""

import nibabel as nib
import numpy as np
import pytest

from svgd_monai.report.page import png
from svgd_monai.report.worklist_panel import greatest, worklist_panel

LEVEL = 6


@pytest.fixture(params=["RAS", "LPS", "PIL"])
def files(request, tmp_path):
    """Image, pre-segmentation and uncertainty, in one of three orientations; slice 6 of RAS is unsure."""
    affine = np.diag([1.5, 1.0, 2.0, 1.0])
    image = np.zeros((20, 24, 10), np.float32)
    image[3:9, 10:20, LEVEL] = 100  # left and anterior
    mask = np.zeros(image.shape, np.uint8)
    mask[4:8, 11:19, LEVEL - 3 : LEVEL + 2] = 1
    uncertainty = np.full(image.shape, 0.1, np.float32)
    uncertainty[..., LEVEL] = 0.6
    uncertainty[..., 9] = 0.9  # more, but there is nothing in that slice
    orientation = nib.orientations.axcodes2ornt(request.param)
    paths = []
    for name, values in (("image", image), ("seg", mask), ("uncertainty", uncertainty)):
        stored = nib.Nifti1Image(values, affine).as_reoriented(
            nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), orientation)
        )
        paths.append(tmp_path / f"{name}.nii.gz")
        nib.save(stored, paths[-1])
    return paths


def test_the_most_uncertain_slice_with_foreground_is_shown_however_the_file_is_oriented(files):
    figure = worklist_panel(*files, ["background", "organ_a"])
    first, second, third = figure.axes[:3]
    assert first.get_title() == f"slice {LEVEL + 1} of 10 from below, S = {2.0 * LEVEL:.1f} mm"
    assert all(axis.get_aspect() == pytest.approx(1 / 1.5) for axis in figure.axes[:3]), "in true proportion"
    assert [text.get_text() for text in first.texts] == ["R", "L"]
    shown = np.asarray(first.images[0].get_array())
    assert shown.shape == (24, 20)
    assert (shown[10:20, 11:17] == 1).all(), "the patient's left at the right, as viewers show it, and anterior up"
    assert shown.sum() == pytest.approx(60)
    assert third.images[0].get_array().max() == pytest.approx(0.6)
    contours = [path for each in second.collections for path in each.get_paths()]
    corners = np.concatenate([path.vertices for path in contours])
    assert corners.min(0) == pytest.approx([11.5, 10.5])
    assert corners.max(0) == pytest.approx([15.5, 18.5])
    assert [text.get_text() for text in second.get_legend().get_texts()] == ["organ a"]


def test_without_a_pre_segmentation_the_middle_slice_is_shown(files):
    (axis,) = worklist_panel(files[0]).axes
    assert axis.get_title() == "the middle slice"


def test_an_image_without_contrast_or_an_empty_pre_segmentation_is_drawn_too(files, tmp_path):
    image = nib.load(files[0])
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.full(image.shape, 7, np.int16), image.affine), flat)
    empty = tmp_path / "empty.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), empty)
    figure = worklist_panel(flat, empty, files[2], ["background", "organ"])
    assert figure.axes[1].get_legend() is None
    assert np.isfinite(figure.axes[0].images[0].get_array()).all()


@pytest.mark.parametrize("name", ["a$%$b", "tumour ($>5^$)", "organ $x$"])
def test_a_name_is_no_mathematics_whatever_dollar_signs_it_holds(files, name):
    figure = worklist_panel(*files, ["background", name])
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == [name]
    assert png(figure)


def test_pictures_of_a_list_share_their_colours_and_say_what_they_show(files):
    figure = worklist_panel(*files, ["background", "organ"], "bald (nats)", 2.5)
    assert figure.axes[2].get_title() == "bald (nats)"
    assert figure.axes[2].images[0].get_clim() == (0.0, 2.5)
    assert worklist_panel(*files).axes[2].images[0].get_clim() == (0.0, pytest.approx(greatest(files[2])))
    assert greatest(files[2]) == pytest.approx(0.9)
