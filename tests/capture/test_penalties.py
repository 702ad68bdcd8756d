"""Penalties in a loss: which parameters, and with which coefficient."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch

X, Y = torch.randn(16, 4), torch.randint(0, 3, (16,))
QUIET = {"quiet": True, "strict": True, "probes": "off"}
ALL = ("0.weight", "0.bias", "2.weight", "2.bias")


def norm(model, p):
    return [torch.linalg.vector_norm(w, ord=p) for w in model.parameters()]


def flat(model):
    return nn.utils.parameters_to_vector(model.parameters())


L1_TERMS = {
    "sum of sums": lambda m: sum(p.abs().sum() for p in m.parameters()),
    "norms": lambda m: sum(norm(m, 1)),
    "torch.norm": lambda m: sum(torch.norm(p, 1) for p in m.parameters()),
    "method": lambda m: sum(p.norm(p=1) for p in m.parameters()),
    "stacked": lambda m: torch.stack(norm(m, 1)).sum(),
    "flat": lambda m: flat(m).abs().sum(),
    "flat norm": lambda m: flat(m).norm(1),
    "transposed": lambda m: sum(p.T.abs().sum() if p.ndim > 1 else p.abs().sum() for p in m.parameters()),
}
L2_TERMS = {
    "powers": lambda m: sum(p.pow(2).sum() for p in m.parameters()),
    "squares": lambda m: sum(p.square().sum() for p in m.parameters()),
    "products": lambda m: sum((p * p).sum() for p in m.parameters()),
    "squared norms": lambda m: sum(n**2 for n in norm(m, 2)),
    "flat": lambda m: (flat(m) ** 2).sum(),
}


def penalties(loss_of, steps=1, scale=1.0, accumulate=1, **options):
    """What is found in a loss that is computed from a model and its criterion."""
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = trainwatch.watch(model, optimizer, settings=QUIET)
    for step in range(steps):
        optimizer.zero_grad()
        for _ in range(accumulate):
            loss = loss_of(model, F.cross_entropy(model(X), Y), *([step] if options.get("stepwise") else []))
            (scale * loss / accumulate).backward()
        optimizer.step()
    return watch.finish().facts["regularisation"]["penalties"]


@pytest.mark.parametrize("term", L1_TERMS.values(), ids=L1_TERMS)
def test_an_l1_term_is_seen_however_it_is_written(term):
    found = penalties(lambda model, criterion: criterion + 0.02 * term(model))
    assert found == {"l1": pytest.approx(dict.fromkeys(ALL, 0.02))}


@pytest.mark.parametrize("term", L2_TERMS.values(), ids=L2_TERMS)
def test_an_l2_term_is_seen_however_it_is_written(term):
    found = penalties(lambda model, criterion: criterion + term(model) * 0.03)
    assert found == {"l2": pytest.approx(dict.fromkeys(ALL, 0.03))}


def test_a_mean_is_divided_by_its_entries():
    found = penalties(lambda model, criterion: criterion + 0.3 * model[0].weight.abs().mean())
    assert found == {"l1": {"0.weight": pytest.approx(0.3 / 20)}}


def test_both_kinds_and_terms_that_add_up():
    weight = "0.weight"
    found = penalties(
        lambda m, c: c + 0.1 * (m[0].weight.abs().sum() + (m[0].weight ** 2).sum()) + m[0].weight.abs().sum() / 5
    )
    assert found == {"l1": {weight: pytest.approx(0.3)}, "l2": {weight: pytest.approx(0.1)}}


def test_parts_of_an_accumulated_step_add_up():
    found = penalties(lambda m, c: c + 0.02 * m[0].weight.abs().sum(), accumulate=4)
    assert found == {"l1": {"0.weight": pytest.approx(0.02)}}


def test_a_coefficient_that_grows_is_that_of_the_last_look():
    found = penalties(lambda m, c, step: c + (step + 1) * m[0].weight.abs().sum(), steps=6, stepwise=True)
    assert found == {"l1": {"0.weight": pytest.approx(4.0)}}  # of step 3: looked at are 0, 1, 3, 7 ...


NONE = {
    "criterion alone": lambda m, c: c,
    "of activations": lambda m, c: c + m(X).abs().sum(),
    "of a product": lambda m, c: c + (m[0].weight * m[0].bias[:, None]).abs().sum(),
    "to another point": lambda m, c: c + (m[0].weight - 1.0).abs().sum(),
    "cubes": lambda m, c: c + m[0].weight.pow(3).sum(),
    "an unsquared norm": lambda m, c: c + m[0].weight.norm(2),
    "of two parameters": lambda m, c: c + (m[0].bias * m[2].weight[0]).sum(),
    "beside activations": lambda m, c: c + torch.cat([m[0].bias, m(X).flatten()]).abs().sum(),
    "detached": lambda m, c: c + m[0].weight.detach().abs().sum(),
    "within the net": lambda m, c: F.cross_entropy(F.linear(X, m[0].weight.abs()) @ m[2].weight.T, Y),
    "within a loss by hand": lambda m, c: (F.linear(X, m[0].weight).mean() - m[0].weight.abs() @ X.T).pow(2).mean(),
}


@pytest.mark.parametrize("loss_of", NONE.values(), ids=NONE)
def test_what_is_no_penalty(loss_of):
    assert penalties(loss_of) == {}


def test_a_graph_that_is_kept_counts_once():
    def loss_of(model, criterion):
        loss = criterion + 0.5 * model[0].weight.abs().sum()
        loss.backward(retain_graph=True)
        model.zero_grad()
        return loss

    assert penalties(loss_of)["l1"] == {"0.weight": pytest.approx(1.0)}  # two passes, each once


def test_the_scale_of_mixed_precision_is_taken_off():
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    watch = trainwatch.watch(model, optimizer, settings=QUIET)
    scaler.scale(F.cross_entropy(model(X), Y) + 0.25 * model.weight.abs().sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert watch.finish().facts["regularisation"]["penalties"] == {"l1": {"weight": pytest.approx(0.25)}}


def weights_after(watched, steps=40):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    watch = trainwatch.watch(model, optimizer, settings=QUIET) if watched else None
    for _ in range(steps):
        optimizer.zero_grad()
        (F.cross_entropy(model(X), Y) + 0.01 * L1_TERMS["flat"](model) + 0.01 * L2_TERMS["powers"](model)).backward()
        optimizer.step()
    if watch is not None:
        watch.finish()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_training_is_bit_identical():
    assert torch.equal(weights_after(True), weights_after(False))
