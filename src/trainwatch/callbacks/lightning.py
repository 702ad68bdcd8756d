"""`TrainWatch`: the callback for Lightning, under either of its package names."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainwatch.callbacks.arguments import check_arguments, check_class_names, check_stop_on
from trainwatch.capture.batches import held_step
from trainwatch.capture.forward_events import OFF, TRAIN, VALIDATE
from trainwatch.capture.tasks import Task
from trainwatch.checks.batch import OneBatch
from trainwatch.checks.preflight import Preflight
from trainwatch.config import Settings, settings_from
from trainwatch.diagnosis import Diagnosis
from trainwatch.monitor import Monitor
from trainwatch.record import RunRecord
from trainwatch.report import Report

if TYPE_CHECKING:
    from lightning.pytorch import Callback
elif "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError:
            raise ImportError(
                "trainwatch.TrainWatch needs Lightning: pip install 'trainwatch-doctor[lightning]'"
            ) from None

LOWER = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}  # precisions that run under autocast


class TrainWatch(Callback):
    """Watches `Trainer.fit`. Keywords are those of `trainwatch.watch`.

    Attributes:
        report: The report, after `fit`.
        preflight_report: What `trainwatch.preflight` says of the model and the first batch, if it was asked for.
    """

    def __init__(
        self,
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
        preflight: bool = False,
    ) -> None:
        """See `trainwatch.watch`; without `log_dir` the record goes beside the trainer's logs.

        With `preflight`, the model is tried on the first batch before the first step, as by `trainwatch.preflight`, and
        what was found is printed at once.

        Raises:
            TypeError: An argument is of the wrong type.
            SettingsError: A setting or rule is unknown or cannot be used.
        """
        check_stop_on(stop_on)
        check_class_names(class_names)
        self.report: Report | None = None
        self.preflight_report: Report | None = None
        self._preflight = preflight
        self._settings = settings_from(settings)
        self._criterion, self._log_dir = loss_fn, log_dir
        self._options: dict[str, Any] = {
            "task": task,
            "class_names": class_names,
            "on_finding": on_finding,
            "stop_on": stop_on,
            "train_eval_loader": train_eval_loader,
            "primary_validation": primary_validation,
        }
        self._monitor: Monitor | None = None
        self._stream: str | None = None
        self._state: dict[str, Any] | None = None  # of a checkpoint that the coming fit goes on from

    @property
    def record(self) -> RunRecord | None:
        """What was measured so far."""
        return self._monitor.record if self._monitor is not None else None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self._monitor is not None:
            self._monitor.finish()
        models = {"default": pl_module}
        optimizers = {_key(i, trainer.optimizers): o for i, o in enumerate(trainer.optimizers)}
        check_arguments(
            models,
            optimizers,
            self._criterion,
            self._options["on_finding"],
            self._options["stop_on"],
            self._options["task"],
        )
        self.report = self.preflight_report = None
        self._monitor = Monitor(
            models,
            optimizers,
            self._settings,
            framework="lightning",
            criterion=self._criterion or _own_criterion(pl_module),
            directory=self._directory(trainer),
            writer=_writer(trainer),
            stop_by_raising=False,
            **self._options,
        )
        self._monitor.capture.stage = TRAIN
        state, self._state = self._state, None
        if state:
            self._monitor.containment.run("state", self._monitor.load_state_dict, state)
        self._monitor.containment.run("wiring", self._note_trainer, trainer)

    def state_dict(self) -> dict[str, Any]:
        return self._monitor.state_dict() if self._monitor is not None and self.report is None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict

    def _note_trainer(self, trainer: Any) -> None:
        assert self._monitor is not None
        capture = self._monitor.capture
        clip = trainer.gradient_clip_val
        names = {base.__name__ for callback in trainer.callbacks for base in type(callback).__mro__}
        capture.note_regularisation(
            early_stopping="EarlyStopping" in names,
            accumulation=trainer.accumulate_grad_batches,
            clipping={f"max_{trainer.gradient_clip_algorithm or 'norm'}": float(clip)} if clip else None,
        )
        capture.nonfinite.trainers_precision = LOWER.get(str(trainer.precision))
        loader = trainer.train_dataloader
        if isinstance(loader, torch.utils.data.DataLoader):
            capture.note_loader(loader)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if self._monitor is not None:
            self._monitor.capture.epochs += 1

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._monitor is not None:
            if self._preflight and self.preflight_report is None:
                self.preflight_report = self._monitor.apart("preflight", self._try, trainer, pl_module, batch)
            self._monitor.capture.stage = TRAIN
            self._monitor.capture.note_batch(batch, batch_idx)

    def _try(self, trainer: Any, pl_module: Any, batch: Any) -> Report:
        held, pair = held_step(0, batch, 0), isinstance(batch, (tuple, list)) and len(batch) == 2
        if held is None or len(trainer.optimizers) != 1:
            return Report("not-judged", not_checked={"TW709": "preflight needs one optimiser and a batch of tensors"})
        report = Preflight(self._settings).judge(
            pl_module,
            trainer.optimizers[0],
            held,
            validated=bool(trainer.enable_validation),
            first_is_batch=True,
            call=OneBatch(batch[0], batch[1], None) if pair else None,
            framework="lightning",
        )
        if trainer.is_global_zero and not self._settings.quiet:
            report.print()
        return report

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._monitor is not None and self._monitor.should_stop:
            trainer.should_stop = True

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._monitor is None or trainer.sanity_checking:
            return
        stream = "val" if dataloader_idx == 0 else f"val/{dataloader_idx}"
        if stream != self._stream:
            self._stream = stream
            self._monitor.capture.begin_pass(stream)
        self._monitor.capture.stage = VALIDATE
        self._monitor.capture.note_validation_batch(batch, batch_idx, primary=dataloader_idx == 0)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self._monitor is None or self._stream is None:
            return
        self._stream = None
        self._monitor.capture.begin_pass(None)
        self._monitor.capture.stage = TRAIN
        self._monitor.flush()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self._monitor is not None and not trainer.sanity_checking:
            metrics = {
                k: v for k, v in trainer.callback_metrics.items() if getattr(v, "device", None) == torch.device("cpu")
            }
            self._monitor.epoch_end({k: float(v) for k, v in metrics.items()})

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._finish(exception)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._monitor is not None:
            self._monitor.capture.stage = OFF
        self._finish(None)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        if self._monitor is not None and self.report is None:
            self.report = self._monitor.finish(error)

    def _directory(self, trainer: Any) -> Path | None:
        if not trainer.is_global_zero:
            return None
        base = self._log_dir if self._log_dir is not None else (trainer.log_dir if trainer.logger else None)
        return None if base is None else Path(base) / "trainwatch"

    def __getstate__(self) -> dict[str, Any]:
        # A trainer that is pickled or copied takes the settings along, not the run being watched.
        return {**self.__dict__, "_monitor": None}


def _key(index: int, optimizers: Sequence[Any]) -> str:
    return "default" if len(optimizers) == 1 else str(index)


def _own_criterion(module: nn.Module) -> nn.Module | None:
    """A loss module of the user's own, if the model holds exactly one; torch's own losses are seen anyway."""
    found = [m for n, m in module.named_children() if "loss" in n.lower() or "criterion" in n.lower()]
    return found[0] if len(found) == 1 else None


def _writer(trainer: Any) -> Any:
    """The trainer's own TensorBoard writer, so that there are no two event files in one directory."""
    for logger in trainer.loggers:
        with contextlib.suppress(Exception):
            if hasattr(logger.experiment, "_get_file_writer"):
                return logger.experiment
    return None
