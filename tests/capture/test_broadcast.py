"""Losses written by hand whose outputs and targets have different shapes, found in the graph."""

import pytest
import torch
from torch import nn

from trainwatch.capture.broadcast import broadcast_difference

N = 8
Y = torch.linspace(-1, 1, N)
COLUMN = {
    "squares": lambda p: ((p - Y) ** 2).mean(),
    "the other way round": lambda p: (Y - p).square().sum() / N,
    "absolute values": lambda p: (p - Y).abs().mean(),
    "with a penalty": lambda p: (p - Y).pow(2).mean() + 1e-3 * p.square().sum(),
    "a root and a factor": lambda p: 10 * torch.sqrt(((p - Y) ** 2).mean() + 1e-8),
    "by its logarithm": lambda p: torch.log(torch.cosh(p - Y)).mean(),
}
SOUND = {
    "columns": lambda p: ((p - Y[:, None]) ** 2).mean(),
    "flat": lambda p: ((p.squeeze(1) - Y) ** 2).mean(),
    "one number": lambda p: ((p - Y.mean()) ** 2).mean(),
    "pairs of outputs": lambda p: (p - p.T).square().mean(),
    "ranked pairs": lambda p: torch.relu(1 - (p - p.T) * torch.sign(Y[:, None] - Y)).mean(),
    "risks at the same time": lambda p: (p.exp() * (Y[:, None] >= Y)).sum(0).log().mean() - p.mean(),
    "masked": lambda p: (p + torch.where(Y[:, None] > Y, 0.0, -1e9)).logsumexp(0).mean(),
    "distances to centres": lambda p: ((p - Y) ** 2).min(1).values.mean() + ((p - Y) ** 2).min(0).values.mean(),
    "kernels": lambda p: torch.exp(-((p - Y) ** 2)).mean() + torch.exp(-((p - p.T) ** 2)).mean(),
    "an ensemble": lambda p: (p - Y).abs().mean() - 0.5 * (p - p.T).abs().mean(),
    "risks by a mask that is subtracted": lambda p: (p - 1e9 * (Y[:, None] < Y).float()).logsumexp(0).mean(),
    "torch's own": lambda p: nn.functional.mse_loss(p, Y[:, None]),
    "no graph": lambda p: p.detach().mean(),
}


@pytest.mark.parametrize("loss", COLUMN.values(), ids=COLUMN)
def test_columns_against_flat_targets_and_the_reverse(loss):
    outputs = nn.Linear(3, 1)(torch.randn(N, 3))
    assert broadcast_difference(loss(outputs)) == {"outputs": [N, 1], "compared": [N, N]}


def test_flat_outputs_against_columns():
    outputs = nn.Linear(3, 1)(torch.randn(N, 3)).squeeze(1)
    assert broadcast_difference((outputs - Y[:, None]).square().mean()) == {"outputs": [N], "compared": [N, N]}


@pytest.mark.parametrize("loss", SOUND.values(), ids=SOUND)
def test_what_is_meant_so_is_left_alone(loss):
    assert broadcast_difference(loss(nn.Linear(3, 1)(torch.randn(N, 3)))) is None


def test_parameters_are_no_outputs():
    shift, data = nn.Parameter(torch.zeros(N)), torch.randn(N, N)
    assert broadcast_difference((shift - data).square().mean()) is None
    assert broadcast_difference((data - shift).square().mean()) is None


def test_nested_tensors_are_left_alone():
    rows = torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)], layout=torch.jagged, requires_grad=True)
    assert broadcast_difference((rows * 2 - 1).values().square().mean()) is None


def test_a_single_sample_and_several_outputs_are_left_alone():
    for outputs, targets in (((1, 1), (1,)), ((N, N), (N,)), ((N, 3), (3,)), ((N, 1), (3,))):
        made = torch.randn(outputs, requires_grad=True) * 1
        assert broadcast_difference((made - torch.zeros(targets)).square().mean()) is None


def test_what_lies_deep_in_the_net_is_none_of_the_loss():
    hidden = nn.Linear(3, 1)(torch.randn(N, 3)) - Y
    for _ in range(4):
        hidden = nn.Linear(N, N)(hidden).relu()
    assert broadcast_difference(hidden.square().mean()) is None
