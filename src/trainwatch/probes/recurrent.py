"""The gates of LSTM and GRU layers, computed again from what a layer was given and with its own weights (§12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

RECURRENT = (nn.RNNBase, nn.RNNCellBase)
LAYERS = (nn.LSTM, nn.GRU)
CELLS = (nn.LSTMCell, nn.GRUCell)
GATED = (*LAYERS, *CELLS)
SAMPLES = 16  # of a batch
STEPS = 128  # of time


@dataclass
class Given:
    """What a call of a recurrent module was given.

    Attributes:
        x: Inputs, shape (time, samples, features).
        state: Its hidden state, of an LSTM the cell state too, each (layers x directions, samples, units); or None.
        length: Time steps of the sequence, before it was cut.
    """

    x: torch.Tensor
    state: tuple[torch.Tensor, ...] | None
    length: int


def why_not(module: nn.Module) -> str | None:
    """The reason why a gated module's gates cannot be computed again; None where they can."""
    own = not any(isinstance(module, t) and type(module).forward is t.forward for t in GATED)
    return f"{type(module).__name__} has a forward pass of its own" if own else None


def given(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Given:
    """What a call gave a module, cut to `SAMPLES` samples and `STEPS` steps of time.

    A sequence that is cut is read as one that ends there: what runs backward through time begins at the cut. Of packed
    sequences the longest are taken, and cut to the shortest of those.
    """
    x = args[0] if args else kwargs["input"]
    state = args[1] if len(args) > 1 else kwargs.get("hx")
    states = None if state is None else state if isinstance(state, tuple) else (state,)
    if isinstance(module, CELLS):
        batched = x.ndim == 2
        x = (x if batched else x[None])[None, :SAMPLES]
        return Given(x, states and tuple((s if batched else s[None])[None, :SAMPLES] for s in states), 1)
    assert isinstance(module, LAYERS)
    if isinstance(x, PackedSequence):
        padded, lengths = pad_packed_sequence(x)
        chosen = lengths.argsort(descending=True)[:SAMPLES]
        x, length = padded[: int(lengths[chosen].min()), chosen.to(padded.device)], int(lengths.max())
        states = states and tuple(s[:, chosen.to(s.device)] for s in states)
    else:
        if x.ndim == 2:
            x, states = x.unsqueeze(0 if module.batch_first else 1), states and tuple(s.unsqueeze(1) for s in states)
        x = x.transpose(0, 1) if module.batch_first else x
        length = len(x)
    return Given(x[:STEPS, :SAMPLES], states and tuple(s[:, :SAMPLES] for s in states), length)


def run(module: nn.Module, seen: Given) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What a module returns at each step of time, and its gates.

    Returns:
        Outputs, shape (time, samples, directions x units), and each gate by name, shape (time, samples, units). The
        name is that of the gate with the suffix of its weights: ``forget_l0``, ``forget_l1_reverse``; none in a cell.
    """
    once = _lstm if isinstance(module, (nn.LSTM, nn.LSTMCell)) else _gru
    if isinstance(module, CELLS):
        weights = [module.weight_ih, module.weight_hh, module.bias_ih, module.bias_hh, None]
        return once(seen.x, weights, _initial(module, seen, 0))
    assert isinstance(module, LAYERS)
    directions, x = 2 if module.bidirectional else 1, seen.x
    gates: dict[str, torch.Tensor] = {}
    for layer in range(module.num_layers):
        outputs = []
        for backward in range(directions):
            at = layer * directions + backward
            output, found = once(x.flip(0) if backward else x, _weights(module, at), _initial(module, seen, at))
            outputs.append(output.flip(0) if backward else output)
            suffix = f"_l{layer}" + ("_reverse" if backward else "")
            gates |= {name + suffix: values for name, values in found.items()}
        x = torch.cat(outputs, -1)
    return x, gates


def _weights(module: nn.RNNBase, at: int) -> list[Any]:
    """Input, recurrent and projection weights with their biases; None where there is none."""
    some: list[Any] = list(module.all_weights[at])
    biases = some[2:4] if module.bias else [None, None]
    return [*some[:2], *biases, some[-1] if getattr(module, "proj_size", 0) else None]


def _initial(module: Any, seen: Given, at: int) -> list[torch.Tensor]:
    """Hidden and cell state before the first step, each (samples, units)."""
    if seen.state is not None:
        return [s[at] for s in seen.state]
    widths = (getattr(module, "proj_size", 0) or module.hidden_size, module.hidden_size)
    return [seen.x.new_zeros(seen.x.shape[1], width) for width in widths]


def _lstm(
    x: torch.Tensor, weights: list[Any], state: list[torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    w_in, w_rec, b_in, b_rec, w_out = weights
    h, c = state
    outputs, gates = [], []
    for given in F.linear(x, w_in, b_in):
        i, f, g, o = (given + F.linear(h, w_rec, b_rec)).chunk(4, -1)
        i, f, o = i.sigmoid(), f.sigmoid(), o.sigmoid()
        c = f * c + i * g.tanh()
        h = o * c.tanh()
        h = h if w_out is None else F.linear(h, w_out)
        outputs.append(h)
        gates.append(torch.stack([i, f, o]))
    return torch.stack(outputs), dict(zip(("input", "forget", "output"), torch.stack(gates, 1), strict=True))


def _gru(
    x: torch.Tensor, weights: list[Any], state: list[torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    w_in, w_rec, b_in, b_rec, _ = weights
    h = state[0]
    outputs, gates = [], []
    for given in F.linear(x, w_in, b_in):
        (r, z, n), (r_h, z_h, n_h) = given.chunk(3, -1), F.linear(h, w_rec, b_rec).chunk(3, -1)
        r, z = (r + r_h).sigmoid(), (z + z_h).sigmoid()
        h = (1 - z) * (n + r * n_h).tanh() + z * h
        outputs.append(h)
        gates.append(torch.stack([r, z]))
    return torch.stack(outputs), dict(zip(("reset", "update"), torch.stack(gates, 1), strict=True))
