"""From arrays to verdicts: each fault planted in real data is named first, sound data get no finding."""

import warnings

import numpy as np
import pytest

from audited import SETS, asked, audit, flipped, found, loaded, part, parts, split
from trainwatch.auditing.measures import AUDITED, alone, classes, duplicates, features, labels, measured
from trainwatch.config import Settings
from trainwatch.engine import judge


@pytest.mark.parametrize("name", SETS)
def test_sound_data_split_at_random_get_no_finding(name):
    record, report = audit(parts(*split(name, 1)))
    assert report.verdict == "healthy"
    assert found(report) == []
    assert not record.faults


def leak(x, xv, y, yv):
    k = len(xv) // 10
    return np.r_[x, xv[:k]], xv, np.r_[y, yv[:k]], yv


def copies(x, xv, y, yv):
    k = len(x) // 10
    return np.r_[x, x[:k]], xv, np.r_[y, y[:k]], yv


def nan(x, xv, y, yv):
    x[5:8, 3] = np.nan
    return x, xv, y, yv


def coded(x, xv, y, yv):
    x[::20, 3] = -999
    return x, xv, y, yv


def answer(x, xv, y, yv):
    return np.c_[x, y], np.c_[xv, yv], y, yv


def unscaled(x, xv, y, yv):
    mean, deviation = x.mean(0), x.std(0) + 1e-9
    x, xv = (x - mean) / deviation, (xv - mean) / deviation
    x[:, 3] *= 300
    xv[:, 3] *= 300
    return x, xv, y, yv


def otherwise(x, xv, y, yv):
    return x, xv * 255, y, yv


def elsewhere(x, xv, y, yv):
    x, y = np.r_[x, xv], np.r_[y, yv]
    centred = (x - x.mean(0)) / (x.std(0) + 1e-9)
    order = np.argsort(centred @ np.linalg.svd(centred, full_matrices=False)[2][0])
    train, val = order[len(yv) :], order[: len(yv)]
    return x[train], x[val], y[train], y[val]


TABLES = [
    (leak, "TW110", "wine"), (copies, "TW110", "breast_cancer"), (nan, "TW111", "wine"),
    (coded, "TW111", "breast_cancer"), (answer, "TW111", "diabetes"), (unscaled, "TW107", "wine"),
    (otherwise, "TW109", "diabetes"), (elsewhere, "TW109", "digits"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "code", "name"), TABLES, ids=[f"{f.__name__}-{n}" for f, _, n in TABLES])
def test_each_fault_is_named_first(fault, code, name):
    _, report = audit(parts(*fault(*split(name, images=False))))
    assert report.diagnoses[0].code == code
    assert found(report)[0] == code
    assert report.diagnoses[0].remedies


@pytest.mark.parametrize("fault", [leak, copies])
def test_images_too(fault):
    _, report = asked(parts(*fault(*split("digits"))), duplicates)
    assert found(report) == ["TW110"]


def test_five_in_a_hundred_labels_exchanged_are_named():
    x, y = loaded("digits")
    wrong_y, wrong = flipped(y, 0.05, 0)
    record, report = asked([part("train", x, wrong_y)], labels)
    assert found(report) == ["TW106"]
    named = {place for place, *_ in record.facts["suspects"]["train"]}
    right = named & set(np.flatnonzero(wrong).tolist())
    assert len(right) >= 0.7 * wrong.sum()
    assert len(right) >= 0.7 * len(named)
    assert report.diagnoses[0].evidence[1].where.startswith("training sample ")
    assert int(report.diagnoses[0].evidence[1].where.split()[-1]) in named


def test_suspects_of_a_folder_are_files():
    x, y = loaded("wine")
    y, _ = flipped(y, 0.2, 0)
    _, report = asked([part("train", x, y, files=tuple(f"wine/{i}.txt" for i in range(len(y))))], labels)
    assert report.diagnoses[0].evidence[1].where.startswith("wine/")


def test_batches_sorted_by_class():
    x, y = loaded("digits", False)
    order, batches = np.argsort(y, kind="stable"), np.arange(len(y)) // 16
    _, report = asked([part("train", x[order], y[order], batches=batches, shuffled=False)], classes)
    assert found(report) == ["TW105"]
    mixed = np.random.default_rng(0).permutation(len(y))
    record, report = asked([part("train", x[mixed], y[mixed], batches=batches, shuffled=True)], classes)
    assert report.verdict == "healthy"
    assert record.keys("batches_without_class") == ["5", "16"]


def test_batches_sorted_by_the_number_to_predict():
    x, y = loaded("diabetes", False)
    order, batches = np.argsort(y, kind="stable"), np.arange(len(y)) // 16
    record, report = audit([part("train", x[order], y[order], batches=batches, shuffled=False)])
    assert "TW105" in found(report)
    series = record.series("target_moments", "train")
    first = y[order][:16]
    assert len(series) == 28
    assert np.allclose(series.values[0], [first.mean(), first.var(), (first * np.log(first)).mean(), first.var(), 16])
    mixed = np.random.default_rng(0).permutation(len(y))
    broken = np.where(np.arange(len(y)) % 50 == 0, np.nan, y[mixed])
    _, report = audit([part("train", x[mixed], broken, batches=batches, shuffled=True)])
    assert "TW105" not in found(report)
    assert "TW105" not in report.not_checked
    record, _ = audit([part("train", x, y - 100.0)])
    assert record.facts["switched_off"]["target_moments"] == "there are no batches of numbers"


def test_no_diagnosis_has_a_step():
    record, report = audit(parts(*leak(*split("wine"))))
    assert record.steps == 0
    for d in (d for root in report.diagnoses for d in root.walk()):
        assert (d.onset_step, d.reported_step) == (None, None)
        assert {e.step for e in d.evidence} == {None}


def test_raw_tables_are_a_remark():
    for name in ("wine", "breast_cancer", "diabetes"):
        _, report = asked([part("train", *loaded(name))], features)
        assert found(report) == []
        assert "scale them before training" in report.diagnoses[0].summary


def test_large_sets_are_looked_at_in_part_and_say_so(monkeypatch):
    monkeypatch.setattr("trainwatch.auditing.measures.labels.MOST_ROWS", {"train": 300, "val": 100})
    x, y = loaded("digits")
    record, _ = asked([part("train", x, y)], features, duplicates, labels)
    assert record.facts["looked_at"] == {"train": {"labels": 300, "of": 1797}}
    assert record.latest("duplicates", "train")[1][0] == 1797
    assert record.latest("feature_stats", "train")[1][0, 0] == x.size


def test_the_same_seed_gives_the_same_report_and_the_process_is_as_it_was():
    filters, state = list(warnings.filters), np.random.get_state()[1].tolist()
    one, two = (audit(parts(*split("wine")), seed=3)[1].to_json() for _ in range(2))
    assert one == two
    assert warnings.filters == filters
    assert np.random.get_state()[1].tolist() == state


def test_places_are_those_of_the_source():
    x, y = loaded("wine")
    x = np.r_[x, x[:20]]
    places = np.arange(len(x)) * 10
    record, _ = asked([part("train", x, np.r_[y, y[:20]], places=places)], duplicates)
    assert record.facts["duplicate_pairs"]["train"][0] == [0, 1780, False]


BAD = {
    "empty": (part("train", np.zeros((0, 3)), np.zeros(0)), "there are no training samples", "not-judged"),
    "no labels": (part("train", loaded("wine")[0]), "there is not one class for each sample", "healthy"),
}


@pytest.mark.parametrize(("some", "reason", "verdict"), BAD.values(), ids=BAD)
def test_bad_input_is_named_and_partial_results_are_kept(some, reason, verdict):
    record, report = audit([some])
    assert reason in report.not_checked["TW106"]
    assert not record.faults
    assert report.verdict == verdict


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (np.array([["a", 1.0]] * 70, object), np.zeros(70, int), "the inputs are no numbers"),
        (loaded("wine")[0], np.zeros(178, int), "of 2 to 256 classes"),
        (loaded("wine")[0][:40], loaded("wine")[1][:40], "60 different training samples"),
    ],
    ids=["mixed", "one class", "few"],
)
def test_odd_data_leave_what_can_be_judged(x, y, reason):
    record, report = audit([part("train", x, y)])
    assert any(reason in why for why in record.facts["switched_off"].values())
    assert found(report) == []


def test_validation_of_another_shape():
    x, xv, y, yv = split("wine")
    record, report = audit(parts(x, xv[:, :5], y, yv))
    assert "shape (5,)" in report.not_checked["TW109"]
    assert record.has("held_labels")
    assert not record.has("leaked")


def test_a_question_that_fails_leaves_the_others_alone(monkeypatch):
    def fails(look):
        raise RuntimeError("broken")

    monkeypatch.setattr(alone, "measure", fails)
    x, y = loaded("wine")
    record = measured([part("train", x, y)])
    report = judge(record, Settings(), only=AUDITED)
    assert [d.code for d in report.diagnoses if d.code == "TW000"]
    assert record.has("held_labels")
    assert "TW111" not in report.not_checked


def test_a_caller_that_forgets_training_is_told():
    x, y = loaded("wine")
    with pytest.raises(ValueError, match="one training part"):
        measured([part("val", x, y)])
    with pytest.raises(ValueError, match="one training part"):
        measured([part("train", x, y)] * 2)
