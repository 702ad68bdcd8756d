import numpy as np
import pytest
import torch
from synthetic_gradients import chain, digits, make_record, mlp
from torch import nn
from watched import drawn, watched

from trainwatch.config import Settings
from trainwatch.diagnosis import Severity
from trainwatch.engine import judge
from trainwatch.rules import NotChecked
from trainwatch.rules.tw308_always_clipped import AlwaysClipped
from trainwatch.symptoms.clipping import clipping_of
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.motion import reach_of

RULE = AlwaysClipped()
STEPS, DEPTH, CHANCE = 400, 3, 2.3
NOISE = 0.03 * np.random.default_rng(0).normal(size=STEPS)
PARAMETERS, MODULES = chain(DEPTH)
WHOLE = sum(p["numel"] for p in PARAMETERS) ** 0.5  # the total norm of gradients whose entries are all 1
WEIGHTS = sum(p["norm"] ** 2 for p in PARAMETERS if p["kind"] == "weight") ** 0.5
SHARE = (sum(p["numel"] for p in PARAMETERS if p["kind"] == "weight") ** 0.5) / WHOLE  # of the norm, in weights


def falling(gained):
    """Losses that fall at one pace to the very end; this share of chance is gone in the middle of the last fifth."""
    return CHANCE * (1 - gained * np.arange(STEPS) / (0.9 * STEPS)) + NOISE


def record(times=10.0, losses=None, *, path=0.1, limit=1.0, optimizer="SGD", clipping=True, finished=True, scale=1.0):
    """A run whose gradients have norms of so many limits, and whose clipped updates sum up to `path` weights."""
    losses = falling(0.1) if losses is None else losses
    times = np.broadcast_to(np.asarray(times, float), len(losses))
    lr = path * WEIGHTS / (SHARE * limit * np.minimum(times, 1).sum()) / scale
    rms = np.repeat(scale * limit * times[:, None] / WHOLE, 2 * DEPTH, 1)
    return make_record(scale * losses, rms, parameters=PARAMETERS, modules=MODULES, lr=lr, optimizer=optimizer,
                       classes=10 if scale == 1 else None, run={"finished": finished, "steps": len(losses)},
                       regularisation={"clipping": {"max_norm": scale * limit}} if clipping else {})  # fmt: skip


def by_entry(times=10.0, **more):
    """The same, but that each entry is clipped: all of them are as large, so that what is left is as long."""
    made = record(times, **more)
    made.set_fact("regularisation", {"clipping": {"max_value": 1.0 / WHOLE}})
    return made


def verdict(made, **thresholds):
    return list(AlwaysClipped(**thresholds).check(made))


def severities(made):
    return [d.severity.value for d in verdict(made)]


@pytest.mark.parametrize("made", [by_entry(10.0), by_entry(3.3)])
def test_entries_that_are_all_cut_shorten_steps_as_well(made):
    (found,) = verdict(made)
    assert found.severity == Severity.WARNING
    assert "clipped, entry by entry, to a norm of 1:" in found.summary
    assert found.evidence[2].value == pytest.approx(0.1)


def test_entries_below_the_limit_are_not_cut():
    assert verdict(by_entry(0.9)) == []


@pytest.mark.parametrize("times", [3.3, 10.0, 1e4])
@pytest.mark.parametrize("path", [1e-4, 0.9])
def test_warns_where_steps_are_short_because_they_are_cut(times, path):
    (found,) = verdict(record(times, path=path))
    assert found.severity == Severity.WARNING
    assert found.evidence[0].value == 1.0
    assert found.evidence[1].value == pytest.approx(times)
    assert found.evidence[2].value == pytest.approx(path)
    assert found.evidence[3].value == pytest.approx(0.1, abs=0.02)
    assert [r.id for r in found.remedies] == ["gradient-clipping"]
    assert not any(r.already_in_use for r in found.remedies)


def some_below(share):
    times = np.full(STEPS, 10.0)
    times[100 : 100 + round(share * 0.9 * STEPS)] = 0.5
    return times


NEVER = {
    "nothing is clipped": record(clipping=False),
    "norms are below the limit": record(0.9),
    "one in ten is not cut": record(some_below(0.1)),
    "the end is not finite": record(losses=np.r_[falling(0.1)[:200], np.full(200, np.inf)]),
}


@pytest.mark.parametrize("made", NEVER.values(), ids=NEVER)
def test_silent(made):
    assert verdict(made) == []


REMARKS = {
    "an adaptive optimiser": record(optimizer="Adam"),
    "an adaptive optimiser that hardly moves": record(optimizer="Adam", path=1e-3),
    "the net learns": record(losses=falling(0.8)),
    "weights move as far as they should": record(path=1.1),
    "gradients are hardly shortened": record(2.7),
    "the loss fell and came to rest": record(losses=np.r_[falling(0.5)[:200], falling(0.5)[200] + NOISE[:200]]),
    "the run goes on": record(finished=False),
}


@pytest.mark.parametrize("made", REMARKS.values(), ids=REMARKS)
def test_a_remark_where_no_harm_is_seen(made):
    (found,) = verdict(made)
    assert found.severity == Severity.INFO
    assert "no harm is seen" in found.summary
    assert found.remedies == ()


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (record(some_below(0.04)), record(some_below(0.06))),
        (record(1.1 * RULE.shortened), record(0.9 * RULE.shortened)),
        (record(path=0.95 * RULE.path), record(path=1.05 * RULE.path)),
        (record(losses=falling(0.95 * RULE.learned)), record(losses=falling(1.05 * RULE.learned))),
    ],
    ids=["always", "shortened", "path", "learned"],
)
def test_each_threshold_is_where_the_rule_says(worse, better):
    assert severities(worse) == ["warning"]
    assert "warning" not in severities(better)


def test_the_first_tenth_does_not_count():
    times = np.full(STEPS, 10.0)
    times[:40] = 0.5
    assert severities(record(times)) == ["warning"]
    assert clipping_of(record(times)).first == 40
    assert verdict(record(np.where(np.arange(STEPS) < 40, 10.0, 0.5))) == []


def test_it_waits_for_enough_steps():
    with pytest.raises(NotChecked, match="only 55 steps"):
        verdict(record(10.0, falling(0.1)[:55]))
    assert len(verdict(record(10.0, falling(0.1)[:56]))) == 1


def test_several_optimisers_are_not_judged():
    made = record()
    made.append("grad_norm", "other", np.arange(STEPS), np.ones((STEPS, 2)))
    with pytest.raises(NotChecked, match="several optimisers"):
        verdict(made)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter(scale):
    (found,) = verdict(record(scale=scale, losses=falling(0.1)))
    assert found.severity == Severity.WARNING
    assert found.evidence[2].value == pytest.approx(0.1)


def test_a_report_nests_what_it_leads_to_but_a_remark_explains_nothing():
    settings = Settings(select=("TW308", "TW205"), strict=True)
    (cause,) = judge(record(losses=falling(0.4)), settings).diagnoses
    assert [d.code for d in cause.walk()] == ["TW308", "TW205"]
    roots = judge(record(losses=falling(0.4), optimizer="Adam"), settings).diagnoses
    assert [d.code for d in roots] == ["TW205", "TW308"]


def sgd(lr, **more):
    return lambda p: torch.optim.SGD(p, lr, **more)


def fit(make, clip, *, seed=0, steps=200):
    torch.manual_seed(seed)
    model = mlp(3, nn.ReLU)
    batches = drawn(*digits(), batch=32, steps=steps, seed=seed)
    return watched(model, make(model.parameters()), batches, nn.CrossEntropyLoss(), clip=clip)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("lr", "momentum", "clip"),
    [(0.2, 0.0, 0.01), (0.2, 0.0, 0.08), (0.02, 0.9, 0.01)],
    ids=["hard", "mild", "momentum"],
)
def test_fires_on_a_net_whose_limit_is_far_too_low_and_the_proposed_limit_cures_it(lr, momentum, clip, seed):
    made = fit(sgd(lr, momentum=momentum), clip, seed=seed)
    assert made.memo(reach_of).total < RULE.path
    (found,) = verdict(made)
    assert found.severity == Severity.WARNING
    assert found.margin > 3
    limit = float(found.remedies[0].title.split()[-1])
    cured = fit(sgd(lr, momentum=momentum), limit, seed=seed)
    assert "warning" not in severities(cured)
    assert loss_course(cured).gained > loss_course(made).gained + 0.2


HEALTHY = {
    "adam, all clipped": (lambda p: torch.optim.Adam(p, 3e-3), 0.1),
    "adam, hardly clipped": (lambda p: torch.optim.Adam(p, 3e-3), 1.0),
    "sgd, now and then": (sgd(0.1), 1.0),
    "sgd, a rate for clipped gradients": (sgd(1.0), 0.1),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("make", "clip"), HEALTHY.values(), ids=HEALTHY)
def test_at_most_a_remark_on_a_net_that_learns(make, clip, seed):
    assert "warning" not in severities(fit(make, clip, seed=seed))


def test_it_is_no_surer_than_that_little_was_learned():
    sure, unsure = (verdict(record(losses=falling(g)))[0].margin for g in (0.1, RULE.learned - 0.01))
    assert unsure < 10 < sure


def test_where_nothing_is_clipped_there_is_nothing_to_judge():
    """Not even that the steps were too few, which it would abstain for."""
    assert verdict(record(clipping=False, losses=falling(0.1)[:20])) == []
