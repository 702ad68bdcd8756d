"""Products of a Hessian with vectors: double backward on gradient graphs that are kept, or finite differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce

import torch
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainwatch.probes.isolation import CannotIsolate, untouched

Loss = Callable[[], torch.Tensor]
Combine = Callable[[torch.Tensor], object]

EXACT, DIFFERENCES = "double backward", "finite differences"
MARK = once_differentiable(lambda ctx: None).__code__  # of what it makes of any backward pass
COARSE = 1e-5  # precision of float16 and bfloat16, in which a curvature drowns


class NoCurvature(CannotIsolate):
    """The Hessian cannot be measured; the text is the reason."""


class Undefined(Exception):
    """An operation lacks a derivative."""


class Hessian:
    """The Hessian of the mean of some losses with respect to some tensors, as products with flat vectors.

    The graph of the gradient is kept for as many losses as memory allows, which makes a product one backward pass; for
    the others it is built anew each time. Attention is computed by its formula, since its fused kernels have no second
    derivative. Where another operation has none, products are central differences of the gradient.

    Args:
        losses: Each computes a scalar afresh from the tensors, always the same way.
        parameters: Leaves that require gradients. One that no loss depends on has zeros.
        memory: Bytes that kept graphs may take.
        combine: Makes of each mean gradient and product, in place, such as the average over processes.

    Attributes:
        size: Entries of all parameters together.
        dtype, device: Of flat vectors.
        method: How products are made.
        products: How many were.
        kept: Losses whose graphs are kept.

    Raises:
        NoCurvature: A loss is no real scalar or not finite, does not depend on the parameters or has no gradient, or
            these are complex, of half precision or on several devices.
    """

    def __init__(
        self,
        losses: Sequence[Loss],
        parameters: Sequence[torch.Tensor],
        *,
        memory: int,
        combine: Combine = lambda t: None,
    ) -> None:
        self._losses, self._parameters, self._combine = losses, parameters, combine
        self.dtype = reduce(torch.promote_types, (p.dtype for p in parameters))
        self.device = parameters[0].device
        self.size, self.products, self.method = sum(p.numel() for p in parameters), 0, EXACT
        if self.dtype.is_complex:
            raise NoCurvature("complex parameters: a Hessian is measured of real ones (torch.view_as_real)")
        if torch.finfo(self.dtype).eps > COARSE:
            raise NoCurvature(f"parameters of {self.dtype} have no curvature to rely on: ask for dtype=torch.float32")
        if len({p.device for p in parameters}) > 1:
            raise NoCurvature("the parameters lie on several devices")
        self._own_recurrence = False
        self._graphs: list[tuple[torch.Tensor, ...]] = []
        self.kept = min(len(losses), int(memory // max(1, self._settle())))

    def __call__(self, vector: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The product with a vector, shape (size,), written into `out` where that is given."""
        self.products += 1
        out = torch.empty_like(vector) if out is None else out
        if self.method == DIFFERENCES:
            out.copy_(self._difference(vector, self._losses))
        else:
            self._second(self._graph(0), vector, out)
            for n in range(1, len(self._losses)):
                out += self._second(self._graph(n), vector)
            out /= len(self._losses)
        self._combine(out)
        return out

    @property
    def rounding(self) -> float:
        """About the error of a product, as a share of the greatest absolute eigenvalue."""
        precision = float(torch.finfo(self.dtype).eps)
        return 32 * precision if self.method == EXACT else 16 * precision ** (2 / 3)

    def gradient(self) -> torch.Tensor:
        """That of the mean loss, shape (size,)."""
        mean = self._flat(self._graph(0))
        for n in range(1, len(self._losses)):
            mean += self._flat(self._graph(n))
        mean /= len(self._losses)
        self._combine(mean)
        return mean

    def apart(self, vector: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Gradient and product of each loss on its own, flat, shape (size,) both; nothing is kept or combined."""
        self.products += 1
        for loss in self._losses:
            gradient = self._first(loss, graph=self.method == EXACT)
            product = self._second(gradient, vector) if self.method == EXACT else self._difference(vector, [loss])
            yield self._flat(gradient), product

    def use_differences(self) -> None:
        """Make products by finite differences from now on."""
        self.release()
        self.method = DIFFERENCES

    def release(self) -> None:
        """Let the graphs go, which a change of the parameters in place makes worthless."""
        self._graphs, self.kept = [], 0

    def split(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """The parts of a flat vector in the shapes of the parameters."""
        parts = vector.split([p.numel() for p in self._parameters])
        return [part.view_as(p) for part, p in zip(parts, self._parameters, strict=True)]

    @contextmanager
    def moved(self, vector: torch.Tensor, length: float) -> Iterator[None]:
        """Within, the parameters are moved along a vector in place; afterwards they are as before, bit for bit."""
        before = [p.detach().clone() for p in self._parameters]
        try:
            with torch.no_grad():
                for p, part in zip(self._parameters, self.split(vector), strict=True):
                    p.add_(part, alpha=length)
            yield
        finally:
            with torch.no_grad():
                for p, old in zip(self._parameters, before, strict=True):
                    p.copy_(old)

    def _settle(self) -> int:
        """Find out how to differentiate twice, and the bytes that the graph of the first loss takes."""
        loss, zero = self._losses[0], torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for self._own_recurrence in (False, True):
            try:
                with _counted() as sizes:
                    self._second(self._first(loss, graph=True), zero)
                return sum(sizes.values())
            except Undefined:
                continue
        self.method = DIFFERENCES
        try:
            self._first(loss, graph=False)
        except Undefined as error:
            raise NoCurvature(f"the loss has no gradient: {error}") from error
        return 0

    def _graph(self, n: int) -> tuple[torch.Tensor, ...]:
        """The gradient of a loss, with its graph where it has one."""
        if n < len(self._graphs):
            return self._graphs[n]
        gradient = self._first(self._losses[n], graph=self.method == EXACT)
        if n < self.kept and self.method == EXACT:
            self._graphs.append(gradient)
        return gradient

    def _first(self, loss: Loss, *, graph: bool) -> tuple[torch.Tensor, ...]:
        with untouched(self.device), ExitStack() as stack:  # each time with the same random numbers
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self._own_recurrence:  # that of cuDNN has no second derivative
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            value = loss()
            if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.is_floating_point():
                raise NoCurvature("the loss is not a single real number: return a scalar, such as a mean")
            if not value.requires_grad:
                raise NoCurvature("the loss does not depend on the parameters, or was computed without gradients")
            if not bool(torch.isfinite(value.detach()).all()):
                raise NoCurvature(f"the loss is {float(value.detach())}: look at the weights and the batch it is of")
            if graph and _once_differentiable(value):
                raise Undefined("a function is marked as differentiable once")
            return self._differentiated([value.reshape(())], None, graph=graph)

    def _second(
        self, gradient: Sequence[torch.Tensor], vector: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        pairs = [(g, part.to(g)) for g, part in zip(gradient, self.split(vector), strict=True) if g.requires_grad]
        if not pairs:  # the loss is linear
            return torch.zeros_like(vector) if out is None else out.zero_()
        return self._flat(self._differentiated([g for g, _ in pairs], [part for _, part in pairs], graph=False), out)

    def _differentiated(
        self, outputs: Sequence[torch.Tensor], directions: Sequence[torch.Tensor] | None, *, graph: bool
    ) -> tuple[torch.Tensor, ...]:
        try:
            found: tuple[torch.Tensor, ...] = torch.autograd.grad(
                outputs,
                self._parameters,
                directions,
                create_graph=graph,
                retain_graph=graph or directions is not None,
                allow_unused=True,
                materialize_grads=True,
            )
            return found
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise Undefined(str(error).partition("\n")[0]) from error

    def _difference(self, vector: torch.Tensor, losses: Sequence[Loss]) -> torch.Tensor:
        """Central difference of the gradients, by a step that weighs rounding against the third derivative."""
        length, total = float(vector.norm()), torch.zeros_like(vector)
        if not length:
            return total
        weights = float(self._flat(self._parameters).norm())
        step = float(torch.finfo(self.dtype).eps ** (1 / 3)) * (1 + weights) / length
        for sign in (1.0, -1.0):
            with self.moved(vector, sign * step):
                for loss in losses:
                    total += sign * self._flat(self._first(loss, graph=False))
        return total / (2 * step * len(losses))

    def _flat(self, tensors: Sequence[torch.Tensor], out: torch.Tensor | None = None) -> torch.Tensor:
        dense = (t.detach().to_dense() if t.is_sparse else t.detach() for t in tensors)
        return torch.cat([t.reshape(-1).to(self.dtype) for t in dense], out=out)


def _once_differentiable(loss: torch.Tensor) -> bool:
    """Whether a function in the graph is marked so: where nothing curved follows it, torch takes it for linear."""
    found, todo = set(), [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in found:
            continue
        backward = getattr(getattr(node, "_forward_cls", None), "backward", None)
        while backward is not None:  # what decorators wrap
            if getattr(backward, "__code__", None) is MARK:
                return True
            backward = getattr(backward, "__wrapped__", None)
        found.add(node)
        todo += [before for before, _ in node.next_functions]
    return False


@contextmanager
def _counted() -> Iterator[dict[int, int]]:
    """Within, what graphs save is taken down: where it lies -> bytes."""
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.layout == torch.strided:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes
