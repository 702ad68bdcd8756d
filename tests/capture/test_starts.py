"""Whether a model was trained before, and what is kept of its start."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import trainwatch
from trainwatch.capture import starts
from trainwatch.capture.freshness import trained_shows
from trainwatch.capture.starts import StartWeights

INITS = (nn.init.kaiming_uniform_, nn.init.kaiming_normal_, nn.init.xavier_uniform_, nn.init.orthogonal_,
         nn.init.zeros_, lambda w: nn.init.trunc_normal_(w, std=0.02))  # fmt: skip


def model_of(init=None, seed=0, last=nn.BatchNorm1d):
    torch.manual_seed(seed)
    hidden = nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()
    model = nn.Sequential(*hidden, nn.Linear(64, 10), last(10))
    for layer in (model[0], model[2]):
        if init is not None:
            init(layer.weight)
    return model


def learned(seed=0, **how):
    """A model that knows handwritten digits."""
    model, (images, classes) = model_of(seed=seed, **how), load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 8 - 1, torch.tensor(classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model


def kept_of(model, optimizer=None):
    return StartWeights({"default": model}, {"default": optimizer or torch.optim.SGD(model.parameters(), lr=0.1)})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("init", INITS)
def test_a_model_that_begins_at_random_is_not_copied(init, seed):
    found = kept_of(model_of(init, seed))
    assert found.kept == {}
    assert (found.facts()["judged"], found.facts()["trained"]) == (2, 0)


@pytest.mark.parametrize("seed", range(3))
def test_a_trained_model_is_copied_with_its_statistics(seed):
    model = learned(seed)
    found = kept_of(model)
    assert found.facts()["trained"] == found.facts()["judged"] == 1, "its norm is enough"
    floating = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
    assert set(found.kept) == set(floating)
    assert all(torch.equal(found.kept[n], t) for n, t in floating.items())
    with torch.no_grad():
        model[0].weight.add_(1)
    assert not torch.equal(found.kept["0.weight"], model[0].weight)


@pytest.mark.parametrize("seed", range(3))
def test_without_a_norm_its_weights_tell(seed):
    found = kept_of(learned(seed, last=nn.Identity))
    assert (found.facts()["judged"], found.facts()["trained"]) == (2, 2)
    assert set(found.kept) == {f"{i}.{leaf}" for i in (0, 2, 4) for leaf in ("weight", "bias")}


def cut_off_noise(weight):
    """Neither uniform nor normal, as few fresh weights and many trained ones are."""
    nn.init.trunc_normal_(weight, std=0.1, a=-0.2, b=0.2)


def drawn_at_large(weight_of):
    """Whose biases are drawn by hand, from a range wider than that of torch."""
    model = model_of(weight_of, last=nn.Identity)
    for layer in (model[0], model[2]):
        weight_of(layer.bias[:, None])
    return model


@pytest.mark.parametrize(
    "draw",
    [
        lambda w: nn.init.uniform_(w, -0.3, 0.3),
        lambda w: nn.init.normal_(w, std=0.3),
        lambda w: nn.init.constant_(w, 0.3),
    ],
)
def test_biases_that_are_drawn_with_their_weights_show_no_training(draw):
    assert kept_of(drawn_at_large(draw)).facts()["trained"] == 0


def test_biases_as_torch_draws_them_show_no_training():
    cut = model_of(cut_off_noise, last=nn.Identity)
    assert kept_of(cut).facts()["trained"] == 0
    with torch.no_grad():
        for layer in (cut[0], cut[2]):
            layer.bias *= 1.2
    assert kept_of(cut).facts()["trained"] == 2


def test_biases_set_to_one_number_show_no_training():
    model = model_of(cut_off_noise, last=nn.Identity)
    for layer in (model[0], model[2]):
        nn.init.ones_(layer.bias)
    assert kept_of(model).facts()["trained"] == 0


def test_biases_of_a_few_outputs_may_be_set_by_hand():
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    cut_off_noise(model[2].weight)
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([3.0, -1.0, -2.0]))
    assert kept_of(model).facts()["judged"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_biases_of_a_small_net_tell_what_its_weights_do_not(seed):
    torch.manual_seed(seed)
    hidden = nn.Linear(12, 96), nn.ReLU(), nn.Linear(96, 24), nn.ReLU()
    model, centres = nn.Sequential(*hidden, nn.Linear(24, 40)), 4 * torch.randn(40, 12)
    fresh = kept_of(model).facts()
    assert (fresh["trained"], fresh["kept"]) == (0, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        kinds = torch.randint(40, (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(centres[kinds] + torch.randn(64, 12)), kinds).backward()
        optimizer.step()
    model[4] = nn.Linear(24, 5)
    assert not trained_shows(model[0], model[0].weight)
    facts = kept_of(model).facts()
    assert facts["trained"] == facts["judged"] == 2
    assert set(kept_of(model).kept) == set(model.state_dict())


def test_parameters_without_a_shape_are_not_looked_at():
    model = nn.Sequential(nn.LazyLinear(32))
    assert kept_of(model).facts()["judged"] == 0


def test_what_is_not_trained_is_not_kept():
    model = learned()
    model[0].requires_grad_(False)
    assert not any(n.startswith("0.") for n in kept_of(model).kept)


def test_the_largest_modules_are_kept_within_the_limit(monkeypatch):
    monkeypatch.setattr(starts, "MOST_BYTES", 4 * (64 * 64 + 64) + 4 * 650)
    found = kept_of(learned())
    assert {n.split(".")[0] for n in found.kept} == {"0", "4"}
    assert found.facts()["left_out"] == 2


def test_an_optimiser_that_goes_on_is_told_from_a_new_one():
    model = learned()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    assert not kept_of(model, optimizer).facts()["resumed"]
    model(torch.randn(8, 64)).sum().backward()
    optimizer.step()
    assert kept_of(model, optimizer).facts()["resumed"]
    assert not kept_of(model, torch.optim.Adagrad(model.parameters())).facts()["resumed"]


def test_weights_that_are_loaded_before_the_first_step_count():
    state, model = learned().state_dict(), model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "probes": "off"}) as watch:
        model.load_state_dict(state)
        nn.functional.cross_entropy(model(torch.randn(8, 64)), torch.arange(8) % 2).backward()
        optimizer.step()
        model.load_state_dict(model_of().state_dict())
    assert watch.record.facts["start_weights"]["trained"] == 1


def test_a_norm_that_has_seen_batches_tells_what_weights_do_not():
    model = nn.Sequential(nn.Linear(20, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 2))
    assert not kept_of(model).kept
    with torch.no_grad():
        for _ in range(8):
            model(torch.randn(16, 20))
    found = kept_of(model)
    assert found.facts()["trained"] == found.facts()["judged"] == 1
    assert {"0.weight", "1.running_mean", "3.bias"} <= found.kept.keys()
    model[1].requires_grad_(False)
    assert not kept_of(model).kept, "what is not trained is not asked"
