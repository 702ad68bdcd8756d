import pytest
import torch
from torch import nn
from wired import codes, net, train

from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw702_eval_mode_in_training import EvalModeInTraining


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)


def verdict(steps=40, evaluating=0, *, statistics_kept=False, **options):
    record = RunRecord()
    known = {"steps": steps, "evaluating": evaluating, "first": 0, "modules": ["drop"], "batch_norm": False}
    record.set_fact("training_mode", {**known, "statistics_kept": statistics_kept})
    return list(EvalModeInTraining(**options).check(record))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_fires_from_the_first_step(batch_norm):
    model = net(batch_norm=batch_norm)
    report, _ = train(model, adam(model), mode="eval")
    found = report.diagnoses[0]
    assert (found.code, found.onset_step) == ("TW702", 0)
    assert found.where == (("1", "4") if batch_norm else ("4",))
    assert ("batch norm" in found.summary) == batch_norm
    assert "model.train()" in found.remedies[0].how


def test_fires_where_training_mode_is_not_resumed():
    model = net()
    report, _ = train(model, adam(model), mode=8)
    found = report.diagnoses[0]
    assert (found.code, found.onset_step) == ("TW702", 8)
    assert found.evidence[0].value == pytest.approx(16 / 24)
    assert "since step 8" in found.summary


def test_stays_silent_in_training_mode():
    model = net()
    assert codes(train(model, adam(model))[0]) == []


def test_stays_silent_on_a_model_without_modes():
    model = net(batch_norm=False, dropout=0.0)
    assert codes(train(model, adam(model), mode="eval")[0]) == []


def test_batch_norm_frozen_on_purpose_is_no_fault():
    model = net()
    model[1].train = lambda mode=True: nn.Module.train(model[1], False)  # as fine-tuning code does
    assert codes(train(model, adam(model))[0]) == []


@pytest.mark.parametrize(("dropout", "severity"), [(0.0, Severity.INFO), (0.1, Severity.WARNING)])
def test_statistics_learned_before_may_be_kept_but_dropout_is_not_to_sleep(dropout, severity):
    model = net(dropout=dropout)
    if not dropout:
        model[4] = nn.Identity()
    train(model, adam(model))
    report, _ = train(model, adam(model), mode="eval")
    assert [d.severity for d in report.diagnoses if d.code == "TW702"] == [severity]


def test_statistics_that_training_left_in_its_middle_are_no_purpose():
    model = net(dropout=0.0)
    model[4] = nn.Identity()
    train(model, adam(model))
    report, _ = train(model, adam(model), mode=8)
    assert [d.severity for d in report.diagnoses if d.code == "TW702"] == [Severity.WARNING]


def test_thresholds():
    assert not verdict(evaluating=8)
    assert verdict(evaluating=9)
    assert not verdict(steps=3, evaluating=3)
    assert verdict(steps=4, evaluating=4)
    assert not verdict(evaluating=30, share=0.8)


@pytest.mark.parametrize(("kept", "severity"), [(False, Severity.WARNING), (True, Severity.INFO)])
def test_statistics_that_are_kept_on_purpose_are_a_remark(kept, severity):
    (found,) = verdict(evaluating=9, statistics_kept=kept)
    assert found.severity == severity


def test_abstains_without_steps():
    with pytest.raises(NotChecked):
        list(EvalModeInTraining().check(RunRecord()))
