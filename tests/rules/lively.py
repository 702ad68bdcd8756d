"""Records with the health of activations, made up or of small real trainings whose probes run."""

import numpy as np
import torch
from synthetic_gradients import digits, make_record, parameter
from torch import nn

import trainwatch

STEPS, CHANCE = 100, float(np.log(10))
SETTINGS = {"quiet": True, "strict": True, "probes": dict.fromkeys(("activations", "gates", "backward_gain"), 50)}
NOISE = 0.03 * np.random.default_rng(0).normal(size=STEPS)


def ending(gained):
    """Losses that begin at chance and end with this share of it gone."""
    return CHANCE * (1 - gained * np.minimum(np.arange(STEPS) / (0.7 * STEPS), 1)) + NOISE


def site(*, dead=0.0, flat=0.0, function="relu", module="1", entries=200, units=64, first=None, at=(50, 100)):
    """One activation: shares at the last probe and, as `first`, at the one before; None for a single probe."""
    last = (dead, dead, flat, 1.0, entries, units)
    before = (first, first, first, 1.0, entries, units)
    rows = [last] if first is None else [before, last]
    return {"module": module, "function": function, "rows": rows, "at": at[-len(rows) :]}


def probed(*sites, losses=None, rms=1e-6, weights=(1.0, 1.0), lr=0.1, modules=None, **more):
    """A record with these activations, whose weights begin with these gains (deviations times root of fan-in)."""
    parameters = [parameter(f"{2 * i}.weight", order=2 * i) for i in range(len(weights))]
    parameters = [p | {"std": g / 32**0.5} for p, g in zip(parameters, weights, strict=True)]
    losses = ending(0.0) if losses is None else losses
    table = np.broadcast_to(np.asarray(rms, float).reshape(-1, 1), (len(losses), len(weights)))
    known = {s["module"]: {"relu": "ReLU", "tanh": "Tanh", "sigmoid": "Sigmoid"}.get(s["function"], "") for s in sites}
    facts = [{"name": n, "type": t, "order": i} for i, (n, t) in enumerate(known.items())]
    record = make_record(losses, table, parameters=parameters, modules=facts if modules is None else modules, lr=lr,
                         **more)  # fmt: skip
    names = {}
    for order, made in enumerate(sites):
        name = f"{made['module'] or 'model'}:{made['function']}"
        name += f"#{order}" if name in names else ""
        names[name] = {"module": made["module"], "function": made["function"], "order": order}
        for step, row in zip(made["at"], made["rows"], strict=True):
            record.append("activity", name, step, np.array(row))
    record.set_fact("activations", names)
    return record


def fit(model, make, *, steps=100, seed=0, batch=64, first_rate=None):
    """Train on the digits under a watch whose probes run; give back (report, record).

    Args:
        model: From 64 pixels to 10 classes.
        make: Parameters -> optimiser.
        first_rate: Learning rate of the first step, if it has one of its own.
    """
    torch.set_num_threads(1)
    x, y = digits()
    optimizer, criterion = make(model.parameters()), nn.CrossEntropyLoss()
    rate, draw = optimizer.param_groups[0]["lr"], torch.Generator().manual_seed(seed)
    with trainwatch.watch(model, optimizer, loss_fn=criterion, settings=SETTINGS) as watch:
        for step in range(steps):
            rows = torch.randint(len(x), (batch,), generator=draw)
            optimizer.param_groups[0]["lr"] = first_rate if first_rate is not None and step == 0 else rate
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return watch.report, watch.record


def everything(report):
    """All diagnoses of a report, those nested under others too, by code."""
    return {d.code: d for root in report.diagnoses for d in root.walk()}


def sgd(lr, **more):
    return lambda p: torch.optim.SGD(p, lr, **more)


def adam(lr):
    return lambda p: torch.optim.Adam(p, lr)


def linears(model):
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


def with_biases(model, value, *, layers=None, share=1.0):
    """With biases of this value in the hidden layers, or the first so many of them, and in a share of their units."""
    for layer in linears(model)[:-1][:layers]:
        nn.init.constant_(layer.bias[: round(share * len(layer.bias))], value)
    return model


def times(model, factor, *, layers=None):
    """With weights so many times a standard normal over the root of the fan-in, in all or the first layers."""
    for layer in linears(model)[:layers]:
        nn.init.normal_(layer.weight, std=factor / layer.in_features**0.5)
        nn.init.zeros_(layer.bias)
    return model
