import numpy as np
import pytest
import torch
from penalised import training
from synthetic import curve, fit_record

from trainwatch.config import Settings
from trainwatch.diagnosis import Severity
from trainwatch.engine import judge
from trainwatch.rules import NotChecked
from trainwatch.rules.tw503_nothing_regularises import NothingRegularises


def verdict(record, **thresholds):
    return list(NothingRegularises(**thresholds).check(record))


def test_a_rise_without_any_regulariser_is_a_remark():
    (found,) = verdict(fit_record(curve(climb=0.05)))
    assert found.severity == Severity.INFO
    assert found.summary.startswith("nothing that regularises was seen, and validation loss rose by 0.")
    assert found.summary.endswith("with 8 parameters per training sample")
    gap, stability = found.evidence
    assert gap.value > 0
    assert stability.note == "not measured"
    assert {r.id for r in found.remedies} == {"stronger-regularisation", "dropout", "augment", "early-stopping"}
    assert not any(r.already_in_use for r in found.remedies)


IN_USE = {
    "decay": {"weight_decay": 0.01},
    "dropout": {"dropout": [{"name": "d", "p": 0.1}]},
    "a term": {"penalties": {"l1": {"w": 1e-4}}},
    "normalisation": {"normalisation": ["bn"]},
    "label smoothing": {"label_smoothing": 0.1},
    "early stopping": {"early_stopping": True},
}


@pytest.mark.parametrize("facts", IN_USE.values(), ids=IN_USE)
def test_silent_where_anything_is_in_use(facts):
    assert verdict(fit_record(curve(climb=0.05), regularisation=facts)) == []


def test_silent_where_inputs_are_augmented():
    made = fit_record(curve(climb=0.05), loaders={"train": {"augmentation": ["RandomCrop"]}})
    assert verdict(made) == []


@pytest.mark.parametrize("case", [{"validation": curve(best=19)}, {"validation": curve(climb=0.002)},
                                  {"validation": curve(), "training": curve()}])  # fmt: skip
def test_silent_where_nothing_got_worse(case):
    assert verdict(fit_record(**case)) == []


def test_too_few_passes_are_not_judged():
    with pytest.raises(NotChecked):
        verdict(fit_record(curve(length=4)))


@pytest.mark.parametrize("accuracy", [None, np.full(20, 0.9)], ids=["overfitting", "overconfidence"])
def test_it_stands_below_what_it_is_a_remark_to(accuracy):
    report = judge(fit_record(curve(climb=0.05), accuracy=accuracy), Settings())
    (cause,) = report.findings()
    assert cause.code == ("TW201" if accuracy is None else "TW202")
    assert "TW503" in [d.code for d in cause.consequences]
    assert "TW503" not in [d.code for d in report.diagnoses]


@pytest.mark.parametrize("seed", range(3))
def test_real_trainings(seed):
    plain, decayed = (
        training("diabetes", seed, epochs=60, optimizer=lambda p, d=d: torch.optim.AdamW(p, lr=3e-3, weight_decay=d))
        for d in (0.0, 0.01)
    )
    (found,) = verdict(plain[0].record)
    assert found.severity == Severity.INFO
    assert [d.code for d in plain[0].report.findings()] == ["TW201"]
    assert verdict(decayed[0].record) == []
