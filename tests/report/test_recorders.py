import queue
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch.utils.tensorboard import SummaryWriter

from svgd_monai.acquisition.handler import COLUMNS
from svgd_monai.files import write_csv, write_json
from svgd_monai.report import PoolRecorder, RoundRecorder, case_panel, recorders, summary_writer
from svgd_monai.report.panels import uncertain_slice
from svgd_monai.report.recorders import dice_tag


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def case():
    torch.manual_seed(0)
    image, uncertainty = torch.rand(6, 8, 5), torch.rand(6, 8, 5) * 0.1
    truth = torch.zeros(6, 8, 5, dtype=torch.uint8)
    truth[2:4, 2:5, 3] = 1
    probability = torch.stack([(truth == 0).float(), (truth == 1).float(), torch.zeros(6, 8, 5)])
    return image, probability, uncertainty, truth


def test_the_picture_shows_the_least_sure_slice_with_foreground():
    uncertainty = torch.zeros(4, 4, 5)
    uncertainty[..., 0], uncertainty[..., 2], uncertainty[..., 3] = 0.9, 0.3, 0.5
    uncertainty[0, 0, 2] = 2.0  # a voxel, which is no slice
    foreground = torch.zeros(4, 4, 5, dtype=torch.bool)
    foreground[1, 1, 2:4] = True
    assert uncertain_slice(uncertainty, foreground) == 3
    assert uncertain_slice(uncertainty, torch.zeros_like(foreground)) == 0


def test_all_parts_of_the_picture_keep_the_proportions_of_the_voxels():
    image, probability, uncertainty, truth = case()
    figure = case_panel("a", image, probability, uncertainty, truth, aspect=2.5)
    assert [axis.get_aspect() for axis in figure.axes[:4]] == [2.5] * 4


def test_the_picture_changes_with_each_of_its_parts():
    image, probability, uncertainty, truth = case()
    reference = pixels(case_panel("a", image, probability, uncertainty, truth))
    assert not np.array_equal(reference, pixels(case_panel("a", 1 - image, probability, uncertainty, truth)))
    assert not np.array_equal(reference, pixels(case_panel("a", image, probability, uncertainty * 5, truth)))
    assert not np.array_equal(reference, pixels(case_panel("a", image, probability, uncertainty, 0 * truth)))
    assert not np.array_equal(reference, pixels(case_panel("a", image, probability.roll(1, 0), uncertainty, truth)))


def test_the_patients_right_is_at_the_left_as_viewers_show_it():
    image, probability, uncertainty, _ = case()
    image[:] = 0
    image[-1, 2, :] = 1  # RAS+: the last index is the patient's right
    axis = case_panel("a", image, probability, uncertainty).axes[0]
    shown = np.asarray(axis.images[0].get_array())
    assert shown[2, 0] == 1
    assert shown.sum() == 1
    assert {text.get_text(): text.get_position()[0] < 0.5 for text in axis.texts} == {"R": True, "L": False}


def test_the_colours_of_an_uncertainty_end_where_they_are_told_to_or_at_its_maximum():
    image, probability, uncertainty, _ = case()
    heats = [case_panel("a", image, probability, uncertainty, top=top).axes[3].images[0] for top in (0.5, None)]
    assert [heat.get_clim() for heat in heats] == [(0.0, 0.5), (0.0, pytest.approx(float(uncertainty.max())))]


def test_a_case_that_nobody_has_labelled_is_shown_without_truth():
    image, probability, uncertainty, _ = case()
    figure = case_panel("a", image, probability, uncertainty)
    assert figure.axes[1].get_title() == "truth unknown"


def test_each_queried_case_is_shown_with_its_own_image_and_truth(tmp_path, monkeypatch):
    """In the order of the queries, not in that of the pool; without truth where nobody reveals it."""
    write_csv(tmp_path / "scores.csv", COLUMNS, [])
    write_json(tmp_path / "queries.json", ["c", "a"])
    cases = {case: torch.full((1, 4, 4, 4), float(number)) for number, case in enumerate("abc")}

    class Pool:
        data = [{"case": case, "image": case} for case in cases]  # noqa: RUF012

        def __getitem__(self, index):
            return {"image": cases[self.data[index]["image"]], "affine": torch.diag(torch.tensor([-2.0, 6, 4, 1]))}

    def transform(files):
        return {"image": cases[files["image"]], "label": 10 + cases[files["label"]]}

    def inferer(images, _statistics):
        return torch.full((1, 2 + 2, *images.shape[2:]), 0.5)

    engine = SimpleNamespace(
        mode=lambda _: nullcontext(),
        network=None,
        statistics=None,
        inferer=inferer,
        state=SimpleNamespace(device="cpu"),
    )
    shown, places = [], []

    def panel(case, image, _probability, _uncertainty, truth, *more):
        shown.append((case, float(image.mean()), None if truth is None else float(truth.mean())))
        assert more[-1] == 3.0, "voxels of 2 mm by 6 mm"

    monkeypatch.setattr("svgd_monai.report.recorders.case_panel", panel)
    writer = SimpleNamespace(add_figure=lambda tag, _figure, step: places.append((tag, step)))
    PoolRecorder(writer, tmp_path, Pool(), {"c": "c"}, transform, step=3).record(engine)
    assert shown == [("c", 2.0, 12.0), ("a", 0.0, None)]
    assert places == [("queried/1", 3), ("queried/2", 3)]


@pytest.mark.parametrize(
    ("column", "tag"),
    [
        ("val_dice", "dice_validation/mean"),
        ("test_dice", "dice_test/mean"),
        ("test_dice_anterior", "dice_test/anterior"),
        ("test_dice_grid", "dice_test/grid"),
        ("seconds_train", None),
        ("unique_labels", None),
    ],
)
def test_dice_columns_have_tags_and_others_none(column, tag):
    assert dice_tag(column) == tag


def test_a_round_is_recorded_against_its_unique_labels(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = SummaryWriter(str(tmp_path))
    row = {"round": 0, "unique_labels": 7, "training_items": 9, "val_dice": 0.5, "test_dice": 0.25, "test_dice_a": None}
    RoundRecorder().after_round(SimpleNamespace(curve=[row], writer=writer), 0)
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("dice_test/mean")] == [(7, 0.25)]
    assert [(e.step, e.value) for e in events.Scalars("labels/training_items")] == [(0, 9.0)]
    assert "dice_test/a" not in events.Tags()["scalars"]


def test_a_record_of_which_the_thread_was_not_told_holds_the_end_up_for_seconds(tmp_path, monkeypatch):
    """As where a Ctrl-C falls between putting it into the queue and telling so."""
    monkeypatch.setattr(recorders, "FLUSH_SECONDS", 0.5)
    writer = summary_writer(tmp_path)
    writer.add_scalar("a", 1.0, 0)
    writer.flush()  # the thread now waits for the next flush
    monkeypatch.setattr(queue.Queue, "put", put_silently)
    writer.add_scalar("a", 1.0, 1)
    monkeypatch.undo()
    began = time.monotonic()
    writer.close()
    assert time.monotonic() - began < 5


def test_a_writer_takes_the_options_of_torchs(tmp_path):
    summary_writer(tmp_path, flush_secs=60, filename_suffix=".mine").close()
    (file,) = tmp_path.iterdir()
    assert file.name.endswith(".mine")


def put_silently(records, record):
    with records.mutex:
        records._put(record)
        records.unfinished_tasks += 1
