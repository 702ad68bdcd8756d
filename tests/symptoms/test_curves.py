import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import FEWEST, MAX_PASSES, noise_band, primary_stream, training_stream, validation_curve


def run(passes=6, columns=4):
    record = RunRecord()
    record.append("val_group_size", "val", 0, np.full(columns, 2.0))
    for i in range(passes):
        record.append("train_loss", "cross_entropy", [2 * i, 2 * i + 1], [10.0 - i, 8.0 - i])
        record.append("val_loss", "val", 2 * i + 2, 5.0 - i / 10)
        record.append("val_sample_loss", "val", 2 * i + 2, np.arange(columns) + i)
    record.set_fact(
        "validation", {"val": {"kind": "val", "primary": True, "criterion": "cross_entropy", "paired": True}}
    )
    return record


def test_training_is_averaged_between_the_passes():
    curve = validation_curve(run())
    assert curve.steps.tolist() == [2, 4, 6, 8, 10, 12]
    assert curve.training == pytest.approx([9, 8, 7, 6, 5, 4])
    assert curve.mean == pytest.approx([1.5, 2.5, 3.5, 4.5, 5.5, 6.5])
    assert curve.same_criterion
    assert curve.paired
    assert curve.start == 10.0


def test_columns_are_weighted_by_their_samples():
    record = run()
    record.append("val_group_size", "val", 1, [2.0, 0.0, 0.0, 6.0])
    curve = validation_curve(record)
    assert curve.mean[0] == pytest.approx(3 * 0.75)


def test_a_partial_pass_is_left_out_and_a_broken_column_too():
    record = run()
    record.append("val_sample_loss", "val", 14, [1.0, np.nan, np.nan, np.nan])
    assert len(validation_curve(record).steps) == 6
    record.append("val_sample_loss", "val", 16, [1.0, 1.0, 1.0, np.inf])
    curve = validation_curve(record)
    assert curve.losses.shape == (7, 3)
    assert np.isnan(curve.training[-1])


def test_of_two_passes_at_one_step_the_last_counts():
    record = run()
    record.append("val_sample_loss", "val", 12, [0.0, 0.0, 0.0, 0.0])
    assert validation_curve(record).mean[-1] == 0.0


def test_another_criterion_gives_no_common_scale():
    record = run()
    record.set_fact("validation", {"val": {"kind": "val", "criterion": "mse_loss"}})
    curve = validation_curve(record)
    assert not curve.same_criterion
    assert curve.start == 1.5


def test_accuracy_is_weighted_and_optional():
    assert validation_curve(run()).accuracy is None
    record = run(passes=1)
    record.append("val_sample_correct", "val", 2, [1.0, 1.0, 0.0, np.nan])
    assert validation_curve(record).accuracy == pytest.approx([2 / 3])


def test_the_mean_serves_where_no_samples_were_seen():
    record = RunRecord()
    record.append("val_loss", "val", [5, 10], [3.0, 2.0])
    curve = validation_curve(record)
    assert curve.mean.tolist() == [3.0, 2.0]
    assert not curve.paired
    assert np.isnan(curve.training).all()


@pytest.mark.parametrize("passes", [MAX_PASSES, MAX_PASSES + 1, 1000])
def test_long_curves_are_thinned_and_keep_their_end_and_mean(passes):
    record = run(passes)
    curve = validation_curve(record)
    assert MAX_PASSES / 2 < len(curve.steps) <= MAX_PASSES
    assert curve.steps[-1] == 2 * passes
    width = -(-passes // MAX_PASSES)
    assert curve.mean[-1] == pytest.approx(1.5 + np.arange(passes)[-width:].mean())


def test_nothing_seen():
    record = RunRecord()
    assert validation_curve(record) is None
    assert primary_stream(record) is None
    assert training_stream(record) is None
    record.append("val_loss", "val", 5, np.inf)
    assert validation_curve(record) is None


def test_the_primary_stream_is_the_marked_one_and_never_training_data():
    record = RunRecord()
    for stream in ("train-eval", "val", "val/1"):
        record.append("val_loss", stream, 5, 1.0)
    record.set_fact("validation", {"train-eval": {"kind": "train-eval", "primary": True}, "val": {"kind": "val"}})
    assert primary_stream(record) == "val"
    record.set_fact("validation", {"train-eval": {"kind": "train-eval"}, "val/1": {"kind": "val", "primary": True}})
    assert primary_stream(record) == "val/1"


def test_the_training_stream_is_that_of_the_criterion_else_the_root():
    record = RunRecord()
    for stream in ("l1_loss", "root"):
        record.append("train_loss", stream, 0, 1.0)
    assert training_stream(record, "l1_loss") == "l1_loss"
    assert training_stream(record, "mse_loss") == "root"


def noisy(paired, columns=64, passes=5):
    """Columns with a large spread of their own, and a small one from pass to pass."""
    made, draw = RunRecord(), np.random.default_rng(0)
    own = draw.normal(0, 10, columns)
    made.append("val_group_size", "val", 0, np.ones(columns))
    for i in range(passes):
        made.append("val_loss", "val", i, 50.0 + i)
        made.append("val_sample_loss", "val", i, 50 + own + i + draw.normal(0, 0.1, columns))
    made.set_fact("validation", {"val": {"kind": "val", "primary": True, "paired": paired}})
    return validation_curve(made)


def test_the_band_of_unpaired_passes_is_two_standard_errors_of_each():
    curve = noisy(paired=False)
    for i, (step, low, high) in enumerate(noise_band(curve)):
        assert step == i
        assert high - low == pytest.approx(4 * curve.losses[i].std(ddof=1) / 8, rel=1e-6)
        assert (high + low) / 2 == pytest.approx(curve.mean[i])


def test_the_band_of_paired_passes_is_that_of_the_difference_from_the_lowest():
    band = noise_band(noisy(paired=True))
    assert band[0][1] == band[0][2]
    assert all(0 < high - low < 0.2 for _, low, high in band[1:])


def test_a_band_needs_columns_that_are_all_finite():
    assert noise_band(noisy(paired=True, columns=FEWEST))
    assert noise_band(noisy(paired=True, columns=FEWEST - 1)) == ()
