"""A copy of a model to experiment on, and a surrounding that leaves no trace on the process."""

from __future__ import annotations

import copy
import functools
import random
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
COMPANIONS = ("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")


class CannotIsolate(Exception):
    """A probe cannot be run without touching the training; the text is the reason, as the report prints it."""


def twin(model: nn.Module, most_bytes: int, further: int = 0) -> nn.Module:
    """A copy of a model with parameters, buffers, modes and Python state of its own.

    Whatever is done to the copy (modes, statistics, counters, queues, moving averages of weights) stays in the copy.
    Hooks of the user are left out, since what they write to lies outside the model; those of torch (weight and
    spectral norm) are kept. A compiled or data-parallel wrapper is taken off: probes run the original module eagerly.

    Args:
        model: The live model.
        most_bytes: Most memory that the copy's parameters and buffers may take.
        further: Tensors of the size of each parameter that the probe needs besides: gradients, directions.

    Raises:
        CannotIsolate: The model is too large, or cannot be copied.
    """
    copied, _ = _copied(model, None, most_bytes, further)
    return copied


def twin_with_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, most_bytes: int, further: int = 1
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A copy of a model as `twin` makes it, and one of its optimiser that holds the copied parameters.

    The optimiser's state and groups are copied, its hooks are not. Its steps are those of the live one but for
    rounding: they are taken by one kernel where torch has one.

    Args:
        model: The live model.
        optimizer: Of its parameters.
        most_bytes: Most memory that parameters, buffers and the optimiser's state may take.
        further: See `twin`; gradients are one.

    Raises:
        CannotIsolate: They are too large, or cannot be copied.
    """
    copied, other = _copied(model, optimizer, most_bytes, further)
    assert other is not None
    _fuse(other)
    return copied, other


def _fuse(optimizer: torch.optim.Optimizer) -> None:
    """Let Adam step by one kernel on the CPU: else its steps take as long as the passes of a small net."""
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW) or torch.get_default_dtype() != torch.float32:
        return
    for group in optimizer.param_groups:  # the kernel goes through memory as it lies
        usual = all(p.device.type == "cpu" and p.dtype == torch.float32 and p.is_contiguous() for p in group["params"])
        if usual and not group["differentiable"] and not group["capturable"]:
            group["fused"], group["foreach"] = True, False


def _copied(
    model: nn.Module, optimizer: torch.optim.Optimizer | None, most_bytes: int, further: int
) -> tuple[nn.Module, torch.optim.Optimizer | None]:
    model = unwrapped(model)
    state = [] if optimizer is None else [v for s in optimizer.state.values() for v in s.values()]
    besides = [*model.buffers(), *(v for v in state if isinstance(v, torch.Tensor))]
    size = (1 + further) * sum(map(_size, model.parameters())) + sum(map(_size, besides))
    if size > most_bytes:
        what, mib = "the model" if optimizer is None else "the model with its optimiser", size / 2**20
        raise CannotIsolate(
            f"a copy of {what} takes {mib:.0f} MiB, more than probe_memory allows ({most_bytes / 2**20:.0f} MiB)"
        )
    memo: dict[int, Any] = {id(p.grad): None for p in model.parameters() if p.grad is not None}  # not worth a copy
    for module in model.modules():  # results kept from the last pass: tensors of a graph cannot be copied
        memo |= {id(v): v.detach().clone() for v in vars(module).values() if isinstance(v, torch.Tensor) and v.grad_fn}
    try:
        copied, other = copy.deepcopy((model, optimizer), memo)
    except Exception as error:
        what = "the model" if optimizer is None else "the model or its optimiser"
        raise CannotIsolate(f"{what} cannot be copied: {type(error).__name__}: {error}") from error
    for module in copied.modules():
        _drop_foreign_hooks(module)
    for parameter in copied.parameters():
        parameter.grad = None
    return copied, other


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def unwrapped(model: nn.Module) -> nn.Module:
    """The module behind `torch.compile` and data-parallel wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@contextmanager
def untouched(device: torch.device, model: nn.Module | None = None) -> Iterator[None]:
    """Within, gradients are on, autocast is off and random numbers may be drawn; afterwards all is as it was.

    Args:
        device: Where the probe runs; the random state of a GPU is kept only for its own sake.
        model: The live one, if a copy of it runs: generators of random numbers that its code names are restored, too,
            and its gradients, to which a loss that reaches the model itself, not its copy, would add.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    kept = [state_of(source) for source in random_sources(model)] if model is not None else []
    gradients = [(p, p.grad) for p in model.parameters()] if model is not None else []
    on_device: Callable[[], None] | None = None
    if device.type == "cuda":
        before = torch.cuda.get_rng_state(device)
        on_device = lambda: torch.cuda.set_rng_state(before, device)  # noqa: E731
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            # A model that turns autocast on within would find its weights of earlier steps in the cache, which is
            # cleared only where no autocast lies around.
            stack.enter_context(torch.autocast(device.type, enabled=False, cache_enabled=False))
            yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for restore in kept:
            restore()
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_device is not None:
            on_device()


Source = np.random.Generator | np.random.RandomState | torch.Generator | random.Random


def random_sources(model: nn.Module) -> list[Source]:
    """Generators of random numbers outside a model that the code of its modules names: globals and closures."""
    bases = {base for module in model.modules() for base in type(module).__mro__ if not _of_torch(base)}
    found: dict[int, Source] = {}
    for code in (f for base in bases for f in vars(base).values() if isinstance(f, types.FunctionType)):
        named = [code.__globals__.get(name) for name in code.__code__.co_names]
        named += [cell.cell_contents for cell in code.__closure__ or () if cell != types.CellType()]
        found |= {id(value): value for value in named if isinstance(value, Source)}
    return list(found.values())


def state_of(source: Source) -> Callable[[], Any]:
    """Takes down the state of a generator; what is returned brings it back."""
    if isinstance(source, np.random.Generator):
        bits, state = source.bit_generator, copy.deepcopy(source.bit_generator.state)
        return lambda: setattr(bits, "state", state)
    if isinstance(source, np.random.RandomState):
        return functools.partial(source.set_state, source.get_state())
    if isinstance(source, torch.Generator):
        return functools.partial(source.set_state, source.get_state())
    return functools.partial(source.setstate, source.getstate())


def _drop_foreign_hooks(module: nn.Module) -> None:
    for name in HOOKS:
        hooks: dict[int, Any] = getattr(module, name)
        for key in [k for k, hook in hooks.items() if not _of_torch(hook)]:
            del hooks[key]
            for companion in COMPANIONS:
                getattr(module, companion, {}).pop(key, None)


def _of_torch(hook: Any) -> bool:
    owner = getattr(hook, "__module__", None) or type(hook).__module__
    return str(owner).partition(".")[0] == "torch"
