"""What the optimiser gained lately."""

import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.rest import fall_since, rest_of

NOISE = np.random.default_rng(0).normal(size=300)


def recorded(losses, validation=None, criterion="cross_entropy"):
    record = RunRecord()
    record.append("train_loss", "cross_entropy", np.arange(len(losses)), losses)
    record.set_fact("loss", {"cross_entropy": {"function": "cross_entropy", "reduction": "mean", "classes": 10}})
    if validation is not None:
        at = np.linspace(len(losses) / len(validation), len(losses), len(validation)).astype(int)
        record.append("val_loss", "val", at, validation)
        facts = {"kind": "val", "primary": True, "criterion": criterion, "paired": False}
        record.set_fact("validation", {"val": facts})
    return record


def test_of_the_last_third_of_the_steps():
    falling = np.where(np.arange(300) < 200, 2.0, 2.0 - (np.log(np.arange(300) + 1) - np.log(200)) / np.log(1.5))
    rest = rest_of(recorded(falling))
    assert rest.steps == 100
    assert rest.fall == pytest.approx(1.0, rel=0.02)
    assert rest.level == pytest.approx(1.0, abs=0.02)
    assert rest.scale == pytest.approx(np.log(10))
    assert rest.known
    assert rest_of(recorded(np.full(300, 2.0))).fall == pytest.approx(0.0, abs=1e-6)


def test_validation_is_less_noisy_and_the_greater_fall_counts():
    noisy = 2.0 + 0.3 * NOISE
    alone, both = rest_of(recorded(noisy)), rest_of(recorded(noisy, np.full(30, 2.0) + 0.01 * NOISE[:30]))
    assert both.error < 0.2 * alone.error
    falls = rest_of(recorded(2.0 + 0.01 * NOISE, 3.0 - np.linspace(0, 1.0, 30)))
    assert falls.fall > 0.2
    other = rest_of(recorded(noisy, np.full(30, 2.0), criterion="mse_loss"))
    assert other.error == alone.error


def test_a_fall_within_the_noise_of_the_noisier_loss_is_none():
    """By chance the noise falls over the end of the run, and validation stands still."""
    noisy = 2.0 + 0.3 * NOISE - np.where(np.arange(300) < 200, 0.0, 0.05)
    still = rest_of(recorded(noisy, np.full(30, 2.0) + 1e-4 * NOISE[:30]))
    assert still.fall < 0.01
    sure = rest_of(recorded(noisy - np.where(np.arange(300) < 200, 0.0, 1.0), np.full(30, 2.0)))
    assert sure.fall == 0.0, "a step in time is no trend"


def test_too_few_steps_and_losses_that_are_not_finite_are_not_judged():
    assert rest_of(recorded([1.0, 1.0])) is None
    assert rest_of(recorded(np.r_[np.ones(50), np.inf])) is None
    assert rest_of(RunRecord()) is None


def test_the_fall_since_a_step_is_that_from_the_level_before_it():
    losses = np.where(np.arange(300) < 120, 2.0, 0.5)
    assert fall_since(recorded(losses), 100) == pytest.approx(1.5)
    assert fall_since(recorded(losses), 250) == pytest.approx(0.0, abs=1e-6)
    assert fall_since(RunRecord(), 10) == 0.0
