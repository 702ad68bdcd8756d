"""Records with the state of gates and attention, made up, and nets with gates that are trained on the digits."""

import torch
import torch.nn.functional as F
from lively import ending
from synthetic_gradients import make_record, parameter
from torch import nn


def gate(*, shut=0.0, opened=0.0, low=None, high=None, mean=0.5, entries=200, units=64, first=None, at=(50, 100),
         module="body", kind="lstm", function="input", place="_l0", layer="", activations=()):  # fmt: skip
    """One gate: shares at the last probe, and as `first` all shares at the one before; None for a single probe."""
    low, high = shut if low is None else low, opened if high is None else high
    last = (shut, opened, low, high, mean, entries, units)
    before = (first, first, first, 0.0, mean, entries, units)
    rows = [last] if first is None else [before, last]
    facts = {"module": module, "kind": kind, "function": function, "layer": layer, "activations": list(activations)}
    suffix = place if kind in ("lstm", "gru") else ""
    return {"name": f"{module or 'model'}:{function}{suffix}", "facts": facts, "rows": rows, "at": at[-len(rows) :]}


def product(function="sigmoid", module="act", **more):
    return gate(kind="glu" if function == "glu" else "product", function=function, module=module, **more)


def attention(sharp=1.0, *, least=0.9, rows=800, heads=4, first=None, module="attn", at=(50, 100)):
    made = [(sharp, least, 0.0, 0.995, rows, heads)]
    made = made if first is None else [(first, first, 0.0, 0.9, rows, heads), *made]
    return {"name": f"{module}:softmax", "facts": {"module": module, "kind": "attention"}, "rows": made,
            "at": at[-len(made) :]}  # fmt: skip


PARAMETERS = [
    parameter("embed.weight", order=0, shape=(50, 16), kind="embedding", module_type="Embedding") | {"std": 1.0},
    parameter("body.weight_ih_l0", order=1, shape=(256, 16), module_type="LSTM") | {"std": 2.0},
    parameter("body.weight_hh_l0", "recurrent", order=1, shape=(256, 64), module_type="LSTM") | {"std": 2.0},
    parameter("body.bias_ih_l0", "bias", order=1, shape=(256,), module_type="LSTM") | {"std": 0.1},
    parameter("body.bias_hh_l0", "bias", order=1, shape=(256,), module_type="LSTM") | {"std": 0.1},
    parameter("up.weight", order=2, shape=(64, 16)) | {"std": 0.5},
    parameter("attn.in_proj_weight", order=3, shape=(96, 32), module_type="MultiheadAttention") | {"std": 0.5},
]


def probed(*sites, losses=None, parameters=PARAMETERS, **more):
    """A record with these gates and attentions."""
    losses = ending(0.0) if losses is None else losses
    made = make_record(losses, torch.full((len(losses), len(parameters)), 1e-6), parameters=parameters, **more)
    facts = {}
    for order, site in enumerate(sites):
        facts[site["name"]] = site["facts"] | {"order": order}
        for step, row in zip(site["at"], site["rows"], strict=True):
            made.append("gates" if len(row) == 7 else "attention", site["name"], step, torch.tensor(row).numpy())
    made.set_fact("gates", facts)
    return made


class Rows(nn.Module):
    """A recurrent net over the rows of an image."""

    def __init__(self, cell, width=32):
        super().__init__()
        self.body, self.head = cell(8, width, batch_first=True), nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.body(x.reshape(-1, 8, 8))[0][:, -1])


def biased(net, gate, value):
    """With a bias of this value in one of the gates."""
    chunk = {"input": 0, "forget": 1, "output": 3, "reset": 0, "update": 1}[gate]
    width = net.body.hidden_size
    with torch.no_grad():
        for name, bias in net.body.named_parameters():
            if name.startswith("bias"):
                bias[chunk * width : (chunk + 1) * width] = value / 2  # torch adds two
    return net


def larger(net, factor):
    """With recurrent weights so many times as large."""
    with torch.no_grad():
        for name, weight in net.body.named_parameters():
            weight.mul_(factor if name.startswith("weight") else 1)
    return net


class Excited(nn.Module):
    """A convolution with squeeze and excite."""

    def __init__(self, bias=0.0):
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(1, 16, 3, padding=1), nn.Linear(16, 8), nn.Linear(8, 16)
        self.act, self.head = nn.Sigmoid(), nn.Linear(64, 10)
        if bias:
            nn.init.constant_(self.up.bias, bias)

    def forward(self, x):
        x = F.relu(self.conv(x.reshape(-1, 1, 8, 8)))
        x = x * self.act(self.up(F.relu(self.down(x.mean((2, 3))))))[:, :, None, None]
        return self.head(F.avg_pool2d(x, 4).flatten(1))


class Linears(nn.Module):
    """Two layers of gated linear units."""

    def __init__(self, bias=0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.GLU(), nn.Linear(32, 64), nn.GLU(), nn.Linear(32, 10))
        for layer in (self.layers[0], self.layers[2]):
            nn.init.constant_(layer.bias[32:], bias)

    def forward(self, x):
        return self.layers(x)


class Attending(nn.Module):
    """A transformer of one or two layers over the rows of an image."""

    def __init__(self, factor=1.0, layers=2, width=32):
        super().__init__()
        self.embed, self.place = nn.Linear(8, width), nn.Parameter(0.1 * torch.randn(8, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, 0.0, batch_first=True, norm_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False), nn.Linear(width, 10)
        with torch.no_grad():
            for layer in self.body.layers:
                layer.self_attn.in_proj_weight[:width] *= factor  # queries: logits so many times as large

    def forward(self, x):
        return self.head(self.body(self.embed(x.reshape(-1, 8, 8)) + self.place).mean(1))
