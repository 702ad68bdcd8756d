"""What a plain step costs, counted: operations added on the device, and values read by the host."""

import contextlib
import gc
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import trainwatch
from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.gradients import GradientRing
from trainwatch.capture.nonfinite import FirstNonFinite, finite

READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__")
X, Y = torch.randn(16, 8), torch.randint(0, 3, (16,))


class Counter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations, self.reads = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations.append(str(func))
        self.reads += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def counted(monkeypatch):
    """Dispatched operations, and reads, also those that no dispatch mode sees on the CPU."""
    counter = Counter()
    with monkeypatch.context() as patch:
        for name in READS:
            original = getattr(torch.Tensor, name)

            def read(self, *args, original=original, **kwargs):
                counter.reads += 1
                return original(self, *args, **kwargs)

            patch.setattr(torch.Tensor, name, read)
        with counter:
            yield counter


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
}


def step(model, optimizer, parts=1, penalty=False):
    optimizer.zero_grad()
    for _ in range(parts):
        loss = F.cross_entropy(model(X), Y)
        if penalty:
            loss = loss + 1e-3 * model[0].weight.abs().sum()
        (loss / parts if parts > 1 else loss).backward()
    optimizer.step()


PLAIN = 8  # steps from one look at the weights to the next


def costs(make, nonfinite, monkeypatch, *, before=21, steps=PLAIN, **shape):
    """Some steps, plain ones by default; `nonfinite` is the setting of a watch, None for no watch."""
    model = net()
    optimizer = OPTIMIZERS[make](model.parameters())
    settings = {"quiet": True, "strict": True, "nonfinite": nonfinite}
    watch = trainwatch.watch(model, optimizer, settings=settings) if nonfinite else None
    for _ in range(before):  # the first steps are not plain: wiring, fingerprints, ranges at steps 0, 1, 3, 7, 15
        step(model, optimizer, **shape)
    with counted(monkeypatch) as counter:
        for _ in range(steps):
            step(model, optimizer, **shape)
    if watch is not None:
        watch.finish()
    return counter


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("shape", [{}, {"penalty": True}], ids=["plain", "two-losses"])
def test_a_plain_step_gains_at_most_four_operations_and_no_read(make, shape, monkeypatch):
    plain = costs(make, None, monkeypatch, **shape)
    watched = costs(make, "off", monkeypatch, **shape)
    assert watched.reads == plain.reads
    added = (len(watched.operations) - len(plain.operations)) / PLAIN
    assert 2 <= added <= 4


def test_each_part_of_an_accumulated_step_gains_at_most_four_operations(monkeypatch):
    plain = costs("sgd", None, monkeypatch, parts=3)
    watched = costs("sgd", "off", monkeypatch, parts=3)
    assert watched.reads == plain.reads
    assert (len(watched.operations) - len(plain.operations)) / (3 * PLAIN) <= 4


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_step_after_which_weights_are_looked_at_gains_one_operation_more_and_no_read(make, monkeypatch):
    usual = costs(make, "off", monkeypatch, steps=2)
    look = costs(make, "off", monkeypatch, before=19, steps=2)
    assert look.reads == usual.reads
    assert sorted(look.operations) == sorted([*usual.operations, *2 * ["aten.cat.default"]])


@pytest.mark.parametrize("shape", [{}, {"penalty": True}, {"parts": 3}], ids=["plain", "two-losses", "parts"])
def test_looking_at_losses_and_gradients_on_the_cpu_dispatches_nothing(shape, monkeypatch):
    """They are read straight from memory, where nobody waits for them: each loss, each root, each backward pass."""
    blind = costs("sgd", "off", monkeypatch, **shape)
    looking = costs("sgd", "auto", monkeypatch, **shape)
    assert looking.operations == blind.operations
    looks = {"penalty": 3, "parts": 9}.get(next(iter(shape), ""), 2)
    assert looking.reads - blind.reads == looks * PLAIN


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_what_is_finite_is_told_from_the_bits(dtype):
    values = [0.0, -0.0, 1.0, -3e4, torch.finfo(dtype).max, torch.finfo(dtype).tiny]
    assert all(finite(torch.tensor(value, dtype=dtype)) for value in values)
    assert not any(finite(torch.tensor(float(value), dtype=dtype)) for value in ("nan", "inf", "-inf"))
    assert finite(torch.ones(3, dtype=dtype))
    assert not finite(torch.tensor([1.0, float("nan")], dtype=dtype))


@pytest.mark.parametrize(
    ("entry", "expected"), [(1e20, True), (float("inf"), False), (float("nan"), False), (None, True)]
)
def test_norms_are_finite_however_large_or_absent(entry, expected):
    parameters = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    ring = GradientRing(parameters, 3)
    assert ring.finite()  # nothing was measured
    parameters[0].grad = torch.ones(1)
    parameters[1].grad = None if entry is None else torch.full((1,), entry)
    ring.measure()
    assert ring.finite() == expected


def test_other_norms_are_taken_once_a_flush_and_without_the_scale_of_a_scaler():
    parameters = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(1))]
    ring, told, reads = GradientRing(parameters, 5), {}, DeferredReads()
    generator = torch.Generator().manual_seed(0)
    for step in range(7):
        gradients = [torch.randn(p.shape, generator=generator).relu() for p in parameters[:2]]
        if step in (0, 5):
            first = gradients
        for parameter, gradient in zip(parameters, gradients, strict=False):  # the third has none
            parameter.grad = 1024 * gradient
        ring.measure(torch.tensor(1024.0))
        if ring.commit(step) or step == 6:
            ring.flush(reads, lambda *_: None, lambda steps, norms: told.update({int(steps[0]): norms}), lambda _: None)
            reads.deliver(wait=True)
            expected = [[torch.linalg.vector_norm(g, order) for order in (0, 1, torch.inf)] for g in first]
            np.testing.assert_allclose(told[0 if step < 5 else 5][0, :2], expected, rtol=1e-5)
    assert sorted(told) == [0, 5]
    assert np.isnan(told[0][0, 2]).all()


def test_on_a_device_nothing_is_looked_at_unless_told():
    on_device = {"default": nn.Linear(2, 2, device="meta")}
    look = {mode: FirstNonFinite(mode, on_device, print) for mode in ("auto", "immediate", "off")}
    assert {mode: one.looks for mode, one in look.items()} == {"auto": False, "immediate": True, "off": False}
    for one in look.values():
        one.scaled()
    assert {mode: one.keeps for mode, one in look.items()} == {"auto": True, "immediate": True, "off": False}
    assert not look["auto"].looks


def test_a_flush_reads_few_values_whatever_the_number_of_steps(monkeypatch):
    def reads(flush_every):
        model = net()
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        settings = {"quiet": True, "strict": True, "flush_every": flush_every, "nonfinite": "off"}
        watch = trainwatch.watch(model, optimizer, settings=settings)
        with counted(monkeypatch) as counter:
            for _ in range(40):
                step(model, optimizer)
        watch.finish()
        return counter.reads

    assert reads(20) <= 2 * 10
    assert reads(20) < reads(5)


def test_no_graph_outlives_its_step():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True})
    alive = []
    model[2].register_forward_hook(lambda m, i, out: alive.append(weakref.ref(out)))
    for _ in range(5):
        step(model, optimizer)
        step(model, optimizer, penalty=True)
    F.cross_entropy(model(X), Y)
    gc.collect()
    assert [ref() for ref in alive] == [None] * len(alive)
    watch.finish()
