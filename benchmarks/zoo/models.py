"""The networks that the zoo trains, built from a few words."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmarks.zoo import gated
from benchmarks.zoo.data import Sets
from benchmarks.zoo.scenario import Model, ScenarioError

LAST: dict[str, Callable[[], nn.Module]] = {
    "softmax": lambda: nn.Softmax(-1),
    "log_softmax": lambda: nn.LogSoftmax(-1),
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
}
NORMS: dict[str, tuple[Callable[[int], nn.Module], Callable[[int], nn.Module]]] = {
    "batch": (nn.BatchNorm1d, nn.BatchNorm2d),
    "layer": (nn.LayerNorm, lambda channels: nn.GroupNorm(1, channels)),
}


class Residual(nn.Module):
    """A block added to its input, times a constant."""

    def __init__(self, *block: nn.Module, factor: float) -> None:
        super().__init__()
        self.block, self.factor = nn.Sequential(*block), factor

    def forward(self, x: Tensor) -> Tensor:
        return x + self.factor * self.block(x)


class Unregistered(nn.Module):
    """Hidden layers held in a plain list: they are applied, but nobody else knows of them."""

    def __init__(self, body: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.layers = [body]
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers[0](x))


class Recurrent(nn.Module):
    """A recurrent net over rows of an image, a sequence, or characters."""

    def __init__(self, spec: Model, inputs: int, outputs: int, characters: bool) -> None:
        super().__init__()
        cell = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[spec.kind]
        width = spec.hidden[0]
        self.embedding = nn.Embedding(outputs, width) if characters else None
        inner = {"dropout": spec.dropout} if len(spec.hidden) > 1 else {}
        both = {} if spec.causal else {"bidirectional": True}
        self.body = cell(width if characters else inputs, width, len(spec.hidden), batch_first=True, **inner, **both)
        self.head = nn.Linear(width * (2 if both else 1), outputs)
        self.last = LAST[spec.last]() if spec.last != "none" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.embedding is not None:
            return self.last(self.head(self.body(self.embedding(x))[0])).transpose(1, 2)
        return self.last(self.head(self.body(x)[0][:, -1]))


class Tagger(nn.Module):
    """A recurrent net that reads characters in both directions and says a class for each."""

    def __init__(self, spec: Model, letters: int, outputs: int) -> None:
        super().__init__()
        width, cell = spec.hidden[0], {"gru_tagger": nn.GRU, "lstm_tagger": nn.LSTM}[spec.kind]
        self.embedding = nn.Embedding(letters, width)
        self.body = cell(width, width, len(spec.hidden), batch_first=True, bidirectional=True)
        self.between = nn.Dropout(spec.dropout)
        self.head = nn.Linear(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.body(self.embedding(x))[0])).transpose(1, 2)


class Variational(nn.Module):
    """An autoencoder through a noisy middle (Kingma and Welling 2014): what it rebuilt, means and log-variances."""

    def __init__(self, spec: Model, inputs: int) -> None:
        super().__init__()
        *wide, middle = spec.hidden
        act = getattr(nn, spec.activation)
        there, back = [inputs, *wide], [middle, *wide[::-1]]
        self.encoder = nn.Sequential(nn.Flatten(), *(m for a, b in pairwise(there) for m in (nn.Linear(a, b), act())))
        self.middle = nn.Linear(there[-1], 2 * middle)
        self.decoder = nn.Sequential(*(m for a, b in pairwise(back) for m in (nn.Linear(a, b), act())))
        self.head = nn.Linear(back[-1], inputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.middle(self.encoder(x)).chunk(2, -1)
        drawn = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean
        return self.head(self.decoder(drawn)), mean, log_variance


class Transformer(nn.Module):
    """A small transformer over characters, which sees those that come later only where that is asked for."""

    def __init__(self, spec: Model, outputs: int, length: int) -> None:
        super().__init__()
        width = spec.hidden[0]
        self.embedding, self.place = nn.Embedding(outputs, width), nn.Parameter(torch.randn(length, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, 4, 2 * width, spec.dropout, spec.activation.lower(), batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(block, len(spec.hidden), enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length) if spec.causal else None)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(self.embedding(x) + self.place, mask=self.mask, is_causal=self.mask is not None)
        return self.head(hidden).transpose(1, 2)


class Dilated(nn.Module):
    """Convolutions over characters, each twice as far apart (WaveNet, van den Oord et al. 2016), padded before them.

    Or on both sides, where they are to see those that come later.
    """

    def __init__(self, spec: Model, outputs: int) -> None:
        super().__init__()
        width, self.causal = spec.hidden[0], spec.causal
        self.embedding, self.head = nn.Embedding(outputs, width), nn.Conv1d(width, outputs, 1)
        widths, act = pairwise([width, *spec.hidden]), getattr(nn, spec.activation)
        self.body = nn.ModuleList(nn.Conv1d(a, b, 3, dilation=2**i) for i, (a, b) in enumerate(widths))
        self.after = nn.Sequential(act(), nn.Dropout(spec.dropout))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x).transpose(1, 2)
        for layer in self.body:
            reach = 2 * layer.dilation[0]
            padded = nn.functional.pad(x, (reach, 0) if self.causal else (reach // 2, reach // 2))
            found = self.after(layer(padded))
            x = x + found if found.shape == x.shape else found
        return self.head(x)


class Factorised(nn.Module):
    """A linear part and products of two projections: a factorisation machine (Rendle 2010) with two sets of factors."""

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.shape = outputs, rank
        self.linear = nn.Linear(inputs, outputs)
        self.left, self.right = (nn.Linear(inputs, outputs * rank, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.linear(x) + (self.left(x) * self.right(x)).unflatten(1, self.shape).sum(-1)


class Adapted(nn.Module):
    """A layer and, beside it, a product of two low-rank factors (LoRA, Hu et al. 2021)."""

    def __init__(self, layer: nn.Linear, rank: int, gain: float) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.normal_(self.up.weight, std=gain)
        if gain:
            nn.init.normal_(self.down.weight, std=gain)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.up(self.down(x))


def adapt(model: nn.Module, rank: int, gain: float) -> None:
    """Freeze a model and give its linear layers adapters."""
    model.requires_grad_(False)
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(parent, name, Adapted(layer, rank, gain))


def build(spec: Model, sets: Sets) -> nn.Module:
    """The network of a scenario, for its data.

    Raises:
        ScenarioError: A word is not known.
    """
    if spec.kind not in KINDS:
        raise ScenarioError(f"there is no model kind {spec.kind!r}; known are {', '.join(KINDS)}")
    model = KINDS[spec.kind](spec, sets, spec.outputs or sets.outputs)
    _initialise(model, spec)
    gated.begin(model, spec)
    for name, p in model.named_parameters():
        if spec.shift and "bias" in name:
            p.data += spec.shift
    if spec.zero_last:
        last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
        nn.init.zeros_(last.weight)
    for layer in [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.RNNBase))][: spec.frozen]:
        layer.requires_grad_(False)
    return torch.compile(model) if spec.compiled else model  # type: ignore[return-value]


def _between(spec: Model, width: int, image: bool) -> list[nn.Module]:
    """What follows a weight layer: norm, activation, dropout."""
    found: list[nn.Module] = []
    if spec.norm != "none":
        found.append(NORMS[spec.norm][image](width))
    if spec.activation != "none":
        found.append(getattr(nn, spec.activation)())
    if spec.dropout:
        found.append(nn.Dropout(spec.dropout))
    return found


def _mlp(spec: Model, sets: Sets, outputs: int) -> nn.Module:
    inputs = math.prod(sets.x_train.shape[1:])
    layers: list[nn.Module] = [nn.Flatten()] if sets.x_train.ndim > 2 else []
    linear = {"glu": gated.glu, "highway": gated.Highway}.get(spec.kind, nn.Linear)
    if spec.input_norm:
        layers.append(nn.BatchNorm1d(inputs))
    for width in spec.hidden:
        block = [linear(inputs, width), *_between(spec, width, False)]
        layers += [Residual(*block, factor=spec.branch)] if spec.residual and width == inputs else block
        inputs = width
    head = [nn.Linear(inputs, outputs), *([LAST[spec.last]()] if spec.last != "none" else [])]
    if spec.unregistered:
        return Unregistered(nn.Sequential(*layers), nn.Sequential(*head))
    return nn.Sequential(*layers, *head)


def _cnn(spec: Model, sets: Sets, outputs: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Unflatten(1, (1, sets.x_train.shape[1]))]
    if spec.input_norm:
        layers.append(nn.BatchNorm2d(1))
    before = 1
    for i, width in enumerate(spec.hidden):
        block = [nn.Conv2d(before, width, 3, padding=1), *_between(spec, width, True)]
        block += [gated.SqueezeExcite(width)] if spec.kind == "squeeze_excite" else []
        layers += [Residual(*block, factor=spec.branch)] if spec.residual and width == before else block
        layers += [nn.MaxPool2d(2)] if i < 2 else []
        before = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, outputs)]
    return nn.Sequential(*layers, *head, *([LAST[spec.last]()] if spec.last != "none" else []))


def _recurrent(spec: Model, sets: Sets, outputs: int) -> nn.Module:
    return Recurrent(spec, sets.x_train.shape[-1], outputs, sets.task == "characters")


def _tagger(spec: Model, sets: Sets, outputs: int) -> nn.Module:
    return Tagger(spec, 1 + int(max(sets.x_train.max(), sets.x_val.max())), outputs)


def _variational(spec: Model, sets: Sets, outputs: int) -> nn.Module:
    return Variational(spec, math.prod(sets.x_train.shape[1:]))


def _transformer(spec: Model, sets: Sets, outputs: int) -> nn.Module:
    return Transformer(spec, outputs, sets.x_train.shape[-1])


def _dilated(spec: Model, sets: Sets, outputs: int) -> nn.Module:
    return Dilated(spec, outputs)


def _autoencoder(spec: Model, sets: Sets, outputs: int) -> nn.Module:
    """Through the hidden widths and back again; the targets are the inputs."""
    inputs = math.prod(sets.x_train.shape[1:])
    widths = [inputs, *spec.hidden, *spec.hidden[-2::-1]]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), *_between(spec, after, False)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], inputs), *([LAST[spec.last]()] if spec.last != "none" else []))


def _attention(spec: Model, sets: Sets, outputs: int) -> nn.Module:
    return gated.Attention(sets.x_train.shape[1], sets.x_train.shape[2], spec.hidden[0], outputs)


def _factorised(spec: Model, sets: Sets, outputs: int) -> nn.Module:
    return Factorised(math.prod(sets.x_train.shape[1:]), spec.hidden[0], outputs)


KINDS: dict[str, Callable[[Model, Sets, int], nn.Module]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "rnn": _recurrent,
    "gru": _recurrent,
    "lstm": _recurrent,
    "transformer": _transformer,
    "dilated": _dilated,
    "autoencoder": _autoencoder,
    "gru_tagger": _tagger,
    "lstm_tagger": _tagger,
    "variational": _variational,
    "glu": _mlp,
    "highway": _mlp,
    "squeeze_excite": _cnn,
    "attention": _attention,
    "factorised": _factorised,
    "gan": _mlp,  # the discriminator; see `zoo.gan`
}


def _initialise(model: nn.Module, spec: Model) -> None:
    how = {
        "zero": nn.init.zeros_,
        "constant": lambda w: nn.init.constant_(w, spec.gain),
        "alike": lambda w: nn.init.constant_(w, spec.gain),
        "normal": lambda w: nn.init.normal_(w, std=spec.gain),
        "kaiming": nn.init.kaiming_normal_,
        "xavier": lambda w: nn.init.xavier_normal_(w, spec.gain),
        "orthogonal": lambda w: nn.init.orthogonal_(w, spec.gain),
    }
    if spec.init == "default":
        return
    if spec.init not in how:
        raise ScenarioError(f"there is no initialisation {spec.init!r}; known are default, {', '.join(how)}")
    for p in model.parameters():
        if p.ndim > 1:
            how[spec.init](p)
        elif spec.init in ("zero", "alike"):
            nn.init.zeros_(p)
