import math
from unittest import mock

import numpy as np
import pytest
import torch
from scaled import table, train
from torch.utils.data import DataLoader, TensorDataset

import trainwatch
from audited import asked, part
from audited import split as audited_split
from trained import split, trained
from trainwatch.auditing.measures import features, shift
from trainwatch.config import Settings
from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.engine import nest
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw109_train_val_shift import TrainValShift


def kind(votes, far, n=200, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.full((512, 3), np.nan)
    rows[:n] = np.stack([np.arange(n) % 3, votes + rng.standard_normal(n), far + rng.standard_normal(n)], 1)
    return rows


def record_of(votes=2.0, far=2.0, worse=0.5, error=0.05, counts=None, **facts):
    record = RunRecord()
    record.append("held_shift", "train", 99, kind(0, 0))
    record.append("held_shift", "val", 99, kind(votes, far, seed=1))
    record.append("shift_features", "inputs", 99, [[7, 0.5, 0.125, 3.5], [1, 0.2, 2.0, 2.5], [0, 0.1, 0.0, 0.0]])
    record.append("evaluated_loss", "held", 99, [0.5, 0.0, 0.5, 0.5 + worse, error])
    if counts:
        record.append("train_classes", "targets", 0, np.append(np.asarray(counts[0], float), 0))
        record.append("val_loss", "val", 99, 1.0)
        record.append("val_confusion", "val", 99, np.diag(np.asarray(counts[1], float)))
    known = {"validation": {"val": {"kind": "val", "primary": True}}, "run": {"finished": True, "train_samples": 1000}}
    for topic, value in {**known, **facts}.items():
        record.set_fact(topic, value)
    return record


def verdict(record, **thresholds):
    return list(TrainValShift(**thresholds).check(record))


def test_inputs_from_elsewhere_that_the_net_does_worse_on():
    (found,) = verdict(record_of())
    assert found.severity == Severity.WARNING
    assert 5 < found.margin < 100
    assert found.evidence[0].value > found.evidence[0].threshold == 0.6
    assert found.evidence[1].value > found.evidence[1].threshold == 0.55
    assert found.evidence[2].value == pytest.approx(10)
    assert "feature 7: 0.125 against 3.5" in found.evidence[0].note
    same, anew = found.remedies
    assert (same.id, anew.id) == ("same-preparation", "split-anew")
    assert (
        "feature 7, feature 1, feature 0) is 3.5, 2.5, 0 on average in validation and 0.125, 2, 0 in training"
        in same.why
    )


@pytest.mark.parametrize(("moved", "first"), [(1.0, "split-anew"), (0.0, "same-preparation")])
def test_what_can_be_told_once_it_is_aligned_was_not_made_in_preparing_it(moved, first):
    record = record_of()
    for seed, (name, votes) in enumerate((("train", 0.0), ("val", moved))):
        record.append("shift_aligned", name, 99, kind(votes, 0, seed=seed)[:, 1])
    (found,) = verdict(record)
    assert found.remedies[0].id == first
    assert found.evidence[3].name == "AUC of aligned inputs"
    assert (found.evidence[3].value > found.evidence[3].threshold == 0.6) is (first == "split-anew")


def scaled(*, reach=(-1.0, 1.0), val=(-9.0, 9.0), val_loss=2.0):
    """A run whose validation inputs lie elsewhere; nine in ten entries of both reach as told."""
    record = RunRecord()
    record.append("train_loss", "cross_entropy", np.arange(300), np.linspace(1.1, 1.0, 300))
    for key, step, (low, high) in (("train", 0, reach), ("val", 10, val)):
        record.append("input_stats", key, step, np.array([0, 0, 0, high, low, high, 0, high, high]))
    if val_loss is not None:
        record.append("val_loss", "val", 10, val_loss)
    record.set_fact("validation", {"val": {"kind": "val", "primary": True}})
    return record


@pytest.mark.parametrize(
    ("fires", "silent"),
    [
        ({"val": (-3.1, 3.1)}, {"val": (-2.9, 2.9)}),
        ({"val": (-0.3, 0.3)}, {"val": (-0.4, 0.4)}),
        ({}, {"val_loss": 0.5}),
        ({}, {"val_loss": None}),
        ({"val": (-3.1, 0.0)}, {"val": (-2.9, 0.0)}),
        ({"val": (0.45, 1.0)}, {"val": (0.25, 1.0)}),
        ({"reach": (8.0, 9.0), "val": (5.9, 9.0)}, {"reach": (8.0, 9.0), "val": (6.1, 9.0)}),
    ],
)
def test_validation_on_another_scale_is_a_fault_where_it_does_worse(fires, silent):
    (found,) = verdict(scaled(**fires))
    assert found.severity == Severity.WARNING
    assert found.margin == float("inf")
    assert [r.id for r in found.remedies] == ["same-preparation"]
    assert "training loss 1" in found.evidence[0].note
    record = scaled(**silent)
    record.append("train_classes", "targets", 0, [50.0, 50.0, 0.0])
    with pytest.raises(NotChecked):
        verdict(record)


def said_alone(made, said):
    """One finding, or nothing that could be compared."""
    if said:
        assert len(verdict(made)) == 1
    else:
        with pytest.raises(NotChecked):
            verdict(made)


@pytest.mark.parametrize(("odd", "said"), [(0, True), (1, True), (4, False)])
def test_its_scale_is_compared_with_the_usual_batch_of_training(odd, said):
    """Eight looks at training, of which so many are as wide as validation is."""
    made = scaled(val=(-4.0, 4.0))
    for i in range(7):
        reach = 4.0 if i < odd else 1.0
        made.append("input_stats", "train", i + 1, np.array([0, 0, 0, 1.0, -reach, reach, 0, 1.0, 1.0]))
    said_alone(made, said)


def test_a_scale_says_enough_where_trees_tell_them_apart_as_well():
    record = record_of()
    for key in ("train", "val"):
        record.append("input_stats", key, *scaled().series("input_stats", key).history())
    record.append("train_loss", "cross_entropy", np.arange(90), np.full(90, 1.0))
    record.append("val_loss", "val", 95, 2.0)
    (found,) = verdict(record)
    assert "nine in ten entries" in found.summary


@pytest.mark.parametrize(("factor", "fires"), [(1.0, False), (2.5, False), (4.0, True), (0.2, True)])
def test_on_data_alone_another_scale_is_a_warning(factor, fires):
    x, _, xv, _ = (t.numpy() for t in table("wine", 0))
    found = asked([part("train", x), part("val", xv * factor)], features)[1].diagnoses
    said = [d for d in found if d.code == "TW109" and d.remedies[0].id == "same-preparation"]
    assert [d.severity for d in said] == [Severity.WARNING] * fires


def scaled_data(chance, **how):
    made = scaled(**how)
    made.set_fact("subject", "data")
    made.set_fact("scale_chance", {"inputs": chance})
    return made


@pytest.mark.parametrize(
    ("found", "chance", "val"),
    [
        (1, 0.0008, (-4.0, 4.0)),
        (0, 0.0012, (-4.0, 4.0)),
        (1, 0.0, (-1.0, 3.1)),
        (0, 0.0, (-1.0, 2.9)),
        (1, 0.0, (-3.1, 1.0)),
        (0, 0.0, (-2.9, 1.0)),
    ],
)
def test_on_data_alone_a_reach_to_one_side_counts_where_chance_does_not_make_it(found, chance, val):
    made = scaled_data(chance, val=val)
    said_alone(made, found)


def test_before_training_one_batch_is_not_all_that_will_be_trained_on():
    made = record_of(votes=0, counts=([500, 0, 500], [90, 20, 90]))
    made.set_fact("subject", "preflight")
    assert verdict(made) == []


def test_fires_on_a_training_whose_validation_was_prepared_otherwise():
    report, _ = train(table("wine", 0), torch.nn.CrossEntropyLoss(), val_factor=20.0)
    assert [d.code for d in report.diagnoses] == ["TW109"]
    assert report.diagnoses[0].evidence[0].value == pytest.approx(20, rel=0.5)


REMARKS = {
    "no further off": ({"far": 0.0}, "augmentation does that"),
    "closer": ({"far": -2.0}, "augmentation does that"),
    "no worse": ({"worse": 0.0}, "no worse there"),
    "perhaps worse": ({"error": 0.4}, "no worse there"),
}


@pytest.mark.parametrize("code", ["TW101", "TW104", "TW201", "TW202", "TW203", "TW204", "TW205", "TW206", "TW208"])
def test_what_validation_alone_shows_is_its_consequence(code):
    (found,) = verdict(record_of())
    effect = Diagnosis(code, "effect", Severity.WARNING, "shown by validation", margin=9.0, confidence=0.99)
    (root,) = nest([effect, found])
    assert root.code == "TW109"
    (remark,) = verdict(record_of(far=0.0))
    assert len(nest([effect, remark])) == 2


@pytest.mark.parametrize(("how", "words"), REMARKS.values(), ids=REMARKS)
def test_told_apart_alone_it_is_a_remark(how, words):
    (found,) = verdict(record_of(**how))
    assert found.severity == Severity.INFO
    assert words in found.summary
    assert bool(found.remedies) is ("augmentation" not in words), "there is nothing to mend then"
    assert verdict(record_of(votes=0.65, **how)) == []


def test_further_off_and_worse_it_need_not_be_told_so_surely():
    """By an area of at least 0.62."""
    (found,) = verdict(record_of(votes=0.65))
    assert found.severity == Severity.WARNING
    assert 0.6 < found.evidence[0].value < 0.7


@pytest.mark.parametrize(("worse", "severity"), [(0.11, Severity.WARNING), (0.09, Severity.INFO)])
def test_two_standard_errors_are_worse(worse, severity):
    (found,) = verdict(record_of(worse=worse))
    assert found.severity == severity


def test_alike_it_is_silent():
    assert verdict(record_of(votes=0.0)) == []
    assert verdict(record_of(votes=0.3)) == []


@pytest.mark.parametrize(
    "thresholds", [{"apart": 0.99}, {"further": 0.99, "remark": 0.99}, {"errors": 99.0, "remark": 0.99}]
)
def test_each_threshold_can_silence_it(thresholds):
    assert verdict(record_of(), **thresholds) == []


def test_without_the_losses_the_harm_is_not_measured():
    record = record_of()
    record._series.pop("evaluated_loss")
    (found,) = verdict(record)
    assert found.severity == Severity.INFO
    assert found.evidence[2].note == "not measured"


def test_a_class_that_was_never_trained_on():
    (found,) = verdict(record_of(votes=0, counts=([500, 0, 500], [90, 20, 90]), class_names=["ant", "bee", "cat"]))
    assert found.severity == Severity.WARNING
    assert "10.0% of the validation samples are of classes that were never trained on: bee" in found.summary
    assert verdict(record_of(votes=0, counts=([500, 0, 500], [96, 8, 96]))) == []


def test_other_shares_of_the_classes_are_a_remark():
    (found,) = verdict(record_of(votes=0, counts=([900, 100], [100, 100])))
    assert found.severity == Severity.INFO
    assert verdict(record_of(votes=0, counts=([900, 100], [100, 100])), shares=0.5) == []
    assert verdict(record_of(votes=0, counts=([900, 100], [100, 100])), chance=1e-60) == []
    assert verdict(record_of(votes=0, counts=([500, 500], [110, 90]))) == []
    (found,) = verdict(record_of(votes=0, counts=([500, 500], [68, 32])))  # by a chance of 0.0006
    assert found.severity == Severity.INFO
    assert verdict(record_of(votes=0, counts=([500, 500], [67, 33]))) == []  # 0.0012
    (found,) = verdict(record_of(votes=0, counts=([500, 0, 500], [80, 40, 80])), unseen=0.3)
    assert found.severity == Severity.INFO


def test_that_inputs_were_not_compared_is_said_though_classes_were():
    record = record_of(counts=([500, 500], [100, 100]), switched_off={"held_shift": "the input is not one tensor"})
    record._series.pop("held_shift")
    with pytest.raises(NotChecked, match="not one tensor"):
        verdict(record)


@pytest.mark.parametrize(("samples", "judged"), [(200, True), (199, False), (None, True)])
def test_variants_of_few_samples_tell_nothing_of_new_ones(samples, judged):
    """Augmented, they lie close to one another: 200 of them are held."""
    made = record_of(run={"finished": True, "train_samples": samples})
    if judged:
        assert len(verdict(made)) == 1
        return
    with pytest.raises(NotChecked, match="the 200 training samples that are held are variants of 199"):
        verdict(made)


@pytest.mark.parametrize("seed", range(2))
def test_a_real_random_split_of_few_samples_under_noise(seed):
    """From a loader, which tells how many there are: 60, drawn with noise over and over."""
    x, xv, y, yv = split("digits", seed)
    torch.manual_seed(seed)
    model, loader = torch.nn.Linear(64, 10), DataLoader(TensorDataset(x[:60], y[:60]), 10, shuffle=True)
    optimizer, criterion = torch.optim.Adam(model.parameters(), lr=1e-2), torch.nn.CrossEntropyLoss()
    watch = trainwatch.watch(model, optimizer, settings=Settings(quiet=True, strict=True))
    for _ in range(30):
        model.train()
        for a, b in loader:
            optimizer.zero_grad()
            criterion(model(a + 0.1 * torch.randn_like(a)), b).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            criterion(model(xv), yv)
    with mock.patch("trainwatch.monitor.LAST_ROUND", math.inf):
        report = watch.finish()
    assert "are variants of 60" in report.not_checked["TW109"]


def test_classes_alone_are_judged_where_inputs_were_not_compared():
    record = record_of(counts=([500, 500], [100, 100]))
    record._series.pop("held_shift")
    assert verdict(record) == []


def test_it_abstains_where_nothing_is_known():
    with pytest.raises(NotChecked, match="neither inputs nor classes"):
        verdict(RunRecord())


def test_it_asks_where_there_is_validation():
    assert [w.kind for w in TrainValShift().asks(record_of(counts=([5, 5], [5, 5])))] == ["shift", "train_eval"]
    assert list(TrainValShift().asks(record_of())) == []


def brighter(x, y, xv, yv):
    xv = xv.clone()
    xv[:, ::3] += 0.7
    return x, y, xv, yv


def by_place(x, y, xv, yv):
    """Training on one side of the first principal direction, validation on the other."""
    inputs, targets = torch.cat([x, xv]), torch.cat([y, yv])
    centred = inputs - inputs.mean(0)
    order = (centred @ torch.linalg.svd(centred, full_matrices=False)[2][0]).argsort()
    train, val = order[: len(x)], order[len(x) :]
    return inputs[train], targets[train], inputs[val], targets[val]


def without_threes(x, y, xv, yv):
    return x[y != 3], y[y != 3], xv, yv


def said(data, seed, **how):
    report = trained(data, seed, judges=["TW109"], **how)
    return [d for root in report.diagnoses for d in root.walk() if d.code == "TW109"]


@pytest.mark.parametrize(("moved", "seed"), [(brighter, 0), (by_place, 1), (without_threes, 2)])
def test_real_runs_validated_elsewhere(moved, seed):
    assert Severity.WARNING in {d.severity for d in said("digits", seed, moved=moved, epochs=8)}


@pytest.mark.parametrize(("data", "seed"), [("digits", 0), ("wine", 1), ("breast_cancer", 2), ("diabetes", 0)])
def test_real_random_splits(data, seed):
    assert said(data, seed, epochs=6) == []


@pytest.mark.parametrize(("data", "noise", "seed"), [("digits", 1.0, 1), ("breast_cancer", 0.3, 0)])
def test_real_augmentation_is_at_most_remarked_on(data, noise, seed):
    assert {d.severity for d in said(data, seed, noise=noise, epochs=8)} <= {Severity.INFO}


def of_data(**how):
    record = record_of(**how)
    record._series.pop("evaluated_loss")
    record.set_fact("subject", "data")
    return record


def test_on_data_alone_inputs_far_apart_are_a_warning_though_no_network_is_there():
    (found,) = verdict(of_data())
    assert found.severity == Severity.WARNING
    assert "lie further off" in found.summary
    assert len(found.evidence) == 2
    assert [d.severity for d in verdict(of_data(far=0.0))] == [Severity.INFO]
    assert verdict(of_data(votes=0.6)) == []


def test_on_data_alone_features_have_their_names():
    (found,) = verdict(of_data(feature_names=[f"column {i}" for i in range(8)]))
    assert "column 7: 0.125 against 3.5" in found.evidence[0].note


def test_on_data_alone_classes_are_compared_by_their_counts():
    record = of_data(votes=0, counts=([500, 0, 500], [1, 1, 1]))
    record._series.pop("val_confusion")
    record.append("val_classes", "targets", 0, [90.0, 20.0, 90.0, 0.0])
    (found,) = verdict(record)
    assert "never trained on" in found.summary


def test_on_data_alone_it_abstains_where_inputs_were_not_compared():
    record = of_data()
    record._series.pop("held_shift")
    record.set_fact("switched_off", {"held_shift": "validation has another shape"})
    with pytest.raises(NotChecked, match="another shape"):
        verdict(record)
    alike = of_data(counts=([500, 500], [100, 100]))  # classes alone tell nothing of inputs
    alike._series.pop("held_shift")
    with pytest.raises(NotChecked, match="neither inputs"):
        verdict(alike)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("data", ["wine", "diabetes"])
def test_random_splits_of_data_are_alike(data, seed):
    x, xv, y, yv = audited_split(data, seed)
    record, _ = asked([part("train", x, y), part("val", xv, yv)], shift)
    assert verdict(record) == []


def test_data_moved_in_validation():
    x, xv, y, yv = audited_split("breast_cancer")
    record, _ = asked([part("train", x, y), part("val", xv + x.std(0), yv)], shift)
    assert [d.severity for d in verdict(record)] == [Severity.WARNING]


def test_unseen_classes_are_as_sure_as_they_are_many():
    few, many = (verdict(record_of(votes=0, counts=([500, 0, 500], [90, n, 90])))[0].margin for n in (20, 2000))
    assert few == pytest.approx((0.1 - 0.05) / 0.01)
    assert many < 100


@pytest.mark.parametrize(("first", "found"), [(580, 0), (620, 1)])
def test_shares_must_differ_by_a_tenth(first, found):
    """Of 1,000 samples each: 0.08 and 0.12 between the shares."""
    assert len(verdict(record_of(votes=0, counts=([500, 500], [first, 1000 - first])))) == found


@pytest.mark.parametrize("finished", [True, False])
def test_which_classes_are_trained_on_is_known_at_the_end(finished):
    made = record_of(votes=0.0, far=0.0, counts=([500, 500, 0], [50, 50, 50]), run={"finished": finished})
    assert len(verdict(made)) == finished


def named(table, votes=0, far=0, **facts):
    """A run with such a confusion matrix in its last pass, whose inputs are alike, or can be told apart."""
    record = record_of(votes, far, counts=([50.0] * len(table), [9.0] * len(table)), **facts)
    record.append("val_loss", "val", 199, 1.0)
    record.append("val_confusion", "val", 199, np.asarray(table, float))
    return record


TURNED = [[2, 0, 98, 0], [97, 3, 0, 0], [0, 96, 4, 0], [0, 0, 0, 100]]  # the net says 2 where validation says 0


def test_classes_of_validation_by_other_names():
    record = named(TURNED, class_names=["cat", "dog", "eel", "fly"])
    (found,) = verdict(record)
    assert (found.severity, found.where) == (Severity.WARNING, ("validation labels",))
    assert "what validation calls cat the network calls eel, what validation calls dog" in found.summary
    assert "renamed like that, accuracy in validation is 97.8%, not 27.3%" in found.summary
    told = found.evidence[0]
    assert (told.value, told.threshold, told.step) == (pytest.approx(0.705), 0.3, 199)
    # 291 samples of 400 are won and 9 are lost
    assert found.margin == pytest.approx((0.705 - 0.3) / ((0.75 - 0.705**2) / 400) ** 0.5 - 3, rel=1e-3)
    (remedy,) = found.remedies
    assert remedy.id == "same-class-numbers"
    assert "number = {0: 2, 1: 0, 2: 1}" in remedy.how
    assert "97.8%, not 27.3%" in remedy.why


def test_many_classes_by_other_names_are_told_in_short():
    (found,) = verdict(named(np.roll(20 * np.eye(6), 1, axis=1)))
    assert "validation calls 2 the network calls 3 and 3 more; renamed" in found.summary
    assert found.margin == 1e3, "nothing is left to chance"


@pytest.mark.parametrize(
    "table",
    [
        [[98, 1, 1], [3, 97, 0], [0, 4, 96]],
        [[40, 30, 30], [30, 40, 30], [30, 30, 40]],
        [[30, 60, 10], [60, 30, 10], [5, 5, 390]],  # 0.12 more
        [[0, 100, 0], [0, 100, 0], [0, 100, 0]],  # one class is said
        [[0, 80], [0, 20]],
        [[5, 85], [2, 8]],
        [[0, 100, 0], [0, 0, 100], [0, 0, 100]],  # two are called alike
        [[10, 90], [0, 0]],  # one class is validated
        [[0, 4], [90, 0]],  # 4 samples of a class
        [[45, 50, 5], [50, 45, 5], [50, 45, 5]],  # most of no class
        [[7, 13], [13, 7]],  # 0.3 more, give or take 0.15
        np.zeros((3, 3)),
    ],
)
def test_classes_that_are_mistaken_for_one_another_are_named_alike(table):
    assert not [d for d in verdict(named(table)) if "validation labels" in d.where]


def test_classes_are_named_otherwise_by_three_tenths():
    (found,) = verdict(named([[310, 690], [690, 310]]))
    assert 0 < found.margin < 5
    assert verdict(named([[330, 670], [670, 330]])) == [], "0.34 and three errors of 0.02"
    assert verdict(named([[330, 670], [670, 330]]), renamed=0.2)
    assert verdict(named([[310, 690], [690, 310]]), sure=6.0) == []
    assert verdict(named([[0, 5], [5, 0]])), "five of a class"


def test_positions_of_few_samples_are_no_more_sure_than_those():
    image = {"validation": {"val": {"kind": "val", "primary": True, "samples": 8}}}
    half = [[300, 700], [700, 300]]
    assert verdict(named(half), renamed=0.2)
    assert verdict(named(half, **image), renamed=0.2) == []


@pytest.mark.parametrize(
    "facts", [{"run": {}}, {"subject": "preflight"}], ids=["while it goes on", "before it is trained"]
)
def test_how_classes_are_named_is_told_at_the_end(facts):
    assert verdict(named(TURNED, **facts)) == []


def test_classes_are_compared_by_name_where_inputs_were_not():
    record = RunRecord()
    record.set_fact("validation", {"val": {"kind": "val", "primary": True}})
    record.set_fact("run", {"finished": True})
    record.append("val_loss", "val", 199, 1.0)
    record.append("val_confusion", "val", 199, np.asarray(TURNED, float))
    assert [d.where for d in verdict(record)] == [("validation labels",)]


def test_one_that_is_counted_from_one_is_no_class_of_its_own():
    table = np.zeros((4, 4))
    table[[1, 2, 3], [0, 1, 2]] = 50  # class 3 was never trained on
    record = named(table)
    record.append("train_classes", "targets", 50, [9999.0, 9999.0, 9999.0, 0.0, 0.0])
    assert [d.where for d in verdict(record)] == [("validation labels",)]


def test_a_remark_on_inputs_does_not_stand_for_it():
    assert [d.where for d in verdict(named(TURNED, votes=2.0))] == [("validation inputs",), ("validation labels",)]
    assert [d.where for d in verdict(named(TURNED, votes=0.65))] == [("validation labels",)]


def test_inputs_from_elsewhere_are_said_first():
    assert [d.where for d in verdict(named(TURNED, votes=2.0, far=2.0))] == [("validation inputs",)]


@pytest.mark.parametrize("code", ["TW106", "TW207"])
def test_what_other_names_of_the_classes_make_is_their_consequence(code):
    effect = Diagnosis(code, "effect", Severity.WARNING, "effect", margin=9.0)
    (root,) = nest([effect, *verdict(named(TURNED))])
    assert (root.code, [d.code for d in root.consequences]) == ("TW109", [code])
    assert len(nest([effect, *verdict(record_of())])) == 2, "inputs from elsewhere account for neither"


def off_by_one(x, y, xv, yv):
    return x, y, xv, (yv + 1) % (int(y.max()) + 1)


@pytest.mark.parametrize(("data", "seed"), [("digits", 0), ("digits", 1), ("wine", 0), ("breast_cancer", 2)])
def test_real_labels_that_are_numbered_otherwise_in_validation(data, seed):
    report = trained(data, seed, moved=off_by_one, epochs=8)
    first, *others = report.diagnoses
    assert (first.code, first.remedies[0].id) == ("TW109", "same-class-numbers")
    assert {d.severity for d in others} <= {Severity.INFO}
