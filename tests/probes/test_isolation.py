import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from trainwatch.probes.isolation import CannotIsolate, twin, twin_with_optimizer, untouched, unwrapped

ROOMY = 1 << 20
CPU = torch.device("cpu")


class Hostile(nn.Module):
    """Counts, queues, averages its own weights and statistics, and draws random numbers in every forward pass."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.average = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("queue", torch.zeros(3, 4))
        self.calls, self.seen = 0, []

    def forward(self, x):
        self.calls += 1
        self.seen.append(x.mean().item())
        with torch.no_grad():
            self.average.weight.mul_(0.9).add_(self.net[0].weight, alpha=0.1)
            self.queue = torch.cat([self.queue[1:], x[:1]])
        return self.net(x + random.random() + np.random.rand() + torch.rand(1))


def everything(model):
    tensors = [t.clone() for t in model.state_dict().values()]
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    modes = [(m.training, [p.requires_grad for p in m.parameters()]) for m in model.modules()]
    return tensors, gradients, modes, model.calls, list(model.seen)


def test_nothing_done_to_a_twin_reaches_the_model():
    model = Hostile()
    model(torch.randn(8, 4)).sum().backward()
    before, versions = everything(model), [t._version for t in (*model.parameters(), *model.buffers())]
    states = random.random.__self__.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    gradients = [p.grad for p in model.parameters()]
    with untouched(CPU):
        other = twin(model, ROOMY)
        other.train()
        for _ in range(3):
            other(torch.randn(8, 4)).sum().backward()
        other.eval().requires_grad_(False)
        with torch.no_grad():
            for p in other.parameters():
                p.zero_()
    after = everything(model)
    for one, two in zip((*before[0], *before[1]), (*after[0], *after[1]), strict=True):
        assert (one is None and two is None) or torch.equal(one, two)
    assert before[2:] == after[2:]
    assert versions == [t._version for t in (*model.parameters(), *model.buffers())]
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    now = random.random.__self__.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert now == states


def test_a_twin_computes_what_the_model_does_and_has_no_gradient_of_it():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    model(torch.ones(1, 4)).sum().backward()
    other = twin(model, ROOMY)
    assert torch.equal(other(torch.ones(2, 4)), model(torch.ones(2, 4)))
    assert all(p.grad is None for p in other.parameters())
    assert not {id(p) for p in other.parameters()} & {id(p) for p in model.parameters()}


def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    other = twin(model, ROOMY)
    assert other[1].weight is other[0].weight


def test_hooks_of_the_user_are_left_out_and_those_of_torch_are_kept():
    heard = []
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
    )
    model.register_forward_hook(lambda *_: heard.append("after"))
    model[0].register_forward_pre_hook(lambda *_, **__: heard.append("before"), with_kwargs=True)
    model.last = expected = model.eval()(torch.ones(1, 4))
    heard.clear()
    assert torch.allclose(twin(model, ROOMY)(torch.ones(1, 4)), expected)
    assert heard == []


def test_wrappers_are_taken_off():
    model = nn.Linear(4, 3)
    assert unwrapped(nn.DataParallel(model)) is model
    assert unwrapped(torch.compile(model, backend="eager")) is model
    assert type(twin(torch.compile(model, backend="eager"), ROOMY)) is nn.Linear


def test_a_model_larger_than_the_memory_for_probes_is_refused():
    with pytest.raises(CannotIsolate, match="takes 4 MiB, more than probe_memory allows"):
        twin(nn.Linear(1024, 1024, bias=False), 1 << 20)


def test_a_model_that_cannot_be_copied_is_refused_with_the_reason():
    model = nn.Linear(4, 3)
    model.stream = (i for i in range(3))
    with pytest.raises(CannotIsolate, match="cannot be copied: TypeError"):
        twin(model, ROOMY)


def test_modes_of_the_process_are_restored_even_after_an_error():
    state = torch.get_rng_state()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(ZeroDivisionError), untouched(CPU):
            assert torch.is_grad_enabled()
            assert not torch.is_autocast_enabled("cpu")
            torch.rand(3)
            raise ZeroDivisionError
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(state, torch.get_rng_state())


def test_a_loss_that_reaches_the_live_model_adds_nothing_to_its_gradients():
    model = nn.Linear(4, 3)
    model.weight.grad = kept = torch.ones(3, 4)
    with untouched(CPU, model):
        model.weight.square().sum().backward()
        model.bias.sum().backward()
    assert model.weight.grad is kept
    assert torch.equal(kept, torch.ones(3, 4))
    assert model.bias.grad is None


@pytest.mark.gpu
def test_the_random_state_of_a_gpu_is_restored():
    device = torch.device("cuda", torch.cuda.current_device())
    state = torch.cuda.get_rng_state(device)
    with untouched(device):
        torch.rand(3, device=device)
    assert torch.equal(state, torch.cuda.get_rng_state(device))


NUMPY, OLD, TORCH, PYTHON = np.random.default_rng(0), np.random.RandomState(0), torch.Generator(), random.Random(0)


class Noisy(nn.Module):
    """Draws from generators that are no part of it."""

    def forward(self, x):
        return x + NUMPY.normal() + OLD.normal() + torch.randn((), generator=TORCH) + PYTHON.random()


def enclosed():
    own = np.random.default_rng(1)

    class Enclosed(nn.Module):
        def forward(self, x):
            return x + own.normal()

    return Enclosed()


@pytest.mark.parametrize("model", [Noisy(), nn.Sequential(nn.Linear(2, 2), Noisy()), enclosed()])
def test_generators_outside_the_model_that_its_code_names_are_restored(model):
    x = torch.zeros(3, 2)
    expected = model(x)
    with untouched(CPU, model):
        drawn = model(x)
    after = model(x)
    assert not torch.equal(expected, drawn)
    assert torch.equal(drawn, after)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1}, {"amsgrad": True}, {"foreach": True}, {"maximize": True}, {"eps": 1e-3}]
)
def test_a_copy_of_adam_steps_by_one_kernel_to_where_the_live_one_does(kind, options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    optimizer = kind(model.parameters(), lr=0.01, **options)

    def train(net, by, steps):
        draws = torch.Generator().manual_seed(steps)
        for _ in range(steps):
            by.zero_grad()
            net(torch.randn(8, 6, generator=draws)).square().mean().backward()
            by.step()

    train(model, optimizer, 3)
    before = copy.deepcopy(optimizer.state_dict())
    copied, other = twin_with_optimizer(model, optimizer, ROOMY)
    assert other.param_groups[0]["fused"]
    assert not other.param_groups[0]["foreach"]
    train(copied, other, 7)
    for state, known in zip(optimizer.state_dict()["state"].values(), before["state"].values(), strict=True):
        assert all(torch.equal(state[name], known[name]) for name in known)
    assert optimizer.param_groups[0]["fused"] is None
    train(model, optimizer, 7)
    for mine, live in zip(copied.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, live, rtol=1e-5, atol=1e-6)


class OfOnesOwn(torch.optim.Adam):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda model: OfOnesOwn(model.parameters()),
        lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        lambda model: torch.optim.Adam(model.double().parameters()),
        lambda model: torch.optim.Adam(model.to(memory_format=torch.channels_last).parameters()),
    ],
    ids=["subclass", "another", "double", "channels last"],
)
def test_other_optimisers_and_other_weights_step_as_they_did(make):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    _, other = twin_with_optimizer(model, make(model), ROOMY)
    assert not other.param_groups[0]["fused"]
