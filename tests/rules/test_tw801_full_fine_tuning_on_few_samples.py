import copy

import numpy as np
import pytest
import torch
from torch import nn
from tuned import conv_net, mlp, parity, pretrained, tune

import trainwatch
from trainwatch.config import Settings
from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.engine import judge, nest
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw801_full_fine_tuning_on_few_samples import FullFineTuningOnFewSamples

SEEDS = range(3)
PROBES = {"tuning": 10**9, "frozen_part": 10**9}  # once, at the end, however slow the machine is
RATE, EPOCHS, SAMPLES, WRONG = 3e-3, 50, 60, 0.1


def knowing(seed):
    return pretrained(mlp, seed, epochs=10, knows=10)


def run(model, seed, *, optimizer=None, wrong=WRONG, samples=SAMPLES, epochs=EPOCHS):
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=RATE) if optimizer is None else optimizer
    parts = parity(seed, samples, wrong)
    report, record = tune(model, seed, parts=parts, optimizer=optimizer, epochs=epochs, probes=PROBES)
    with torch.no_grad():
        right = (model.eval()(parts[2]).argmax(1) == parts[3]).float().mean()
    return report, record, float(right)


def said(report):
    return [d for cause in report.diagnoses for d in cause.walk() if d.code == "TW801"]


@pytest.mark.parametrize("seed", SEEDS)
def test_fires_where_a_pretrained_net_overfits_and_what_it_advises_keeps_accuracy(seed):
    model = knowing(seed)
    report, _, accuracy = run(model, seed)
    (found,) = said(report)
    assert found.severity == Severity.WARNING
    assert found.where in (("1",), ("1", "3"), ("1", "3", "5"))
    assert {d.code for d in found.consequences} & {"TW201", "TW202"}
    assert found.evidence[0].value == pytest.approx(12805 / SAMPLES)
    remedies = {r.id: r for r in found.remedies}
    paste_the_others(remedies, model, knowing(seed))
    # What the report advises, pasted into another run.
    model = knowing(seed)
    code = {"model": model, "torch": torch}
    exec(remedies["freeze-layers"].how, code)
    frozen, _, with_it = run(model, seed, optimizer=code["optimizer"])
    assert said(frozen) == []
    error = np.sqrt(2 * accuracy * (1 - accuracy) / 800)
    assert with_it > accuracy - 2 * error


def paste_the_others(remedies, tuned, start):
    """Paste what masks the tuned net, and what adds updates of low rank to the one that it began as."""
    assert {"freeze-layers", "low-rank-update", "subnetwork-mask"} <= set(remedies)
    code = {"model": tuned, "torch": torch, "start": start.state_dict()}
    exec(remedies["subnetwork-mask"].how, code)
    tuned(parity(0)[0]).sum().backward()
    assert 0 < np.mean([(p.grad != 0).float().mean() for _, p in code["named"]]) < 0.9
    low = copy.deepcopy(start)
    before = low(parity(0)[0])
    exec(remedies["low-rank-update"].how, {"model": low, "torch": torch})
    assert torch.equal(low(parity(0)[0]), before)  # one factor begins at zero
    trained = {n: p.numel() for n, p in low.named_parameters() if p.requires_grad}
    assert any(n.endswith("weight.0.up") for n in trained)
    assert sum(trained.values()) < sum(p.numel() for p in start.parameters())


def tuned_by_hand(watched):
    """Weights, statistics, moments and random numbers after tuning a net with batch norm that knows ten digits."""
    model, (x, y, *_) = pretrained(conv_net, 0, epochs=8, knows=10), parity(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    settings = Settings(quiet=True, strict=True, probes=PROBES, flush_every=7)
    watch = trainwatch.watch(model, optimizer, settings=settings) if watched else None
    torch.manual_seed(1)
    for _ in range(5):
        for rows in torch.randperm(len(x)).split(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model.train()(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            nn.functional.cross_entropy(model.eval()(x), y)
    if watch is not None:
        watch.finish()
        assert watch.record.has("learned_frozen")
        assert watch.record.has("kept_directions")
    moments = [v for state in optimizer.state.values() for v in state.values()]
    return [*model.state_dict().values(), *moments, torch.get_rng_state()]


def test_the_training_is_bit_for_bit_what_it_is_without_a_watch():
    pairs = zip(tuned_by_hand(True), tuned_by_hand(False), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("seed", SEEDS)
def test_stays_silent_where_the_model_begins_at_random(seed):
    torch.manual_seed(seed)
    report, record, _ = run(mlp(), seed, epochs=12)
    assert said(report) == []
    assert record.facts["start_weights"]["trained"] == 0
    assert "TW801" not in report.not_checked


@pytest.mark.parametrize("seed", SEEDS)
def test_stays_silent_where_a_part_is_frozen_already(seed):
    model = knowing(seed)
    model[1].requires_grad_(False)
    assert said(run(model, seed, epochs=12)[0]) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_without_harm_it_is_a_remark_at_most(seed):
    report = run(knowing(seed), seed, wrong=0.0, samples=400, epochs=6)[0]
    assert [d for d in said(report) if d.severity > Severity.INFO] == []


@pytest.mark.parametrize("seed", SEEDS)
def test_stays_silent_where_every_layer_has_to_move(seed):
    """A net that knows five digits, on five others: frozen layers cost accuracy."""
    model = pretrained(mlp, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    assert said(tune(model, seed, optimizer=optimizer, epochs=15, probes=PROBES)[0]) == []


ALL = (0, 0.5, 0.0)  # modules frozen, validation loss, its standard error


def a_record(*, trained=3, resumed=False, samples=100, frozen=((2, 0.5, 0.01), (3, 0.9, 0.01)), rises=True,
             trainable=(True,) * 4, finished=True, best=0.5, doubtful=None):  # fmt: skip
    """A finished fine-tuning of four layers of 1,000 numbers.

    Args:
        doubtful: By how much validation rises while it swings; None where it `rises` for sure, or rests.
    """
    record = RunRecord()
    parameters = [
        {"name": f"{i}.weight", "module": str(i), "numel": 1000, "shape": [25, 40], "kind": "weight", "trainable": t}
        for i, t in enumerate(trainable)
    ]
    record.set_fact("parameters", parameters)
    group = {"lr": 1e-3, "parameters": [0, 1, 2, 3]}
    record.set_fact("optimizers", {"default": {"type": "Adam", "parameters": [0, 1, 2, 3], "groups": [group]}})
    facts = {"judged": 4, "trained": trained, "resumed": resumed, "kept": 4000, "left_out": 0}
    record.set_fact("start_weights", facts)
    record.set_fact("run", {"steps": 200, "epochs": 20, "samples": 20 * samples, "finished": finished})
    record.set_fact("freezable", ["0", "1", "2", "3"])
    record.append("learned_frozen", "held", 200, np.array([ALL, *frozen]))
    record.append("train_loss", "cross_entropy", range(200), np.geomspace(2, 0.01, 200))
    facts = {"kind": "val", "primary": True, "criterion": "cross_entropy", "samples": 200, "paired": True}
    record.set_fact("validation", {"val": facts})
    curve = np.r_[np.linspace(2, best, 6), np.linspace(best + 0.05, 1.2 if rises else best, 14)]
    if doubtful is not None:
        curve[6:] = best + np.linspace(0, doubtful, 14) + 0.03 * (-1.0) ** np.arange(14)
    noise = np.random.default_rng(0).normal(0, 0.01, (20, 200))
    record.append("val_loss", "val", range(10, 210, 10), curve)
    record.append("val_sample_loss", "val", range(10, 210, 10), curve[:, None] + noise)
    return record


def verdict(record=None, **options):
    return [(d.severity, d.where) for d in FullFineTuningOnFewSamples(**options).check(record or a_record())]


WARNED = [(Severity.WARNING, ("0", "1"))]


def test_thresholds():
    assert verdict() == WARNED
    assert verdict(a_record(rises=False)) == [(Severity.INFO, ("0", "1"))]
    assert verdict(a_record(trained=2)) == verdict(a_record(resumed=True)) == []
    assert verdict(a_record(samples=401)) == []
    assert verdict(a_record(samples=399)) == WARNED
    assert verdict(a_record(trainable=(False, True, True, True))) == []
    assert verdict(a_record(trainable=(False, True, True, True)), full=0.7) == WARNED
    last = (3, 0.9, 0.01)
    assert verdict(a_record(frozen=((1, 0.545, 0.02), last))) == []  # beyond two errors
    assert verdict(a_record(frozen=((1, 0.539, 0.02), last))) == [(Severity.WARNING, ("0",))]
    assert verdict(a_record(frozen=((1, 0.53, 0.001), last))) == []  # beyond a twentieth
    assert verdict(a_record(frozen=((1, 0.52, 0.001), last))) == [(Severity.WARNING, ("0",))]
    assert verdict(a_record(frozen=((1, 0.56, 0.1), last))) == []  # beyond a tenth
    assert verdict(a_record(frozen=((1, 0.54, 0.1), (3, 0.49, 0.01)))) == [(Severity.WARNING, ("0", "1", "2"))]


def test_a_copy_is_no_worse_where_the_run_itself_never_came_lower():
    beyond = ((1, 0.6, 0.001), (3, 0.9, 0.01))  # a copy with nothing frozen
    assert verdict(a_record(frozen=beyond, best=0.59)) == []
    assert verdict(a_record(frozen=beyond, best=0.61)) == [(Severity.WARNING, ("0",))]
    (found,) = FullFineTuningOnFewSamples().check(record := a_record(frozen=beyond, best=0.61))
    assert found.summary.endswith(
        "copies learn as well with 1 of 4 modules frozen, to a validation loss of 0.6 against 0.61"
    )
    (shown,) = [e for e in found.evidence if e.value == pytest.approx(0.6)]
    assert shown.threshold == pytest.approx(0.61, abs=1e-3)
    assert "0.5 with none, the run 0.6" in shown.note
    record.set_fact("validation", {"val": record.facts["validation"]["val"] | {"criterion": "l1_loss"}})
    assert verdict(record) == []


def test_copies_that_learn_better_are_harm_enough():
    def better(loss, error, **more):
        return [s for s, _ in verdict(a_record(frozen=((2, loss, error), (3, 0.9, 0.01)), rises=False, **more))]

    assert better(0.44, 0.02) == [Severity.WARNING]
    assert better(0.44, 0.04) == [Severity.INFO]  # within two errors
    assert better(0.46, 0.01) == [Severity.INFO]  # within a tenth
    (found,) = FullFineTuningOnFewSamples().check(a_record(frozen=((2, 0.44, 0.02), (3, 0.9, 0.01)), rises=False))
    assert "copies learn better" in found.summary
    assert found.margin == pytest.approx((0.06 - 0.05) / 0.02, rel=1e-3)


def test_the_surer_of_two_harms_makes_the_margin():
    def margin(loss, rises):
        return next(
            FullFineTuningOnFewSamples().check(a_record(frozen=((2, loss, 0.02), (3, 0.9, 0.01)), rises=rises))
        ).margin

    assert margin(0.44, rises=True) == margin(0.5, rises=True) > margin(0.44, rises=False)


def test_samples_that_were_learned_by_heart_are_harm_enough():
    def found(training, validation, error=0.02, above=0.12, back=False, **options):
        record = a_record(doubtful=above)
        record.append("evaluated_loss", "held", 200, [training, error, training, validation, error])
        if back:
            record.set_fact("weights_loaded", {"times": 1, "last_step": 200})
        (one,) = FullFineTuningOnFewSamples(**options).check(record)
        return one

    learned = found(0.05, 0.5)
    assert learned.severity == Severity.WARNING
    assert "are trained on 100 samples, by heart; copies learn as well" in learned.summary
    assert learned.margin == pytest.approx(0.075 / np.hypot(0.02, 0.005), rel=1e-3)
    (shown,) = [e for e in learned.evidence if e.name == "training loss over validation loss"]
    assert (shown.value, shown.threshold) == (pytest.approx(0.1), 0.25)
    assert found(0.13, 0.5).severity == found(0.05, 0.5, by_heart=0.05).severity == Severity.INFO
    assert found(0.05, np.nan).severity == found(0.05, 0.5, error=0.0).severity == Severity.INFO
    assert found(0.05, 0.5, above=0.06).severity == Severity.INFO, "validation is as good as it was at its best"
    assert found(0.05, 0.5, of_left=0.12).severity == Severity.INFO
    assert found(0.05, 0.5, back=True).severity == Severity.INFO


def test_copies_that_learn_better_are_no_harm_where_the_run_itself_was_not_validated():
    record = a_record(frozen=((2, 0.44, 0.02), (3, 0.9, 0.01)), rises=False)
    del record._series["val_loss"]
    assert [s for s, _ in verdict(record)] == [Severity.INFO]


def test_a_run_that_ends_below_its_copies_is_none_the_worse():
    record = a_record(frozen=((2, 0.44, 0.02), (3, 0.9, 0.01)), rises=False)
    assert [s for s, _ in verdict(record)] == [Severity.WARNING]
    for lower in (0.43, 0.42, 0.41):
        step = int(record.series("val_loss", "val").last_step) + 10
        record.append("val_loss", "val", step, lower)
        record.append("val_sample_loss", "val", step, np.full(200, lower))
    assert [s for s, _ in verdict(record)] == [Severity.INFO]


def test_best_weights_that_are_back_make_it_a_remark():
    record = a_record()
    record.set_fact("weights_loaded", {"times": 1, "last_step": 200})
    assert [severity for severity, _ in verdict(record)] == [Severity.INFO]


def test_it_accounts_for_overfitting_where_it_is_more_than_a_remark():
    (found,) = (d for d in judge(a_record(), Settings()).diagnoses if d.code == "TW801")
    assert [d.code for d in found.consequences][:1] in (["TW201"], ["TW202"])
    record = a_record()
    record.set_fact("weights_loaded", {"times": 1, "last_step": 200})
    (found,) = (d for d in judge(record, Settings()).diagnoses if d.code == "TW801")
    assert found.consequences == ()


def test_weights_that_are_tied_or_could_be_are_told():
    record = a_record()
    parameters = [dict(p) for p in record.facts["parameters"]]
    parameters[0]["kind"] = "embedding"
    record.set_fact("parameters", parameters)
    (could,) = FullFineTuningOnFewSamples().check(record)
    shared = next(r for r in could.remedies if r.id == "share-weights")
    assert not shared.already_in_use
    parameters[0]["tied"] = ["3.weight"]
    record = a_record()
    record.set_fact("parameters", parameters)
    (is_so,) = FullFineTuningOnFewSamples().check(record)
    shared = next(r for r in is_so.remedies if r.id == "share-weights")
    assert shared.already_in_use
    assert 'get_submodule("3").weight = model.get_submodule("0").weight' in shared.how


def test_tied_names_are_facts():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.head.weight = self.table.weight

    from trainwatch.capture.wiring import parameter_facts

    (found,) = parameter_facts({"default": Tied()})
    assert (found["name"], found["tied"]) == ("table.weight", ["head.weight"])


def test_abstains_where_it_cannot_know():
    rule = FullFineTuningOnFewSamples()
    for record in (RunRecord(), a_record(finished=False), a_record(samples=0)):
        with pytest.raises(NotChecked):
            list(rule.check(record))
    assert verdict(a_record(trained=2, samples=0)) == []  # a net that was not trained before is none of its business
    record = a_record()
    del record.facts["start_weights"]
    with pytest.raises(NotChecked, match="trained before"):
        list(rule.check(record))
    record = a_record()
    unmeasured = RunRecord()
    for topic, value in record.facts.items():
        unmeasured.set_fact(topic, value)
    with pytest.raises(NotChecked, match="not measured"):
        list(rule.check(unmeasured))


def test_it_asks_for_experiments_where_they_can_tell_something():
    kinds = [request.kind for request in FullFineTuningOnFewSamples().asks(a_record())]
    assert kinds == ["frozen_part", "train_eval", "tuning"]
    assert list(FullFineTuningOnFewSamples().asks(a_record(trained=1))) == []
    running = a_record(finished=False)
    running.set_fact("run", {"steps": 0, "epochs": 0, "samples": 0})  # as it stands until the run has ended
    assert len(list(FullFineTuningOnFewSamples().asks(running))) == 3


@pytest.mark.parametrize("code", ["TW201", "TW202", "TW203", "TW207"])
def test_what_few_samples_do_to_a_net_that_is_moved_as_a_whole_is_nested_under_it(code):
    def found(code, severity):
        return Diagnosis(code, "a fault", severity, "of it", onset_step=20, margin=9.0, confidence=0.9)

    effect = found(code, Severity.WARNING)
    (root,) = nest([effect, found("TW801", Severity.WARNING)])
    assert [d.code for d in root.walk()] == ["TW801", code]
    assert len(nest([effect, found("TW801", Severity.INFO)])) == 2
