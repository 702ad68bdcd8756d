"""Convolutions and batch norm of a copied model, with second derivatives that take no more kernels than they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

Pair = tuple[torch.Tensor | None, torch.Tensor | None]


class Bilinear(Protocol):
    """An operation f that is linear in its inputs as well as in its weight."""

    def __call__(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor: ...

    def adjoint(self, g: torch.Tensor, x: torch.Tensor, w: torch.Tensor, x_too: bool, w_too: bool) -> Pair:
        """Gradients of <g, f(x, w)> with respect to x and to w, as far as they are wanted."""


@dataclass(frozen=True)
class Convolution:
    """A convolution without its bias."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int

    def __call__(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.ops.aten.convolution(x, w, None, *self._how)
        return y

    def adjoint(self, g: torch.Tensor, x: torch.Tensor, w: torch.Tensor, x_too: bool, w_too: bool) -> Pair:
        found: Pair = torch.ops.aten.convolution_backward(g, x, w, None, *self._how, [x_too, w_too, False])[:2]
        return found

    @property
    def _how(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.dilation, False, [0] * len(self.stride), self.groups


@dataclass(frozen=True)
class Scaling:
    """Each channel times its weight and a constant, as batch norm does in evaluation mode."""

    variance: torch.Tensor
    eps: float

    def __call__(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.batch_norm(x, w, None, torch.zeros_like(w), self.variance, False, 0.0, self.eps, False)

    def adjoint(self, g: torch.Tensor, x: torch.Tensor, w: torch.Tensor, x_too: bool, w_too: bool) -> Pair:
        mean, wanted = torch.zeros_like(w), [x_too, w_too, False]
        how = (mean, self.variance, None, None, False, self.eps, wanted)
        found: Pair = torch.ops.aten.native_batch_norm_backward(g, x, w, *how)[:2]
        return found


class Applied(torch.autograd.Function):
    """f(x, w)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, w: torch.Tensor, f: Bilinear) -> torch.Tensor:
        return f(x, w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, w, ctx.f = inputs
        ctx.save_for_backward(x, w)
        ctx.save_for_forward(x, w)

    @staticmethod
    def jvp(ctx: Any, u: torch.Tensor | None, v: torch.Tensor | None, _: None) -> torch.Tensor | None:
        x, w = ctx.saved_tensors
        return along(ctx.f, x, w, u, v)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return *_unless_last(Gradients)(g, *ctx.saved_tensors, ctx.f, *ctx.needs_input_grad[:2]), None


class Gradients(torch.autograd.Function):
    """The gradients of <g, f(x, w)> with respect to x and w, which f's linearity makes easy to differentiate again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: torch.Tensor, x: torch.Tensor, w: torch.Tensor, f: Bilinear, x_too: bool, w_too: bool) -> Pair:
        return f.adjoint(g, x, w, x_too, w_too)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        g, x, w, ctx.f, *_ = inputs
        ctx.save_for_backward(g, x, w)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, u: torch.Tensor | None, v: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        g, x, w = ctx.saved_tensors
        wanted = v is not None and ctx.needs_input_grad[1], u is not None and ctx.needs_input_grad[2]
        inner = x if u is None else u, w if v is None else v
        by_x, by_w = _unless_last(Gradients)(g, *inner, ctx.f, *wanted) if any(wanted) else (None, None)
        return along(ctx.f, x, w, u, v), by_x, by_w, None, None, None


def along(
    f: Bilinear, x: torch.Tensor, w: torch.Tensor, u: torch.Tensor | None, v: torch.Tensor | None
) -> torch.Tensor | None:
    """How f(x, w) changes along (u, v), of which either may be absent: f(u, w) + f(x, v)."""
    apply = _unless_last(Applied)
    changes = [apply(a, b, f) for a, b in ((u, w), (x, v)) if a is not None and b is not None]
    return changes[0].add_(changes[1]) if len(changes) > 1 else changes[0] if changes else None


def _unless_last(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """A function with derivatives, or the bare one where none will be asked for, which saves memory and its time."""
    return function.apply if torch.is_grad_enabled() else function.forward


def channels(per_channel: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The same, to be combined with a batch."""
    return per_channel.view(-1, *[1] * (x.ndim - 2))


class QuickConvolution(nn.modules.conv._ConvNd):
    """A convolution that pads with zeros, of a batch."""

    def _conv_forward(self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if x.ndim != w.ndim or isinstance(self.padding, str) or self.padding_mode != "zeros":
            return super()._conv_forward(x, w, bias)
        y = _applied(x, w, Convolution(self.stride, self.padding, self.dilation, self.groups))
        return y if bias is None else y + channels(bias, x)


class QuickNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm that has weights and, in evaluation mode, statistics."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, variance = self.running_mean, self.running_var
        if self.training or mean is None or variance is None or not self.affine:
            return super().forward(x)
        self._check_input_dim(x)  # type: ignore[no-untyped-call]
        shift = self.bias - mean * self.weight * (variance + self.eps).rsqrt()
        return _applied(x, self.weight, Scaling(variance, self.eps)) + channels(shift, x)


def _applied(x: torch.Tensor, w: torch.Tensor, f: Bilinear) -> torch.Tensor:
    y: torch.Tensor = Applied.apply(x, w, f)  # type: ignore[no-untyped-call]
    return y


QUICK: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(kind.__name__, (quick, kind), {})
    for quick, kinds in {
        QuickConvolution: (nn.Conv1d, nn.Conv2d, nn.Conv3d),
        QuickNorm: (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    }.items()
    for kind in kinds
}


def quicken(model: nn.Module) -> None:
    """Give the modules of a model that no one else uses quick second derivatives; what they compute stays the same."""
    for module in model.modules():
        module.__class__ = QUICK.get(type(module), type(module))
