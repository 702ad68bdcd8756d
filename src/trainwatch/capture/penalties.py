"""L1 and L2 terms that the loop adds to its loss, read off the graph behind what is backpropagated (§4, §8)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.linearity import operation

# Operations of which a sum of terms is made, and those that only arrange the entries of a parameter.
ALGEBRA = ("Add", "Mul", "Div", "Neg", "Sum", "Mean", "Stack", "Cat", "Squeeze", "Unsqueeze", "View", "ToCopy")
ARRANGED = ("View", "ReshapeAlias", "UnsafeView", "T", "Transpose", "Permute", "Cat", "Stack", "Squeeze", "Unsqueeze",
            "ToCopy", "Clone")  # fmt: skip
MOST_NODES = 10_000
L1, L2 = "l1", "l2"

Coefficients = dict[str, dict[str, float]]
Node = Any


class Penalties:
    """Finds the terms |w| and w squared in a loss, and what they are multiplied by.

    The sum of a loss and its penalties is followed down from its root as long as it is made of sums and products, so a
    parameter's absolute value within the net itself does not count. The coefficient is the gradient that arrives at
    the term when the loop backpropagates: it is read in passing, and nothing is computed a second time.

    Args:
        names: ``id(parameter)`` -> its name.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._next = 0  # step to be looked at
        self._seen: list[tuple[str, list[str], torch.Tensor]] = []  # in the coming step
        self._ready: list[tuple[str, list[str], torch.Tensor, torch.Tensor | None]] = []

    def due(self, step: int) -> bool:
        """Whether to look at the losses of this step: 0, 1, 3, 7, 15 ..."""
        return step >= self._next

    def look(self, root: torch.Tensor) -> None:
        """Find the terms of a loss that is about to be backpropagated."""
        for kind, node, names in self._terms(root.grad_fn):
            node.register_prehook(self._listener(kind, names))

    def commit(self, step: int, scale: torch.Tensor | None) -> None:
        """The step was taken: what arrived in its backward passes belongs together.

        Args:
            step: The optimiser step.
            scale: AMP scale of its losses.
        """
        if self.due(step):
            self._next = (1 << (step + 1).bit_length()) - 1
            scale = None if scale is None else scale.clone()
            self._ready, self._seen = [(*one, scale) for one in self._seen], []

    def flush(self, reads: DeferredReads, put: Callable[[Coefficients], None]) -> None:
        """Send the coefficients on their way to the host.

        Args:
            reads: Brings them there.
            put: Takes kind -> name of a parameter -> coefficient, as of the last step looked at.
        """
        ready, self._ready = self._ready, []
        if not ready:
            return

        def arrived(arrays: list[np.ndarray[Any, Any]]) -> None:
            found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
            values = iter(float(a) for a in arrays)
            for kind, names, _, scale in ready:
                value = next(values) / (1.0 if scale is None else next(values))
                for name in names:
                    found[kind][name] += value
            put({kind: dict(of_kind) for kind, of_kind in found.items()})

        reads.read([t for *_, value, scale in ready for t in (value, scale) if t is not None], arrived)

    def _listener(self, kind: str, names: list[str]) -> Callable[[tuple[torch.Tensor, ...]], None]:
        heard: list[None] = []

        def hear(gradients: tuple[torch.Tensor, ...]) -> None:
            if not heard and gradients[0] is not None:  # a graph that is kept may be passed again
                heard.append(None)
                self._seen.append((kind, names, gradients[0].detach().reshape(-1)[:1].clone()[0]))

        return hear

    def _terms(self, root: Node) -> Iterator[tuple[str, Node, list[str]]]:
        nodes, seen = [root], {root}
        while nodes and len(seen) < MOST_NODES:
            node = nodes.pop()
            if node is None:
                continue
            kind, of = _norm(node)
            names = self._parameters(of) if kind is not None else []
            if kind is not None and names:
                yield kind, node, names
            elif _is(node, ALGEBRA):
                below = {child for child, _ in node.next_functions} - seen
                nodes += below
                seen |= below

    def _parameters(self, node: Node) -> list[str]:
        """Names of the parameters that make up a tensor entry by entry; none where anything else does."""
        found: list[str] = []
        nodes = [node]
        while nodes:
            node = nodes.pop()
            name = self._names.get(id(getattr(node, "variable", None)))
            if name is not None:
                found.append(name)
            elif node is not None and _is(node, ARRANGED):
                nodes += [child for child, _ in node.next_functions]
            else:
                return []
        return found


def _norm(node: Node) -> tuple[str | None, Node]:
    """Which norm of a tensor an operation belongs to, and what computed that tensor."""
    below = [child for child, _ in node.next_functions]
    if _is(node, ("Abs",)) or (_is(node, ("LinalgVectorNorm",)) and node._saved_ord == 1):
        return L1, below[0]
    if _is(node, ("Pow",)) and node._saved_exponent == 2:
        inner = below[0]
        euclidean = inner is not None and _is(inner, ("LinalgVectorNorm",)) and inner._saved_ord == 2
        return L2, inner.next_functions[0][0] if euclidean else inner
    if _is(node, ("Mul",)) and below[0] is not None and below[0] is below[-1]:
        return L2, below[0]
    return None, None


def _is(node: Node, names: tuple[str, ...]) -> bool:
    """Whether a node of the graph is of one of these operations: ``SumBackward1`` is a ``Sum``."""
    return operation(node) in names
