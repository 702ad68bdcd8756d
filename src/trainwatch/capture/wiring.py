"""Static facts of a run: parameters, modules, optimisers, and what regularises. Read once, at the start."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from trainwatch.capture.shards import local, share_facts

NORMS = tuple(
    t
    for t in (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, getattr(nn, "RMSNorm", None))
    if isinstance(t, type)
)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
MATRIX_OWNERS = (nn.Linear, nn.Bilinear, nn.MultiheadAttention, nn.modules.conv._ConvNd, *RECURRENT)
UNWRAPPED = ("_orig_mod", "module")  # of torch.compile, and of DataParallel and DistributedDataParallel

MOST_NODES = 200_000  # of an autograd graph that is searched

Models = Mapping[str, nn.Module]


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside `torch.compile` and parallel wrappers."""
    while True:
        wrapped = type(model).__name__ in ("OptimizedModule", "DataParallel", "DistributedDataParallel")
        inner = next((m for n in UNWRAPPED if isinstance(m := getattr(model, n, None), nn.Module)), None)
        if not wrapped or inner is None:
            return model
        model = inner


def named_modules(models: Models) -> dict[str, nn.Module]:
    """All modules by name; with several models the names start with the model's."""
    found: dict[str, nn.Module] = {}
    for key, model in models.items():
        for name, module in unwrap(model).named_modules():
            full = name if len(models) == 1 else f"{key}.{name}".rstrip(".")
            found[full] = module
    return found


def parameters_of(models: Models) -> dict[str, nn.Parameter]:
    """All distinct parameters by name, a tied one once."""
    found: dict[str, nn.Parameter] = {}
    for key, model in models.items():
        for name, parameter in unwrap(model).named_parameters():
            found.setdefault(name if len(models) == 1 else f"{key}.{name}", parameter)
    return found


def other_names(models: Models) -> dict[int, list[str]]:
    """``id`` of each parameter that has several names -> all but the first."""
    names: dict[int, list[str]] = {}
    for key, model in models.items():
        for name, parameter in unwrap(model).named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name if len(models) == 1 else f"{key}.{name}")
    return {i: some[1:] for i, some in names.items() if some[1:]}


def first_uses(root: torch.Tensor) -> dict[int, int]:
    """When each parameter was first used in the forward pass behind a loss.

    The autograd graph knows it, at no cost to the pass itself and without a hook in code that may be compiled. A
    compiled region is one node: all its parameters are used at once.

    Args:
        root: A loss about to be backpropagated.

    Returns:
        ``id(parameter)`` -> sequence number of the operation that first used it.
    """
    uses: dict[int, int] = {}
    nodes = [root.grad_fn] if root.grad_fn is not None else []
    seen: set[Any] = set(nodes)
    while nodes and len(seen) < MOST_NODES:
        node = nodes.pop()
        for below, _ in node.next_functions:
            if below is None or below in seen:
                continue
            parameter = getattr(below, "variable", None)
            if parameter is not None:
                number = node._sequence_nr()
                uses[id(parameter)] = min(uses.get(id(parameter), number), number)
            else:
                seen.add(below)
                nodes.append(below)
    return uses


def parameter_facts(models: Models) -> list[dict[str, Any]]:
    """One entry a parameter: name, shape, kind, owner; L2 norm, mean and deviation of its entries as they are now."""
    modules, parameters = named_modules(models), parameters_of(models)
    norms, means, deviations = _measured(list(parameters.values()))
    tied = other_names(models)
    facts: list[dict[str, Any]] = []
    for (name, parameter), norm, mean, deviation in zip(parameters.items(), norms, means, deviations, strict=True):
        owner, _, leaf = name.rpartition(".")
        module = modules.get(owner, nn.Module())
        facts.append(
            {
                "name": name,
                "shape": list(parameter.shape),
                "numel": parameter.numel(),
                "kind": _kind(module, leaf, parameter),
                "module": owner,
                "module_type": type_name(module),
                "trainable": parameter.requires_grad,
                "order": len(facts),
                "norm": norm,
                "mean": mean,
                "std": deviation,
                "tied": tied.get(id(parameter), []),
                **share_facts(parameter),
            }
        )
    return facts


def _kind(module: nn.Module, leaf: str, parameter: nn.Parameter) -> str:
    if isinstance(module, NORMS):
        return "norm"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "embedding"
    if isinstance(module, RECURRENT) and leaf.startswith("weight_hh"):
        return "recurrent"
    if parameter.ndim >= 2 and (isinstance(module, MATRIX_OWNERS) or parameter.ndim == 2):
        return "weight"
    return "bias" if "bias" in leaf else "other"


def _measured(parameters: list[nn.Parameter]) -> tuple[list[float], list[float], list[float]]:
    """Norm, mean and standard deviation of each."""
    with torch.no_grad():
        wide = list(_widened(parameters))
        norms = [float(torch.linalg.vector_norm(p).abs().float()) for p in wide]
        means = [float(p.mean().real.float()) if p.numel() else 0.0 for p in wide]
        return norms, means, [float(p.std(unbiased=False).abs().float()) if p.numel() > 1 else 0.0 for p in wide]


def _widened(parameters: list[nn.Parameter]) -> Iterator[torch.Tensor]:
    halves = (torch.float16, torch.bfloat16)
    parts = (local(p.detach()) for p in parameters)
    return (p.float() if p.dtype in halves else p for p in parts)


def module_facts(models: Models, uses: Mapping[int, int]) -> list[dict[str, Any]]:
    """Modules without children, in execution order as far as it is known.

    Args:
        models: The models watched.
        uses: See `first_uses`.
    """
    modules = named_modules(models)
    names = [n for n, m in modules.items() if n and next(m.children(), None) is None]
    ranked = sorted(names, key=execution_rank(models, uses).__getitem__)
    return [{"name": n, "type": type_name(modules[n]), "order": i} for i, n in enumerate(ranked)]


def type_name(module: nn.Module) -> str:
    """Name of a module's class; `fully_shard` puts one of its own over it."""
    bases = [base for base in type(module).__mro__ if "fsdp" not in base.__module__]
    return bases[0].__name__ if isinstance(module, nn.Module) and is_sharding(module) else type(module).__name__


def is_sharding(module: nn.Module) -> bool:
    """Whether `fully_shard` was applied to a module."""
    return any(base.__name__ == "FSDPModule" for base in type(module).__mro__)


def execution_rank(models: Models, uses: Mapping[int, int]) -> dict[str, tuple[int, int]]:
    """Module name -> sort key by execution: when its parameters were first used, then the order of registration.

    A module without parameters of its own stands after the one registered before it.

    Args:
        models: The models watched.
        uses: See `first_uses`.
    """
    rank: dict[str, tuple[int, int]] = {}
    last = -1
    for place, (name, module) in enumerate(named_modules(models).items()):
        own = [uses[id(p)] for p in module.parameters(recurse=False) if id(p) in uses]
        last = min(own) if own else last
        rank[name] = (last, place)
    return rank


def optimizer_facts(optimizer: torch.optim.Optimizer, index: Mapping[int, int]) -> dict[str, Any]:
    """Type and hyperparameters of an optimiser; numbers only.

    Args:
        optimizer: The optimiser.
        index: ``id(parameter)`` -> its place in `parameter_facts`.
    """
    columns = sorted({index[id(p)] for p in parameters_in(optimizer) if id(p) in index})
    groups = []
    for group in optimizer.param_groups:
        facts = {k: _plain(v) for k, v in group.items() if k != "params" and _plain(v) is not None}
        facts["parameters"] = [index[id(p)] for p in group["params"] if id(p) in index]
        facts.setdefault("initial_lr", facts.get("lr"))
        groups.append(facts)
    return {"type": type(optimizer).__name__, "parameters": columns, "groups": groups}


def parameters_in(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The parameters of an optimiser, group by group."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def learning_rates(optimizer: torch.optim.Optimizer) -> list[float] | None:
    """The rate of each group; None where one is a tensor on a device, which cannot be read without waiting."""
    rates = [group.get("lr", math.nan) for group in optimizer.param_groups]
    if any(isinstance(r, torch.Tensor) and r.device.type != "cpu" for r in rates):
        return None
    return [float(r) for r in rates]


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value)
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)) and all(isinstance(v, (int, float)) for v in value):
        return list(value)
    return None


def regularisation_facts(models: Models, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Any]:
    """What regularises the run, as far as model and optimiser show it."""
    modules = named_modules(models)
    decay = [float(g.get("weight_decay", 0) or 0) for o in optimizers.values() for g in o.param_groups]
    return {
        "dropout": [{"name": n, "p": p} for n, m in modules.items() if (p := dropout_rate(m)) > 0],
        "normalisation": [n for n, m in modules.items() if isinstance(m, NORMS)],
        "weight_decay": max(decay, default=0.0),
        "penalties": {},
        "label_smoothing": 0.0,
        "clipping": None,
        "early_stopping": False,
        "accumulation": 1,
    }


def dropout_rate(module: nn.Module) -> float:
    """Probability with which a module drops activations in training mode; 0 where it never does."""
    if isinstance(module, _DropoutNd):
        return float(module.p)
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return float(module.dropout)
    return 0.0


def mode_sensitive(models: Models) -> list[tuple[str, nn.Module, bool]]:
    """Modules whose training mode changes what they compute: (name, module, whether it normalises over the batch)."""
    found = []
    for name, module in named_modules(models).items():
        batch_norm = isinstance(module, _NormBase) and module.track_running_stats and module.running_mean is not None
        if batch_norm or dropout_rate(module) > 0:
            found.append((name, module, batch_norm))
    return found
