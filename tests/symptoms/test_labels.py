import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.labels import label_noise, lapse_rate


def drawn(rate, *, seed=0, n=500, slope=1.0, turn=0.0):
    """Sureness, and errors that die out with it but for a share."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0, 6, n)
    chance = rate + (1 - rate) / (1 + np.exp(slope * (sure - turn)))
    return sure, rng.random(n) < chance


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3])
def test_the_share_of_errors_that_stays_is_found(rate, seed):
    found, low, high = lapse_rate(*drawn(rate, seed=seed))
    assert found == pytest.approx(rate, abs=0.06)
    assert low <= found <= high
    assert (low > 0.02) == (rate > 0)


def test_twenty_draws_without_any_are_no_reason_for_alarm():
    assert sum(lapse_rate(*drawn(0.0, seed=s))[1] > 0.02 for s in range(20)) <= 1


def test_more_samples_make_it_surer():
    (_, low, high), (_, lower, higher) = (lapse_rate(*drawn(0.1, n=n)) for n in (2000, 100))
    assert high - low < (higher - lower) / 2


def test_errors_that_are_all_alike_likely_are_not_taken_for_overlap():
    sure = np.linspace(2, 4, 400)
    assert lapse_rate(sure, np.arange(400) % 10 == 0)[1] > 0.03


def test_all_alike_sure_is_no_obstacle():
    found, _, high = lapse_rate(np.full(100, 4.3), np.zeros(100, bool))
    assert found == 0
    assert high < 0.03


def table(given, predicted, votes=0.9, own=0.1):
    n = len(given)
    own = np.where(np.asarray(given) == predicted, votes, own)
    return np.stack([np.full(n, 7), np.arange(n), given, predicted, np.full(n, votes), own], 1).astype(float)


def noise_of(rows, kind="train"):
    record = RunRecord()
    record.append("held_labels", kind, 99, rows)
    (found,) = label_noise(record)
    return found


def test_suspects_are_those_that_look_like_another_class_as_its_own_do():
    given = np.repeat([0, 1, 2], 50)
    predicted = given.copy()
    predicted[[3, 60]] = 1, 2
    rows = table(given, predicted)
    predicted[120] = 0
    rows = np.concatenate([rows, [[7, 150, 2, 0, 0.4, 0.35]]])  # flat votes: hard to tell, not wrong
    rows[60, 4:] = 0.99, 0.0
    found = noise_of(rows)
    assert [(s.place, s.given, s.predicted) for s in found.suspects] == [(60, 1, 2), (3, 0, 1)]
    assert found.suspects[0].step == 7
    assert found.pairs == [((1, 2), 1), ((0, 1), 1)]


def test_a_class_that_is_not_recognised_is_left_out():
    given = np.repeat([0, 1], [180, 20])
    found = noise_of(table(given, np.zeros(200, int)))
    assert (found.samples, found.recognised, found.disagreeing) == (180, 0.9, 0.0)
    assert found.low == 0
    assert found.suspects == []
    assert found.agreement == pytest.approx(0.0)


def test_agreement_is_cohens_kappa():
    given, predicted = np.repeat([0, 0, 1, 1], [40, 10, 5, 45]), np.repeat([0, 1, 0, 1], [40, 10, 5, 45])
    assert noise_of(table(given, predicted)).agreement == pytest.approx((0.85 - 0.5) / 0.5)


def test_no_class_recognised_says_nothing():
    found = noise_of(table(np.arange(80) % 4, (np.arange(80) + 1) % 4))
    assert found.samples == 0
    assert (found.low, found.high) == (0, 1)


def swamped():
    """A rare class among whose samples there are more of another one, wrongly labelled."""
    given = np.repeat([0, 1], [180, 40])
    predicted = given.copy()
    predicted[-25:] = 0
    rows = table(given, predicted)
    rows[:, 4] = np.random.default_rng(0).uniform(0.8, 1.0, len(rows))
    return rows


def both(train, val):
    record = RunRecord()
    record.append("held_labels", "train", 99, train)
    record.append("held_labels", "val", 99, val)
    return {found.kind: found for found in label_noise(record)}


@pytest.mark.parametrize(("right", "looked_at"), [(12, 220), (7, 180)])
def test_a_class_that_is_recognised_in_the_other_part_is_not_hard(right, looked_at):
    """Of 15 in validation 12 are recognised, or 7."""
    given = np.repeat([0, 1], [180, 15])
    predicted = given.copy()
    predicted[180 + right :] = 0
    found = both(swamped(), table(given, predicted))
    assert found["train"].samples == looked_at
    assert (found["train"].low > 0.02) == (looked_at == 220)
    assert noise_of(swamped()).samples == 180


def test_a_handful_of_samples_elsewhere_tells_nothing_of_a_class():
    given = np.repeat([0, 1], [180, 9])
    assert both(swamped(), table(given, given))["train"].samples == 180
