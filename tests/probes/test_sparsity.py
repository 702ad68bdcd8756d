"""The planner of sparsity on held batches."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import trainwatch
from benches import bench, blobs, in_batches, net
from trainwatch.capture.wiring import parameter_facts
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.proximal_path import ProximalPath
from trainwatch.probes.sparsity import FACTORS, FEWEST, FIRST, MOST, measure

X, Y, XV, YV = blobs()
ADAM = lambda p: torch.optim.Adam(p, lr=3e-3)  # noqa: E731


def term(model, l1, only=None):
    names = [n for n, _ in model.named_parameters() if only is None or n in only]
    return {"penalties": {"l1": dict.fromkeys(names, l1)}}


def trained(l1, make=ADAM, steps=300, proximal=False):
    """A net after so many steps on all samples, with an L1 term in the loss or proximal steps."""
    torch.manual_seed(0)
    model = net(6, 32, 32, 3)
    optimizer = make(model.parameters())
    if proximal:
        trainwatch.prox(optimizer, l1=l1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), Y)
        if not proximal:
            loss = loss + l1 * sum(p.abs().sum() for p in model.parameters())
        loss.backward()
        optimizer.step()
    return model, optimizer


def planned(model, optimizer, regularisation, train=None, val=None, affords=math.inf, **more):
    train, val = in_batches(X, Y) if train is None else train, in_batches(XV, YV) if val is None else val
    facts = {"regularisation": regularisation, "parameters": parameter_facts({"default": model})}
    given = bench(model, train, val, optimizer, **facts, **more)
    given.affords = affords
    measure(given)
    lines, layers = (given.record.latest(q, "held")[1] for q in ("sparsity_path", "sparsity_layers"))
    assert len(lines) == len(layers) == 1 + len(FACTORS)
    return lines.T, layers


def test_weights_that_hover_become_zero_and_more_under_larger_coefficients():
    model, optimizer = trained(1e-3)
    (factor, l1, zeros, kept, steps, train, _, val, _), layers = planned(model, optimizer, term(model, 1e-3))
    assert factor.tolist() == [0.0, *FACTORS]
    assert l1 == pytest.approx([0.0, 1e-3, 3e-3, 1e-2])
    assert steps.tolist() == [0, FIRST, FEWEST, FEWEST]
    assert zeros[0] < 0.01
    assert 0.2 < zeros[1] < zeros[2] < zeros[3]
    assert np.isnan(kept[0])
    assert (kept[1:] > 0.8).all()
    assert abs(train[1] - train[0]) < 0.05
    assert np.isfinite(val).all()
    sizes = np.array([6 * 32, 32 * 32, 32 * 3])
    assert np.isnan(layers[:, 1::2]).all()  # biases
    assert (layers[:, ::2] * sizes).sum(1) / sizes.sum() == pytest.approx(zeros)


def test_as_many_as_a_training_with_proximal_steps_gets():
    for l1 in (3e-4, 1e-3, 3e-3):
        model, optimizer = trained(l1)
        (_, _, zeros, *_), _ = planned(model, optimizer, term(model, l1))
        other, _ = trained(l1, proximal=True)
        weights = torch.cat([p.detach().flatten() for p in other.parameters() if p.ndim > 1])
        assert zeros[1] == pytest.approx(float((weights == 0).float().mean()), abs=0.1)


def test_a_run_with_prox_is_planned_from_its_groups():
    model, optimizer = trained(1e-3, proximal=True)
    (_, l1, zeros, *_), _ = planned(model, optimizer, {})
    assert l1[1] == pytest.approx(1e-3)
    assert zeros[0] > 0.2
    assert zeros[1] == pytest.approx(zeros[0], abs=0.05)


def test_each_weight_has_its_own_coefficient():
    model, optimizer = trained(1e-3)
    found = {"penalties": {"l1": {"0.weight": 100.0, "3.weight": 1e-9, "6.bias": 1.0}}}
    (_, l1, zeros, *_), layers = planned(model, optimizer, found)
    assert l1[1] == 100.0
    assert layers[1, 0] > 0.5  # as far as the longest steps of Adam lead
    assert layers[1, 2] < 0.1
    assert np.isnan(layers[1, [1, 3, 4, 5]]).all()
    assert zeros[1] == pytest.approx((layers[1, 0] * 6 * 32 + layers[1, 2] * 32 * 32) / (6 * 32 + 32 * 32))


def test_a_term_and_prox_add_up_and_are_multiplied_together(monkeypatch):
    model, optimizer = trained(1e-3, steps=5, proximal=True)
    followed, follow = [], ProximalPath.follow
    monkeypatch.setattr(
        ProximalPath,
        "follow",
        lambda self, step, n, amounts: followed.append(amounts) or follow(self, step, n, amounts),
    )
    planned(model, optimizer, term(model, 2e-3, only=("0.weight", "0.bias")))
    assert [a["0.weight"] for a in followed] == pytest.approx([3e-3, 9e-3, 3e-2])
    assert [a["3.weight"] for a in followed] == pytest.approx([1e-3, 3e-3, 1e-2])


@pytest.mark.parametrize(("step", "affords", "steps"), [(4000, math.inf, MOST), (1000, math.inf, 250),
                                                        (4000, 500, 220), (4000, 160, FEWEST)])  # fmt: skip
def test_steps_follow_the_run_and_what_there_is_time_for(step, affords, steps):
    model, optimizer = trained(1e-3, steps=50)
    (_, _, _, _, taken, *_), _ = planned(model, optimizer, term(model, 1e-3), affords=affords, step=step)
    assert taken.tolist() == [0, FIRST, steps, steps]


def test_in_a_hurry_it_plans_under_the_coefficient_of_the_run_alone():
    model, optimizer = trained(1e-3, steps=50)
    lines, layers = planned(model, optimizer, term(model, 1e-3), affords=159)
    assert lines[0, :2].tolist() == [0.0, 1.0]
    assert np.isnan(lines[:, 2:]).all()
    assert np.isnan(layers[2:]).all()


class Whole:
    """A batch whose loss has the term in it, as that of a trainer's step."""

    complete = True

    def __init__(self, batch, l1):
        self.batch, self.l1, self.samples = batch, l1, batch.samples

    def loss(self, model):
        return self.batch.loss(model) + self.l1 * sum(p.abs().sum() for p in model.parameters())

    def losses(self, model):
        return self.batch.losses(model) + self.l1 * sum(p.abs().sum() for p in model.parameters())


def test_a_term_that_the_batch_computes_itself_counts_once():
    model, optimizer = trained(1e-3)
    lines, _ = planned(model, optimizer, term(model, 1e-3))
    whole, _ = planned(model, optimizer, term(model, 1e-3), train=[Whole(b, 1e-3) for b in in_batches(X, Y)])
    assert whole[2] == pytest.approx(lines[2], abs=0.02)
    assert whole[5] == pytest.approx(lines[5], abs=0.01)


def test_the_last_batch_of_an_epoch_is_not_taken_for_a_part_of_a_step():
    model = net(6, 3)
    small, usual = in_batches(X[:2], Y[:2])[0], in_batches(X[:64], Y[:64])
    given = bench(model, [*usual, small], optimizer=ADAM(model.parameters()))
    given._samples_per_step = 31.0
    assert given.loss_factor(small) == given.loss_factor(usual[0]) == 1.0
    given._samples_per_step = 128.0
    assert given.loss_factor(small) == given.loss_factor(usual[0]) == 4.0


def test_it_leaves_no_trace():
    model, optimizer = trained(1e-3, steps=20)
    kept, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    planned(model, optimizer, term(model, 1e-3))
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


REFUSED = {
    "no term": ({}, ADAM, "penalised"),
    "biases": ({"penalties": {"l1": {"0.bias": 1.0}}}, ADAM, "penalised"),
    "another optimiser": ({"penalties": {"l1": {"0.weight": 1.0}}}, lambda p: torch.optim.NAdam(p, lr=1e-3), "NAdam"),
}


@pytest.mark.parametrize(("found", "make", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_planned_is_told(found, make, text):
    model, optimizer = trained(1e-3, make, steps=3)
    with pytest.raises(CannotIsolate, match=text):
        planned(model, optimizer, found)
