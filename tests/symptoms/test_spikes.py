import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.spikes import APART, BRIEF, MOST, NEIGHBOURS, spikes_of

RNG = np.random.default_rng(0)
STEPS = 400
CALM = 1.0 + 0.02 * RNG.normal(size=STEPS)
CALM[0] = 2.0  # the first loss, of which a height is a share where chance is not known
NORMS = np.ones((STEPS, 2))


def record(losses, norms=None, *, steps=None, facts=None):
    made, losses = RunRecord(), np.asarray(losses, float)
    at = np.arange(len(losses)) if steps is None else steps
    made.append("train_loss", "l1_loss", at, losses)
    if facts is not None:
        made.set_fact("loss", {"l1_loss": facts})
    if norms is not None:
        names = [f"w{i}" for i in range(norms.shape[1])]
        made.set_fact("parameters", [{"name": n, "numel": 100, "kind": "weight", "norm": 5.0} for n in names])
        made.set_fact("optimizers", {"default": {"type": "SGD", "parameters": list(range(len(names)))}})
        made.append("grad_norm", "default", at, norms)
    return made


def spikes(losses, norms=None, *, height=1.0, deviations=10.0, **more):
    return spikes_of(record(losses, norms, **more), height, deviations)


def shot_up(*steps, to=10.0, of=CALM):
    losses = np.array(of, float)
    losses[list(steps)] = to
    return losses


def test_no_loss_no_spikes():
    assert spikes_of(RunRecord(), 1.0, 10.0) is None
    assert spikes(np.full(STEPS, np.nan)) is None


def test_fewer_losses_than_that_are_not_judged():
    assert spikes(CALM[: 2 * NEIGHBOURS - 1]) is None
    assert len(spikes(CALM[: 2 * NEIGHBOURS])) == 0
    few = CALM[: 2 * NEIGHBOURS].copy()
    few[7] = np.inf
    assert spikes(few) is None


def test_a_loss_of_zero_is_no_unit():
    assert spikes(np.r_[0.0, CALM[1:]]) is None


def test_spikes_are_told_by_step_height_and_level():
    found = spikes(shot_up(100, 250, to=(10.0, 20.0)))
    assert len(found) == 2
    assert found.stream == "l1_loss"
    assert found.steps.tolist() == [100, 250]
    np.testing.assert_allclose(found.levels, 1, atol=0.03)
    np.testing.assert_allclose(found.heights, [9, 19], atol=0.03)
    assert (found.reference, found.rows) == (2, STEPS)
    assert (found.gradient, found.energy, found.usual) == (None, None, None)


def test_a_resumed_run_keeps_its_steps():
    assert spikes(shot_up(100), steps=np.arange(5000, 5000 + STEPS)).steps.tolist() == [5100]


@pytest.mark.parametrize(("to", "count"), [(2.7, 0), (3.3, 1)])
def test_a_spike_rises_by_a_share_of_the_first_loss(to, count):
    assert len(spikes(shot_up(100, to=to))) == count
    assert len(spikes(shot_up(100, to=to), height=0.1)) == 1
    assert len(spikes(shot_up(100, to=to), height=2.0)) == 0


def test_chance_is_the_unit_where_it_is_known():
    facts = {"function": "cross_entropy", "reduction": "mean", "arguments": {}, "classes": 1000}
    found = spikes(shot_up(100, 200, to=(5.0, 9.0)), facts=facts)
    assert found.reference == pytest.approx(np.log(1000))
    assert found.steps.tolist() == [200]


@pytest.mark.parametrize(
    ("function", "least"), [("cross_entropy", 2), ("binary_cross_entropy_with_logits", 2), ("nll_of_my_own", 1)]
)
def test_chance_of_rare_classes_is_next_to_nothing_and_no_unit(function, least):
    """Then it is that of two equal classes."""
    facts = {"function": function, "reduction": "mean", "arguments": {}, "classes": None}
    made = record(shot_up(100, 250, to=(0.3, 0.6), of=np.r_[0.1, 0.05 * CALM[1:]]), facts=facts)
    made.append("train_classes", "targets", STEPS, [990, 10, 0])
    found = spikes_of(made, 0.5, 10.0)
    assert found.reference == pytest.approx(np.log(2) if least == 2 else 0.1)
    assert found.steps.tolist() == ([250] if least == 2 else [100, 250])


def test_a_spike_stands_out_of_the_noise_about_it():
    noise = 0.02 * np.random.default_rng(1).normal(size=STEPS)
    losses = 1.0 + np.r_[noise[:200], 25 * noise[200:]]
    losses[0], losses[100], losses[300] = 2.0, 4.0, 4.0
    assert spikes(losses).steps.tolist() == [100]
    assert spikes(losses, deviations=3.0).steps.tolist() == [100, 300]


@pytest.mark.parametrize(("below", "above", "count"), [(0.5, 0.02, 0), (0.02, 0.5, 1), (0.2, 0.2, 1)])
def test_the_noise_is_that_of_the_lower_half(below, above, count):
    """Many spikes do not hide one another."""
    noise = np.random.default_rng(2).normal(size=STEPS)
    losses = 1.0 + np.where(noise < 0, below, above) * noise
    losses[0], losses[200] = 2.0, 4.0
    assert len(spikes(losses)) == count


@pytest.mark.parametrize("low", [0.0, -5.0])
def test_the_level_is_that_of_the_losses_about_it(low):
    """High losses at the start are no spikes; a spike late in the run is one though it rises less than those."""
    falling = 20 * np.exp(-np.arange(STEPS) / 40) + 0.02 * RNG.normal(size=STEPS) + low
    first = abs(falling[0])
    assert len(spikes(falling)) == 0
    losses = shot_up(350, of=falling, to=low + 0.6 * first)
    assert len(spikes(losses)) == 0
    assert spikes(losses, height=0.5).steps.tolist() == [350]


def test_a_spike_from_a_low_is_seen_where_most_losses_are_higher():
    losses = np.r_[CALM[:100] - 0.9, CALM[100:]]
    losses[0], losses[50] = 2.0, 2.4
    assert spikes(losses).steps.tolist() == [50]


@pytest.mark.parametrize("steps", [(100, 101), (100, 102), (100, 102, 104)])
def test_neighbours_are_one_spike_at_its_highest(steps):
    found = spikes(shot_up(*steps, to=[*range(8, 8 + len(steps))]))
    assert found.steps.tolist() == [steps[-1]]
    assert found.heights[0] == pytest.approx(6 + len(steps), abs=0.05)


def test_spikes_apart_are_several():
    assert spikes(shot_up(100, 100 + APART)).steps.tolist() == [100, 100 + APART]


@pytest.mark.parametrize(("length", "count"), [(1, 1), (BRIEF, 1), (BRIEF + 1, 0), (11, 0)])
def test_what_lasts_is_no_spike(length, count):
    assert len(spikes(shot_up(*range(100, 100 + length)))) == count
    assert len(spikes(np.r_[CALM[:200], CALM[200:] + 9])) == 0


def test_a_run_that_begins_high_is_no_spike_and_one_that_ends_high_is():
    facts = {"function": "cross_entropy", "reduction": "mean", "arguments": {}, "classes": 10}
    assert len(spikes(shot_up(0, 1, to=(50.0, 20.0)), facts=facts)) == 0
    assert spikes(shot_up(1, to=50.0), facts=facts).steps.tolist() == [1]
    assert spikes(shot_up(STEPS - 1), facts=facts).steps.tolist() == [STEPS - 1]


def test_losses_that_are_not_finite_are_left_out():
    losses = shot_up(100, 250)
    losses[[50, 99, 101]] = np.inf
    losses[200:220] = np.nan
    found = spikes(losses)
    assert found.steps.tolist() == [100, 250]
    assert found.rows == STEPS - 23


def test_of_many_the_highest_are_looked_at():
    losses = np.ones(8000)
    at = np.arange(10, 8000, 13)
    losses[at] = np.linspace(5, 9, len(at))
    found = spikes(losses)
    assert len(found) == MOST < len(at)
    assert found.steps.tolist() == at[-MOST:].tolist()


def test_of_a_long_run_what_is_held_in_full_is_looked_at():
    losses = np.ones(12_000)
    losses[[500, 9000]] = 9.0
    found = spikes(losses)
    assert found.steps.tolist() == [9000]
    assert found.rows < 9000


def test_losses_below_zero():
    found = spikes(shot_up(100, 200, to=(-8.5, 0.0), of=np.r_[-2.0, CALM[1:] - 10]))
    assert found.steps.tolist() == [200]
    assert found.reference == 2


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_unit_of_the_loss_does_not_matter(scale):
    found = spikes(scale * shot_up(100, 250, to=(4.0, 20.0)))
    assert found.steps.tolist() == [100, 250]
    np.testing.assert_allclose(found.heights, scale * np.array([3, 19]), rtol=0.03)


def bursts(*steps, of=100.0):
    norms = NORMS.copy()
    norms[list(steps)] *= np.reshape(of, (-1, 1))
    return norms


@pytest.mark.parametrize("of", [(300.0, 50.0), (50.0, 300.0)])
def test_the_gradient_is_the_largest_of_all_spikes_over_that_of_other_steps(of):
    losses = shot_up(100, 250, to=(10.0, 20.0))
    assert spikes(losses, bursts(100, 250, of=of)).gradient == pytest.approx(300)
    assert spikes(CALM, NORMS).gradient is None


@pytest.mark.parametrize(("others", "gradient"), [(1, 300), (12, 15)])
def test_the_gradient_of_other_steps_is_their_largest_but_for_one_in_a_hundred(others, gradient):
    norms = bursts(100, 250, *range(300, 300 + others), of=(300.0,) * 2 + (20.0,) * others)
    assert spikes(shot_up(100, 250), norms).gradient == pytest.approx(gradient)


def test_gradients_of_a_run_that_fits_are_next_to_nothing_and_no_measure():
    norms = bursts(100, 250, of=3.0)
    norms[101:] *= 1e-6
    norms[250] = 3.0
    assert spikes(shot_up(100, 250), norms).gradient == pytest.approx(3)


@pytest.mark.parametrize(("others", "usual"), [(30, 1), (60, 5)])
def test_nine_in_ten_norms_of_other_steps_are_usual(others, usual):
    norms = bursts(*range(300, 300 + others), of=5.0)
    assert spikes(shot_up(100, 250), norms).usual == pytest.approx(usual * 2**0.5)
    many = range(5, STEPS, 8)
    assert spikes(shot_up(*many), bursts(*many)).usual == pytest.approx(2**0.5)
    assert spikes(CALM, NORMS).usual is None


def test_the_energy_is_their_share_of_all_squared_norms():
    losses = shot_up(100, 101, 250, to=(10.0, 9.0, 20.0))
    found = spikes(losses, bursts(100, 101, 250, of=(10.0, 20.0, 30.0)))
    assert found.energy == pytest.approx(1400 / (1400 + STEPS - 3))
    assert spikes(losses, NORMS).energy == pytest.approx(3 / STEPS)
    assert spikes(losses, bursts(*range(80, 90), of=10.0)).energy < 3 / STEPS


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_unit_of_the_gradient_does_not_matter(scale):
    found, plain = (spikes(shot_up(100, 250), s * bursts(100, 250)) for s in (scale, 1.0))
    assert found.gradient == pytest.approx(plain.gradient, rel=1e-4)
    assert found.energy == pytest.approx(plain.energy, rel=1e-4)


def test_gradients_that_are_absent_or_not_finite_do_not_count():
    norms = bursts(100, 250)
    norms[:, 1] = np.nan
    norms[40:60] = np.inf
    found = spikes(shot_up(100, 250), norms)
    assert found.gradient == pytest.approx(100)
    assert found.energy == pytest.approx(2e4 / (2e4 + STEPS - 2))
    norms[250] = np.inf
    assert spikes(shot_up(100, 250, to=(20.0, 10.0)), norms).gradient == pytest.approx(100)
    found = spikes(shot_up(100, 250, to=(10.0, 20.0)), norms)
    assert found.gradient == pytest.approx(100)
    assert found.energy == pytest.approx(1e4 / (1e4 + STEPS - 1))
    norms[100] = np.inf
    found = spikes(shot_up(100, 250), norms)
    assert (found.gradient, found.energy, found.usual) == (None, None, None)


def test_zero_gradients_elsewhere_are_no_measure():
    norms = np.zeros((STEPS, 2))
    norms[[100, 250]] = 1.0
    found = spikes(shot_up(100, 250), norms)
    assert (found.gradient, found.energy, found.usual) == (None, None, None)


def test_several_optimisers_have_no_common_gradient():
    made = record(shot_up(100, 250), NORMS)
    made.append("grad_norm", "other", 0, [1.0])
    found = spikes_of(made, 1.0, 10.0)
    assert len(found) == 2
    assert (found.gradient, found.energy, found.usual) == (None, None, None)


def test_gradients_of_a_long_run_are_those_that_are_held_in_full():
    """Rows of 1,000 parameters are held for fewer steps than losses are."""
    losses = shot_up(300, 2800, to=(9.0, 10.0), of=np.resize(CALM[1:], 3000))
    losses[0] = 2.0
    norms = np.ones((3000, 1000), np.float32)
    norms[[300, 2800]] = 50.0
    found = spikes(losses, norms)
    assert found.steps.tolist() == [300, 2800]
    assert found.gradient == pytest.approx(50)
    assert found.energy > 0.5
