"""`HFTrainWatch`: the callback for the `Trainer` of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainwatch.callbacks.arguments import check_class_names, check_stop_on
from trainwatch.callbacks.pytorch import Watch, begin
from trainwatch.capture.tasks import Task
from trainwatch.config import Settings, settings_from
from trainwatch.diagnosis import Diagnosis
from trainwatch.record import RunRecord
from trainwatch.report import Report

try:
    from transformers import TrainerCallback
except ImportError:
    raise ImportError(
        "trainwatch.HFTrainWatch needs transformers: pip install 'trainwatch-doctor[huggingface]'"
    ) from None


STATE = "trainwatch.pt"  # in a checkpoint
NO_METRICS = ("_runtime", "_per_second", "epoch")  # how fast an evaluation was, and when


class HFTrainWatch(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Watches `Trainer.train`. Keywords are those of `trainwatch.watch`.

    The loss is read where the model computes it: the trainer's log hides losses that are not finite. Where the model
    sums its loss and the trainer divides it, by what a whole step counts, what is recorded is the mean of each batch.
    Its state is kept in the checkpoints: a training that goes on from one in `output_dir` has one record.

    Attributes:
        report: The report, after `train`.
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
    ) -> None:
        """See `trainwatch.watch`; without `log_dir` the record goes into the trainer's `output_dir`.

        Raises:
            TypeError: An argument is of the wrong type.
            SettingsError: A setting or rule is unknown or cannot be used.
        """
        check_stop_on(stop_on)
        check_class_names(class_names)
        self.report: Report | None = None
        self._log_dir = log_dir
        self._options: dict[str, Any] = {
            "criterion": loss_fn,
            "settings": settings_from(settings),
            "task": task,
            "class_names": class_names,
            "on_finding": on_finding,
            "stop_on": stop_on,
            "train_eval_loader": train_eval_loader,
            "primary_validation": primary_validation,
        }
        self._watch: Watch | None = None
        self._metrics: dict[str, float] = {}

    @property
    def record(self) -> RunRecord | None:
        """What was measured so far."""
        return self._watch.record if self._watch is not None else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.report, self._metrics = None, {}
        self._watch = begin(
            given["model"],
            given["optimizer"],
            log_dir=(self._log_dir or args.output_dir) if state.is_world_process_zero else None,
            framework="huggingface",
            stop_by_raising=False,
            **self._options,
        )
        self._watch.resume_from(self._state_file(args, state))

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Leave the state of the watch in the checkpoint, where the trainer goes on from."""
        if self._watch is not None and state.is_world_process_zero:
            self._watch.save_into(self._state_file(args, state))

    def _state_file(self, args: Any, state: Any) -> Path:
        return Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self._watch is not None and self._watch.should_stop:
            control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep the metrics for the end of the epoch."""
        metrics = given.get("metrics") or {}
        self._metrics = {
            k: float(v) for k, v in metrics.items() if isinstance(v, (int, float)) and not k.endswith(NO_METRICS)
        }

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step:  # an evaluation at the end of an epoch comes after `on_epoch_end`
            self._end_epoch()

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._end_epoch()
        self.finish()

    def finish(self) -> Report | None:
        """End the watch. To be called where `train` ended by an exception, of which a callback is not told."""
        if self._watch is not None:
            self.report = self._watch.finish()
        return self.report

    def _end_epoch(self) -> None:
        if self._watch is not None:
            self._watch.epoch_end(**self._metrics)
            self._metrics = {}

    def __getstate__(self) -> dict[str, Any]:
        # A trainer that is pickled or copied takes the settings along, not the run being watched.
        return {**self.__dict__, "_watch": None}
