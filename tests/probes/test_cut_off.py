import pytest
import torch
from torch import nn

from benches import bench, in_batches
from trainwatch.probes import cut_off
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.symptoms.cut_off import cut_off as found_in
from trainwatch.symptoms.cut_off import without_gradient


class Cut(nn.Module):
    """A body that is cut off, a layer whose output nothing uses, and a head."""

    def __init__(self):
        super().__init__()
        self.body, self.unused, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.body(x).relu().detach()
        self.unused(h)
        return self.head(h)


def looked_at(rows=((float("nan"),) * 4 + (1.0, 1.0),)):
    torch.manual_seed(0)
    model = Cut()
    given = bench(model, in_batches(torch.randn(64, 4), torch.randint(0, 3, (64,))))
    names = list(dict(model.named_parameters()).items())
    given.record.set_fact("parameters", [{"name": n, "trainable": True, "shape": list(p.shape)} for n, p in names])
    given.record.set_fact("optimizers", {"default": {"parameters": list(range(len(names))), "groups": []}})
    for step, row in enumerate(rows):
        given.record.append("grad_norm", "default", step, row)
    return model, given


def test_a_layer_that_the_loss_depends_on_is_told_from_one_that_is_not_used():
    model, given = looked_at()
    weights = [p.clone() for p in model.parameters()]
    assert without_gradient(given.record) == ("body.weight", "unused.weight")
    cut_off.measure(given)
    body, unused = sorted(found_in(given.record), key=lambda one: one.module)
    assert (body.module, unused.module) == ("body", "unused")
    assert body.change > 0.01
    assert unused.change == 0
    assert (body.numel, body.step) == (32, 100)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_a_layer_that_is_frozen_by_now_is_frozen_and_not_cut_off():
    model, given = looked_at()
    model.body.requires_grad_(False)
    cut_off.measure(given)
    assert [one.module for one in found_in(given.record)] == ["unused"]


def test_a_model_without_gradients_in_evaluation_mode_is_refused():
    model, given = looked_at()
    model.head.requires_grad_(False)
    with pytest.raises(CannotIsolate, match="no gradient"):
        cut_off.measure(given)


def test_a_layer_that_got_a_gradient_once_is_not_cut_off():
    nothing = (float("nan"),) * 4
    _, given = looked_at([(*nothing, 1.0, 1.0), (0.0, 0.0, *nothing[:2], 1.0, 1.0)])
    assert without_gradient(given.record) == ("unused.weight",)
    cut_off.measure(given)
    assert [one.module for one in found_in(given.record)] == ["unused"]
