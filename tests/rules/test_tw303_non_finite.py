import math

import numpy as np
import pytest
import torch
from synthetic_gradients import chain, digits, make_record, mlp, train
from torch import nn
from watched import watched

from trainwatch.diagnosis import Severity
from trainwatch.engine import nest
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked, all_rules
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
    assert 'group["lr"] = 0.01  # was 0.1' in found.remedies[0].how
    assert found.remedies[1].already_in_use
    assert "forward pass" in found.remedies[2].why
    (found,) = verdict(record(gradient_at=range(STEPS)))
    assert [r.id for r in found.remedies] == ["find-non-finite-source"]
    assert "the backward pass made it" in found.remedies[0].why


FOUND = {
    "step": 40, "seen": "loss", "phase": "forward", "module": "head", "module_type": "Head", "operation": "log",
    "dtype": "float32", "samples": [1, 5], "samples_bad": 2, "samples_total": 32, "reason": "",
    "inputs": [{"name": "input", "min": 0.0, "max": 0.75, "nonfinite": 0, "dtype": "float32"}],
}  # fmt: skip


def operand(name="input", low=0.0, high=1.0, nonfinite=0, dtype="float32"):
    return {"name": name, "min": low, "max": high, "nonfinite": nonfinite, "dtype": dtype}


def diagnosed(**fact):
    made = record(loss_at=range(40, STEPS))
    made.set_fact("nonfinite", {**FOUND, **fact})
    (found,) = verdict(made)
    return found


def test_the_source_is_in_summary_place_evidence_and_remedy():
    found = diagnosed()
    assert found.where == ("head",)
    assert found.onset_step == 40
    assert found.summary.endswith("; log in 'head' (Head) made it of input from 0 to 0.75, in 2 of 32 samples")
    low, samples = found.evidence[-2:]
    assert (low.name, low.value, low.where, low.step) == ("smallest input of log", 0.0, "head", 40)
    assert low.note == "largest 0.75, float32"
    assert (samples.value, samples.note) == (2, "of 32 in the batch: 1, 5")
    (remedy,) = found.remedies  # large numbers have no part in it: no shorter steps
    assert remedy.id == "find-non-finite-source"
    assert "torch.log(x.clamp_min(1e-12))  # x went from 0 to 0.75" in remedy.how


def test_a_source_of_another_step_is_not_that_of_this_fault():
    found = diagnosed(step=39)
    assert found.where == ("cross_entropy",)
    assert [r.id for r in found.remedies] == ["lower-learning-rate", "gradient-clipping", "find-non-finite-source"]
    assert diagnosed(step=41).where == ("cross_entropy",)


def test_where_the_model_itself_made_it_its_type_is_the_place():
    assert diagnosed(module="", module_type="Net").where == ("Net",)
    assert diagnosed(module="", module_type="").where == ("cross_entropy",)


def test_steps_that_a_scaler_skips_are_enough_to_judge_by():
    made = RunRecord()
    made.set_fact("scaler", {"used": True, "skipped_steps": 20, "in_a_row": 20})
    (found,) = verdict(made)
    assert "the gradient scaler has skipped the last 20 steps" in found.summary


def test_a_batch_that_was_run_again_is_enough_to_judge_by():
    made = RunRecord()
    made.set_fact("nonfinite", {**FOUND, "step": 0})
    (found,) = verdict(made)
    assert (found.severity, found.where) == (Severity.INFO, ("head",))


def test_the_step_of_a_source_is_exact_where_old_rows_are_folded():
    steps = 20_000
    made = record(loss_at=range(1000, steps), steps=steps)
    made.set_fact("nonfinite", {**FOUND, "step": 1000})
    (found,) = verdict(made)
    assert (found.onset_step, found.where) == (1000, ("head",))


@pytest.mark.parametrize("phase", ["not replayed", "not reproduced"])
def test_a_batch_that_told_nothing_is_said_with_the_reason(phase):
    found = diagnosed(phase=phase, module="", module_type="", operation="", inputs=[], reason="it holds a socket")
    assert found.where == ("cross_entropy",)
    assert (found.evidence[-1].note, found.evidence[-1].step) == ("it holds a socket", 40)
    assert found.remedies[-1].id == "find-non-finite-source"
    assert "detect_anomaly" in found.remedies[-1].how


DATA = {"operation": "", "module_type": "", "inputs": [], "dtype": ""}
SOURCES = {
    # fault -> (fact, code of the remedy, whether shorter steps may help)
    "input": (DATA | {"phase": "input", "module": "batch[0]"}, "samples 1, 5\nbad = [i for i, (x, *_)", False),
    "target": (DATA | {"phase": "target", "module": "target"}, "samples 1, 5\nbad = [i for i, (_, y)", False),
    "weight": (DATA | {"phase": "parameter", "module": "head.weight", "samples_bad": 0}, "named_parameters", True),
    "sqrt": ({"operation": "sqrt", "phase": "backward"}, "torch.sqrt(x.clamp_min(1e-12))", False),
    "log in float16": ({"dtype": "float16"}, "torch.log(x.clamp_min(1e-4))", False),
    "norm": ({"operation": "linalg_vector_norm"}, "(x.square().sum(dim=-1) + 1e-12).sqrt()", False),
    "division": (
        {"operation": "div", "inputs": [operand(), operand("other", 0.0, 7.0)]},
        "a / b.clamp_min(1e-12)  # other went from 0 to 7",
        False,
    ),
    "reciprocal": ({"operation": "reciprocal", "inputs": [operand(high=3.0)]}, "# input went from 0 to 3", False),
    "exp": ({"operation": "exp", "inputs": [operand(high=95.0)]}, "x.clamp(max=88))  # x went up to 95", True),
    "exp in float64": ({"operation": "exp", "dtype": "float64"}, "x.clamp(max=709)", True),
    "pow": ({"operation": "pow"}, "** p", True),
    "pow of two": (
        {"operation": "pow", "inputs": [operand(high=7.0), operand("exponent", 0.5, 0.5)]},
        "** p  # x went from 0 to 7",
        True,
    ),
    "mask": ({"operation": "softmax", "inputs": [operand(nonfinite=3)]}, "torch.isinf(scores).all(dim=-1", False),
    "float16": ({"operation": "addmm", "dtype": "float16"}, "dtype=torch.bfloat16", True),
    "matmul": (
        {"operation": "addmm", "inputs": [operand("mat1", -3e30, 2e30), operand("mat2")]},
        "mat1 went from -3e+30",
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", SOURCES)
def test_the_remedy_fits_the_source_and_can_be_pasted(fault):
    fact, code, shorter = SOURCES[fault]
    found = diagnosed(**fact)
    assert found.remedies[0].id == "find-non-finite-source"
    assert code in found.remedies[0].how
    assert "{" not in found.remedies[0].title + found.remedies[0].why + found.remedies[0].how
    compile(found.remedies[0].how, "remedy", "exec")
    assert ("lower-learning-rate" in [r.id for r in found.remedies]) == shorter


@pytest.mark.parametrize("fault", SOURCES)
@pytest.mark.parametrize("code", ["TW302", "TW309", "TW601"])
def test_what_no_step_has_made_is_no_consequence_of_steps_or_weights(fault, code):
    cause = all_rules()[code]().diagnose("far too large", severity=Severity.ERROR, margin=9.0, onset_step=0)
    nested = [d.code for d in nest([cause, diagnosed(**SOURCES[fault][0])])] == [code]
    assert nested == (fault not in ("input", "target", "sqrt", "mask"))


@pytest.mark.parametrize("code", ["TW203", "TW204", "TW205", "TW208"])
def test_it_explains_what_comes_of_it(code):
    effect = all_rules()[code]().diagnose("an effect", margin=50.0, onset_step=0)
    (root,) = nest([effect, diagnosed()])
    assert [d.code for d in root.walk()] == ["TW303", code]


def test_a_run_that_is_broken_is_not_slow():
    slow = all_rules()["TW602"]().diagnose("short steps", margin=50.0, onset_step=0)
    (root,) = nest([slow, diagnosed()])
    assert [d.code for d in root.walk()] == ["TW303", "TW602"]


def test_what_nothing_finite_was_given_to_is_said():
    found = diagnosed(operation="mul", inputs=[operand(low=None, high=None, nonfinite=4), operand("other", 2.0, 2.0)])
    assert "of input with 4 entries not finite and other 2" in found.summary


def test_many_samples_are_counted():
    found = diagnosed(samples=list(range(16)), samples_bad=30)
    assert found.evidence[-1].note.endswith("14, 15 and 14 more")


def test_the_loss_and_the_model_itself_have_no_module_name():
    assert (
        "nll_loss_forward in the loss made it"
        in diagnosed(module="", module_type="", operation="nll_loss_forward", inputs=[]).summary
    )
    assert "log in the model (Net) made it" in diagnosed(module="", module_type="Net").summary


def test_steps_that_a_scaler_skips_without_end_are_found_though_no_row_is_kept():
    made = RunRecord()
    made.set_fact("scaler", {"used": True, "skipped_steps": 20, "in_a_row": 20})
    made.set_fact("nonfinite", {**FOUND, "step": 0, "seen": "gradient", "phase": "backward"})
    (found,) = verdict(made)
    assert found.severity == Severity.ERROR
    assert "the gradient scaler has skipped the last 20 steps; the backward pass of log in 'head'" in found.summary
    assert verdict(made, patience=21) == []


def test_a_batch_that_was_not_trained_on_is_a_remark():
    made = record()
    made.set_fact("nonfinite", FOUND | DATA | {"phase": "input", "module": "input"})
    (found,) = verdict(made)
    assert found.severity == Severity.INFO
    assert "the loss of a batch that was not trained on is not finite" in found.summary
    made.set_fact("nonfinite", {**FOUND, "phase": "not reproduced"})
    assert verdict(made) == []


@pytest.mark.parametrize("step", [STEPS, STEPS - 1])
def test_a_batch_upon_which_the_run_ended_is_an_error(step):
    made = record()
    made.set_fact("nonfinite", {**FOUND, "step": step})
    made.set_fact("run", {**made.facts.get("run", {}), "steps": STEPS, "ended_by": "ValueError: NaN"})
    (found,) = verdict(made)
    assert found.severity == (Severity.ERROR if step == STEPS else Severity.INFO)
    assert ("there the run ended" in found.summary) == (step == STEPS)


def test_where_the_run_went_to_its_end_its_last_batch_did_not_end_it():
    made = record()
    made.set_fact("nonfinite", {**FOUND, "step": STEPS})
    made.set_fact("run", {"steps": STEPS})
    (found,) = verdict(made)
    assert found.severity == Severity.INFO
    assert "there the run ended" not in found.summary


@pytest.mark.parametrize("seed", range(3))
def test_a_sample_that_is_not_finite_among_real_digits_is_named(seed):
    x, y = digits()
    torch.manual_seed(seed)
    model, rows = mlp(3, nn.ReLU), torch.randperm(len(x))[:160].split(32)
    batches = [(x[r].clone(), y[r]) for r in rows]
    batches[2][0][seed + 4, 9] = math.nan
    made = watched(model, torch.optim.SGD(model.parameters(), 0.1), batches, nn.CrossEntropyLoss())
    (found,) = verdict(made)
    assert (found.onset_step, found.where) == (2, ("input",))
    assert f"of 32 in the batch: {seed + 4}" in [e.note for e in found.evidence]


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
