"""Which weight layers follow one another with nothing but linear operations in between: read off the autograd graph."""

from __future__ import annotations

from typing import Any

import torch

from trainwatch.capture.wiring import MOST_NODES


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CONTRACTIONS = _words("Addmm Mm Bmm Baddbmm Linear Mv Addmv Convolution SlowConv2D MkldnnConvolution CudnnConvolution")
RESHAPES = _words(
    "View UnsafeView Reshape ReshapeAlias Transpose T Permute Squeeze Unsqueeze Expand Slice Select Alias Clone ToCopy "
    "Contiguous Movedim AsStrided"
)
LINEAR = RESHAPES | _words(
    "Cat Stack Add Sub Rsub Neg Sum Mean AvgPool1D AvgPool2D AdaptiveAvgPool2D MkldnnAdaptiveAvgPool2D Split Chunk "
    "Unbind Repeat Index IndexSelect Gather ConstantPadNd MaskedFill NativeDropout FusedDropout NativeBatchNorm "
    "CudnnBatchNorm MiopenBatchNorm"
)
"""Batch norm counts as linear: in use it is a fixed scale and shift."""
PRODUCTS = ("Mul", "Div")  # linear in one factor while the other one is a constant or a parameter


class LinearChains:
    """Weight layers behind a loss, and which of them see only linear functions of earlier ones.

    Attributes:
        layers: ``id`` of the weight of every layer met.
        pairs: (id of a weight, id of one that it is applied to with no non-linearity in between).
        nonlinear: Something non-linear stands between the first and the last layer.
        opaque: A compiled region or custom function hides part of the graph.
    """

    def __init__(self, root: torch.Tensor) -> None:
        self.layers: set[int] = set()
        self.pairs: set[tuple[int, int]] = set()
        self.nonlinear = self.opaque = False
        self._below: dict[Any, frozenset[int] | None] = {}
        self._walk(root.grad_fn)

    def _walk(self, root: Any) -> None:
        """Visit all nodes, those that others depend on first (without recursion: graphs are deep)."""
        stack: list[tuple[Any, bool]] = [(root, False)]
        seen: set[Any] = set()
        while stack and len(seen) < MOST_NODES:
            node, ready = stack.pop()
            if ready:
                self._below[node] = self._visit(node)
            elif node is not None and node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack += [(below, False) for below, _ in node.next_functions]
        self.opaque |= bool(stack)

    def _visit(self, node: Any) -> frozenset[int] | None:
        """The weight layers that a node's output is linear in (empty: none yet); None where it is not linear."""
        name = operation(node)
        below = [n for n, _ in node.next_functions if n is not None]
        if "Compiled" in name or "Checkpoint" in name:
            self.opaque = True
        if hasattr(node, "variable"):
            return frozenset()
        if name in CONTRACTIONS:
            weights = [w for n in below if (w := _weight(n)) is not None]
            data = [n for n in below if _leaf(n) is None]
            if len(weights) == 1 and len(data) <= 1:
                return self._layer(weights[0], self._below.get(data[0], frozenset()) if data else frozenset())
            if len(data) > 1:  # activations multiplied with each other: attention
                return self._break(below)
        elif name not in LINEAR and (name not in PRODUCTS or sum(_leaf(n) is None for n in below) > 1):
            return self._break(below)
        found = [self._below.get(n, frozenset()) for n in below]
        return None if any(f is None for f in found) else frozenset().union(*(f for f in found if f is not None))

    def _layer(self, weight: int, under: frozenset[int] | None) -> frozenset[int]:
        self.layers.add(weight)
        self.pairs.update((weight, b) for b in under or () if b != weight)
        self.nonlinear |= under is None
        return frozenset({weight})

    def _break(self, below: list[Any]) -> frozenset[int] | None:
        """A non-linear operation: it hides layers, if any are below it."""
        has_layers = any(f is None or f for n in below if (f := self._below.get(n, frozenset())) is None or f)
        return None if has_layers else frozenset()


def shape_given(node: Any, place: int) -> list[int]:
    """Of what a node of the graph gave at a place; no number at all where torch does not tell."""
    try:
        return [int(n) for n in node._input_metadata[place].shape]
    except Exception:  # nested tensors have none, and raise errors of several kinds
        return [-1]


def operation(node: Any) -> str:
    """`AddmmBackward0` -> `Addmm`."""
    return str(node.name()).rstrip("0123456789").removesuffix("Backward")


def _leaf(node: Any) -> torch.Tensor | None:
    """The leaf that a node is, or is a mere reshaping of."""
    while node is not None and not hasattr(node, "variable"):
        inner = [n for n, _ in node.next_functions if n is not None]
        if len(inner) != 1 or operation(node) not in RESHAPES:
            return None
        node = inner[0]
    return node.variable if node is not None else None


def _weight(node: Any) -> int | None:
    leaf = _leaf(node)
    return id(leaf) if leaf is not None and leaf.ndim > 1 else None


def last_operation(tensor: torch.Tensor) -> str | None:
    """Name of the operation that computed a tensor, such as ``Softmax``, apart from mere reshaping; None for a leaf."""
    node = _last_node(tensor)
    return None if node is None else operation(node)


def normalised_over(tensor: torch.Tensor) -> int | None:
    """The dimension, from 0 on, of the log-softmax that computed a tensor; None where it was another operation.

    And where there is but one dimension, or torch does not tell.
    """
    node = _last_node(tensor)
    dimension, dimensions = getattr(node, "_saved_dim", None), len(shape_given(node, 0))
    if node is None or operation(node) != "LogSoftmax" or dimensions < 2 or dimension is None:
        return None
    return int(dimension - 2**64 if dimension >= 2**63 else dimension) % dimensions  # torch gives it unsigned


def is_shifted(tensor: torch.Tensor) -> bool:
    """Whether something that takes no gradient was added to a tensor last, as to logits that are adjusted."""
    node = _last_node(tensor)
    return (
        node is not None
        and operation(node) in ("Add", "Sub")
        and any(below is None for below, _ in node.next_functions)
    )


def _last_node(tensor: torch.Tensor) -> Any:
    """The node that computed a tensor, apart from mere reshaping; None for a leaf."""
    node = tensor.grad_fn
    while node is not None:
        below = [n for n, _ in node.next_functions if n is not None]
        if operation(node) not in RESHAPES or len(below) != 1:
            return None if hasattr(node, "variable") else node
        node = below[0]
    return None
