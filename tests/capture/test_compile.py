"""Watching compiled code: no graph break is added and at most one recompilation."""

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import nn
from torch._dynamo.utils import counters

import trainwatch

INPUTS = torch.randn(16, 8)
LABELS = torch.randint(0, 3, (16,))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.out(F.relu(self.hidden(x)))


def net():
    return Net()


def steps(forward_loss, optimizer, model, n=4):
    """Train, then validate; graph breaks and compiled graphs that it took."""
    counters.clear()
    for _ in range(n):
        optimizer.zero_grad()
        forward_loss(INPUTS, LABELS).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        forward_loss(INPUTS, LABELS)
    model.train()
    return sum(counters["graph_break"].values()), counters["stats"]["unique_graphs"]


def set_up(shape):
    torch._dynamo.reset()
    model = net()
    if shape == "compiled model":
        compiled = torch.compile(model, backend="aot_eager")
        return compiled, model, lambda x, y: F.cross_entropy(compiled(x), y)
    if shape == "original watched":
        compiled = torch.compile(model, backend="aot_eager")
        return model, model, lambda x, y: F.cross_entropy(compiled(x), y)
    if shape == "compiled in place":
        model.compile(backend="aot_eager")
        return model, model, lambda x, y: F.cross_entropy(model(x), y)
    return model, model, torch.compile(lambda x, y: F.cross_entropy(model(x), y), backend="aot_eager")


SHAPES = ["compiled model", "original watched", "compiled in place", "loss compiled too"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_no_graph_break_and_at_most_one_recompilation(shape, when):
    def run(watching):
        watched, model, forward_loss = set_up(shape)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        warm = steps(forward_loss, optimizer, model) if when == "after" else (0, 0)
        watch = trainwatch.watch(watched, optimizer, settings={"quiet": True, "strict": True}) if watching else None
        broken, graphs = steps(forward_loss, optimizer, model)
        if watch is not None:
            watch.finish()
        return broken + warm[0], graphs + warm[1], watch

    plain_breaks, plain_graphs, _ = run(watching=False)
    breaks, graphs, watch = run(watching=True)
    assert breaks == plain_breaks == 0
    # Where the loss function is part of graphs that exist already, each of them (training, validation) is made anew.
    assert graphs - plain_graphs <= (2 if (shape, when) == ("loss compiled too", "after") else 1)
    record = watch.record
    assert len(record.series("grad_norm", "default")) == 4
    losses = record.series("train_loss", "root" if shape == "loss compiled too" else "cross_entropy")
    assert len(losses) == 4


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_recorded_is_what_an_uncompiled_run_records(shape):
    def run(shape):
        torch.manual_seed(0)
        watched, model, forward_loss = set_up(shape)
        torch.manual_seed(0)
        for p in model.parameters():
            nn.init.normal_(p, std=0.3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        watch = trainwatch.watch(watched, optimizer, settings={"quiet": True, "strict": True})
        steps(forward_loss, optimizer, model)
        watch.finish()
        return watch.record

    torch.manual_seed(0)
    model = net()
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    record = run(shape)
    norms = record.series("grad_norm", "default").values
    torch.manual_seed(0)
    twin = net()
    torch.manual_seed(0)
    for p in twin.parameters():
        nn.init.normal_(p, std=0.3)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for row in norms:
        optimizer.zero_grad()
        F.cross_entropy(twin(INPUTS), LABELS).backward()
        assert row.tolist() == pytest.approx([p.grad.norm().item() for p in twin.parameters()], rel=1e-4)
        optimizer.step()
    if record.has("val_loss"):
        with torch.no_grad():
            expected = F.cross_entropy(twin(INPUTS), LABELS).item()
        assert record.series("val_loss", "val").values.tolist() == pytest.approx([expected], rel=1e-4)
    else:
        assert shape == "loss compiled too"
