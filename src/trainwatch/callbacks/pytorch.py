"""`watch`: one line before a plain PyTorch loop, one after."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn

from trainwatch.callbacks.arguments import as_named, behind_ddp, check_arguments, unwrapped
from trainwatch.capture.interception import LossCall
from trainwatch.capture.tasks import Task
from trainwatch.config import Settings, settings_from
from trainwatch.diagnosis import Diagnosis
from trainwatch.monitor import Monitor, StopTraining
from trainwatch.record import RunRecord
from trainwatch.report import Report

_watching: weakref.WeakKeyDictionary[nn.Module, Watch] = weakref.WeakKeyDictionary()
_unfinished: weakref.WeakSet[Watch] = weakref.WeakSet()


class Watch:
    """One run being watched; made by `watch`. As a context manager it reports also on an exception or Ctrl-C."""

    def __init__(self, monitor: Monitor, models: Sequence[nn.Module]) -> None:
        self._monitor = monitor
        self._models = [weakref.ref(m) for m in models]
        _unfinished.add(self)

    @property
    def report(self) -> Report | None:
        """The report, once `finish` was called."""
        return self._monitor.report

    @property
    def record(self) -> RunRecord:
        """What was measured so far."""
        return self._monitor.record

    @property
    def should_stop(self) -> bool:
        """A finding named in ``stop_on`` was made."""
        return self._monitor.should_stop

    def observe_train(self, loss: torch.Tensor | float, outputs: Any = None, targets: Any = None) -> None:
        """Hand over a training loss that cannot be seen. Call it before ``optimizer.step()``; it only observes.

        Args:
            loss: The loss of the batch, of any shape with one entry.
            outputs: Predictions of the batch, shape (N, ...), if there are any.
            targets: Targets of the batch, shape (N, ...).
        """
        call = self._monitor.containment.run("observe_train", _observed, loss, outputs, targets)
        if call is not None:
            self._monitor.capture.observe_train(call)

    def observe_val(self, loss: torch.Tensor | float, outputs: Any = None, targets: Any = None) -> None:
        """Hand over the loss of a validation batch that cannot be seen; arguments as for `observe_train`."""
        call = self._monitor.containment.run("observe_val", _observed, loss, outputs, targets)
        if call is not None:
            self._monitor.capture.observe_validation(call)

    train_step = observe_train
    val_step = observe_val

    def clip_grad_norm_(self, max_norm: float, *, optimizer: str | None = None) -> torch.Tensor:
        """Clip the gradients as `torch.nn.utils.clip_grad_norm_` does, without computing their norms a second time.

        The norms measured at the end of the backward pass are used where they are still those of the gradients;
        otherwise (an unwatched step, gradients that were scaled, changed or are sharded) torch computes them.

        Args:
            max_norm: L2 norm that all gradients together may have.
            optimizer: Name of the optimiser whose parameters are meant; None clips those of all optimisers together.

        Returns:
            L2 norm of the gradients before clipping, a scalar on their device.

        Raises:
            ValueError: No optimiser has this name.
        """
        known = list(self._monitor.capture.optimizers)
        if optimizer is not None and optimizer not in known:
            raise ValueError(f"optimizer must be one of {', '.join(map(repr, known))}, got {optimizer!r}")
        return self._monitor.capture.clip_norm(max_norm, known if optimizer is None else [optimizer])

    @contextmanager
    def validation(self, name: str = "val") -> Iterator[None]:
        """Say that what happens within is one validation pass over a stream of this name."""
        self._monitor.capture.begin_pass(name)
        try:
            yield
        finally:
            self._monitor.capture.begin_pass(None)

    def state_dict(self) -> dict[str, Any]:
        """What to put into a checkpoint for the run to go on later: numbers, and one tensor of bytes."""
        return self._monitor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: call it before the first step, after weights were loaded.

        Raises:
            ValueError: `state` is not from `state_dict`, or steps were taken already.
        """
        self._monitor.load_state_dict(state)

    def save_into(self, file: Path) -> None:
        """Keep the state beside what a trainer saved. A fault is none of the training's."""
        if file.parent.is_dir():
            self._monitor.containment.run("state", lambda: torch.save(self.state_dict(), file))

    def resume_from(self, file: Path) -> None:
        """Go on from what `save_into` kept, where there is such a file. A fault is none of the training's."""
        if file.is_file():
            self._monitor.containment.run("state", lambda: self.load_state_dict(torch.load(file, weights_only=True)))

    def epoch_end(self, **metrics: float) -> None:
        """Say that an epoch is over, with metrics of your own. Optional: no verdict needs it."""
        numbers = self._monitor.containment.run("epoch_end", _numbers, metrics)
        self._monitor.epoch_end(numbers or {})

    def finish(self) -> Report:
        """End the watch: hooks come off, the report is written, printed (unless quiet) and returned."""
        return self._finish(None)

    def _finish(self, error: BaseException | None) -> Report:
        _unfinished.discard(self)
        for model in (reference() for reference in self._models):
            if model is not None and _watching.get(model) is self:
                del _watching[model]
        return self._monitor.finish(error)

    def _repr_html_(self) -> str:
        """In a notebook: the report, or what the last look found."""
        shown = self._monitor.latest if self.report is None else self.report  # a report without findings is false
        steps = self._monitor.capture.step
        return f"<p>trainwatch: {steps:,} steps seen, not judged yet.</p>" if shown is None else shown._repr_html_()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False] | bool:
        self._finish(error)
        return isinstance(error, StopTraining)


def watch(
    model: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | Mapping[str, torch.optim.Optimizer],
    *,
    loss_fn: Callable[..., Any] | None = None,
    log_dir: str | Path | None = None,
    task: Task | None = None,
    class_names: Sequence[str] | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    on_finding: Callable[[Diagnosis], None] | None = None,
    stop_on: Sequence[str] = (),
    train_eval_loader: Any = None,
    primary_validation: str | None = None,
) -> Watch:
    """Watch a training loop from here on. Nothing needs to change inside the loop.

    Args:
        model: The model, or several as a sequence or a mapping of names.
        optimizer: Its optimiser, or several likewise.
        loss_fn: The criterion, where it is a module of your own; torch's losses are seen without it.
        log_dir: Where record and report are kept, in a sub-directory ``trainwatch``; None keeps them in memory.
        task: What is trained, if it should not be told from the loss.
        class_names: Names of the classes, for the report.
        settings: `Settings`, or some of its fields; the rest comes from ``[tool.trainwatch]`` in ``pyproject.toml``.
        on_finding: Called with each finding (a warning or an error) when it is first reported.
        stop_on: Codes, names or severities of findings upon which `StopTraining` is raised out of ``optimizer.step()``.
        train_eval_loader: A loader over training data that you evaluate on: its passes are told from validation.
        primary_validation: Name of the validation stream that verdicts are reached on.

    Returns:
        The watch; call its `finish` after the loop, or use it as a context manager.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The model has no parameters, or the optimiser holds none of them.
        SettingsError: A setting or rule is unknown or cannot be used.
        RecordError: `log_dir` cannot be written to.
    """
    return begin(
        model,
        optimizer,
        criterion=loss_fn,
        log_dir=log_dir,
        task=task,
        class_names=class_names,
        settings=settings,
        on_finding=on_finding,
        stop_on=stop_on,
        train_eval_loader=train_eval_loader,
        primary_validation=primary_validation,
    )


def begin(
    model: Any,
    optimizer: Any,
    *,
    criterion: Callable[..., Any] | None,
    log_dir: str | Path | None,
    settings: Settings | Mapping[str, Any] | None,
    **options: Any,
) -> Watch:
    """Start a watch, also for trainers; `options` are those of `Monitor`, the errors those of `watch`."""
    models = {name: behind_ddp(one) for name, one in as_named(model, nn.Module, "model").items()}
    optimizers = unwrapped(as_named(optimizer, torch.optim.Optimizer, "optimizer"))
    checked = (options[name] for name in ("on_finding", "stop_on", "task", "class_names"))
    check_arguments(models, optimizers, criterion, *checked)
    chosen = settings_from(settings)  # nothing that is refused ends a watch that runs
    for one in models.values():
        if one in _watching:
            _watching[one]._finish(None)
    directory = None if log_dir is None else Path(log_dir) / "trainwatch"
    monitor = Monitor(models, optimizers, chosen, criterion=criterion, directory=directory, **options)
    watching = Watch(monitor, list(models.values()))
    _watching.update(dict.fromkeys(models.values(), watching))
    return watching


def _observed(loss: torch.Tensor | float, outputs: Any, targets: Any) -> LossCall:
    value = loss if isinstance(loss, torch.Tensor) else torch.tensor(_number(loss, "loss"))
    return LossCall("observed", value, _tensor(outputs, "outputs"), _tensor(targets, "targets"))


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: _number(value, f"the metric {name}") for name, value in metrics.items()}


def _number(value: Any, what: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{what} must be a number or a tensor of one, got {type(value).__name__}") from None


def _tensor(value: Any, what: str) -> torch.Tensor | None:
    try:
        return value if isinstance(value, torch.Tensor) or value is None else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{what} must be a tensor, or numbers that make one, got {type(value).__name__}") from None


@atexit.register
def _finish_forgotten() -> None:
    """At the end of the process: the reports of watches whose `finish` was never reached."""
    for watching in list(_unfinished):
        watching._finish(None)
