import numpy as np
import pytest
import torch
from penalised import training

from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw504_weights_growing import WeightsGrowing
from trainwatch.symptoms.weight_growth import weight_growth

NAMES, SHAPES = ("a.weight", "a.bias", "b.weight"), ([16, 64], [16], [4, 16])


def record_of(power=0.5, factor=5.0, noise=0.0, rows=20, decay=0.0, last=None, scale=1.0):
    """Weights of size 0.1 that grow like the steps to a power, to so many times their size."""
    record, rng = RunRecord(), np.random.default_rng(0)
    facts = [
        {"name": n, "shape": s, "numel": int(np.prod(s)), "norm": 0.1 * scale * np.prod(s) ** 0.5}
        for n, s in zip(NAMES, SHAPES, strict=True)
    ]
    record.set_fact("parameters", facts)
    record.set_fact("optimizers", {"default": {"type": "SGD", "parameters": [0, 1, 2], "groups": []}})
    record.set_fact("regularisation", {"weight_decay": decay})
    record.set_fact("run", {"steps": 50 * rows})
    for n in range(1, rows + 1):
        rms = 0.1 * scale * factor * (n / rows) ** power * np.exp(noise * rng.standard_normal())
        table = np.tile([0.8 * rms, rms, 3 * rms, 0.25, 0.3, 0.0], (3, 1))
        table[1] *= 100  # biases do not count
        record.append("weights", "default", 50 * n, table if last is None or n < rows else last)
    return record


def verdict(record, **thresholds):
    return list(WeightsGrowing(**thresholds).check(record))


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_weights_that_go_on_growing_are_a_remark(scale):
    (found,) = verdict(record_of(scale=scale))
    assert found.severity == Severity.INFO
    assert (
        found.summary
        == "weights are 5 times as large as at the start and still grow like the steps to the power of 0.50"
    )
    factor, pace, first, _ = found.evidence
    assert (factor.value, factor.threshold) == (pytest.approx(5.0), 3.0)
    assert (pace.value, pace.threshold) == (pytest.approx(0.5), 0.2)
    assert first.value == pytest.approx(5.0)
    assert {f"L1 {0.8 * 0.5 * 1024 * scale:.3g}, L2 {0.5 * 32 * scale:.3g}, largest {1.5 * scale:.3g}, zeros 25%"} <= {
        e.note for e in found.evidence
    }


def test_remedies_have_the_numbers_of_the_run():
    (found,) = verdict(record_of())
    decay, bound = found.remedies
    assert (decay.id, bound.id) == ("stronger-regularisation", "max-norm")
    name = found.where[0]
    width = dict(zip(NAMES, SHAPES, strict=True))[name][1]
    assert f"maxnorm={3 * 0.1 * width**0.5:.3g}" in bound.how
    assert f"get_parameter('{name}')" in bound.how
    assert verdict(record_of(decay=0.01))[0].remedies[0].already_in_use


def test_a_normalisation_behind_the_layer_that_grew_unless_it_is_the_last_or_there_is_one():
    def cures(grown, **facts):
        made = record_of()
        for order, p in enumerate(made.facts["parameters"]):
            p.update(order=order, module=p["name"][0], module_type="Linear")
            p["norm"] *= 0.5 if p["name"] == grown else 1.0
        made.set_fact("regularisation", facts)
        return {r.id: r for r in verdict(made)[0].remedies}

    found = cures("a.weight")["normalisation"]
    assert "its weights are 10 times as large as at the start" in found.why
    assert "('a', 16)" in found.how
    assert "normalisation" not in cures("b.weight")
    assert "normalisation" not in cures("a.weight", normalisation=["n"])


@pytest.mark.parametrize(
    "made",
    [record_of(factor=2.9), record_of(power=0.1), record_of(power=0.0), record_of(power=0.1, noise=0.6),
     record_of(power=-0.5)],
    ids=["not much", "slowly", "settled", "who knows", "shrinking"],
)  # fmt: skip
def test_silent(made):
    assert verdict(made) == []
    assert list(WeightsGrowing().asks(made)) == []


def test_the_margin_is_in_standard_errors_of_the_pace():
    (found,) = verdict(made := record_of(power=1.0, noise=0.05))
    growth = weight_growth(made)
    assert found.margin == pytest.approx((growth.rate - 0.2) / growth.error)
    assert found.margin < 100
    (exact,) = verdict(record_of())
    assert exact.margin == 1e3


def test_it_asks_what_would_fit():
    assert [r.kind for r in WeightsGrowing().asks(record_of())] == ["input_importance"]


def test_thresholds():
    assert verdict(record_of(), growth=5.1) == verdict(record_of(), pace=0.6) == []
    assert verdict(record_of(power=0.15), pace=0.1)
    assert verdict(record_of(factor=2.0), growth=1.5)


def test_too_few_looks_are_not_judged():
    with pytest.raises(NotChecked, match="too few looks"):
        verdict(record_of(rows=3))
    lost = np.full((3, 6), np.inf)
    with pytest.raises(NotChecked):
        verdict(record_of(last=lost))


@pytest.mark.parametrize("seed", range(3))
def test_real_trainings(seed):
    """A penalty of the wrong sign blows weights up; without it, and with decay, they settle."""
    plain = {"epochs": 20, "optimizer": lambda p: torch.optim.SGD(p, lr=0.01)}
    watch, *_ = training("digits", seed, -0.05, **plain)
    (found,) = verdict(watch.record)
    assert found.severity == Severity.INFO
    for settled in (plain, {**plain, "optimizer": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1)}):
        watch, *_ = training("digits", seed, **settled)
        assert verdict(watch.record) == []
