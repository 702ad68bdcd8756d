"""Whether a loss written by hand compares each output with the targets of all samples: read off the autograd graph."""

from __future__ import annotations

from typing import Any

import torch

from trainwatch.capture.linearity import operation, shape_given

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
    level, found = [] if root.grad_fn is None else [root.grad_fn], None
    for _ in range(NEAR):
        below: list[Any] = []
        for node in level:
            name = operation(node)
            inner = [(n, place) for n, place in node.next_functions if n is not None]
            if name in ("Sub", "Rsub"):
                compared, parts = shape_given(node, 0), [shape_given(*part) for part in inner]
                n = compared[0] if len(compared) == 2 else 0
                if n > 1 and compared == [n, n] and all(part in ([n], [n, 1], [1, n]) for part in parts):
                    if len(inner) > 1:
                        return None
                    if inner and parts[0] != [1, n] and not hasattr(inner[0][0], "variable"):
                        found = {"outputs": parts[0], "compared": compared}
            if name in POINTWISE or (name in ("Mean", "Sum") and not shape_given(node, 0)):
                below += [n for n, _ in inner]
        level = below
    return found
