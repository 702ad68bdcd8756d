"""Attaches the installed packages to a training in place of trainwatch, all at once: each only reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.rivals.installed import adapter as adapter_of
from benchmarks.rivals.installed.adapter import Log, Said, quiet


class Attached:
    """Watches one model and one optimiser through hooks; a drop-in for `trainwatch.watch` in the zoo's loops.

    A package that raises is left alone from then on, and has said nothing.

    Attributes:
        log: What a user would log.
        said: Package -> setting -> its alarms, once the training is over.
        errors: Package -> what it raised.
    """

    def __init__(
        self,
        names: Sequence[str],
        model: nn.Module,
        optimizer: Optimizer,
        *,
        loss_fn: nn.Module,
        step_hooks: bool = True,
    ) -> None:
        self.log = Log()
        self.said: dict[str, dict[str, Said]] = {}
        self.errors: dict[str, str] = {}
        self._model, self._optimizer, self._adapters = model, optimizer, {}
        self._inputs: Any = None
        self._batch: tuple[Any, Tensor] | None = None
        self._losses: list[float] = []
        self._stepping = False
        self._validation: list[tuple[float, int]] = []
        for name in names:
            made = self._call(name, lambda name=name: adapter_of(name)(model, optimizer))
            if made is not None:
                self._adapters[name] = made
        self._handles: list[Any] = [
            model.register_forward_pre_hook(self._forward),
            loss_fn.register_forward_hook(self._loss),
        ]
        if step_hooks:
            self._handles += [
                optimizer.register_step_pre_hook(lambda *_: self.before_step()),
                optimizer.register_step_post_hook(lambda *_: self.after_step()),
            ]

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def epoch_end(self, **_: float) -> None:
        """What a user reports to trainwatch alone."""

    def before_step(self) -> None:
        """Gradients are there: log them, and tell the packages."""
        if not self._losses or self._batch is None:
            return
        norms = [p.grad.norm() for p in self._model.parameters() if p.grad is not None]
        self.log.loss.append(sum(self._losses) / len(self._losses))
        self.log.grad_norm.append(float(torch.stack(norms).norm()) if norms else 0.0)
        self.log.lr.append(float(self._optimizer.param_groups[0]["lr"]))
        self._losses, self._stepping = [], True
        x, y = self._batch
        self._each(lambda a: a.before_step(len(self.log.loss) - 1, x, y, self.log.loss[-1]))

    def after_step(self) -> None:
        if self._stepping:
            self._stepping = False
            self._each(lambda a: a.after_step(len(self.log.loss) - 1, self.log.loss[-1]))

    def finish(self) -> None:
        """Detach, and ask every package under every setting."""
        for handle in self._handles:
            handle.remove()
        self._end_pass()
        self._each(lambda a: a.finish(self.log))
        for name, made in self._adapters.items():
            said = self._call(name, lambda a=made: {s: a.judge(self.log, **t) for s, t in a.settings.items()})
            self.said[name] = said if said is not None else {s: [] for s in made.settings}

    def _forward(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._inputs = inputs[0]

    def _loss(self, _: nn.Module, given: tuple[Any, ...], loss: Tensor) -> None:
        if torch.is_grad_enabled():
            self._end_pass()
            self._losses.append(float(loss.detach()))
            self._batch = self._inputs, given[1]
        else:
            self._validation.append((float(loss), len(given[1])))

    def _end_pass(self) -> None:
        passed, self._validation = self._validation, []
        if passed and self.log.loss:  # none before the first step
            mean = sum(value * samples for value, samples in passed) / sum(samples for _, samples in passed)
            self.log.validation[len(self.log.loss) - 1] = mean

    def _each(self, tell: Callable[[Any], None]) -> None:
        for name, made in self._adapters.items():
            if name not in self.errors:
                self._call(name, lambda made=made: tell(made))

    def _call(self, name: str, what: Callable[[], Any]) -> Any:
        try:
            with quiet():
                return what()
        except Exception as error:
            self.errors.setdefault(name, repr(error)[:200])
            return None
