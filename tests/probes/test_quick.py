"""Quick modules compute what torch's own do, however often they are differentiated, with fewer operations."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainwatch.probes.quick import Applied, Gradients, quicken

F64 = torch.float64
MODULES = {
    "1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (5, 4, 9)),
    "2d": (nn.Conv2d(3, 4, 3, dilation=2, padding=(2, 1), bias=False), (5, 3, 6, 7)),
    "3d": (nn.Conv3d(2, 3, 2), (2, 2, 3, 3, 3)),
    "same": (nn.Conv2d(3, 4, 3, padding="same"), (5, 3, 6, 6)),
    "reflected": (nn.Conv1d(2, 4, 3, padding=1, padding_mode="reflect"), (5, 2, 6)),
    "one sample": (nn.Conv2d(3, 4, 3), (3, 6, 6)),
    "norm of features": (nn.BatchNorm1d(4), (5, 4)),
    "norm": (nn.BatchNorm2d(4, eps=0.1), (5, 4, 3, 3)),
    "norm without weights": (nn.BatchNorm3d(4, affine=False), (5, 4, 2, 2, 2)),
    "norm without statistics": (nn.BatchNorm1d(4, track_running_stats=False), (5, 4)),
}


def pair(name):
    """A module in evaluation mode, its quick copy, and inputs."""
    torch.manual_seed(0)
    module, shape = MODULES[name]
    module = copy.deepcopy(module).to(F64)
    x = torch.randn(shape, dtype=F64)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        module(3 * x + 2)  # statistics of its own
    if name == "norm":
        nn.init.normal_(module.weight), nn.init.normal_(module.bias)
    quick = copy.deepcopy(module.eval())
    quicken(quick)
    return module, quick, x


def called(module, *given):
    names = [name for name, _ in module.named_parameters()]
    return torch.func.functional_call(module, dict(zip(names, given[1:], strict=True)), given[0])


@pytest.mark.parametrize("name", MODULES)
def test_values_and_three_derivatives_are_the_same(name):
    module, quick, x = pair(name)
    given = [x, *module.parameters()]
    directions = [[torch.randn_like(t) for t in given] for _ in range(3)]
    found = []
    for one in (module, quick):
        leaves = [t.detach().requires_grad_() for t in given]
        value = called(one, *leaves).pow(4).sum()
        found.append([value])
        for direction in directions:
            slopes = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)
            value = sum((s * d).sum() for s, d in zip(slopes, direction, strict=True))
            found[-1] += [*slopes, value]
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(*found, strict=True))
    assert float(found[0][-1].detach().abs()) > 1e-3


@pytest.mark.parametrize("wanted", [(True, False), (False, True)], ids=["inputs", "weight"])
@pytest.mark.parametrize("name", ["2d", "norm"])
def test_one_of_them_may_be_fixed(name, wanted):
    module, quick, x = pair(name)
    found = []
    for one in (module, quick):
        x, w = (t.detach().clone().requires_grad_(need) for t, need in zip((x, one.weight), wanted, strict=True))
        loss = torch.func.functional_call(one, {"weight": w}, x).pow(4).sum()
        leaf = x if wanted[0] else w
        (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)
        found.append(torch.autograd.grad(slope.sin().sum(), leaf)[0])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, for jvp
@pytest.mark.parametrize("name", MODULES)
def test_they_may_be_transformed(name):
    module, quick, x = pair(name)
    given = (x, *module.parameters())
    along = tuple(map(torch.randn_like, given))
    for transform in (
        lambda one: torch.func.jvp(lambda *t: called(one, *t), given, along)[1],
        lambda one: torch.func.grad(lambda *t: called(one, *t).square().sum())(*given),
        lambda one: torch.func.vmap(lambda t: called(one, t, *given[1:]))(torch.stack([x, 2 * x])),
    ):
        torch.testing.assert_close(transform(quick), transform(module))


def test_in_training_mode_they_are_as_ever():
    module, quick, x = pair("norm")
    torch.testing.assert_close(quick.train()(x), module.train()(x))
    torch.testing.assert_close(quick.running_mean, module.running_mean)


class Heard(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.__name__.partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def kernels(module, x):
    """Operations of one product with the Hessian on a kept graph."""
    weights = [*module.parameters()]
    slopes = torch.autograd.grad(module(x).square().sum(), weights, create_graph=True)
    with Heard() as heard:
        torch.autograd.grad(slopes, weights, [torch.ones_like(w) for w in weights])
    return heard.counts


def test_a_second_derivative_takes_no_more_kernels_than_it_needs():
    found = kernels(nn.Sequential(*(pair("2d")[1] for _ in range(1))), pair("2d")[2])
    assert (found["convolution"], found["convolution_backward"]) == (1, 1)
    stacked = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(3))).to(F64)
    slow = kernels(stacked, pair("2d")[2])
    quicken(stacked)
    quick = kernels(stacked, pair("2d")[2])
    assert (quick["convolution"], quick["convolution_backward"]) == (5, 5)
    assert slow["convolution"] + slow["convolution_backward"] > 10
    norms = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)).to(F64).eval()
    slow = kernels(norms, pair("2d")[2])
    quicken(norms)
    assert sum(kernels(norms, pair("2d")[2]).values()) < 0.7 * sum(slow.values())


def test_the_last_derivative_leaves_nothing_to_differentiate(monkeypatch):
    """Else each product would hold on to tensors that no one asks for, which took a tenth of its time."""
    module, x = pair("2d")[1], pair("2d")[2]
    (slope,) = torch.autograd.grad(module(x).pow(3).sum(), module.weight, create_graph=True)
    for function in (Applied, Gradients):
        monkeypatch.setattr(function, "apply", None)
    (product,) = torch.autograd.grad(slope.sum(), module.weight)
    assert float(product.norm()) > 0
