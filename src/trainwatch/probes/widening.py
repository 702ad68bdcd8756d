"""A copy whose hidden layers are several times as wide, drawn anew, where its modules say how wide they are (§3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from trainwatch.probes.begun_again import forget
from trainwatch.probes.isolation import CannotIsolate

HIDDEN = 64  # units between input and output of what had one layer

Build = Callable[[Any, int, int], nn.Module]  # from a module and the factors on the width of its inputs and outputs


def widen(model: nn.Module, optimizer: torch.optim.Optimizer, ran: list[str], times: int) -> nn.Module:
    """Draw a copy anew, its layers between input and output so many times as wide; its optimiser begins anew.

    Residual sums and the like are kept, since all that lies between is widened alike. A single linear layer gets one of
    `HIDDEN` rectified units before it.

    Args:
        model: The copy.
        optimizer: Of its parameters.
        ran: Names of its modules, as they are executed: the first layer takes what the model is given, and the last one
            puts out what it says.
        times: How many times as wide.

    Returns:
        The wider copy.

    Raises:
        CannotIsolate: A module does not say how wide it is, or shares its weights with another.
    """
    old, kept = dict(model.named_parameters()), dict(model.named_modules())
    order = _layers(model, ran)
    if len(old) < len(list(model.named_parameters(remove_duplicate=False))):
        raise CannotIsolate("weights are shared between modules")
    if not all(parameter.requires_grad for parameter in old.values()):
        raise CannotIsolate("some weights are not trained")
    first, last = _ends(kept, order)
    if first == last and not isinstance(kept[order[first]], nn.Linear):
        raise CannotIsolate("the model has a single layer, which is no linear one")
    for name, before, after in _factors(kept, order, times):
        built = _build(kept[name], name, before, after)
        if not name:
            model = built
            continue
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, built)
    _hand_over(optimizer, old, model)
    return model


def narrowest(model: nn.Module, ran: list[str]) -> int:
    """The fewest units between input and output; `HIDDEN` where nothing lies between."""
    modules = dict(model.named_modules())
    order = _layers(model, ran)
    widths = [_units(modules[name]) for name in order[: _ends(modules, order)[1]]]
    return min((width for width in widths if width), default=HIDDEN)


def bytes_of(model: nn.Module, ran: list[str], times: int) -> int:
    """Bytes that the weights of a wider copy take at most, before it is made."""
    modules = dict(model.named_modules())
    total = 0
    for name, before, after in _factors(modules, _layers(model, ran), times):
        factor = after**2 if isinstance(modules[name], nn.RNNBase) else before * after  # a state is read and written
        if before == after == 1 and BUILD.get(type(modules[name])) is _linear:
            factor = 2 * HIDDEN  # two layers stand in its place
        total += factor * sum(p.numel() * p.element_size() for p in modules[name].parameters(recurse=False))
    return total


def _factors(modules: Mapping[str, nn.Module], order: list[str], times: int) -> list[tuple[str, int, int]]:
    """Name of each layer, and the factors on the width of its inputs and of its outputs."""
    first, last = _ends(modules, order)
    return [(name, times if first < i <= last else 1, times if i < last else 1) for i, name in enumerate(order)]


def _layers(model: nn.Module, ran: list[str]) -> list[str]:
    """What has a width, in order of execution."""
    modules = dict(model.named_modules())
    sized = {name for name, m in modules.items() if [*m.parameters(recurse=False)] or type(m) in BUILD}
    order = [name for name in dict.fromkeys(ran) if name in sized]
    if len(order) < len(sized) or not order:
        raise CannotIsolate("not all modules with weights were seen to run")
    return order


def _ends(modules: Mapping[str, nn.Module], order: list[str]) -> tuple[int, int]:
    """Places of the first and of the last layer that is neither norm nor activation."""
    layers = [i for i, name in enumerate(order) if BUILD.get(type(modules[name])) not in PASSING]
    if not layers:
        raise CannotIsolate("there is no layer to make wider")
    return layers[0], layers[-1]


def _units(module: nn.Module) -> int:
    names = ("hidden_size", "out_features", "out_channels", "embedding_dim")
    return next((int(getattr(module, name)) for name in names if hasattr(module, name)), 0)


def _build(old: nn.Module, name: str, before: int, after: int) -> nn.Module:
    build = BUILD.get(type(old))
    if build is None:
        raise CannotIsolate(f"it is not known how '{name or type(old).__name__}' is made wider")
    built = build(old, before, after)
    for like in (*old.parameters(recurse=False), *old.buffers(recurse=False)):
        if like.is_floating_point():
            built = built.to(device=like.device, dtype=like.dtype)
            break
    return built.train(old.training)


def _linear(old: nn.Linear, before: int, after: int) -> nn.Module:
    if before == after == 1:
        return nn.Sequential(nn.Linear(old.in_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, old.out_features))
    return nn.Linear(before * old.in_features, after * old.out_features, old.bias is not None)


def _convolution(old: Any, before: int, after: int) -> nn.Module:
    """A depthwise convolution stays one."""
    groups = old.groups if old.groups == 1 or before == 1 else before * old.groups
    made: nn.Module = type(old)(
        before * old.in_channels, after * old.out_channels, old.kernel_size, old.stride, old.padding,
        dilation=old.dilation, groups=groups, bias=old.bias is not None, padding_mode=old.padding_mode,
    )  # fmt: skip
    return made


def _norm(old: Any, before: int, _: int) -> nn.Module:
    made: nn.Module = type(old)(before * old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats)
    return made


def _layer_norm(old: nn.LayerNorm, before: int, _: int) -> nn.Module:
    shape = [*old.normalized_shape]
    if len(shape) != 1:
        raise CannotIsolate("a layer norm over several dimensions is not made wider")
    return nn.LayerNorm(before * shape[0], old.eps, old.elementwise_affine, bias=old.bias is not None)


def _group_norm(old: nn.GroupNorm, before: int, _: int) -> nn.Module:
    return nn.GroupNorm(old.num_groups, before * old.num_channels, old.eps, old.affine)


def _recurrent(old: Any, before: int, after: int) -> nn.Module:
    if old.proj_size:
        raise CannotIsolate("a recurrent layer that projects its outputs is not made wider")
    further = {"nonlinearity": old.nonlinearity} if isinstance(old, nn.RNN) else {}
    made: nn.Module = type(old)(
        before * old.input_size, after * old.hidden_size, old.num_layers, bias=old.bias, batch_first=old.batch_first,
        dropout=old.dropout, bidirectional=old.bidirectional, **further,
    )  # fmt: skip
    return made


def _rectifier(old: nn.PReLU, before: int, _: int) -> nn.Module:
    return nn.PReLU(old.num_parameters if old.num_parameters == 1 else before * old.num_parameters)


def _embedding(old: nn.Embedding, _: int, after: int) -> nn.Module:
    return nn.Embedding(old.num_embeddings, after * old.embedding_dim, old.padding_idx)


BUILD: Mapping[type[nn.Module], Build] = {
    nn.Linear: _linear,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys((nn.RNN, nn.GRU, nn.LSTM), _recurrent),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _norm),
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.PReLU: _rectifier,
    nn.Embedding: _embedding,
}
PASSING = (_norm, _layer_norm, _group_norm, _rectifier)  # as wide as what they are given


def _hand_over(optimizer: torch.optim.Optimizer, old: Mapping[str, nn.Parameter], model: nn.Module) -> None:
    """Give an optimiser the new parameters, each in the group of the one whose place it takes."""
    names = {id(parameter): name for name, parameter in old.items()}
    group_of = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"] if id(p) in names}
    for group in optimizer.param_groups:
        group["params"] = []
    for name, parameter in model.named_parameters():
        owner = ".".join(name.split(".")[:-2])  # of a layer that two stand in the place of
        for place in (name, f"{owner}.weight" if owner else "weight"):
            if place in group_of:
                group_of[place]["params"].append(parameter)
                break
    forget(optimizer)
