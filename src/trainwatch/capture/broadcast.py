"""Whether a loss written by hand compares each output with the targets of all samples: read off the autograd graph."""

from __future__ import annotations

from typing import Any

import torch

NEAR = 8  # operations between a loss and the difference that it is made of, at most
POINTWISE = ("Abs", "Add", "Cosh", "Div", "Log", "Mul", "Neg", "Pow", "Sqrt", "Sub", "ToCopy", "Where")


def broadcast_difference(root: torch.Tensor) -> dict[str, list[int]] | None:
    """The difference between outputs of shape (N, 1) or (N,) and a constant that has N x N entries, if there is one.

    Nothing but operations entry by entry and one mean or sum of all may follow: where each sample is meant to be
    compared with all, something is done with the rows. So it is where outputs are compared with each other as well.

    Args:
        root: A loss about to be backpropagated.

    Returns:
        Shapes of the ``outputs`` and of what is ``compared``.
    """
    level, found = [root.grad_fn], None
    for _ in range(NEAR):
        below: list[Any] = []
        for node in level:
            name = _name(node)
            inner = [(n, place) for n, place in getattr(node, "next_functions", ()) if n is not None]
            if name in ("Sub", "Rsub"):
                compared, parts = _shape(node, 0), [_shape(*part) for part in inner]
                n = compared[0] if len(compared) == 2 else 0
                if n > 1 and compared == [n, n] and all(part in ([n], [n, 1], [1, n]) for part in parts):
                    if len(inner) > 1:
                        return None
                    if inner and parts[0] != [1, n] and not hasattr(inner[0][0], "variable"):
                        found = {"outputs": parts[0], "compared": compared}
            if name in POINTWISE or (name in ("Mean", "Sum") and not _shape(node, 0)):
                below += [n for n, _ in inner]
        level = below
    return found


def _name(node: Any) -> str:
    return "" if node is None else str(node.name()).partition("Backward")[0]


def _shape(node: Any, place: int) -> list[int]:
    """Of what a node gave at a place; no number at all where torch does not tell."""
    try:
        return [int(n) for n in node._input_metadata[place].shape]
    except Exception:  # nested tensors have none, and raise errors of several kinds
        return [-1]
