import numpy as np
import pytest
import torch
from synthetic import class_record, confusion

import trainwatch
from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.engine import nest
from trainwatch.rules import NotChecked
from trainwatch.rules.base import MODEST
from trainwatch.rules.tw101_class_imbalance import ClassImbalance
from trainwatch.rules.tw102_majority_collapse import MajorityCollapse
from trainwatch.symptoms.balance import adjustment_in_use

BAD = confusion([200, 200, 60], [0.95, 0.95, 0.4])
GOOD = confusion([200, 200, 60], [0.95, 0.95, 0.93])


def verdict(record, **thresholds):
    return list(ClassImbalance(**thresholds).check(record))


def ids(found):
    return [r.id for r in found.remedies]


@pytest.mark.parametrize("rare", [5, 50, 230])
@pytest.mark.parametrize("scale", [1, 100])
def test_warns_where_the_rare_class_is_missed(rare, scale):
    (found,) = verdict(class_record([1000 * scale, 900 * scale, rare * scale], [GOOD, BAD, BAD]))
    assert found.severity == Severity.WARNING
    assert found.where == ("2",)
    assert found.margin > 0
    assert found.onset_step == 20


SILENT = {
    "balanced": ([100, 100, 90], [BAD, BAD]),
    "mild-and-learned": ([1000, 900, 200], [GOOD, GOOD]),
    "too-few-samples-to-tell": ([1000, 900, 200], [confusion([200, 200, 3], [0.95, 0.95, 0.67])] * 2),
    "all-classes-alike": ([1000, 900, 200], [confusion([200, 200, 60], [0.4, 0.4, 0.4])] * 2),
    "gap-too-small": ([1000, 900, 200], [confusion([9000, 9000, 5000], [0.95, 0.95, 0.9])] * 2),
    "last-pass-recovers": ([1000, 900, 200], [BAD, BAD, GOOD]),
    "last-pass-alone-bad": ([1000, 900, 200], [GOOD, GOOD, BAD]),
    "empty-class-does-not-count": ([1000, 900, 0], [GOOD, GOOD]),
}


@pytest.mark.parametrize(("counts", "tables"), SILENT.values(), ids=SILENT)
def test_stays_silent(counts, tables):
    assert verdict(class_record(counts, tables)) == []


def missing(recalled, of):
    """Recall of the rare class; that of the others is 0.95."""
    return [confusion([200, 200, of], [0.95, 0.95, recalled / of])] * 2


@pytest.mark.parametrize(
    ("rare", "tables", "found"),
    [
        (250, [BAD, BAD], []),  # 0.35 of an even share
        (230, [BAD, BAD], ["warning"]),  # 0.32
        (200, missing(8, 10), []),  # 1.6 standard errors
        (200, missing(48, 60), ["warning"]),  # 3.0
        (200, [confusion([9000, 9000, 5000], [0.95, 0.95, 0.87])] * 2, []),  # by 0.08
        (200, [confusion([9000, 9000, 5000], [0.95, 0.95, 0.8])] * 2, ["warning"]),  # by 0.15
        (70, [GOOD, GOOD], []),  # 14 to one
        (40, [GOOD, GOOD], ["info"]),  # 25 to one
        (200, [], ["info"]),
    ],
)
def test_how_uneven_classes_must_be_and_how_far_behind(rare, tables, found):
    assert [d.severity for d in verdict(class_record([1000, 900, rare], tables))] == found


def test_strong_but_learned_is_info():
    (found,) = verdict(class_record([1000, 900, 20], [GOOD, GOOD]))
    assert found.severity == Severity.INFO
    assert "no lower recall" in found.summary


def test_without_predictions_harm_is_not_measured():
    (found,) = verdict(class_record([1000, 900, 20]))
    assert found.severity == Severity.INFO
    assert found.summary.endswith("harm not measured")
    assert "better-metric" not in ids(found)


def test_rare_class_absent_from_validation_is_not_measured():
    (found,) = verdict(class_record([1000, 900, 20], [confusion([200, 200, 0], [0.9, 0.9, 0])] * 2))
    assert found.severity == Severity.INFO
    assert "harm not measured" in found.summary


def test_one_missed_class_among_learned_rare_ones_is_found():
    table = confusion([300, 100, 100, 100], [0.95, 0.95, 0.95, 0.3])
    (found,) = verdict(class_record([1000, 50, 50, 50], [table, table]))
    assert found.severity == Severity.WARNING


@pytest.mark.parametrize(("last", "found"), [(0.82, ["warning"]), (0.9, [])])
def test_the_mean_of_two_passes_tells_where_each_shows_the_gap(last, found):
    """By itself the last one is 1.8 standard errors away; 0.05 is no gap, whatever was before."""
    tables = [confusion([200, 200, 20], [0.95, 0.95, recall]) for recall in (0.6, last)]
    assert [d.severity for d in verdict(class_record([1000, 900, 200], tables))] == found
    assert verdict(class_record([1000, 900, 200], [tables[1]] * 2)) == []


def test_waits_for_a_second_pass():
    with pytest.raises(NotChecked, match="from 2 on"):
        verdict(class_record([1000, 900, 20], [BAD]))


def test_language_models_and_multi_label_runs_are_not_judged():
    with pytest.raises(NotChecked, match="language model"):
        verdict(class_record([1000, 20], task="language-model"))
    record = class_record([1000, 20])
    multi = class_record([1, 1])
    multi._series["train_classes"] = {"labels": record.series("train_classes", "targets")}
    with pytest.raises(NotChecked, match="single class"):
        verdict(multi)


@pytest.mark.parametrize(
    ("threshold", "value"), [("ratio", 21.0), ("recall_gap", 0.6), ("min_errors", 50.0), ("min_passes", 3)]
)
def test_each_threshold_can_silence_it(threshold, value):
    record = class_record([1000, 900, 50], [GOOD, BAD, BAD])
    assert verdict(record)[0].severity == Severity.WARNING
    assert not [d for d in verdict(record, strong_ratio=50.0, **{threshold: value}) if d.severity >= Severity.WARNING]


def test_message_and_evidence():
    (found,) = verdict(class_record([1000, 800, 50], [BAD, BAD], class_names=["cat", "dog", "emu"]))
    assert found.summary == (
        "the largest class has 20 times the samples of the smallest; rare: emu; "
        "their recall is 0.545 below that of the others"
    )
    shown = {(e.name, e.where): e for e in found.evidence}
    recall = shown["recall", "emu"]
    assert recall.value == pytest.approx(0.4)
    assert recall.note.startswith("24 of 60; 95 % bounds 0.27")
    assert "cat: 1000, dog: 800, emu: 50" in shown["largest class over smallest", ""].note


def test_counts_are_scaled_to_one_epoch():
    (found,) = verdict(class_record([10000, 8000, 500], [BAD, BAD], samples=1850))
    assert "training samples: 0: 1000, 1: 800, 2: 50" in found.evidence[0].note
    text = {r.id: r for r in found.remedies}
    assert "2: 950 more samples" in text["augment-minority"].why
    assert "2: 284 more samples" in text["collect-minority"].why
    assert "torch.tensor([0.6167, 0.7708, 12.33])" in text["class-weights"].how


@pytest.mark.parametrize(
    ("function", "made"),
    [
        ("cross_entropy", torch.nn.CrossEntropyLoss),
        ("nll_loss", torch.nn.NLLLoss),
        ("binary_cross_entropy_with_logits", torch.nn.BCEWithLogitsLoss),
    ],
)
def test_the_code_of_weights_runs_and_fits_the_criterion(function, made):
    tables = [confusion([200, 60], [0.95, 0.3])] * 2
    (found,) = verdict(class_record([1000, 50], tables, loss={function: {"function": function}}))
    names = {"torch": torch}
    exec(next(r for r in found.remedies if r.id == "class-weights").how, names)
    assert type(names["criterion"]) is made
    per_class = names["weight"].reshape(-1)
    assert float(per_class[-1] / (per_class[0] if len(per_class) == 2 else 1)) == pytest.approx(12.97, rel=0.01)


def test_positives_weigh_more_where_the_loss_takes_probabilities():
    loss = {"binary_cross_entropy": {"function": "binary_cross_entropy"}}
    (found,) = verdict(class_record([1000, 50], [confusion([200, 60], [0.95, 0.3])] * 2, loss=loss))
    names = {"torch": torch}
    exec(found.remedies[0].how, names)
    sure, missed = (names["criterion"](torch.tensor([0.1]), torch.tensor([y])).item() for y in (0.0, 1.0))
    assert sure == pytest.approx(-np.log(0.9), rel=1e-4)
    assert missed == pytest.approx(-12.97 * np.log(0.1), rel=0.01)


def adjusted(*, function="cross_entropy", **arguments):
    """The criterion that the first remedy has."""
    loss = {function: {"function": function, "arguments": arguments}}
    (found,) = verdict(class_record([1000, 50], [confusion([200, 60], [0.95, 0.3])] * 2, loss=loss))
    assert found.remedies[0].id == "logit-adjustment"
    names = {"torch": torch}
    exec(found.remedies[0].how, names)
    return names["criterion"]


PRIOR = torch.log(torch.tensor([1000 / 1050, 50 / 1050]))


@pytest.mark.parametrize("function", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("after", [(), (7,), (2,), (3, 5)], ids=str)
def test_the_code_of_adjusted_logits_runs_and_asks_more_of_the_rare_class(function, after):
    logits, targets = torch.randn(4, 2, *after, requires_grad=True), torch.randint(0, 2, (4, *after))
    loss = adjusted(function=function)(logits, targets)
    moved = logits + PRIOR.view(-1, *[1] * len(after))
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(moved, targets).item())
    with torch.no_grad():
        plain = adjusted()(logits, targets)
    assert plain.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, targets).item())


def test_what_the_criterion_was_told_stays():
    criterion = adjusted(ignore_index=255, label_smoothing=0.1, reduction="mean")
    assert (criterion.ignore_index, criterion.label_smoothing) == (255, 0.1)
    logits = torch.randn(3, 2, requires_grad=True)
    assert torch.isfinite(criterion(logits, torch.tensor([0, 255, 1])))


@pytest.mark.parametrize(
    "facts",
    [
        {"loss": {"bce": {"function": "binary_cross_entropy_with_logits"}}},
        {"loss": {"cross_entropy": {"function": "cross_entropy", "arguments": {"weight": [0.5, 10.0]}}}},
        {"loss": {"ce": {"function": "cross_entropy"}}, "loaders": {"train": {"sampler": "WeightedRandomSampler"}}},
    ],
    ids=["one output", "weighted", "drawn by class"],
)
def test_logits_are_not_adjusted_twice_nor_where_there_is_one(facts):
    (found,) = verdict(class_record([1000, 50], [confusion([200, 60], [0.95, 0.3])] * 2, **facts))
    assert "logit-adjustment" not in ids(found)


def test_weights_in_use_come_last_and_forbid_moving_the_threshold():
    tables = [confusion([200, 60], [0.95, 0.3])] * 2
    (free,) = verdict(class_record([1000, 50], tables))
    assert "move-threshold" in ids(free)
    assert ids(free)[0] == "class-weights"
    weighted = {"cross_entropy": {"arguments": {"weight": [0.5, 10.0]}}}
    (used,) = verdict(class_record([1000, 50], tables, loss=weighted))
    assert "move-threshold" not in ids(used)
    assert ids(used)[-1] == "class-weights"
    assert used.remedies[-1].already_in_use
    (sampled,) = verdict(class_record([1000, 50], tables, loaders={"train": {"sampler": "WeightedRandomSampler"}}))
    assert "move-threshold" not in ids(sampled)
    assert ids(sampled)[-1] == "resample"


def test_the_threshold_is_moved_for_a_rare_positive_class_alone():
    (found,) = verdict(class_record([50, 1000], [confusion([60, 200], [0.3, 0.95])] * 2))
    assert "move-threshold" not in ids(found)


@pytest.mark.parametrize(("rare", "offered"), [(4, True), (8, False)])
def test_anomaly_detection_is_offered_where_very_rare(rare, offered):
    (found,) = verdict(class_record([1000, rare], [confusion([200, 60], [0.95, 0.3])] * 2))
    assert ("reframe-as-anomaly" in ids(found)) is offered


def test_many_classes_give_a_formula_in_place_of_a_literal():
    counts = np.r_[np.full(59, 500), 20]
    (found,) = verdict(class_record(counts, loss={"cross_entropy": {"function": "cross_entropy"}}))
    adjusted, weights = found.remedies[:2]
    assert "torch.tensor((n.sum()" in weights.how
    names = {"torch": torch, "train_targets": torch.repeat_interleave(torch.arange(60), torch.tensor(counts).long())}
    exec(adjusted.how, names)
    assert names["counts"].tolist() == counts.tolist()
    assert "torch.bincount" in found.remedies[0].how


@pytest.mark.parametrize(("counts", "said"), [([6, 1], False), ([12, 2], True), ([12, 12, 12, 3], False)])
def test_classes_must_be_more_uneven_than_a_draw_of_as_many_samples(counts, said):
    """Six to one by 1.8 standard deviations of chi-square is chance, by 4.3 it is not."""
    table = confusion([200] * (len(counts) - 1) + [60], [0.95] * (len(counts) - 1) + [0.4])
    made = class_record(counts, [table, table])
    assert bool(verdict(made)) is said
    assert bool(verdict(made, chance=0.5 if not said else 6.0)) is not said


@pytest.mark.parametrize(
    ("code", "margin", "nested"),
    [
        ("TW102", 6.0, True),
        ("TW205", 6.0, True),
        ("TW208", 6.0, True),
        ("TW201", 0.1, True),
        ("TW202", 0.1, True),
        ("TW201", 6.0, False),
        ("TW202", 6.0, False),
        ("TW601", 0.1, False),
    ],
)
def test_what_it_explains_and_a_rising_loss_only_if_that_is_no_surer(code, margin, nested):
    (found,) = verdict(class_record([1000, 900, 50], [BAD, BAD]))
    found = found.with_(margin=3.0)
    other = Diagnosis(code, "another", Severity.WARNING, "fault", margin=margin)
    roots = nest([found, other])
    assert len(roots) == (1 if nested else 2)
    assert not nested or [d.code for d in roots[0].walk()] == ["TW101", code]
    alike = Diagnosis("TW201", "another", Severity.WARNING, "fault", margin=found.margin)
    assert len(nest([found, alike])) == 1


@pytest.mark.parametrize(("positives", "measured"), [(30, True), (29, False)])
def test_the_best_threshold_of_this_run_is_told_where_there_are_enough_positives(positives, measured):
    record = class_record([1000, 50], [confusion([200, 60], [0.95, 0.3])] * 2)
    logits = np.r_[np.linspace(-9, -3, 200), np.linspace(-2.9, 1, positives)]
    pairs = np.stack([logits, np.arange(len(logits)) >= 200], 1)
    record.append("val_scores", "val", 20, pairs[:, None])
    (found,) = verdict(record)
    (moved,) = (r for r in found.remedies if r.id == "move-threshold")
    best = 1 / (1 + np.exp(2.95))
    share = 50 / 1050
    assert f"from a score of {best if measured else share:.3g} on" in moved.title
    assert ("F1 1.000 at" in moved.why) is measured
    assert ("not measured" in moved.why) is not measured
    assert f"{share:.3g}, the share of positives" in moved.why


def test_one_missed_class_is_found_though_all_rare_ones_together_are_not_behind():
    table = confusion([400] + [60] * 12, [0.95] * 12 + [0.3])
    (found,) = verdict(class_record([6000] + [100] * 12, [table, table]))
    assert found.severity == Severity.WARNING
    assert found.evidence[3].value > 0.4


def test_adjusted_logits_in_use_come_last_and_are_not_corrected_twice():
    tables = [confusion([200, 60], [0.95, 0.3])] * 2
    loss = {"cross_entropy": {"function": "cross_entropy", "shifted": True}}
    (used,) = verdict(class_record([1000, 50], tables, loss=loss))
    assert used.remedies[-1].id == "logit-adjustment"
    assert used.remedies[-1].already_in_use
    assert not {"class-weights", "resample", "move-threshold"} & set(ids(used))


@pytest.mark.parametrize("pasted", [True, False])
def test_a_run_that_adjusts_its_logits_is_known_to(pasted):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = adjusted() if pasted else torch.nn.CrossEntropyLoss()
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "probes": "off"})
    for _ in range(3):
        optimizer.zero_grad()
        criterion(model(torch.randn(8, 4)), torch.randint(0, 2, (8,))).backward()
        optimizer.step()
    watch.finish()
    assert [loss["shifted"] for loss in watch.record.facts["loss"].values()] == [pasted]
    assert adjustment_in_use(watch.record) is pasted


@pytest.mark.parametrize(("end", "deferred"), [(0.73, True), (0.60, False)])
@pytest.mark.parametrize("rule", [ClassImbalance, MajorityCollapse])
def test_it_defers_to_what_kept_the_net_from_learning_anything(rule, end, deferred):
    """A constant guess costs 0.76, the entropy of these classes; a tenth of that is gone below 0.68."""
    collapsed = np.array([[200, 0, 0], [200, 0, 0], [200, 0, 0]])
    made = class_record([1000, 300, 100], [collapsed] * 3)
    made.append("train_loss", "cross_entropy", np.arange(100), np.full(100, end))
    facts = {"function": "cross_entropy", "reduction": "mean", "arguments": {}, "classes": 3}
    made.set_fact("loss", {"cross_entropy": facts})
    (found,) = rule().check(made)
    assert (found.margin == MODEST) is deferred
    assert deferred or found.margin > 2 * MODEST


def test_a_remark_stays_one_where_nothing_is_learned():
    made = class_record([1000, 900, 20], [GOOD, GOOD])
    made.append("train_loss", "cross_entropy", np.arange(100), np.full(100, np.log(3)))
    made.set_fact(
        "loss", {"cross_entropy": {"function": "cross_entropy", "reduction": "mean", "arguments": {}, "classes": 3}}
    )
    (found,) = verdict(made)
    assert (found.severity, found.margin) == (Severity.INFO, 0.0)
