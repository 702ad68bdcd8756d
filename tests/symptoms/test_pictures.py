import math

import numpy as np
import pytest

from trainwatch.diagnosis import to_plain
from trainwatch.figures import figure_from_plain
from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import POINTS, thin
from trainwatch.symptoms.pictures import COLUMNS, ROWS, figures_of


def with_gradients(norms, kinds=None, steps=None, orders=None):
    width = norms.shape[1]
    kinds = kinds or ["weight"] * width
    record = RunRecord()
    parameters = [
        {"name": f"p{i}", "numel": 4, "kind": kind, "order": orders[i] if orders else i} for i, kind in enumerate(kinds)
    ]
    record.set_fact("parameters", parameters)
    record.set_fact("optimizers", {"default": {"type": "SGD", "parameters": list(range(width)), "groups": []}})
    record.append("grad_norm", "default", np.arange(len(norms)) if steps is None else steps, norms)
    return record


def with_losses(train, val=(), stream="cross_entropy"):
    record = RunRecord()
    record.append("train_loss", stream, np.arange(len(train)), np.asarray(train, float))
    record.append("train_loss", "root", np.arange(len(train)), np.asarray(train, float))
    record.append("val_loss", "val", 10 * np.arange(len(val)), np.asarray(val, float))
    return record


def test_an_empty_record_has_no_pictures():
    assert figures_of(RunRecord()) == {}


def test_every_picture_survives_json():
    record = with_gradients(np.ones((5, 3)))
    record.append("train_loss", "root", np.arange(5), np.arange(5.0))
    record.append("val_confusion", "val", 5, np.eye(3))
    figures = figures_of(record)
    assert list(figures) == ["loss", "gradients", "classes"]
    for figure in figures.values():
        assert figure_from_plain({"kind": figure.kind, **to_plain(figure)}) == figure


@pytest.mark.parametrize("n", [1, 2, 199, 200, 201, 399, 401, 5000])
def test_thinning_keeps_ends_and_bounds(n):
    line = thin(np.arange(n), np.arange(n, dtype=float))
    assert len(line) <= POINTS
    assert len(line) >= min(n, POINTS // 2)
    assert all(abs(step - value) <= 1 for step, value in line)
    width = -(-n // POINTS)
    assert line[0][0] <= width
    assert line[-1][0] >= n - 1 - width


def test_thinning_is_robust_and_leaves_out_what_is_not_finite():
    values = np.ones(2000)
    values[::10] = 1e9
    values[5] = np.inf
    assert {value for _, value in thin(np.arange(2000), values)} == {1.0}


def test_a_root_that_repeats_its_only_criterion_is_not_drawn():
    assert list(figures_of(with_losses([3, 2, 1]))["loss"].lines) == ["train cross_entropy"]
    record = with_losses([3, 2, 1])
    record.append("train_loss", "kl", [0], [0.5])
    assert list(figures_of(record)["loss"].lines) == ["train cross_entropy", "train kl", "train root"]


def test_the_criterion_of_validation_comes_first():
    record = with_losses([3, 2, 1], [3, 2])
    record.append("train_loss", "kl", [0], [0.5])
    record.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "kl"}})
    assert list(figures_of(record)["loss"].lines) == ["train kl", "train cross_entropy", "train root", "val"]


def test_marks_name_the_lowest_validation_loss_and_the_first_that_is_not_finite():
    figure = figures_of(with_losses([1.0, 2.0, np.inf, np.inf], [3.0, 1.0, 2.0]))["loss"]
    assert figure.marks == {2: "first loss that is not finite", 10: "lowest validation loss"}


@pytest.mark.parametrize(("lowest", "log"), [(0.01, True), (0.5, False), (-0.01, False)])
def test_a_wide_positive_range_is_drawn_on_a_log_scale(lowest, log):
    assert figures_of(with_losses([1.0, lowest]))["loss"].log_y is log


def test_gradients_are_rms_of_weights_in_order_of_execution():
    norms = np.tile([[2.0, 6.0, 4.0]], (3, 1))
    figure = figures_of(with_gradients(norms, ["weight", "bias", "recurrent"], orders=[5, 0, 1]))["gradients"]
    assert figure.rows == ("p2", "p0")
    assert figure.values == ((2.0, 2.0, 2.0), (1.0, 1.0, 1.0))
    assert figure.columns == (0, 1, 2)


def test_the_heatmap_is_bounded():
    figure = figures_of(with_gradients(np.ones((1000, 300))))["gradients"]
    assert (len(figure.rows), len(figure.columns)) == (ROWS, COLUMNS)
    assert {len(row) for row in figure.values} == {COLUMNS}
    assert (figure.rows[0], figure.rows[-1]) == ("p0", "p299")


def test_cells_are_medians_of_what_is_finite():
    norms = np.full((500, 2), 2.0)
    norms[::5, 0] = 1e9
    norms[1::5, 0] = np.inf
    norms[:, 1] = np.nan
    figure = figures_of(with_gradients(norms))["gradients"]
    assert set(figure.values[0]) == {1.0}
    assert all(math.isnan(v) for v in figure.values[1])


def test_a_step_without_a_row_of_its_own_optimiser_is_empty():
    record = with_gradients(np.full((2, 1), 2.0), steps=[0, 2])
    record.set_fact(
        "parameters", [*record.facts["parameters"], {"name": "q", "numel": 4, "kind": "weight", "order": 1}]
    )
    record.set_fact("optimizers", {"default": {"parameters": [0]}, "other": {"parameters": [1]}})
    record.append("grad_norm", "other", [1, 3], [[4.0], [4.0]])
    figure = figures_of(record)["gradients"]
    assert figure.columns == (0, 1, 2, 3)
    np.testing.assert_array_equal(figure.values, [[1, np.nan, 1, np.nan], [np.nan, 2, np.nan, 2]])


def test_classes_show_share_and_recall():
    record = RunRecord()
    record.set_fact("class_names", ["cat", "dog"])
    record.append("train_classes", "targets", [9, 19], [[30, 10, 5], [30, 10, 5]])
    record.append("val_confusion", "val", [9, 19], [[[0, 1], [0, 1]], [[3, 1], [1, 1]]])
    figure = figures_of(record)["classes"]
    assert figure.labels == ("cat", "dog")
    assert figure.groups == {"share of training samples": (0.75, 0.25), "validation recall": (0.75, 0.5)}


def test_labels_are_shares_of_the_samples():
    record = RunRecord()
    record.append("train_classes", "labels", [9], [[50, 25, 100]])
    assert figures_of(record)["classes"].groups == {"share of training samples": (0.5, 0.25)}


def test_a_class_without_validation_samples_has_no_recall():
    record = RunRecord()
    record.append("val_confusion", "val", [9], [[[3, 1], [0, 0]]])
    recall = figures_of(record)["classes"].groups["validation recall"]
    assert recall[0] == 0.75
    assert math.isnan(recall[1])


def test_too_many_classes_are_not_drawn():
    record = RunRecord()
    record.append("train_classes", "targets", [9], np.ones((1, 66)))
    assert "classes" not in figures_of(record)


def test_the_noise_of_validation_is_shaded_behind_its_own_line():
    record = with_losses([2.0, 1.5, 1.0])
    record.append("val_group_size", "val", 0, np.ones(16))
    for step in (1, 2):
        record.append("val_loss", "val", step, 1.0)
        record.append("val_sample_loss", "val", step, np.linspace(0.5, 1.5, 16))
    record.set_fact("validation", {"val": {"kind": "val", "primary": True, "paired": False}})
    loss = figures_of(record)["loss"]
    assert list(loss.bands) == ["val"]
    assert loss.title == "Loss (shaded: two standard errors)"
    assert figure_from_plain({"kind": "curve", **to_plain(loss)}).bands["val"][1][0] == 2
    assert figures_of(with_losses([2.0], [1.0]))["loss"].bands == {}
