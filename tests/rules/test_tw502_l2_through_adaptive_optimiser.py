import math

import numpy as np
import pytest
import torch
from penalised import training

from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw502_l2_through_adaptive_optimiser import L2ThroughAdaptiveOptimiser

NAMES, SHAPES = ("a.weight", "a.bias", "b.weight", "c.weight"), ([32, 32], [32], [32, 32], [10, 32])
RMS = np.array([1e-3, 1e-3, 4e-3, 2e-2])  # of gradients


def record_of(decay=1e-4, kind="Adam", decoupled=False, rms=RMS, steps=1000, rate=1e-2, weight=0.0, **more):
    record = RunRecord()
    facts = [
        {"name": n, "shape": s, "numel": int(np.prod(s)), "module": n.partition(".")[0]}
        for n, s in zip(NAMES, SHAPES, strict=True)
    ]
    record.set_fact("parameters", facts)
    group = {"lr": rate, "weight_decay": decay, "decoupled_weight_decay": decoupled, "parameters": [0, 1, 2, 3]}
    record.set_fact("optimizers", {"default": {"type": kind, "parameters": [0, 1, 2, 3], "groups": [group]}})
    record.set_fact("run", {"steps": steps, "finished": True})
    record.set_fact("regularisation", {"penalties": more.get("penalties", {})})
    record.append("lr", "default/0", 0, rate)
    norms = np.asarray(rms) * np.sqrt([f["numel"] for f in facts])
    rows = np.arange(0, steps, 10)
    record.append("grad_norm", "default", rows, np.tile(norms, (len(rows), 1)))
    if more.get("weights", True):
        record.append("weights", "default", steps, np.tile([weight, weight, 1.0, 0, 0, 0], (4, 1)))
    return record


def verdict(record, **thresholds):
    return list(L2ThroughAdaptiveOptimiser(**thresholds).check(record))


def test_decay_that_differs_between_layers_is_a_remark():
    (found,) = verdict(record_of())
    assert found.severity == Severity.INFO
    assert found.where == ("a.weight", "c.weight")
    assert found.summary == (
        "an L2 penalty of 0.0001 goes through Adam: it acts like decoupled weight decay of 0.005 on 'c' and of 0.1 on "
        "'a'"
    )
    factor, most, least = found.evidence
    assert (factor.value, factor.threshold) == (pytest.approx(20.0), 4.0)
    assert (most.value, most.where) == (pytest.approx(0.1), "a.weight")
    assert most.note.startswith("root mean square gradient 0.001; over the run alone it would take 63% of the weights")
    assert (least.value, least.where) == (pytest.approx(0.005), "c.weight")
    assert found.margin == pytest.approx(math.log(5))
    (remedy,) = found.remedies
    assert remedy.id == "decoupled-weight-decay"
    assert "AdamW(model.parameters(), lr=0.01, weight_decay=0.025)" in remedy.how


def test_the_penalty_is_part_of_the_gradient_that_it_is_divided_by():
    """Where nothing but the penalty acts, the weight is divided by its own size."""
    (found,) = verdict(record_of(decay=1.0, weight=0.5), spread=1.0)
    assert found.evidence[1].value == pytest.approx(2.0, rel=1e-3)


def test_a_term_of_squares_in_the_loss_counts_double():
    """Its gradient is twice the weight, and part of what was measured."""
    terms = {"l2": {"a.weight": 5e-5, "c.weight": 5e-5}}
    (found,) = verdict(record_of(decay=0.0, penalties=terms))
    assert found.where == ("a.weight", "c.weight")
    assert found.evidence[1].value == pytest.approx(0.1)
    assert verdict(record_of(kind="AdamW", decoupled=True, penalties=terms))
    assert verdict(record_of(kind="SGD", decay=0.0, penalties=terms)) == []


@pytest.mark.parametrize(
    "made",
    [
        record_of(decay=0.0),
        record_of(decoupled=True, kind="AdamW"),
        record_of(kind="SGD"),
        record_of(kind="Adagrad"),
        record_of(rms=[1e-3, 1e-3, 2e-3, 3e-3]),
        record_of(decay=1e-6),
        record_of(rate=1e-5),
        record_of(rms=[0.0, 1e-3, 0.0, 2e-2]),
    ],
    ids=["none", "decoupled", "plain steps", "of sums", "alike", "too weak", "too slow", "one layer"],
)
def test_silent(made):
    assert verdict(made) == []


@pytest.mark.parametrize(
    ("fires", "silent"),
    [
        ({"rms": [1e-3, 1e-3, 2e-3, 5e-3]}, {"rms": [1e-3, 1e-3, 2e-3, 3e-3]}),
        ({"decay": 7e-6}, {"decay": 4e-6}),  # takes 6.8 % and 3.9 % of the weights
    ],
)
def test_each_threshold_is_needed(fires, silent):
    assert len(verdict(record_of(**fires))) == 1
    assert verdict(record_of(**silent)) == []


def test_thresholds():
    assert verdict(record_of(), spread=21.0) == verdict(record_of(), felt=0.7) == []


def test_without_gradients_or_weights_it_is_not_judged():
    with pytest.raises(NotChecked, match="several optimisers"):
        verdict(record_of(weights=False))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "decay", "fires"), [("Adam", 1e-2, True), ("AdamW", 1e-2, False), ("SGD", 1e-2, False), ("Adam", 0, False)]
)
def test_real_trainings(kind, decay, fires, seed):
    def make(parameters):
        return getattr(torch.optim, kind)(parameters, lr=0.05 if kind == "SGD" else 3e-3, weight_decay=decay)

    watch, *_ = training("breast_cancer", seed, optimizer=make)
    found = verdict(watch.record)
    assert bool(found) == fires
    assert all(one.severity == Severity.INFO for one in found)
    assert "TW502" not in [d.code for d in watch.report.findings()]
