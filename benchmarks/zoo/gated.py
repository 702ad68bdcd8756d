"""Layers that multiply by gates, and attention; and how their gates begin."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmarks.zoo.scenario import Model, ScenarioError

GATES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.LSTM: ("input", "forget", "cell", "output"),
    nn.GRU: ("reset", "update", "new"),
}  # in the order in which torch stacks them


def glu(inputs: int, width: int) -> nn.Module:
    """A gated linear unit: one half of a layer's outputs are the gates of the other half."""
    return nn.Sequential(nn.Linear(inputs, 2 * width), nn.GLU())


class Highway(nn.Module):
    """Gates choose between a layer's new values and its inputs; a plain layer where the width changes."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(inputs, width)
        self.gate = nn.Linear(inputs, width) if inputs == width else None

    def forward(self, x: Tensor) -> Tensor:
        value = torch.tanh(self.value(x))
        if self.gate is None:
            return value
        gate = torch.sigmoid(self.gate(x))
        return gate * value + (1 - gate) * x


class SqueezeExcite(nn.Module):
    """Channels multiplied by gates that are computed from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels // 2, 1), nn.ReLU())
        self.gate, self.sigmoid = nn.Conv2d(channels // 2, channels, 1), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.sigmoid(self.gate(self.squeeze(x)))


class Attention(nn.Module):
    """One head over the rows of an image or a sequence; a learned query reads what decides on the class."""

    def __init__(self, rows: int, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.embedding, self.place = nn.Linear(inputs, width), nn.Parameter(torch.randn(rows, width) * 0.5)
        self.asked = nn.Parameter(torch.randn(1, width))
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x) + self.place
        x = torch.cat([self.asked.expand(len(x), 1, -1), x], 1)
        for _ in range(2):  # the same layer twice: among rows, then for the answer
            weights = (self.query(x) @ self.key(x).transpose(1, 2) / math.sqrt(x.shape[-1])).softmax(-1)
            x = x + weights @ self.value(x)
        return self.head(x[:, 0])


@torch.no_grad()
def begin(model: nn.Module, spec: Model) -> None:
    """Give the gates of a new net their first biases, and multiply the weights they are computed from.

    Raises:
        ScenarioError: The net has no gate of that name.
    """
    unknown = set(spec.gate_bias)
    for module in model.modules():
        for name, rows in _gates(module).items():
            for p in rows:
                if p.ndim > 1:
                    p *= spec.gate_gain
                elif name in spec.gate_bias:
                    p.fill_(spec.gate_bias[name] / (2 if isinstance(module, nn.RNNBase) else 1))  # of two biases, half
            unknown.discard(name)
    if unknown:
        raise ScenarioError(f"a net of kind {spec.kind!r} has no gate {', '.join(sorted(unknown))}")


def _gates(module: nn.Module) -> dict[str, list[Tensor]]:
    """Gate -> the rows of weights and biases that it is computed from."""
    if isinstance(module, tuple(GATES)):
        names = GATES[type(module)]
        parts = [p.chunk(len(names)) for k, p in module.named_parameters() if not k.startswith("weight_hh")]
        return {name: [rows[i] for rows in parts] for i, name in enumerate(names)}
    if isinstance(module, nn.MultiheadAttention):
        return {"attention": [module.in_proj_weight[: 2 * module.embed_dim]]}
    if isinstance(module, Attention):
        return {"attention": [module.query.weight, module.key.weight]}
    if isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[1], nn.GLU):
        return {"gate": [p.chunk(2)[1] for p in module[0].parameters()]}
    if isinstance(module, (Highway, SqueezeExcite)) and module.gate is not None:
        return {"gate": list(module.gate.parameters())}
    return {}
