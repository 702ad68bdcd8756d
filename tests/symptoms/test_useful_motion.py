import numpy as np
import pytest
from synthetic_gradients import chain, make_record

from trainwatch.record import RunRecord
from trainwatch.symptoms.useful_motion import gradient_signal, layer_motions, weight_ranks

STEPS = 100
PARAMETERS, MODULES = chain(2)


def followed(rows, at=(50, 100), rms=1e-2):
    made = make_record(np.ones(STEPS), np.full((STEPS, 4), rms), parameters=PARAMETERS, modules=MODULES, lr=0.1)
    for step, row in zip(at, rows, strict=True):
        made.append("motion", "default", step, row, {"every": 10})
    return made


def row(distance, path, update=1e-3):
    return [[update, distance, path, 0.5]] * 4


def test_motion_of_each_weight_but_of_no_bias():
    first, last = layer_motions(followed([row(0.1, 0.2), row(0.3, 0.6, 3e-3)]))
    assert (first.module, last.module) == ("layers.0", "layers.2")
    assert first.distance == pytest.approx(0.3)
    assert first.update == pytest.approx(2e-3)
    assert first.gradient == pytest.approx(1e-2)
    assert (first.group, first.rate) == (0, pytest.approx(0.1))


@pytest.mark.parametrize(("distance", "straightness"), [(1.0, 10**0.5), (10**-0.5, 1.0)], ids=["straight", "random"])
def test_straightness_against_a_random_walk(distance, straightness):
    (first, _) = layer_motions(followed([row(0.1, 0.5), row(distance, 1.0)]))
    assert first.straightness == pytest.approx(straightness, rel=1e-5)


def test_what_did_not_move_or_is_not_finite_has_no_straightness():
    assert np.isnan(layer_motions(followed([row(0.0, 0.0)] * 2))[0].straightness)
    assert np.isnan(layer_motions(followed([row(np.inf, np.inf)] * 2))[0].straightness)


def test_motion_must_be_known_to_the_end():
    assert layer_motions(followed([row(0.1, 0.2)], at=[92])) is not None
    assert layer_motions(followed([row(0.1, 0.2)], at=[80])) is None
    assert layer_motions(followed([], at=[])) is None
    assert layer_motions(RunRecord()) is None


def test_signal_over_the_noise_of_a_mean():
    record = RunRecord()
    assert gradient_signal(record) is None
    rows = [[3.0, 2.0], [1.0, 0.0], [0.0, 0.0], [np.nan, np.nan], [np.inf, np.inf]]
    record.append("gradient_signal", "train", 20, np.ones((5, 2)), {"batches": 3})
    record.append("gradient_signal", "train", 40, rows, {"batches": 4})
    signal = gradient_signal(record)
    assert (signal.step, signal.batches) == (40, 4)
    np.testing.assert_allclose(signal.ratio, [3.0, np.inf, np.nan, np.nan, np.nan])


def test_ranks_of_the_weights_that_were_looked_at():
    record = followed([], at=[])
    assert weight_ranks(record) == []
    record.append("weight_rank", "end", STEPS, [[2.0, 5.0, 7.0], [np.nan] * 3, [np.nan] * 3, [np.nan] * 3])
    assert weight_ranks(record) == [(record.facts["parameters"][0], 7, 32)]
