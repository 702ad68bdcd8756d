"""Where values that are not finite come from: follows them from operation to operation, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainwatch.probes.listening import Calls, next_node

UNWRITTEN = ("empty", "new_empty", "resize")  # operations whose result is memory with anything in it
# They turn a row of nothing but -inf, as masks write it on purpose, into NaN: it is they who fail.
OVER_MASKS = ("softmax", "logsumexp", "scaled_dot_product", "attention")
FORWARD, BACKWARD, INPUT, TARGET, PARAMETER = "forward", "backward", "input", "target", "parameter"


@dataclass(frozen=True)
class Operand:
    """An argument of an operation.

    Attributes:
        name: As the operation calls it.
        low, high: Smallest and largest finite value; NaN where there is none.
        nonfinite: Entries that are not finite.
        dtype: Type of the entries; empty for a number.
    """

    name: str
    low: float
    high: float
    nonfinite: int = 0
    dtype: str = ""


@dataclass(frozen=True)
class Origin:
    """What made the first value that is not finite.

    Attributes:
        order: Rank in time.
        phase: `FORWARD` or `BACKWARD` for an operation; else what the value was in before anything ran.
        name: Of the module at work (None: none, the loss), or of that tensor.
        operation: Its name.
        operands: What it was given. For a backward operation, what the forward operation was given.
        dtype: Type of its result.
        rows: Which entries of the result's first dimension are not finite, shape (n,); None without dimensions.
        shape: Of the result.
        deliberate: A constant that is not finite was written on purpose, as masks do.
    """

    order: int
    phase: str
    name: str | None
    operation: str = ""
    operands: tuple[Operand, ...] = ()
    dtype: str = ""
    rows: torch.Tensor | None = field(default=None, repr=False)
    shape: tuple[int, ...] = ()
    deliberate: bool = False


class Tracer(TorchDispatchMode):
    """Sees every operation, and remembers for each result that is not finite which operation it goes back to.

    A result with NaN goes back to where the NaN among the operands came from, else to where their infinity did, else
    to the operation itself. Tensors are known by their memory, so that views and changes in place are followed.

    Args:
        calls: The modules at work.
        given: Tensors that are there before anything runs: (phase, name, tensor).
    """

    def __init__(self, calls: Calls, given: Iterable[tuple[str, str, torch.Tensor]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls = calls
        self._nan: dict[int, Origin] = {}
        self._inf: dict[int, Origin] = {}
        self._forward: dict[int, tuple[str, tuple[Operand, ...]]] = {}  # by the number of the graph node
        self._order = 0
        for phase, name, tensor in given:
            nan, inf = _state(tensor)
            if nan or inf:
                masks = not nan and phase != PARAMETER and not bool((tensor == math.inf).any())
                origin = self._made(phase, name, rows=_rows(tensor), shape=tuple(tensor.shape), deliberate=masks)
                self._keep(_place(tensor), nan, inf, origin)

    def origin(self, tensor: torch.Tensor) -> Origin | None:
        """Where what is not finite in a tensor comes from; None where all is finite."""
        nan, inf = _state(tensor)
        if not nan and not inf:
            return None
        place = _place(tensor)
        return (self._nan.get(place) if nan else None) or self._inf.get(place) or self._made(FORWARD, None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.strip("_")
        arguments = [(n, v) for n, v in _arguments(func, args, kwargs) if _carries(v)]
        tensors = [v for _, v in arguments if isinstance(v, torch.Tensor)]
        before = [(_place(t), *_state(t)) for t in tensors]
        node = torch._C._current_autograd_node()
        forward = node is None or bool(self._calls.path)  # a checkpoint runs forward passes in the backward pass
        operands: tuple[Operand, ...] | None = None
        if func._schema.is_mutable or (forward and torch.is_grad_enabled() and next_node() - 1 not in self._forward):
            operands = tuple(_operands(arguments))
        if forward and operands is not None:
            self._forward.setdefault(next_node() - 1, (name, operands))
        output = func(*args, **kwargs)
        for result in tree_leaves(output):
            if _carries(result) and isinstance(result, torch.Tensor):
                self._note(result, name, arguments, operands, before, None if forward else node)
        return output

    def _note(
        self,
        result: torch.Tensor,
        name: str,
        arguments: list[tuple[str, Any]],
        operands: tuple[Operand, ...] | None,
        before: list[tuple[int, bool, bool]],
        node: Any,
    ) -> None:
        place = _place(result)
        nan, inf = (False, False) if name.startswith(UNWRITTEN) else _state(result)
        if not nan and not inf:
            if all(place != p for p, _, _ in before):  # else a part of it may be as it was
                self._nan.pop(place, None)
                self._inf.pop(place, None)
            return
        from_nan = [self._nan[p] for p, has, _ in before if has and p in self._nan]
        from_inf = [self._inf[p] for p, _, has in before if has and p in self._inf]
        blamed = from_inf if not nan else [o for o in from_inf if not self._on_purpose(o, name)]
        known = (from_nan if nan else []) or blamed
        origin = known[0] if known else self._operation(result, name, arguments, operands, node)
        self._keep(place, nan, inf, origin)

    def _on_purpose(self, origin: Origin, name: str) -> bool:
        """An infinity that was meant, so that the operation which made NaN of it is what failed."""
        constant = origin.phase in (FORWARD, BACKWARD)
        return origin.deliberate and (constant or any(part in name for part in OVER_MASKS))

    def _operation(
        self,
        result: torch.Tensor,
        name: str,
        arguments: list[tuple[str, Any]],
        operands: tuple[Operand, ...] | None,
        node: Any,
    ) -> Origin:
        operands = tuple(_operands(arguments)) if operands is None else operands
        more = {"rows": _rows(result), "shape": tuple(result.shape), "dtype": _type(result)}
        if node is not None:
            number = node._sequence_nr()
            operation, operands = self._forward.get(number, (_node_name(node), operands))
            return self._made(BACKWARD, self._calls.owner(number), operation, operands, **more)
        constant = any(isinstance(v, float) and not math.isfinite(v) for _, v in arguments)
        module = self._calls.path[-1].name if self._calls.path else None
        return self._made(FORWARD, module, name, operands, **more, deliberate=constant)

    def _made(self, *fields: Any, **more: Any) -> Origin:
        self._order += 1
        return Origin(self._order, *fields, **more)

    def _keep(self, place: int, nan: bool, inf: bool, origin: Origin) -> None:
        if nan:
            self._nan[place] = origin
        if inf:
            self._inf[place] = origin


def _arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values of what an operation reads; lists entry by entry."""
    for i, argument in enumerate(func._schema.arguments):
        if argument.is_out:
            continue
        value = args[i] if i < len(args) else kwargs.get(argument.name)
        name = "input" if argument.name == "self" else argument.name
        if isinstance(value, (list, tuple)):
            yield from ((f"{name}[{k}]", v) for k, v in enumerate(value) if isinstance(v, torch.Tensor))
        else:
            yield name, value


def _carries(value: Any) -> bool:
    """Whether a value may be NaN or infinite, and can be looked at."""
    if isinstance(value, torch.Tensor):
        real = value.is_floating_point() or value.is_complex()
        return real and value.layout == torch.strided and value.device.type != "meta"
    return isinstance(value, float)


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _state(tensor: torch.Tensor) -> tuple[bool, bool]:
    """Whether there is NaN and whether there is infinity in a tensor."""
    tensor = tensor.detach()
    if not tensor.numel() or bool(tensor.isfinite().all()):
        return False, False
    return bool(tensor.isnan().any()), bool(tensor.isinf().any())


def _rows(tensor: torch.Tensor) -> torch.Tensor | None:
    if not tensor.ndim or not len(tensor):
        return None
    return (~tensor.detach().isfinite()).reshape(len(tensor), -1).any(1).cpu()


def _operands(arguments: Iterable[tuple[str, Any]]) -> Iterator[Operand]:
    for name, value in arguments:
        if not isinstance(value, torch.Tensor):
            yield Operand(name, float(value), float(value))
            continue
        entries = value.detach().abs() if value.is_complex() else value.detach()
        fine = entries[entries.isfinite()]
        low, high = (float(fine.min()), float(fine.max())) if fine.numel() else (math.nan, math.nan)
        yield Operand(name, low, high, entries.numel() - fine.numel(), _type(value))


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _node_name(node: Any) -> str:
    """``MyFunction`` for the node ``MyFunctionBackward``."""
    return str(node.name()).rpartition("::")[2].rstrip("0123456789").removesuffix("Backward")
