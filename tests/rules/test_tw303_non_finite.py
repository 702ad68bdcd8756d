import math

import numpy as np
import pytest
import torch
from synthetic_gradients import chain, digits, make_record, mlp, train
from torch import nn

from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw303_non_finite import NonFinite

STEPS, DEPTH = 100, 3
PARAMETERS, MODULES = chain(DEPTH)


def record(loss_at=(), gradient_at=(), columns=(0,), steps=STEPS, **more):
    losses, rms = np.full(steps, 1.0), np.full((steps, 2 * DEPTH), 1e-2)
    losses[list(loss_at)] = np.inf
    rms[np.ix_(list(gradient_at), list(columns))] = np.inf
    return make_record(losses, rms, parameters=PARAMETERS, modules=MODULES, **more)


def verdict(made, **thresholds):
    return list(NonFinite(**thresholds).check(made))


def test_a_loss_that_stays_not_finite_is_an_error():
    (found,) = verdict(record(loss_at=range(40, STEPS)))
    assert found.severity == Severity.ERROR
    assert found.onset_step == 40
    assert found.margin == math.inf
    assert found.where == ("cross_entropy",)
    assert found.summary == (
        "At step 40 the training loss of 'cross_entropy' is not finite, and so are 100% of the later values, "
        "the last one included"
    )


def test_one_that_passes_is_a_warning():
    (found,) = verdict(record(loss_at=[40]))
    assert found.severity == Severity.WARNING
    assert "later values are finite again" in found.summary


def test_a_gradient_names_its_parameters_in_order_of_execution():
    made = record(gradient_at=range(7, STEPS), columns=(2, 3, 0))
    parameters = made.facts["parameters"]
    parameters[0]["order"] = 50
    made.set_fact("parameters", parameters)
    (found,) = verdict(made)
    assert found.where == ("layers.2.weight", "layers.2.bias", "layers.0.weight")
    assert "the gradient of 'layers.2.weight' and 2 more" in found.summary
    assert found.evidence[0].note == "3 of 6 parameters; 100% of the values from there on"


def test_the_earliest_counts_and_at_one_step_the_loss():
    (found,) = verdict(record(loss_at=range(50, STEPS), gradient_at=range(30, STEPS)))
    assert (found.onset_step, found.where) == (30, ("layers.0.weight",))
    assert [e.step for e in found.evidence] == [30, 50, 50]
    (found,) = verdict(record(loss_at=range(30, STEPS), gradient_at=range(30, STEPS)))
    assert found.where == ("cross_entropy",)


def test_a_validation_loss_counts_too():
    made = record()
    made.append("val_loss", "val", [50, 100], [1.0, np.inf])
    (found,) = verdict(made)
    assert (found.onset_step, found.where) == (100, ("val",))


def test_silent_on_finite_and_on_absent_values():
    made = record()
    made.append("val_loss", "val", [50], [1e30])
    made.append("grad_norm", "default", [STEPS], [np.full(2 * DEPTH, np.nan)])
    assert verdict(made) == []


@pytest.mark.parametrize("bad", [[0, 1, 2, 40, 41], [*range(81, STEPS)]], ids=["now-and-then", "a-few-at-the-end"])
def test_skipped_steps_of_a_gradient_scaler_are_normal(bad):
    assert verdict(record(gradient_at=bad, scaler={"used": True, "skipped_steps": len(bad)})) == []
    assert len(verdict(record(gradient_at=bad, scaler={"used": False, "skipped_steps": 0}))) == 1


def test_a_gradient_scaler_that_never_recovers_is_not():
    made = record(gradient_at=range(80, STEPS), scaler={"used": True, "skipped_steps": 20})
    (found,) = verdict(made)
    assert found.onset_step == 80
    assert verdict(made, patience=21) == []


def test_it_needs_a_loss_or_a_gradient():
    with pytest.raises(NotChecked, match="neither a loss nor a gradient"):
        verdict(RunRecord())


def test_it_is_reported_live_without_a_second_look():
    assert NonFinite.at_first_look


def test_the_first_of_a_long_run_is_found_in_its_folded_past():
    steps = 20_000
    made = record(loss_at=range(1000, steps), steps=steps)
    (found,) = verdict(made)
    assert 900 <= found.onset_step <= 1000


def test_remedies_before_and_after_the_first_update():
    (found,) = verdict(record(loss_at=range(40, STEPS), regularisation={"clipping": {"max_norm": 1.0}}))
    assert [r.id for r in found.remedies] == ["lower-learning-rate", "gradient-clipping", "find-non-finite-source"]
    assert "lr=0.01)" in found.remedies[0].how
    assert found.remedies[1].already_in_use
    assert "forward pass" in found.remedies[2].why
    (found,) = verdict(record(gradient_at=range(STEPS)))
    assert [r.id for r in found.remedies] == ["find-non-finite-source"]
    assert "the backward pass made it" in found.remedies[0].why


class Norm(nn.Module):
    """Its value is finite at 0, its derivative is not."""

    def forward(self, x):
        return torch.sqrt(x * (x > 0))


def test_fires_on_a_backward_pass_that_divides_by_zero():
    model = nn.Sequential(nn.Linear(64, 10), Norm())
    made = train(model, torch.optim.SGD(model.parameters(), 0.1), *digits(), steps=5)
    (found,) = verdict(made)
    assert found.onset_step == 0
    assert found.where == ("0.weight", "0.bias")
    assert found.severity == Severity.ERROR


def test_silent_on_a_net_that_learns():
    model = mlp(3, nn.ReLU)
    assert verdict(train(model, torch.optim.SGD(model.parameters(), 0.1), *digits(), steps=100)) == []
