import numpy as np
import pytest

from trained import trained
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw106_label_noise import LabelNoise
from trainwatch.symptoms.labels import label_contrast, label_noise
from trainwatch.symptoms.unrelated import unrelated


def labelled(wrong=0.1, *, n=400, classes=4, overlap=0.0, seed=0):
    """Samples that a forest recognises but for those that lie between classes, and whose labels may be wrong."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    between = rng.random(n) < overlap
    votes = np.where(between, rng.uniform(0.4, 0.6, n), rng.uniform(0.75, 1.0, n))
    predicted = np.where(between & (rng.random(n) < 0.5), (truth + 1) % classes, truth)
    given = np.where(rng.random(n) < wrong, (truth + rng.integers(1, classes, n)) % classes, truth)
    own = np.where(given == predicted, votes, (1 - votes) / 3)
    return np.stack([np.full(n, 30), np.arange(n), given, predicted, votes, own], 1)


def record_of(train, val=None, **facts):
    record = RunRecord()
    record.append("held_labels", "train", 99, train)
    if val is not None:
        record.append("held_labels", "val", 99, val)
    for topic, value in {"task": "multiclass", "run": {"train_samples": 1000}, **facts}.items():
        record.set_fact(topic, value)
    return record


def verdict(record, **thresholds):
    return list(LabelNoise(**thresholds).check(record))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("wrong", [0.1, 0.15, 0.3])
def test_wrong_labels_are_found(wrong, seed):
    (found,) = verdict(record_of(labelled(wrong, seed=seed)))
    assert found.severity == Severity.WARNING
    assert found.where == ("training labels",)
    assert 0 < found.margin < 20
    first = found.evidence[0]
    assert 0.02 == first.threshold < first.value < wrong + 0.02
    suspect = found.evidence[1]
    assert suspect.where.startswith("row ")
    assert suspect.where.endswith("of the training batch at step 30")
    assert "looks like" in suspect.note


SILENT = {"clean": {"wrong": 0.0}, "overlap": {"wrong": 0.0, "overlap": 0.3}, "hardly any": {"wrong": 0.005}}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("how", SILENT.values(), ids=SILENT)
def test_classes_that_overlap_are_not_wrong_labels(how, seed):
    assert verdict(record_of(labelled(**how, seed=seed), labelled(**how, seed=seed + 50))) == []


def test_an_estimate_without_a_bound_is_no_finding():
    record = record_of(labelled(0.06, n=70, seed=3))
    assert label_noise(record)[0].rate > 0.1
    assert verdict(record) == []


def test_beside_overlap_they_are_found_all_the_same():
    assert verdict(record_of(labelled(0.15, overlap=0.2)))


def test_it_says_which_labels():
    (found,) = verdict(record_of(labelled(0.0), labelled(0.15)))
    assert found.where == ("validation labels",)
    assert [e.where for e in found.evidence[:2]] == ["training", "validation"]
    assert found.evidence[2].where.startswith("sample ")
    (found,) = verdict(record_of(labelled(0.1), labelled(0.2)))
    assert found.where == ("training labels", "validation labels")
    assert "validation labels look wrong" in found.summary


def test_classes_have_their_names():
    (found,) = verdict(record_of(labelled(0.1), class_names=["ant", "bee", "cat", "dog"]))
    assert any(name in found.summary for name in ("ant", "bee", "cat", "dog"))
    assert any(f"labelled {name}" in found.evidence[1].note for name in ("ant", "bee", "cat", "dog"))


def test_the_worse_kind_of_samples_is_told_first():
    few, many = labelled(0.1), labelled(0.3, seed=1)
    (training,), (validation,) = verdict(record_of(many, few)), verdict(record_of(few, many))
    assert training.where == validation.where == ("training labels", "validation labels")
    assert "% of the training labels look wrong" in training.summary
    assert "% of the validation labels look wrong" in validation.summary
    assert training.margin == pytest.approx(validation.margin)


def test_the_remedy_names_the_suspects_and_how_many_to_look_at():
    (found,) = verdict(record_of(labelled(0.1)))
    clean, smoothing = found.remedies
    assert clean.id == "clean-data"
    assert "of the training batch at step 30" in clean.why
    rate = float(found.evidence[0].note.partition("estimate ")[2].partition("%")[0]) / 100
    assert f"[:{round(1000 * rate)}]" in clean.how or f"[:{round(1000 * rate) + 1}]" in clean.how
    assert not smoothing.already_in_use
    (found,) = verdict(record_of(labelled(0.1), regularisation={"label_smoothing": 0.1}))
    assert found.remedies[1].already_in_use
    assert "0.2" in found.remedies[1].title


def flat(given, n=300, sure=0.8):
    """A forest that always says 0."""
    own = np.where(given == 0, sure, 1 - sure)
    return np.stack([np.zeros(n), np.arange(n), given, np.zeros(n), np.full(n, sure), own], 1)


def test_it_abstains_where_the_forest_knows_too_little():
    with pytest.raises(NotChecked, match=r"kappa 0\.00"):
        verdict(record_of(flat((np.arange(300) % 5 == 0).astype(float))))


def test_it_abstains_where_too_few_are_held():
    with pytest.raises(NotChecked, match="fewer than 60"):
        verdict(record_of(labelled(0.2, n=50)))


def test_the_less_it_knows_the_more_of_the_disagreement_wrong_labels_must_account_for():
    many, few = labelled(0.3, classes=2, n=800), labelled(0.1, classes=2, n=800, overlap=0.3)
    assert verdict(record_of(many))
    for strict in ({"some": 0.6}, {"accounts": 0.95, "mostly": 0.98}):
        with pytest.raises(NotChecked):
            verdict(record_of(many), **strict)
    with pytest.raises(NotChecked):
        verdict(record_of(few))
    assert verdict(record_of(few), accounts=0.0, mostly=0.01)
    with pytest.raises(NotChecked):
        verdict(record_of(labelled(0.45, classes=2, n=800)))


@pytest.mark.parametrize(
    ("wrong", "overlap", "found"),
    [
        (0.4, 0.2, True),  # kappa 0.205, where wrong labels account for most
        (0.4, 0.4, False),  # kappa 0.19
        (0.2, 0.2, True),  # kappa 0.48, where they account for 41 % of the disagreement
        (0.2, 0.4, False),  # kappa 0.41, where they account for 31 %
    ],
)
def test_kappa_must_be_a_fifth_and_higher_where_less_is_accounted_for(wrong, overlap, found):
    record = record_of(labelled(wrong, classes=2, n=800, overlap=overlap))
    if found:
        assert len(verdict(record)) == 1
    else:
        with pytest.raises(NotChecked, match="kappa"):
            verdict(record)


def test_it_abstains_with_the_kappa_of_the_samples_that_are_told_best():
    poor, poorer = (labelled(0.1, classes=2, n=800, overlap=overlap) for overlap in (0.4, 0.6))
    for looks in ((poor, poorer), (poorer, poor)):
        with pytest.raises(NotChecked, match=r"kappa 0\.5"):
            verdict(record_of(*looks))


@pytest.mark.parametrize(
    "thresholds",
    [
        {"least": 0.3},
        {"samples": 1000},
        {"agreement": 0.99, "some": 0.99},
        {"agreement": 0.99, "accounts": 0.98, "mostly": 0.99},
    ],
)
def test_each_threshold_can_silence_it(thresholds):
    try:
        assert verdict(record_of(labelled(0.1)), **thresholds) == []
    except NotChecked:
        assert "least" not in thresholds


def test_it_asks_where_targets_are_classes():
    asked = {t: [w.kind for w in LabelNoise().asks(record_of(labelled(), task=t))] for t in ("binary", "regression")}
    assert asked == {"binary": ["labels"], "regression": []}
    shapes = {shape: {"mse_loss": {"target_shape": shape}} for shape in ((32, 10), (32, 1), (32,))}
    asked = [list(LabelNoise().asks(record_of(labelled(), task="regression", loss=loss))) for loss in shapes.values()]
    assert [len(wishes) for wishes in asked] == [1, 0, 0]
    assert list(LabelNoise().asks(record_of(labelled(), task="regression", loss={"mse_loss": {}}))) == []


def said(data, seed, **how):
    return trained(data, seed, judges=["TW106"], **how)


FOUND = [("digits", 0.1, 0), ("wine", 0.25, 1), ("breast_cancer", 0.15, 2)]


@pytest.mark.parametrize(("data", "flips", "seed"), FOUND)
def test_real_runs_with_labels_exchanged(data, flips, seed):
    assert "TW106" in {d.code for d in said(data, seed, flips=flips).diagnoses}


@pytest.mark.parametrize("flips", [0.0, 0.15])
def test_real_runs_by_squared_error_to_one_hot_targets(flips):
    report = said("digits", 0, flips=flips, one_hot=True, epochs=6)
    assert ("TW106" in {d.code for d in report.diagnoses}) == (flips > 0)
    assert "TW106" not in report.not_checked


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_samples_that_are_mixed_have_no_wrong_labels(share, seed):
    report = said("digits", seed, mixed=share)
    assert report.diagnoses == ()
    assert ("several targets at once" in report.not_checked.get("TW106", "")) is (share == 1)


def test_real_validation_labels_exchanged():
    (found,) = [d for d in said("digits", 1, flips_val=0.15, epochs=4).diagnoses if d.code == "TW106"]
    assert found.where == ("validation labels",)


@pytest.mark.parametrize(("data", "seed"), [("digits", 2), ("wine", 0), ("breast_cancer", 1), ("spirals", 0)])
def test_real_runs_with_right_labels(data, seed):
    report = said(data, seed, epochs=4)
    assert "TW106" not in {d.code for root in report.diagnoses for d in root.walk()}
    assert "TW106" not in report.not_checked


def test_other_tasks_are_not_judged():
    assert "TW106" in said("diabetes", 0, epochs=3).not_checked


def kinds(auc=0.0, n=200, seed=0):
    """What `held_shift` has: votes that tell validation from training inputs where `auc` is not 0."""
    rng, rows = np.random.default_rng(seed), {}
    for kind, moved in (("train", 0.0), ("val", auc)):
        rows[kind] = np.full((512, 3), np.nan)
        rows[kind][:n] = np.stack([np.arange(n) % 4, moved + rng.standard_normal(n), rng.standard_normal(n)], 1)
    return rows


def beside(train=0.45, val=0.0, moved=0.0, n=400, shift=True):
    """Classes that overlap so much that a forest is no judge of labels, in training with wrong ones besides."""
    record = record_of(*(labelled(wrong, n=n, overlap=0.9, seed=seed) for seed, wrong in enumerate((train, val))))
    for kind, rows in kinds(moved).items() if shift else ():
        record.append("held_shift", kind, 99, rows)
    return record


def test_training_labels_that_contradict_a_forest_more_often_than_others_are_found():
    (found,) = verdict(beside())
    assert found.where == ("training labels",)
    gap = found.evidence[0]
    assert gap.value > gap.threshold > 0.05
    assert "at least" in found.summary
    assert [r.id for r in found.remedies] == ["clean-data", "label-smoothing"]
    assert any(e.where.startswith("row ") for e in found.evidence)


@pytest.mark.parametrize(
    "record",
    [beside(train=0.0), beside(train=0.02), beside(train=0.0, val=0.3), beside(moved=1.0), beside(shift=False)],
    ids=["no wrong labels", "hardly any", "in validation instead", "inputs are augmented", "inputs were not compared"],
)
def test_overlap_alone_contradicts_a_forest_in_both_kinds_alike(record):
    with pytest.raises(NotChecked, match="look alike"):
        verdict(record)


@pytest.mark.parametrize(("threshold", "value"), [("sure", 50.0), ("alike", 0.3), ("least", 0.5)])
def test_each_threshold_can_silence_the_comparison(threshold, value):
    with pytest.raises(NotChecked, match="look alike"):
        verdict(beside(), **{threshold: value})


def test_the_comparison_counts_beyond_three_errors():
    (found,) = verdict(beside())
    gap, error = found.evidence[0], label_contrast(beside()).error
    assert gap.threshold == pytest.approx(3.0 * error)


def test_the_rate_is_that_of_the_wrong_labels():
    """A wrong label contradicts where a right one would have agreed, in 55 of 100 cases."""
    contrast = label_contrast(beside(train=0.45))
    assert contrast.noise.low < 0.45 < contrast.noise.high
    assert contrast.gap == pytest.approx(0.45 * 0.55, abs=0.08)


@pytest.mark.parametrize(("n", "classes", "known"), [(8, 4, False), (28, 4, False), (32, 4, True), (70, 35, False)])
def test_few_validation_samples_are_not_compared(n, classes, known):
    """Of all, or of each class."""
    assert (label_contrast(record_of(labelled(0.0), labelled(0.0, n=n, classes=classes))) is not None) is known
    assert label_contrast(record_of(labelled(0.0))) is None


def by_heart(learned=0.2, carried=-0.05, agreement=0.0, n=500, classes=4, noise=0.02, seed=0, elsewhere=None):
    """Training that ends below a guess, validation passes beside one, and a forest that agrees by about that kappa."""
    rng, guess = np.random.default_rng(seed), np.log(classes)
    record = RunRecord()
    for topic, value in (
        ("task", "multiclass"),
        ("loss", {"cross_entropy": {"function": "cross_entropy", "reduction": "mean", "classes": classes}}),
        ("validation", {"val": {"criterion": "cross_entropy", "primary": True}}),
    ):
        record.set_fact(topic, value)
    losses = guess * (1 - learned * np.linspace(0, 1, 100) ** 0.5 + noise * rng.standard_normal(100))
    record.append("train_loss", "cross_entropy", np.arange(100), losses)
    for step, kept in ((25, 1.02), (50, 1.0 - carried), (75, 1.1), (100, 1.2)):
        record.append("val_loss", "val", step, guess * kept)
    for kind, alike in (("train", agreement), ("val", agreement if elsewhere is None else elsewhere)):
        given = rng.integers(0, classes, n)
        said = np.where(rng.random(n) < alike, given, rng.integers(0, classes, n))
        row = np.stack([np.full(n, 30), np.arange(n), given, said, np.full(n, 0.4), np.full(n, 0.2)], 1)
        record.append("held_labels", kind, 100, row)
    return record


@pytest.mark.parametrize("classes", [2, 4, 40])
def test_labels_that_nothing_learns_from_do_not_follow_from_the_inputs(classes):
    (found,) = verdict(by_heart(classes=classes))
    assert "do not follow" in found.summary
    assert [r.id for r in found.remedies] == ["pair-labels"]
    assert "500 samples" in found.remedies[0].why
    learned, carried, agreement = found.evidence
    assert learned.value == pytest.approx(0.2, abs=0.03)
    assert carried.value == pytest.approx(-0.02, abs=1e-5)
    assert abs(agreement.value) < 0.1
    assert (learned.threshold, carried.threshold, agreement.threshold) == (0.03, 0.01, 0.1)
    assert found.margin > 1.96


def test_right_labels_of_validation_do_not_hide_those_of_training():
    (found,) = verdict(by_heart(elsewhere=0.9))
    assert found.where == ("training labels",)
    assert float(found.evidence[2].note.partition("validation ")[2]) == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(
    "record",
    [
        by_heart(learned=0.0),
        by_heart(learned=0.02),
        by_heart(carried=0.03),
        by_heart(agreement=0.15),
        by_heart(n=50),
        by_heart(noise=2.0),
    ],
    ids=["nothing", "hardly anything", "validation gains", "a forest learns", "few samples", "a wild loss"],
)
def test_what_may_follow_from_the_inputs_is_left_alone(record):
    with pytest.raises(NotChecked):
        verdict(record)


@pytest.mark.parametrize(("threshold", "value"), [("by_heart", 0.3), ("carried", -0.04), ("unrelated", 0.0)])
def test_each_threshold_can_silence_what_does_not_follow(threshold, value):
    with pytest.raises(NotChecked):
        verdict(by_heart(), **{threshold: value})


def test_validation_on_a_hair_of_a_guess_counts_as_none():
    assert verdict(by_heart(carried=0.009))
    with pytest.raises(NotChecked):
        verdict(by_heart(carried=0.011))


def test_without_a_guess_or_a_pass_of_validation_nothing_can_be_told():
    unknown, alone = by_heart(), by_heart()
    unknown.facts["loss"]["cross_entropy"]["reduction"] = "sum"
    for record in (unknown, record_of(*(alone.latest("held_labels", kind)[1] for kind in ("train", "val")))):
        assert record.memo(unrelated) is None


def slipped(x, y, xv, yv):
    """Labels of other rows."""
    draw = np.random.default_rng(0)
    return x, y[draw.permutation(len(y))], xv, yv[draw.permutation(len(yv))]


def slipped_in_training(x, y, xv, yv):
    """Training labels of other rows."""
    return x, y[np.random.default_rng(0).permutation(len(y))], xv, yv


@pytest.mark.parametrize(("moved", "epochs"), [(slipped, 4), (slipped_in_training, 12)])
@pytest.mark.parametrize("seed", range(2))
def test_real_runs_whose_labels_slipped_against_their_rows(seed, moved, epochs):
    (found,) = [d for d in said("digits", seed, moved=moved, epochs=epochs).diagnoses if d.code == "TW106"]
    assert "do not follow" in found.summary
