"""Gates and attention in a forward pass: products one of whose factors a sigmoid, tanh or softmax made (§12)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainwatch.probes.listening import Call, UnitAxis, operation
from trainwatch.probes.recurrent import RECURRENT
from trainwatch.probes.rows import Rows, fused_logits, rows_of

BOUNDED = ("sigmoid", "hardsigmoid", "tanh")
SOFTMAX = ("_softmax", "_safe_softmax")
FUSED = "_scaled_dot_product"
OF_MATRICES = ("bmm", "mm", "baddbmm")
WEIGHTED = ("addmm", "mm", "bmm", "convolution", "linear")
# What changes the shape of a tensor, its type or its place, and nothing in it; and what takes a part of it.
SAME = ("view", "_unsafe_view", "_reshape_alias", "unsqueeze", "squeeze", "expand", "permute", "transpose", "t",
        "clone", "alias", "detach", "_to_copy", "lift_fresh")  # fmt: skip
PARTS = ("select", "slice", "split", "unsafe_split", "split_with_sizes", "unsafe_split_with_sizes", "chunk", "unbind",
         "narrow")  # fmt: skip


@dataclass
class Factor:
    """A tensor that a bounded function made, or a part of one.

    Attributes:
        function: ``sigmoid``, ``hardsigmoid``, ``tanh`` or ``softmax``.
        call: The innermost module call that it was made in.
        axis: Dimension of the units, or of a softmax.
        activation: Its name among the activations of a pass.
        whole: The tensor that the function returned; of a softmax, what it was given.
        noted: It was seen in a product already.
    """

    function: str
    call: Call
    axis: int
    activation: str
    whole: torch.Tensor
    noted: bool = False


class Sink(Protocol):
    """Where gates and attention rows go."""

    def gate(self, call: Call, function: str, values: torch.Tensor, layer: str, activation: str) -> None: ...

    def attention(self, call: Call, function: str, rows: Rows) -> None: ...


class ProductListener(TorchDispatchMode):
    """Finds gates and attention in one pass.

    A tensor's *source* is what it was computed from by operations on single entries. Where both factors of a product
    have one source it is an activation written by hand, `x * sigmoid(x)`, and no gate.

    Args:
        path: The module calls under way.
        constants: Parameters and buffers: what they multiply is scaled by them, not gated.
        sink: Where findings go.
    """

    def __init__(self, path: Sequence[Call], constants: Iterable[torch.Tensor], sink: Sink) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._path, self._sink = path, sink
        self._constants = {id(t) for t in constants}
        self._factors: dict[int, Factor] = {}
        self._source: dict[int, int] = {}
        self._layer: dict[int, str] = {}  # source -> the layer that made it
        self._fresh = count()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._axis = UnitAxis()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, kwargs = operation(func), kwargs or {}
        logits = args[0].clone() if name in SOFTMAX and func._schema.is_mutable else None
        output = func(*args, **kwargs)
        self._axis.hear(name)
        if self._path and not isinstance(self._path[-1].module, RECURRENT):
            self._look(func, name, args, kwargs)
        self._follow(func, name, args, output, logits)
        return output

    # ------------------------------------------------------------------ what is found

    def _look(self, func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if name == "mul":
            self._product(*args[:2])
        elif name == "addcmul":
            self._product(*args[1:3])
        elif name == "lerp":
            self._product(args[2], args[1])
        elif name == "glu":
            axis = args[1] if len(args) > 1 else kwargs.get("dim", -1)
            values = args[0].chunk(2, axis)[1].sigmoid().movedim(axis, -1)
            self._sink.gate(self._path[-1], "glu", values, self._layer.get(self._source_of(args[0]), ""), "")
        elif name in OF_MATRICES:
            for factor in filter(None, map(self._factor_of, args)):
                if factor.function == "softmax":
                    self._attention(factor)
        elif name.startswith(FUSED) and "math" not in name:
            given = {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | dict(kwargs)
            logits = fused_logits(given)
            self._sink.attention(self._path[-1], "attention", rows_of(logits, logits.shape[1]))

    def _product(self, one: Any, other: Any) -> None:
        if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
            return
        if self._source_of(one) == self._source_of(other):
            return
        for gate, content in ((one, other), (other, one)):
            factor, partner = self._factor_of(gate), self._factor_of(content)
            if factor is None or factor.noted or self._is_no_content(content):
                continue
            if factor.function == "softmax":
                self._attention(factor)
            elif not (factor.function == "tanh" and partner is not None and partner.function != "tanh"):
                factor.noted = True
                layer = self._layer.get(self._source_of(gate), "")
                values = factor.whole.movedim(factor.axis, -1)
                self._sink.gate(factor.call, factor.function, values, layer, factor.activation)
                factor.whole = values.new_empty(0)  # noted: it need not be kept

    def _attention(self, factor: Factor) -> None:
        if factor.noted or factor.whole.ndim < 2:
            return
        factor.noted = True
        logits = factor.whole.movedim(factor.axis, -1)
        heads = logits.shape[1] if logits.ndim > 3 else getattr(factor.call.module, "num_heads", 1)
        fits = isinstance(heads, int) and (logits.ndim > 3 or (logits.ndim == 3 and len(logits) % heads == 0))
        self._sink.attention(factor.call, "softmax", rows_of(logits, heads if fits else 1))
        factor.whole = logits.new_empty(0)

    def _is_no_content(self, tensor: torch.Tensor) -> bool:
        """A constant, a number, or a mask: what such a factor does to a tensor is not gating."""
        if id(tensor) in self._constants or tensor.numel() == 1 or not tensor.is_floating_point():
            return True
        ones = tensor == 1
        return bool(((tensor == 0) | ones).all() & ones.any())

    # ------------------------------------------------------------------ where tensors come from

    def _source_of(self, tensor: torch.Tensor) -> int:
        if id(tensor) not in self._source:
            self._source[id(tensor)] = next(self._fresh)
        return self._source[id(tensor)]

    def _factor_of(self, value: Any) -> Factor | None:
        return self._factors.get(id(value)) if isinstance(value, torch.Tensor) else None

    def _follow(
        self, func: Any, name: str, args: Sequence[Any], output: Any, logits: torch.Tensor | None = None
    ) -> None:
        """Take down what the outputs come from; ids of tensors that are gone are given anew, so each one is set."""
        given = next((a for a in args if isinstance(a, torch.Tensor)), None)
        outputs = [
            t for t in (output if isinstance(output, (list, tuple)) else [output]) if isinstance(t, torch.Tensor)
        ]
        source = next(self._fresh) if given is None else self._origin(func, name, args)
        known = self._factor_of(given)
        for made in outputs:
            self._factors.pop(id(made), None)
            self._source[id(made)] = own = next(self._fresh) if name in PARTS else source
            if name in PARTS and given is not None and self._source_of(given) in self._layer:
                self._layer[own] = self._layer[self._source_of(given)]
            if known is not None and name in SAME:
                self._factors[id(made)] = known
            elif known is not None and name in PARTS and known.function != "softmax":
                self._factors[id(made)] = replace(known, whole=made)
        if not self._path or given is None or not outputs:
            return
        if name in WEIGHTED and getattr(self._path[-1].module, "weight", None) is not None:
            self._layer[source] = self._path[-1].name
        elif name in BOUNDED:
            self._bounded(name, outputs[0])
        elif name in SOFTMAX:
            axis = args[1] % given.ndim if given.ndim else 0
            whole = given if logits is None else logits
            self._factors[id(outputs[0])] = Factor("softmax", self._path[-1], axis, "", whole)

    def _origin(self, func: Any, name: str, args: Sequence[Any]) -> int:
        """The common source of the tensors that an operation on single entries is given, else a fresh one."""
        if name not in SAME and torch.Tag.pointwise not in func.tags:
            return next(self._fresh)
        tensors = [a for a in args if isinstance(a, torch.Tensor) and a.numel() > 1]
        sources = {self._source_of(t) for t in tensors if id(t) not in self._constants or len(tensors) == 1}
        return sources.pop() if len(sources) == 1 else next(self._fresh)

    def _bounded(self, name: str, output: torch.Tensor) -> None:
        call = self._path[-1]
        if output.ndim < 2:
            return
        self._calls[call.name, name] += 1
        n = self._calls[call.name, name]
        activation = f"{call.name or 'model'}:{name}" + (f"#{n}" if n > 1 else "")
        self._factors[id(output)] = Factor(name, call, self._axis.of(output), activation, output)
