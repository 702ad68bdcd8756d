"""Thin wrappers round the few torch functions that every training loop passes through, while a run is watched.

A listener hears of each loss call, each backward pass, each scaling by a `GradScaler`, each clipping and each
iteration over a `DataLoader`. The wrappers call the original exactly once, with the same arguments, and hand on what
it returns; they are put in place with the first listener and taken away with the last.

Methods are replaced on their class. A loss function keeps its identity and has its *code object* exchanged: so one
that was imported by name, stored in a `functools.partial` or pickled inside a model is seen too, and
`torch.compile`, which puts these functions into its graphs as a whole, neither breaks the graph nor sees the wrapper.
So have the functions that clip gradients, which most loops import by name.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F

LOSSES = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_embedding_loss",
    "cross_entropy",
    "ctc_loss",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "margin_ranking_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]


CLIPPERS = {"clip_grad_norm_": "norm", "clip_grad_value_": "value"}


def _copy(function: types.FunctionType) -> types.FunctionType:
    twin = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


ORIGINAL: dict[str, Callable[..., torch.Tensor]] = {name: _copy(getattr(F, name)) for name in LOSSES}
"""Name -> torch's own loss function: a copy that is never intercepted."""


@dataclass(eq=False, slots=True)
class LossCall:
    """One evaluation of a loss function.

    Attributes:
        name: The function or module that was called.
        output: What it returned.
        input: Predictions, where known.
        target: Targets, where known.
        positional, keywords: The further arguments, as they were passed.
        known: The name is one of torch's own functional losses, so that `ORIGINAL` can evaluate it per sample.
        meaning: The functional loss whose predictions and targets look like these, where `name` is another.
        module, given: The user's criterion, where one computed it, and all that it was given.
        terms: Where it is a sum that stands for a mean (see `averaged`), what it is to be divided by.
    """

    name: str
    output: torch.Tensor
    input: torch.Tensor | None = None
    target: torch.Tensor | None = None
    positional: tuple[Any, ...] = ()
    keywords: dict[str, Any] | None = None
    known: bool = False
    meaning: str = ""
    module: Any = None
    given: tuple[Any, ...] = ()
    terms: torch.Tensor | None = None

    @property
    def sort(self) -> str:
        """Name of the functional loss that tells how to read predictions and targets."""
        return self.meaning or self.name

    @property
    def nameless(self) -> bool:
        """Some further arguments were passed by position and their names are not known."""
        return len(self.positional) > len(_POSITIONS.get(self.name, ()))

    @property
    def arguments(self) -> dict[str, Any]:
        """The further arguments by name: ``reduction``, ``weight``, ``label_smoothing`` ..."""
        named = dict(zip(_POSITIONS.get(self.name, ()), self.positional, strict=False))
        named.update((k, v) for k, v in (self.keywords or {}).items() if k not in ("input", "target"))
        return named

    def without_graph(self, *, predictions: bool = False) -> LossCall:
        """A copy that keeps nothing of the graph alive: the output detached, the predictions too or left out."""
        keywords = self.keywords
        if keywords and "input" in keywords:
            keywords = {k: v for k, v in keywords.items() if k != "input"}
        kept = self.input.detach() if predictions and self.input is not None else None
        output = self.output.detach() if self.terms is None else self.output.detach() / self.terms
        return LossCall(self.name, output, kept, self.target, self.positional, keywords, self.known, self.meaning)


def averaged(call: LossCall) -> LossCall:
    """A sum of cross-entropies over positions as the mean over those that count.

    Models that compute their loss themselves may sum it and divide by what a whole step counts, as those of Hugging
    Face do. Where the loss is no such sum, it is returned as it is.
    """
    arguments = call.arguments
    whole = call.target is not None and not call.target.is_floating_point()
    summed = call.name in ("cross_entropy", "nll_loss") and arguments.get("reduction") == "sum"
    if not (call.known and summed and whole) or call.target is None or arguments.get("weight") is not None:
        return call
    with torch.no_grad():
        terms = (call.target != arguments.get("ignore_index", -100)).sum()
        keywords = {k: v for k, v in arguments.items() if k not in ("size_average", "reduce")}
        mean = replace(call, positional=(), keywords={**keywords, "reduction": "mean"}, terms=terms)
    return mean if call.output.requires_grad else mean.without_graph(predictions=True)


class Listener(Protocol):
    """Who hears of events. Its methods contain their own faults: nothing may be raised into the training."""

    def on_loss(self, call: LossCall) -> None: ...

    def on_backward_start(self, root: torch.Tensor) -> None: ...

    def on_backward_end(self, root: torch.Tensor) -> None: ...

    def on_scale(self, scaler: Any, unscaled: Any, scaled: Any) -> None: ...

    def on_unscale(self) -> None: ...

    def on_scaler_update(self, scaler: Any) -> None: ...

    def on_clip(self, kind: str, limit: float) -> None: ...

    def on_iterate(self, loader: Any) -> None: ...


_listeners: tuple[Listener, ...] = ()
_undo: list[Callable[[], None]] = []
_transforms: Callable[[], Any] = getattr(torch._C._functorch, "peek_interpreter_stack", lambda: None)
_depth = 0  # losses and backwards nest (subclasses, compound losses): only the outermost call is reported


def subscribe(listener: Listener) -> None:
    """Start reporting events to a listener."""
    global _listeners
    if not _listeners:
        _install()
    _listeners = (*_listeners, listener)


def unsubscribe(listener: Listener) -> None:
    """Stop reporting to a listener; with the last one, torch is as it was."""
    global _listeners
    if listener not in _listeners:
        return
    _listeners = tuple(entry for entry in _listeners if entry is not listener)
    if not _listeners:
        while _undo:
            _undo.pop()()


@contextmanager
def unheard() -> Iterator[None]:
    """Within, nothing is reported to anybody: what happens is not the training."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def is_hidden() -> bool:
    """Whether torch itself looks on: it compiles, or transforms a function (`torch.func`).

    The tensors of a transform stand for others, and must not be kept: they mean nothing once it is over.
    """
    return torch.compiler.is_compiling() or _transforms() is not None


def is_unheard() -> bool:
    """Whether what happens now is reported to nobody (see `unheard`)."""
    return _depth > 0


@contextmanager
def heard_by(*listeners: Listener) -> Iterator[None]:
    """Within, these listeners alone are told of what happens: to all others it is not the training that they watch."""
    global _listeners
    others = _listeners
    _listeners = listeners
    try:
        yield
    finally:
        _listeners = others


@contextmanager
def losses_collected() -> Iterator[list[LossCall]]:
    """Within, losses go to this list and to nobody else, `unheard` or not."""
    global _depth
    collector, depth = _Collector(), _depth
    subscribe(collector)
    _depth = 0
    try:
        with heard_by(collector):
            yield collector.calls
    finally:
        _depth = depth
        unsubscribe(collector)


def the_one(calls: list[LossCall]) -> LossCall:
    """The only loss among those that were collected.

    Raises:
        NotImplementedError: There is none, or there are several.
    """
    if len(calls) != 1:
        raise NotImplementedError(f"what the loss is given cannot be seen: it calls {len(calls)} of torch's losses")
    return calls[0]


class _Collector:
    """A listener that remembers losses, and nothing else."""

    def __init__(self) -> None:
        self.calls: list[LossCall] = []

    def on_loss(self, call: LossCall) -> None:
        self.calls.append(call)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def _install() -> None:
    for name in LOSSES:
        _exchange_code(name)
    _wrap(torch.Tensor, "backward", _backward_wrapper)
    _wrap(torch.autograd, "backward", _backward_wrapper)
    _wrap(torch.amp.GradScaler, "scale", _scale_wrapper)
    _wrap(torch.amp.GradScaler, "unscale_", _unscale_wrapper)
    _wrap(torch.amp.GradScaler, "update", _update_wrapper)
    for name in CLIPPERS:
        _exchange_clipper(name)
    _wrap(torch.utils.data.DataLoader, "__iter__", _iterate_wrapper)


def _wrap(owner: Any, name: str, make: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    wrapper = functools.wraps(original)(make(name, original))
    setattr(owner, name, wrapper)

    def undo() -> None:
        if getattr(owner, name) is wrapper:  # someone else may have wrapped it since: theirs stays, ours is silent
            setattr(owner, name, original)

    _undo.append(undo)


def _trampoline(*args: Any, **kwargs: Any) -> Any:
    return _report(args, kwargs)  # type: ignore[name-defined]  # noqa: F821  # a global of torch.nn.functional


def _exchange_code(name: str) -> None:
    function, slot = getattr(F, name), f"_trainwatch_{name}"
    code = function.__code__
    vars(F)[slot] = functools.partial(_call_loss, name, ORIGINAL[name])
    function.__code__ = _trampoline.__code__.replace(co_names=(slot,), co_name=name)

    def undo() -> None:
        function.__code__ = code
        del vars(F)[slot]

    _undo.append(undo)


def _call_loss(name: str, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    global _depth
    if _depth or is_hidden():
        return original(*args, **kwargs)
    _depth += 1
    try:
        output = original(*args, **kwargs)
    finally:
        _depth -= 1
    if isinstance(output, torch.Tensor):
        inputs = args[0] if args else kwargs.get("input")
        target = args[1] if len(args) > 1 else kwargs.get("target")
        call = LossCall(name, output, _tensor(inputs), _tensor(target), args[2:], kwargs, known=True)
        for listener in _listeners:
            listener.on_loss(call)
    return output


def _backward_wrapper(_: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def backward(*args: Any, **kwargs: Any) -> Any:
        global _depth
        root = args[0] if args else kwargs.get("tensors")
        if isinstance(root, (list, tuple)) and len(root) == 1:
            root = root[0]
        if is_hidden() or not _listeners or _depth or not isinstance(root, torch.Tensor):
            return original(*args, **kwargs)
        listeners = _listeners
        for listener in listeners:
            listener.on_backward_start(root)
        _depth += 1
        try:
            result = original(*args, **kwargs)
        finally:
            _depth -= 1
        for listener in listeners:
            listener.on_backward_end(root)
        return result

    return backward


def _scale_wrapper(_: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def scale(self: Any, outputs: Any) -> Any:
        scaled = original(self, outputs)
        for listener in _listeners:
            listener.on_scale(self, outputs, scaled)
        return scaled

    return scale


def _unscale_wrapper(_: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def unscale(self: Any, optimizer: Any) -> Any:
        result = original(self, optimizer)
        for listener in _listeners:
            listener.on_unscale()
        return result

    return unscale


def _update_wrapper(_: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def update(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        for listener in _listeners:
            listener.on_scaler_update(self)
        return result

    return update


def _clip_trampoline(func: Any) -> Any:
    """Torch's clippers are wrappers that close over `func`; code that replaces theirs must do so as well."""

    def clip(*args: Any, **kwargs: Any) -> Any:
        return _report(func, args, kwargs)  # type: ignore[name-defined]  # noqa: F821  # a global of that module

    return clip


def _exchange_clipper(name: str) -> None:
    function = getattr(torch.nn.utils, name)
    slot, code = f"_trainwatch_{name}", function.__code__
    if code.co_freevars != ("func",):  # a torch that writes them otherwise: only a call through the module is seen
        _wrap(torch.nn.utils, name, lambda name, original: functools.partial(_call_clipper, name, original))
        return

    def call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with torch.no_grad():
            return _call_clipper(name, func, *args, **kwargs)

    function.__globals__[slot] = call
    function.__code__ = _clip_trampoline(None).__code__.replace(co_names=(slot,), co_name=name)

    def undo() -> None:
        function.__code__ = code
        del function.__globals__[slot]

    _undo.append(undo)


def _call_clipper(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    result = original(*args, **kwargs)
    limit = args[1] if len(args) > 1 else kwargs.get("max_norm", kwargs.get("clip_value"))
    if isinstance(limit, (int, float)) and not _depth and not is_hidden():
        for listener in _listeners:
            listener.on_clip(CLIPPERS[name], float(limit))
    return result


def _iterate_wrapper(_: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def iterate(self: Any) -> Any:
        for listener in _listeners:
            listener.on_iterate(self)
        return original(self)

    return iterate


def _tensor(value: Any) -> torch.Tensor | None:
    return value if isinstance(value, torch.Tensor) else None


# Order of the arguments after (input, target); older positional styles are rare enough to be left unnamed.
_POSITIONS = {
    "cross_entropy": ("weight", "size_average", "ignore_index", "reduce", "reduction", "label_smoothing"),
    "nll_loss": ("weight", "size_average", "ignore_index", "reduce", "reduction"),
    "binary_cross_entropy": ("weight", "size_average", "reduce", "reduction"),
    "binary_cross_entropy_with_logits": ("weight", "size_average", "reduce", "reduction", "pos_weight"),
    "mse_loss": ("size_average", "reduce", "reduction"),
    "l1_loss": ("size_average", "reduce", "reduction"),
    "smooth_l1_loss": ("size_average", "reduce", "reduction", "beta"),
    "huber_loss": ("reduction", "delta"),
    "gaussian_nll_loss": ("var", "full", "eps", "reduction"),
    "poisson_nll_loss": ("log_input", "full", "size_average", "eps", "reduce", "reduction"),
    "kl_div": ("size_average", "reduce", "reduction", "log_target"),
}
