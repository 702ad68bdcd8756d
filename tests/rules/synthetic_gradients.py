"""Records for the tests of gradient and step-size rules: made up, or of a small real training."""

from functools import cache
from itertools import pairwise

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from trainwatch.record import RunRecord

SEQUENCE = (nn.RNN, nn.LSTM, nn.GRU)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def parameter(name, kind="weight", order=0, shape=(32, 32), norm=None, module_type="Linear"):
    numel = int(np.prod(shape))
    return {
        "name": name,
        "shape": list(shape),
        "numel": numel,
        "kind": kind,
        "module": name.rpartition(".")[0],
        "module_type": module_type,
        "trainable": True,
        "order": order,
        "norm": float(np.sqrt(numel / 96)) if norm is None else norm,
    }


def chain(depth, *, biases=True, activation="ReLU"):
    """Facts of a plain chain of linear layers with an activation between each two: parameters and modules."""
    parameters, modules = [], []
    for i in range(depth):
        modules.append({"name": f"layers.{2 * i}", "type": "Linear", "order": 2 * i})
        if i < depth - 1:
            modules.append({"name": f"layers.{2 * i + 1}", "type": activation, "order": 2 * i + 1})
        parameters.append(parameter(f"layers.{2 * i}.weight", "weight", 2 * i))
        if biases:
            parameters.append(parameter(f"layers.{2 * i}.bias", "bias", 2 * i, (32,)))
    return parameters, modules


def make_record(
    losses,
    rms,
    *,
    parameters=None,
    modules=(),
    optimizer="SGD",
    lr=0.1,
    classes=10,
    stream="cross_entropy",
    steps=None,
    **facts,
):
    """A record of training losses, shape (n,), and RMS gradients, shape (n, P)."""
    losses, rms = np.asarray(losses, float), np.asarray(rms, float)
    if parameters is None:
        parameters = [parameter(f"layers.{i}.weight", order=i) for i in range(rms.shape[1])]
    record = RunRecord()
    record.set_fact("parameters", list(parameters))
    record.set_fact("modules", list(modules))
    columns = list(range(len(parameters)))
    group = {"lr": lr, "initial_lr": lr, "weight_decay": 0.0, "momentum": 0.0, "parameters": columns}
    record.set_fact("optimizers", {"default": {"type": optimizer, "parameters": columns, "groups": [group]}})
    if stream:
        record.set_fact(
            "loss", {stream: {"function": stream, "reduction": "mean", "arguments": {}, "classes": classes}}
        )
    for topic, value in facts.items():
        record.set_fact(topic, value)
    at = np.arange(len(losses)) if steps is None else np.asarray(steps)
    for name in filter(None, (stream, "root")):
        record.append("train_loss", name, at, losses)
    record.append("grad_norm", "default", at, rms * np.sqrt([p["numel"] for p in parameters]))
    record.append("lr", "default/0", 0, lr)
    return record


def train(model, optimizer, x, y, *, steps, batch=32, loss_fn=None, seed=0, scheduler=None, clip=None):
    """Train on random batches and record losses and gradient norms in the plainest way there is."""
    loss_fn = loss_fn or nn.functional.cross_entropy
    record, draw = RunRecord(), np.random.default_rng(seed)
    named = list(model.named_parameters())
    _describe(record, model, optimizer, named, x[:batch], loss_fn)
    losses, norms = [], []
    before = None
    for step in range(steps):
        for i, group in enumerate(optimizer.param_groups):
            if before is None or group["lr"] != before[i]:
                record.append("lr", f"default/{i}", step, group["lr"])
        before = [group["lr"] for group in optimizer.param_groups]
        rows = torch.as_tensor(draw.integers(0, len(x), batch))
        loss = loss_fn(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        losses.append(_marked(loss.item()))
        norms.append([np.nan if p.grad is None else _marked(float(p.grad.norm())) for _, p in named])
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    name = getattr(loss_fn, "__name__", "loss")
    for stream in (name, "root"):
        record.append("train_loss", stream, np.arange(steps), losses)
    record.append("grad_norm", "default", np.arange(steps), np.array(norms))
    record.set_fact(
        "run", {"framework": "pytorch", "steps": steps, "epochs": None, "finished": True, "train_samples": len(x)}
    )
    if not torch.is_floating_point(y):
        counts = np.append(np.bincount(np.asarray(y)), 0)
        record.append("train_classes", "targets", steps - 1, counts)
    return record


def _marked(value):
    return value if np.isfinite(value) else np.inf


def _describe(record, model, optimizer, named, batch, loss_fn):
    leaves = [(name, m) for name, m in model.named_modules() if not list(m.children())]
    seen, handles = [], []
    for name, module in leaves:
        handles.append(module.register_forward_hook(lambda m, a, o, name=name: seen.append(name)))
    with torch.no_grad():
        width = model(batch).shape[-1]
    for handle in handles:
        handle.remove()
    order = {name: i for i, name in enumerate(dict.fromkeys(seen))}
    types = dict(leaves)
    modules = [{"name": name, "type": type(types[name]).__name__, "order": i} for name, i in order.items()]
    record.set_fact("modules", modules)
    facts = []
    for name, p in named:
        home = name.rpartition(".")[0]
        module, leaf = model.get_submodule(home), name.rpartition(".")[2]
        kind = "weight" if p.ndim > 1 else "bias"
        if isinstance(module, SEQUENCE):
            kind = {"weight_hh": "recurrent", "weight_ih": "weight"}.get(leaf[:9], "bias")
        elif isinstance(module, NORMS):
            kind = "norm"
        elif isinstance(module, nn.Embedding):
            kind = "embedding"
        fact = parameter(
            name, kind, order.get(home, -1), tuple(p.shape), float(p.detach().norm()), type(module).__name__
        )
        facts.append(fact)
    record.set_fact("parameters", facts)
    index = {id(p): i for i, (_, p) in enumerate(named)}
    groups = [
        {
            "lr": float(g["lr"]),
            "initial_lr": float(g.get("initial_lr", g["lr"])),
            "weight_decay": g.get("weight_decay", 0.0),
            "momentum": g.get("momentum", 0.0),
            "betas": list(g.get("betas", ())),
            "decoupled_weight_decay": type(optimizer).__name__ == "AdamW",
            "parameters": [index[id(p)] for p in g["params"]],
        }
        for g in optimizer.param_groups
    ]
    columns = list(range(len(named)))
    record.set_fact(
        "optimizers", {"default": {"type": type(optimizer).__name__, "parameters": columns, "groups": groups}}
    )
    name = getattr(loss_fn, "__name__", "loss")
    classes = int(width) if "cross_entropy" in name else None
    record.set_fact("loss", {name: {"function": name, "reduction": "mean", "arguments": {}, "classes": classes}})


@cache
def digits():
    """The digits of scikit-learn: 1797 images of 8 x 8, in [0, 1], and their classes."""
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)


def mlp(depth, activation, norm=None, width=64):
    """`depth` linear layers from 64 pixels to 10 classes."""
    sizes = [64] + [width] * (depth - 1)
    layers = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), *([norm(outputs)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))


class Sequence(nn.Module):
    """A recurrent net that reads the pixels in `length` pieces."""

    def __init__(self, cell, length, **arguments):
        super().__init__()
        self.length = length
        self.rnn = cell(64 // length, 64, batch_first=True, **arguments)
        self.out = nn.Linear(64, 10)

    def forward(self, x):
        return self.out(self.rnn(x.view(len(x), self.length, -1))[0][:, -1])


LENGTHS = np.r_[0, 2.0 ** np.arange(-6, 13)]


def tried(made, best, *, fall=0.1, error=0.01, at=None):
    """The same record, in which a step of so many times its length was found to be best."""
    losses = 2.3 - fall * (1 - (LENGTHS / best - 1) ** 2) if best else 2.3 + LENGTHS
    row = np.stack([LENGTHS, losses, np.full(len(LENGTHS), error)], 1)
    made.append("step_line", "train", made.steps if at is None else at, row)
    return made
