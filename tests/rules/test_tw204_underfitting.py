import numpy as np
import pytest
from begun_copies import tried
from synthetic import fit_record

from trained import trained
from trainwatch.config import Settings
from trainwatch.diagnosis import Severity
from trainwatch.engine import judge
from trainwatch.rules import NotChecked
from trainwatch.rules.tw204_underfitting import Underfitting

DONE = {"steps": 200, "finished": True, "epochs": 20}
STUCK = np.r_[np.linspace(2.3, 1.6, 5), np.full(15, 1.6)]
LOSS = {
    "cross_entropy": {
        "function": "cross_entropy",
        "reduction": "mean",
        "arguments": {"reduction": "mean"},
        "classes": 10,
    }
}
DROPOUT = {"regularisation": {"dropout": [{"name": "drop", "p": 0.9}]}}


def decay(coefficient, *, decoupled=True, rate=0.1, kind="AdamW"):
    group = {"lr": rate, "weight_decay": coefficient, "decoupled_weight_decay": decoupled}
    return {"optimizers": {"default": {"type": kind, "parameters": [0], "groups": [group]}}}


def layers(*widths):
    pairs = zip(widths[1:], widths[:-1], strict=True)
    shapes = [{"name": f"l{i}", "module": f"l{i}", "kind": "weight", "shape": s, "numel": 9, "order": i}
              for i, s in enumerate(pairs)]  # fmt: skip
    return {"parameters": shapes}


def record_of(loss=STUCK, training=None, **facts):
    return fit_record(loss, training=loss if training is None else training, **{"run": DONE, "loss": LOSS, **facts})


def verdict(record, **thresholds):
    return list(Underfitting(**thresholds).check(record))


NARROW_NET = layers(64, 2, 10)


def test_a_narrow_layer_makes_it_a_warning():
    (found,) = verdict(record_of(**NARROW_NET))
    assert found.severity == Severity.WARNING
    assert found.margin > 2
    assert found.remedies[0].id == "larger-model"
    assert found.evidence[0].value == pytest.approx(1 - 1.6 / np.log(10), abs=0.02)


MILD = {
    "nothing": {},
    "dropout": DROPOUT,
    "decay": decay(2.0),
    "narrow-but-not-for-so-few-classes": layers(64, 4, 10),
    "narrow-last-layer": layers(64, 32, 2),
}


@pytest.mark.parametrize("facts", MILD.values(), ids=MILD)
def test_without_one_it_is_a_remark(facts):
    """Of dropout and decay TW206 tells."""
    (found,) = verdict(record_of(**facts))
    assert found.severity == Severity.INFO


SILENT = {
    "well-learned": (np.r_[np.linspace(2.3, 0.3, 5), np.full(15, 0.3)], None),
    "still-falling": (np.linspace(2.3, 0.7, 20), None),
    "memorising": (STUCK, np.linspace(2.2, 0.1, 20)),
}


@pytest.mark.parametrize(("loss", "training"), SILENT.values(), ids=SILENT)
@pytest.mark.parametrize("facts", [{}, NARROW_NET], ids=["free", "narrow"])
def test_stays_silent(loss, training, facts):
    assert verdict(record_of(loss, training, **facts)) == []


def test_held_back_is_also_what_falls_too_slowly_to_become_good():
    falling = np.linspace(2.3, 1.6, 20)
    (found,) = verdict(record_of(falling, **NARROW_NET))
    assert found.severity == Severity.WARNING
    assert verdict(record_of(falling)) == []


NARROW = [(4, 10, "multiclass", True), (4, 2, "binary", True), (5, 10, "multiclass", False), (4, 10, None, False),
          (8, 30, "multiclass", True), (9, 100, "language-model", False)]  # fmt: skip


@pytest.mark.parametrize(("width", "classes", "task", "narrow"), NARROW)
def test_a_narrow_layer_has_a_few_units(width, classes, task, narrow):
    known = {"cross_entropy": {**LOSS["cross_entropy"], "classes": classes}}
    facts = {**layers(64, width, classes), "task": task, "loss": known, "run": DONE}
    curve = STUCK * np.log(classes) / np.log(10)
    (found,) = verdict(fit_record(curve, training=curve, **facts))
    assert (found.severity == Severity.WARNING) == narrow


RECURRENT = [(2, 3, 2, True), (2, 1, 2, True), (16, 4, 16, False), (2, 3, 4, False)]


@pytest.mark.parametrize(("units", "gates", "read", "narrow"), RECURRENT)
def test_rows_of_a_recurrent_layer_are_no_units(units, gates, read, narrow):
    """A GRU of two units has six rows, and a layer that reads four numbers does not read what its two units say."""
    shapes = [("body", "weight", (gates * units, 8)), ("body", "recurrent", (gates * units, units)),
              ("head", "weight", (10, read))]  # fmt: skip
    parameters = [{"name": f"{module}.{kind}", "module": module, "kind": kind, "shape": shape, "numel": 9, "order": i}
                  for i, (module, kind, shape) in enumerate(shapes)]  # fmt: skip
    (found,) = verdict(record_of(parameters=parameters, task="multiclass"))
    assert (found.severity == Severity.WARNING) == narrow
    assert ("2 units between two layers" in found.summary) == narrow


def rests_at(learned):
    end = (1 - learned) * np.log(10)
    return np.r_[np.linspace(2.3, end, 5), np.full(15, end)]


@pytest.mark.parametrize(
    ("facts", "most"),
    [(NARROW_NET, 0.8), (layers(64, 3, 10), 0.6)],
    ids=["two units", "three units"],
)
def test_more_is_asked_of_two_units(facts, most):
    (found,) = verdict(record_of(rests_at(most - 0.03), **facts))
    assert found.severity == Severity.WARNING
    assert found.evidence[0].threshold == most
    assert verdict(record_of(rests_at(most + 0.03), **facts)) == []


def test_a_fall_is_too_slow_where_it_does_not_lead_to_what_is_asked():
    """At 57 % with 19 % more to come in half as many steps: good for a net that nothing holds back."""
    falling = np.linspace(2.3, 1.0, 20)
    assert len(verdict(record_of(falling, **NARROW_NET))) == 1
    assert verdict(record_of(falling, **layers(64, 3, 10))) == []


def test_nothing_learned_and_no_cause_is_somebody_elses():
    assert verdict(record_of(np.full(20, 2.3))) == []
    assert verdict(record_of(np.full(20, 2.3), **NARROW_NET))


@pytest.mark.parametrize(("learned", "found"), [(0.015, 0), (0.025, 1), (0.45, 1), (0.55, 0)])
def test_without_a_cause_something_is_learned_and_not_half(learned, found):
    assert len(verdict(record_of(rests_at(learned)))) == found


def test_the_margin_is_in_standard_errors_which_are_a_thousandth_at_least():
    """The same samples rest where they are: without an error."""
    (found,) = verdict(record_of(STUCK, STUCK + 0.1))
    assert found.margin == pytest.approx((0.6 - found.evidence[0].value) / 1e-3)


def test_a_gap_to_validation_is_no_underfitting():
    assert verdict(record_of(STUCK, STUCK))
    assert verdict(record_of(STUCK, STUCK - 0.15))
    assert not verdict(record_of(STUCK, STUCK - 0.3))


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"run": {"steps": 200, "finished": False}}, "not ended"),
        ({"optimizers": {"a": {"groups": []}, "b": {"groups": []}}}, "several"),
    ],
)
def test_it_abstains(facts, reason):
    with pytest.raises(NotChecked, match=reason):
        verdict(record_of(**facts))


def test_it_abstains_where_the_loss_of_a_constant_guess_is_unknown():
    record = record_of()
    record.set_fact("loss", {})
    with pytest.raises(NotChecked, match="constant guess"):
        verdict(record)


def test_each_threshold_can_silence_it():
    assert not verdict(record_of(**NARROW_NET), held=0.1)
    assert verdict(record_of(**NARROW_NET), poor=0.1)
    assert not verdict(record_of(**layers(64, 3, 10)), poor=0.1)
    assert not verdict(record_of(), remark=0.1)


def with_rival(
    record, *, net=1.6, loss=0.9, error=0.05, training=1.6, name="boosting", before=1.6, own=1.2, reference=0.2
):
    """What the probes at the end of a run write: a guess costs ln 10."""
    record.append("evaluated_loss", "held", 199, np.array([training, 0.02, training + 0.1, net, 0.02]))
    record.append("reference_loss", name, 199, np.array([net, loss, error, np.log(10), 512, 450]))
    record.append("one_batch_fit", "train", 199, np.array([before, own, reference, 32]))
    return record


@pytest.mark.parametrize(
    ("name", "words"),
    [("boosting", "gradient boosting comes to 0.9"), ("neighbours", "nearest neighbours come to 0.9")],
)
def test_another_predictor_that_is_ahead_makes_it_a_warning(name, words):
    (found,) = verdict(with_rival(record_of(), name=name))
    assert found.severity == Severity.WARNING
    assert words in found.summary
    assert found.margin == pytest.approx(0.7 / np.hypot(0.05, 0.02), rel=0.01)
    shown = {e.name: e for e in found.evidence}
    assert shown["lead over the network"].value == pytest.approx(0.7)
    assert shown["lead over the network"].threshold == pytest.approx(0.1 * np.log(10))
    kind = words.partition(" come")[0]
    assert shown[f"validation loss of {kind}"].value == pytest.approx(0.9)
    assert shown[f"validation loss of {kind}"].note == "of 450 samples, learned from 512; the network's is 1.6"
    assert shown["training loss in evaluation mode"].value == pytest.approx(1.6)
    assert shown["loss of one batch that Adam fits alone"].value == pytest.approx(0.2)


def test_then_it_does_not_matter_how_much_was_learned_otherwise():
    good = np.r_[np.linspace(2.3, 0.5, 5), np.full(15, 0.5)]
    assert verdict(record_of(good)) == []
    (found,) = verdict(with_rival(record_of(good), net=0.5, training=0.5, loss=0.2))
    assert found.severity == Severity.WARNING
    assert found.evidence[0].threshold is None


BEHIND = {
    "not by enough": {"loss": 1.4},
    "within the noise": {"error": 0.3},
    "not beyond what the net knows of its own samples": {"training": 0.8},
    "behind": {"loss": 1.9},
}


@pytest.mark.parametrize("rival", BEHIND.values(), ids=BEHIND)
def test_one_that_is_not_says_nothing(rival):
    (found,) = verdict(with_rival(record_of(), **rival))
    assert found.severity == Severity.INFO
    assert "noise, or a network that is held back" in found.summary
    assert verdict(with_rival(record_of(np.full(20, 2.3)), **rival)) == []


def test_a_loss_that_still_falls_to_where_the_other_is_has_not_come_to_rest():
    falling = np.linspace(2.3, 0.7, 20)
    assert verdict(with_rival(record_of(falling), net=0.7, training=0.7, loss=0.4)) == []
    assert verdict(with_rival(record_of(np.linspace(2.3, 1.5, 20)), net=1.5, training=1.5, loss=0.1))


def test_on_a_plateau_a_small_lead_counts_as_well():
    """What the loss fell by over the last third, 0.04, is more than half of the lead."""
    slow = 1.6 + 0.04 * np.clip(np.log(20 / np.arange(1, 21)) / np.log(1.5), 0, 1)
    (found,) = verdict(with_rival(record_of(slow), loss=1.53, error=0.005), lead=0.02)
    assert found.severity == Severity.WARNING
    (found,) = verdict(with_rival(record_of(slow), loss=1.53, error=0.005))
    assert found.severity == Severity.INFO


@pytest.mark.parametrize(
    ("own", "annealed", "severity"), [(0.5, False, "WARNING"), (1.3, True, "WARNING"), (1.1, True, "INFO")]
)
def test_a_rate_that_was_brought_down_does_not_make_an_underfitted_net(own, annealed, severity):
    record = with_rival(record_of(), own=own)
    record.append("lr", "default/0", [0, 150], [0.1, 1e-5 if annealed else 0.1])
    (found,) = verdict(record)
    assert found.severity.name == severity


def test_without_the_fit_of_a_batch_nothing_is_said_of_a_rate_that_was_brought_down():
    record = with_rival(record_of(), own=np.nan)
    record.append("lr", "default/0", [0, 150], [0.1, 1e-5])
    (found,) = verdict(record)
    assert found.severity == Severity.INFO
    assert "not measured" not in found.summary


def test_what_is_written_down_comes_first_where_both_are_known():
    (found,) = verdict(with_rival(record_of(**NARROW_NET)))
    assert "2 units between two layers" in found.summary
    assert any(e.name == "lead over the network" for e in found.evidence)


@pytest.mark.parametrize(
    ("reference", "says"), [(0.2, "capacity is there"), (1.4, "no less than 1.4: capacity is short")]
)
def test_one_batch_tells_whether_a_larger_network_would_help(reference, says):
    (found,) = verdict(with_rival(record_of(), reference=reference))
    assert found.remedies[0].id == "larger-model"
    assert says in found.remedies[0].why
    (found,) = verdict(record_of())
    assert "not measured" in found.remedies[0].why


def test_without_validation_the_loss_in_evaluation_mode_is_what_was_learned():
    def made(level):
        record = record_of(**NARROW_NET)
        for quantity in ("val_loss", "val_sample_loss", "val_group_size"):
            record._series.pop(quantity)
        record.append("evaluated_loss", "held", 199, np.array([level, 0.02, 1.6, np.nan, np.nan]))
        return record

    assert verdict(made(0.4)) == []
    (found,) = verdict(made(0.6))
    assert found.evidence[0].value == pytest.approx(1 - 0.6 / np.log(10), abs=0.01)


@pytest.mark.parametrize("threshold", ["lead", "errors"])
def test_thresholds_of_the_lead_can_silence_it(threshold):
    assert verdict(with_rival(record_of()), **{threshold: 20.0})[0].severity == Severity.INFO
    annealed = with_rival(record_of())
    annealed.append("lr", "default/0", [0, 150], [0.1, 1e-5])
    assert verdict(annealed, kept=0.5)[0].severity == Severity.WARNING
    assert verdict(annealed, kept=0.9)[0].severity == Severity.INFO


def wide(loss=STUCK, **losses):
    """A run a wider copy of which went on where it rests; a constant guess costs 2.3."""
    losses = {"before": 1.6, "usual": 1.7, "other": 0.9, "training": 0.8, "further": [4], "step": 199, **losses}
    return tried(record_of(loss), "wider", **losses)


def test_a_wider_copy_that_leads_makes_it_a_warning():
    (found,) = verdict(wide())
    assert found.severity == Severity.WARNING
    assert found.margin > 10
    assert "a copy with 4 times the width came to a validation loss of 0.9, where another came to 1.7" in found.summary
    shown = found.evidence[-1]
    assert (shown.name, shown.value) == ("lead of the copy with 4 times the width", pytest.approx(0.7))
    assert shown.threshold == pytest.approx(0.05 * np.log(10))
    assert "one of 4 times the width came to 0.8 in training and 0.9 in validation" in found.remedies[0].how
    (found,) = verdict(wide(np.full(20, 0.8), before=0.8, usual=0.9, other=0.4, training=0.3))
    assert found.severity == Severity.WARNING  # most of the loss is gone, and yet
    assert verdict(wide(), room=0.4)[0].severity == verdict(wide(), gain=0.4)[0].severity == Severity.INFO


def test_beside_another_predictor_that_leads_it_is_evidence_alone():
    (found,) = verdict(with_rival(wide()))
    assert "gradient boosting comes to 0.9" in found.summary
    assert "a copy with" not in found.summary
    assert found.margin == pytest.approx(0.7 / np.hypot(0.05, 0.02), rel=0.01)
    assert found.evidence[-1].name == "lead of the copy with 4 times the width"


@pytest.mark.parametrize("how", [{"other": 1.5}, {"other": 1.62, "usual": 2.0}, {"error": 0.4}, {"training": 1.3}])
def test_one_that_does_not_lead_is_no_reason(how):
    assert [d.severity for d in verdict(wide(**how))] == [Severity.INFO]


def test_a_lead_that_a_slow_fall_would_not_close_is_told():
    slowly = np.r_[np.linspace(2.3, 1.68, 8), np.linspace(1.68, 1.6, 12)]
    (found,) = verdict(wide(slowly, other=1.44, error=0.001))
    assert "training ended at a loss of 1.6" in found.summary
    assert found.severity == Severity.WARNING


def test_what_going_on_would_bring_as_well_is_no_lead():
    falling = np.linspace(2.3, 0.9, 20)
    assert verdict(wide(falling, before=0.9, usual=0.95, other=0.7, training=0.5)) == []


def asked(record):
    return {wish.kind for wish in Underfitting().asks(record)}


def test_it_asks_for_the_experiments_where_the_loss_is_not_low():
    for loss in (STUCK, np.full(20, 0.8)):
        assert asked(record_of(loss)) == {"train_eval", "wider", "reference", "one_batch"}
    assert asked(record_of(np.full(20, 0.2))) == set()


@pytest.mark.parametrize(
    ("training", "kinds"),
    [(0.5, {"train_eval", "reference", "wider", "one_batch"}), (0.3, {"train_eval", "reference", "one_batch"}),
     (0.2, {"train_eval", "one_batch"})],
)  # fmt: skip
def test_it_asks_for_no_experiment_that_has_no_room_left(training, kinds):
    """By the training loss in evaluation mode: nobody can be ahead of 0.2 by a tenth of 2.3."""
    record = record_of(np.full(20, 0.8))
    record.append("evaluated_loss", "held", 199, [training, 0.01, 0.8, 0.9, 0.02])
    assert asked(record) == kinds


UNDERFITTED = {
    "two units for ten digits": ("digits", {"width": 2}),
    "six for a spiral": ("spirals", {"width": 6, "epochs": 40}),
    "dropout on a spiral": ("spirals", {"p": 0.8, "depth": 2, "width": 32, "epochs": 40}),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("data", "how"), UNDERFITTED.values(), ids=UNDERFITTED)
def test_real_nets_that_another_predictor_beats(data, how, seed):
    report = trained(data, seed, **how)
    (found,) = [d for root in report.diagnoses for d in root.walk() if d.code == "TW204"]
    assert found.severity == Severity.WARNING
    assert any(e.name == "lead over the network" for e in found.evidence)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("data", "how"), [("spirals", {"depth": 2, "epochs": 40}), ("friedman", {}), ("diabetes", {"width": 16})]
)
def test_real_nets_that_none_beats(data, how, seed):
    assert trained(data, seed, judges=("TW204",), **how).findings() == []


@pytest.mark.parametrize("seed", range(3))
def test_real_digits(seed):
    assert trained("digits", seed, width=1, judges=("TW204",)).findings()
    assert trained("digits", seed, decay=5e-4, p=0.3, optimizer="sgd").findings() == []


def test_where_the_loss_still_falls_and_time_alone_would_pay_that_is_the_cause():
    loss = np.linspace(2.3, 1.3, 20)
    slow = judge(with_rival(record_of(loss), net=1.3, loss=0.2, training=1.3), Settings(select=("TW204", "TW205")))
    assert [[d.code for d in cause.walk()] for cause in slow.diagnoses] == [["TW205", "TW204"]]
    rested = judge(with_rival(record_of(), loss=0.2), Settings(select=("TW204", "TW205")))
    assert [d.code for d in rested.diagnoses] == ["TW204"]
    narrow = judge(record_of(np.linspace(2.3, 1.95, 20), **NARROW_NET), Settings(select=("TW204", "TW205")))
    assert [d.code for d in narrow.diagnoses][:1] == ["TW204"]
