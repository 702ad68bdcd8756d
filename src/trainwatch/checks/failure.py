"""Why a training step fails: the place, the error, and its cause in numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from trainwatch.capture.samples import leaves
from trainwatch.checks.batch import OneBatch, StepFailed

SHAPES, DEVICES, TYPES, LABELS, INDICES, RANGE, GRADIENT, SCALAR, OTHER = (
    "shapes", "devices", "types", "labels", "indices", "range", "gradient", "scalar", "other",
)  # fmt: skip
# Cause -> how torch words it; the first that fits.
WORDING = {
    OTHER: r"more than 1 value per channel",  # batch norm and a single sample: torch says it well
    LABELS: r"Target -?\d+ is out of bounds|target.*out of (bounds|range)|class labels",
    INDICES: r"index out of range|out of range in self|indices.*out of",
    RANGE: r"should be between 0 and 1",
    DEVICES: r"same device|on device|Expected.*(cuda|cpu).*but|Input type.*and weight type.*(cuda|cpu)",
    TYPES: r"dtype|scalar type|Input type|data type|floating point|must be Long|can only.*float|can't be cast"
    r"|not implemented for '(Long|Int|Byte|Bool|Char|Short)'",
    GRADIENT: r"does not require grad|doesn't require grad|cannot be differentiated",
    SCALAR: r"only for scalar outputs",
    SHAPES: r"shape|size|dimension|must match|channels|batch_size|broadcast|mat1 and mat2|multi-target",
}
WIDTHS = ("in_features", "in_channels", "num_features", "input_size", "embed_dim", "num_embeddings")


@contextmanager
def guarded(model: nn.Module) -> Iterator[None]:
    """Within, a copy's embeddings refuse numbers beyond their table, which end a process on some devices.

    The innermost call that raises is named in ``_failed_in`` of the model.
    """
    stack: list[tuple[str, list[list[int]]]] = []
    handles = []

    def enter(name: str, module: nn.Module, inputs: Any) -> None:
        stack.append((name, [list(tensor.shape) for _, tensor in leaves(inputs)]))
        if isinstance(module, nn.Embedding) and inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].numel():
            least, most = inputs[0].aminmax()
            if least < 0 or most >= module.num_embeddings:
                raise IndexError(f"index out of range: {int(least)} to {int(most)} of {module.num_embeddings}")

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda m, i, name=name: enter(name, m, i)))
        handles.append(module.register_forward_hook(lambda *_: stack.pop() and None))
    try:
        yield
    except StepFailed as failed:
        failed.where = stack[-1] if stack else ("", [])
        raise
    finally:
        for handle in handles:
            handle.remove()


def facts_of(failed: StepFailed, model: nn.Module, batch: Any) -> dict[str, Any]:
    """A failed step as the record keeps it.

    Args:
        failed: What happened.
        model: The live model: devices, types and names are read off it.
        batch: The batch that was tried.

    Returns:
        ``phase``, ``cause``, ``error`` (its last line), ``validating``; of the innermost call that raised ``module``,
        ``module_type``, the shapes ``given`` to it and the ``widths`` that it takes; ``devices`` and ``types`` of
        parameters and batch; of a `OneBatch` ``inputs``, ``targets`` and, where the loss raised, ``outputs`` as
        `_described`.
    """
    name, given = failed.where
    modules = dict(model.named_modules())
    lines = str(failed.error).strip().splitlines() or [""]
    found: dict[str, Any] = {
        "phase": failed.phase,
        "validating": failed.validating,
        "cause": _cause(failed),
        "error": f"{type(failed.error).__name__}: {lines[0] if len(lines[0]) > 20 else lines[-1]}",
        "module": name,
        "module_type": type(modules[name]).__name__ if name in modules else "",
        "given": given,
        "widths": {
            w: getattr(modules.get(name), w) for w in WIDTHS if isinstance(getattr(modules.get(name), w, None), int)
        },
        "devices": {"model": sorted({str(p.device) for p in model.parameters()})},
        "types": {"model": sorted({_type(p) for p in model.parameters()})},
    }
    if not isinstance(batch, OneBatch):
        return found
    for what, value in (("inputs", batch.inputs), ("outputs", failed.outputs), ("targets", batch.targets)):
        tensors = [tensor.detach() for _, tensor in leaves((value,))]
        if tensors:
            found["devices"][what] = sorted({str(tensor.device) for tensor in tensors})
            found["types"][what] = sorted({_type(tensor) for tensor in tensors})
            found[what] = [_described(tensor) for tensor in tensors]
    return found


def _cause(failed: StepFailed) -> str:
    text = str(failed.error)
    if isinstance(failed.error, TypeError):  # of Python: an argument is missing, or has another class
        return GRADIENT if re.search(WORDING[GRADIENT], text) else OTHER
    return next((cause for cause, words in WORDING.items() if re.search(words, text, re.I)), OTHER)


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _described(tensor: torch.Tensor) -> dict[str, Any]:
    """Shape, type and range of a tensor."""
    ordered = tensor.numel() and not tensor.is_complex() and not tensor.is_meta
    least, most = (v.item() for v in tensor.aminmax()) if ordered else (None, None)
    return {"shape": list(tensor.shape), "type": _type(tensor), "least": least, "most": most}
