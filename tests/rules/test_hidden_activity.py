"""What holds of TW304 and TW305 alike."""

import math

import numpy as np
import pytest
from lively import STEPS, ending, probed, site

from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.engine import nest
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw304_dead_units import DeadUnits
from trainwatch.rules.tw305_saturated_activations import SaturatedActivations


class Dead:
    """Units that are dead, and the rule on them."""

    rule, threshold, function, severity = DeadUnits, "many", "relu", Severity.ERROR

    @staticmethod
    def site(share=1.0, **more):
        return site(dead=share, **more)


class Flat:
    """Values that are saturated, and the rule on them."""

    rule, threshold, function, severity = SaturatedActivations, "flat", "tanh", Severity.WARNING

    @staticmethod
    def site(share=1.0, **more):
        return site(flat=share, function="tanh", **more)


@pytest.fixture(params=[Dead, Flat])
def kind(request):
    return request.param


def verdict(kind, made, **thresholds):
    return list(kind.rule(**thresholds).check(made))


def test_the_share_is_compared_with_its_threshold(kind):
    threshold = getattr(kind.rule(), kind.threshold)
    assert len(verdict(kind, probed(kind.site(threshold + 0.01)))) == 1
    assert verdict(kind, probed(kind.site(threshold - 0.01))) == []


def test_what_was_learned_is_compared_with_its_threshold(kind):
    learned = kind.rule().learned
    assert len(verdict(kind, probed(kind.site(), losses=ending(learned - 0.03)))) == 1
    assert verdict(kind, probed(kind.site(), losses=ending(learned + 0.03))) == []


@pytest.mark.parametrize("share", [0.75, 0.9375, 1.0])
def test_a_share_that_equals_the_threshold_counts(kind, share):
    assert len(verdict(kind, probed(kind.site(share)), **{kind.threshold: share})) == 1


def test_few_samples_are_not_judged(kind):
    with pytest.raises(NotChecked, match="only 49 samples were held; 50 are needed"):
        verdict(kind, probed(kind.site(entries=49)))
    assert len(verdict(kind, probed(kind.site(entries=50)))) == 1


@pytest.mark.parametrize(("kind", "other"), [(Dead, Flat), (Flat, Dead)])
def test_other_functions_do_not_make_it_abstain(kind, other):
    assert verdict(kind, probed(other.site(entries=3))) == []


def test_without_a_loss_it_abstains(kind):
    with pytest.raises(NotChecked, match="no training loss"):
        verdict(kind, RunRecord())


def test_an_end_that_is_not_finite_has_learned_nothing(kind):
    (found,) = verdict(kind, probed(kind.site(), losses=np.r_[ending(0.8)[:50], np.full(50, np.inf)]))
    assert found.severity == kind.severity
    assert 0 < found.margin < math.inf


def test_modules_that_are_called_twice_are_named_once_and_a_nameless_one_by_its_site(kind):
    (found,) = verdict(kind, probed(*[kind.site(module="act")] * 2, kind.site(0.95, module="")))
    assert found.where == ("act", f"model:{kind.function}")


@pytest.mark.parametrize(
    ("above", "onset"), [(0.05, 50), (0.01, 50), (-0.01, 100), (None, 100)], ids=["then", "just", "not yet", "sound"]
)
def test_the_onset_is_the_first_probe_where_it_was_so_then(kind, above, onset):
    first = 0.0 if above is None else getattr(kind.rule(), kind.threshold) + above
    (found,) = verdict(kind, probed(kind.site(0.95, first=first)))
    assert found.onset_step == onset
    shown = found.evidence[1]
    assert (shown.value, shown.step, shown.threshold) == (pytest.approx(first), 50, None)
    assert (found.evidence[0].step, found.evidence[0].where) == (100, f"1:{kind.function}")


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter(kind, scale):
    falls, some = np.linspace(1.0, 0.5, STEPS), kind.site(0.95)
    (found,) = verdict(kind, probed(some, losses=scale * falls, classes=None))
    (plain,) = verdict(kind, probed(some, losses=falls, classes=None))
    assert found.margin == pytest.approx(plain.margin)
    assert verdict(kind, probed(some, losses=scale * np.linspace(1, 0.1, STEPS), classes=None)) == []


@pytest.mark.parametrize(("gained", "priority"), [(0.0, 1.0), (0.72, 1.0), (0.78, 0.2), (0.95, 0.2)])
def test_it_asks_for_the_probe_the_sooner_the_less_was_learned(kind, gained, priority):
    made = probed(losses=ending(gained))
    (wish,) = kind.rule().asks(made)
    assert (wish.kind, wish.where, wish.priority) == ("activations", (), priority)
    assert ("the loss is not low" in wish.reason) is (priority == 1.0)
    assert wish.reason
    assert [w.priority for w in kind.rule(learned=0.0 if priority == 1.0 else 0.99).asks(made)] != [priority]


def test_it_asks_for_nothing_without_a_loss(kind):
    assert list(kind.rule().asks(RunRecord())) == []


@pytest.mark.parametrize("code", ["TW107", "TW108", "TW302", "TW309", "TW601", "TW604"])
def test_it_is_nested_under_what_leads_to_it(kind, code):
    (found,) = verdict(kind, probed(kind.site()))
    cause = Diagnosis(code, "another", Severity.ERROR, "fault", onset_step=20, margin=5.0, confidence=0.99)
    (root,) = nest([found, cause])
    assert [d.code for d in root.walk()] == [code, kind.rule.code]
