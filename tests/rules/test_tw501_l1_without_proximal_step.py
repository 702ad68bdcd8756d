import numpy as np
import pytest
from penalised import PROX, training, zeros_in

from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.base import MODEST
from trainwatch.rules.tw501_l1_without_proximal_step import L1WithoutProximalStep

NAMES = ("a.weight", "a.bias", "b.weight")
SHAPES = ([32, 32], [32], [10, 32])


def record_of(near=0.6, zeros=0.0, crossing=0.2, l1=1e-3, names=NAMES, rows=6, path=True, penalties=None, early=None):
    record = RunRecord()
    facts = [{"name": n, "shape": s, "numel": int(np.prod(s))} for n, s in zip(NAMES, SHAPES, strict=True)]
    record.set_fact("parameters", facts)
    record.set_fact("optimizers", {"default": {"type": "Adam", "parameters": [0, 1, 2], "groups": []}})
    terms = {"l1": dict.fromkeys(names, l1)} if penalties is None else penalties
    record.set_fact("regularisation", {"penalties": terms})
    record.set_fact("run", {"steps": 50 * rows, "finished": True})
    for n in range(rows):
        shares = early if early is not None and n < rows // 2 else (zeros, near, crossing)
        record.append("weights", "default", 50 * (n + 1), np.tile([0.1, 0.2, 1.0, *shares], (3, 1)))
    if path:
        lines = [[0, 0, 0.0, np.nan, 0, 0.3, 0.0, 0.4, 0.0], [1, l1, 0.55, 0.98, 20, 0.31, 0.01, 0.41, 0.02],
                 [3, 3 * l1, 0.75, 1.0, 75, 0.4, 0.01, 0.5, 0.02], [np.nan] * 9]  # fmt: skip
        record.append("sparsity_path", "held", 300, np.array(lines))
        layers = [[0, np.nan, 0], [0.58, np.nan, 0.45], [0.8, np.nan, 0.6], [np.nan] * 3]
        record.append("sparsity_layers", "held", 300, np.array(layers, float))
    return record


def verdict(record, **thresholds):
    return list(L1WithoutProximalStep(**thresholds).check(record))


def test_weights_that_hover_about_zero():
    (found,) = verdict(record_of())
    assert found.severity == Severity.WARNING
    assert found.where == ("a.weight", "b.weight")
    assert found.summary == (
        "an L1 term of 0.001 is in the loss and 0.0% of the weights are zero: 60% hover about it, and 20% change sign "
        "from one step to the next"
    )
    hovering, crossing, zeros, part, size, own, larger = found.evidence
    assert (hovering.value, hovering.threshold, hovering.step) == (pytest.approx(0.6), 0.1, 300)
    assert (crossing.value, crossing.threshold) == (pytest.approx(0.2), 0.02)
    assert (zeros.value, zeros.threshold, part.value, size.value) == (0.0, 0.01, 0.0, 0.0)
    assert (own.value, larger.value) == (pytest.approx(0.55), pytest.approx(0.75))
    assert own.note == (
        "after 20 further steps on held batches; the gradient keeps 98% of them at zero; training loss 0.31; "
        "validation loss +0.01 (+- 0.02)"
    )
    entries = 1024 + 320
    assert found.margin == pytest.approx(min(0.5 / (0.24 / entries) ** 0.5, 0.18 / (0.16 / entries) ** 0.5), rel=1e-6)


def test_it_asks_how_many_weights_proximal_steps_would_make_zero():
    (wish,) = L1WithoutProximalStep().asks(record_of(path=False))
    assert (wish.kind, wish.where) == ("sparsity", ("a.weight", "b.weight"))


def test_the_remedy_has_the_numbers_of_the_run():
    (found,) = verdict(record_of())
    (remedy,) = found.remedies
    assert remedy.id == "proximal-step"
    assert "trainwatch.prox(optimizer, l1=0.001)" in remedy.how
    assert remedy.why.endswith(
        "On a copy it made 55% of them zero (58% of 'a.weight', 45% of 'b.weight'), 75% under 0.003."
    )
    (found,) = verdict(record_of(path=False))
    assert found.remedies[0].why.endswith("How many: not measured.")


@pytest.mark.parametrize(
    "made",
    [
        record_of(near=0.09),
        record_of(near=0.6, zeros=0.55),
        record_of(crossing=0.019),
        record_of(names=("a.bias",)),
        record_of(penalties={"l2": {"a.weight": 0.1}}),
        record_of(penalties={}),
        record_of(l1=-1e-3),
        record_of(near=0.04, crossing=0.0, early=(0.0, 0.9, 0.5)),
    ],
    ids=["few near zero", "they are zero", "they stay on their side", "biases alone", "squares", "none", "negative",
         "long ago"],
)  # fmt: skip
def test_what_is_no_fault(made):
    assert verdict(made) == []
    assert list(L1WithoutProximalStep().asks(made)) == []


def test_what_counts_is_the_second_half():
    (found,) = verdict(record_of(early=(0.0, 0.0, 0.0)))
    assert found.evidence[0].value == pytest.approx(0.6)


def test_a_look_without_neighbouring_steps_is_left_out():
    made = record_of()
    made.append("weights", "default", 350, np.tile([0.1, 0.2, 1.0, 0.0, 0.6, np.nan], (3, 1)))
    (found,) = verdict(made)
    assert found.evidence[1].value == pytest.approx(0.2)


def test_weights_that_are_lost_are_not_judged():
    made = record_of()
    made.append("weights", "default", 350, np.tile([np.inf, np.inf, np.inf, 0.0, 0.6, 0.2], (3, 1)))
    assert verdict(made) == []


def beside(penalties):
    """A run half of whose loss is a term beside the criterion."""
    made = record_of(penalties=penalties)
    steps = np.arange(100)
    for stream, values in (("root", np.full(100, 2.0)), ("cross_entropy", np.full(100, 1.0))):
        made.append("train_loss", stream, steps, values)
    made.append("loss_factor", "cross_entropy", 0, 1.0)
    return made


def weighty(term=0.2, zeros=0.0, **options):
    """A run of a classifier of ten whose loss has a term beside the criterion, and whose weights do not hover."""
    made = record_of(near=zeros + 0.04, zeros=zeros, crossing=0.0, **options)
    steps, falls = np.arange(100), np.linspace(2.0, 1.0, 100)
    for stream, values in (("root", falls + term), ("cross_entropy", falls)):
        made.append("train_loss", stream, steps, values)
    made.append("loss_factor", "cross_entropy", 0, 1.0)
    facts = {"function": "cross_entropy", "reduction": "mean", "arguments": {}, "classes": 10}
    made.set_fact("loss", {"cross_entropy": facts})
    return made


def test_a_term_that_weighs_and_selects_nothing_is_told_behind_all_else():
    (found,) = verdict(weighty())
    assert found.margin == MODEST
    assert found.summary == (
        "an L1 term of 0.001 is in the loss and 0.0% of the weights are zero: it makes up as much as 16% of what is "
        "minimised, and gradient steps select none"
    )
    shown = {e.name: (e.value, e.threshold) for e in found.evidence}
    assert shown["term over the loss of a constant guess"] == (pytest.approx(0.2 / np.log(10), rel=1e-3), 0.01)
    assert [wish.kind for wish in L1WithoutProximalStep().asks(weighty(path=False))] == ["sparsity"]


def test_a_term_that_weighs_little_or_selects_is_none():
    assert verdict(weighty(term=0.1)) == verdict(weighty(zeros=0.02)) == []
    assert verdict(weighty(), part=0.2) == verdict(weighty(), weighty=0.1) == verdict(weighty(), selected=0.0) == []
    both = {"l1": {"a.weight": 1e-3}, "l2": {"a.weight": 1e-3}}
    assert verdict(weighty(penalties=both)) == []  # which of them weighs is not known


def test_a_term_that_was_not_seen_is_not_judged():
    with pytest.raises(NotChecked, match="what it is made of"):
        verdict(beside({}))


def test_a_term_that_was_seen_to_be_another_is_no_l1_term():
    assert verdict(beside({"l2": {"a.weight": 0.1}})) == []


def test_thresholds():
    assert verdict(record_of(), hovering=0.7) == verdict(record_of(), crossing=0.3) == []
    assert verdict(record_of(near=0.05), hovering=0.01)


def test_coefficients_that_differ_are_told():
    made = record_of(penalties={"l1": {"a.weight": 1e-4, "b.weight": 1e-3}})
    assert "an L1 term of 0.0001 to 0.001 is" in verdict(made)[0].summary


SEEDS = range(3)
CASES = [("digits", "momentum", 1e-3), ("breast_cancer", "adam", 1e-3), ("diabetes", "adam", 3e-3),
         ("wine", "adam", 1e-4), pytest.param("digits", "sgd", 3e-3, marks=pytest.mark.long)]  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("l1", [pytest.param(0.0, marks=pytest.mark.long), 1e-6])
def test_it_is_silent_where_nothing_is_selected(l1, seed):
    for name in ("digits", "diabetes"):
        watch, *_ = training(name, seed, l1)
        assert verdict(watch.record) == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "optimizer", "l1"), CASES)
def test_it_fires_on_a_subgradient_and_as_many_weights_are_zero_by_proximal_steps_as_planned(name, optimizer, l1, seed):
    """Within .10, of a training from the start with proximal steps of the coefficient that the remedy names."""
    watch, model, *_ = training(name, seed, l1, optimizer=optimizer, probes={"sparsity": 10**9})
    (found,) = verdict(watch.record)
    assert found.severity == Severity.WARNING
    assert zeros_in(model) < 0.001
    planned = next(e.value for e in found.evidence if "proximal steps" in e.name)
    watch, model, *_ = training(name, seed, l1, how=PROX, optimizer=optimizer)
    assert verdict(watch.record) == []
    assert zeros_in(model) > 0.1
    assert planned == pytest.approx(zeros_in(model), abs=0.1)
