"""The owner of one run: record, capture, engine and outlets, and the budget that they must keep together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from trainwatch import running
from trainwatch.capture.interception import unheard
from trainwatch.capture.nonfinite import Suspect
from trainwatch.capture.ranks import Ranks
from trainwatch.capture.run_capture import RunCapture
from trainwatch.clock import steady
from trainwatch.config import Settings
from trainwatch.containment import Containment, contained
from trainwatch.diagnosis import Diagnosis
from trainwatch.engine import FAILED, fault_of, judge
from trainwatch.escaping import Escaped, leave_saddle
from trainwatch.live import LiveFindings
from trainwatch.outlets import Outlets
from trainwatch.probes import nonfinite
from trainwatch.probes.bench import Bench
from trainwatch.probes.governor import Request
from trainwatch.probes.rounds import QUANTITIES, Probes
from trainwatch.processes import LAST_WAIT, PROBES_OFF, Processes
from trainwatch.record import RecordError, RunRecord, SegmentWriter
from trainwatch.record.joint import JointRecord
from trainwatch.report import Report
from trainwatch.resuming import resume, state_of
from trainwatch.unmeasured import unmeasured

T = TypeVar("T")

FLUSH_SECONDS = 10.0
FLOOR_PER_STEP = 100e-6  # seconds that watching may take of every step, however short the step is
LOOK_SHARE = 0.25  # of the budget goes to looks of the engine
WATCH_SHARE = 0.75  # of the budget for everything but probes; where it is used up, steps go by unwatched
LAST_ROUND = 5.0  # seconds that probes may take at the end of a run, or the budget's share of it if that is more
VALIDATION = (
    "val_loss",
    "val_sample_loss",
    "val_sample_correct",
    "val_confusion",
    "val_scores",
    "val_spread",
    "val_error",
    "val_target_moments",
    "val_churn",
    "val_train_mode",
)
RANGES = ("input_stats", "output_stats", "target_stats", "target_moments")
STEPS = ("train_loss", "grad_norm", "train_classes", "batches_without_class", "motion", "weights")
# Part -> the quantities that are missing where it had to be switched off.
MEASURES = {
    "losses": ("train_loss",),
    "observe_train": ("train_loss",),
    "observe_val": ("val_loss",),
    "gradients": ("grad_norm",),
    "classes": ("train_classes", "batches_without_class"),
    "motion": ("motion", "weights"),
    "validation": VALIDATION,
    "steps": STEPS,
    "ranges": RANGES,
    "held batches": tuple(q for some in QUANTITIES.values() for q in some),
    "start weights": QUANTITIES["tuning"] + QUANTITIES["frozen_part"],
    **{f"probe {kind}": some for kind, some in QUANTITIES.items()},
    "reads": (*STEPS, *RANGES, *VALIDATION),
}


FILES = ("record files", "tensorboard", "report files")  # parts that fail where the disk does


class StopTraining(Exception):
    """Raised out of ``optimizer.step()`` after a finding named in ``stop_on``; `with watch(...)` ends quietly on it."""


class Monitor:
    """Watches one run. Nothing that goes wrong in here reaches the training.

    Attributes:
        record: What was measured.
        capture: Who measures.
        report: The report, once `finish` was called.
        latest: What the last look found, while the run goes on.
        stop_by_raising: Raise `StopTraining` after a finding of ``stop_on``; trainers that can be told to stop read
            `should_stop` instead.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        settings: Settings,
        *,
        framework: str = "pytorch",
        criterion: Any = None,
        directory: Path | None = None,
        writer: Any = None,
        task: str | None = None,
        class_names: Sequence[str] | None = None,
        on_finding: Callable[[Diagnosis], None] | None = None,
        stop_on: Sequence[str] = (),
        stop_by_raising: bool = True,
        train_eval_loader: Any = None,
        primary_validation: str | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        clock = steady(clock)
        running.end_in(directory)
        ranks = Ranks.here()
        if ranks is not None and ranks.rank:  # the first process alone judges, writes and prints
            settings, directory, writer = replace(settings, quiet=True), None, None
            on_finding, stop_on = None, ()
        self.settings, self.directory = settings, directory
        self.report: Report | None = None
        self.latest: Report | None = None
        self.stop_by_raising = stop_by_raising
        journal = SegmentWriter(directory) if directory is not None else None
        self._processes = Processes(ranks, journal) if ranks is not None else None
        self.record = RunRecord(journal) if self._processes is None else self._processes.record
        self.containment = Containment(clock, self._fault, settings.strict)
        self._clock, self._began, self._last_flush = clock, clock(), clock()
        self._framework = framework
        self._looks = self._looks_put_off = self._flushed_passes = 0
        self._look_seconds = 0.0
        self._news = False  # something was found that is not worth waiting with
        self._outlets = Outlets(directory, writer, quiet=settings.quiet)
        self._live = LiveFindings(self.record, self._told_apart(on_finding), stop_on, self._outlets.say)
        self._note_run(finished=False)
        if class_names is not None:
            self.record.set_fact("class_names", [str(name) for name in class_names])
        if task is not None:
            self.record.set_fact("task", task)
        self.capture = RunCapture(
            models,
            optimizers,
            self.record,
            self.containment,
            flush_every=settings.flush_every,
            held_bytes=settings.probe_memory // 4,
            on_step=self._stepped,
            nonfinite=settings.nonfinite,
            on_nonfinite=self._investigate,
            train_eval_loader=train_eval_loader,
            primary_validation=primary_validation,
            criterion=criterion,
        )
        self._probes = Probes(settings.probes, self.containment)
        self._rules = settings.active_rules()
        if self._processes is not None:
            self.containment.run("processes", self._processes.begin, self.capture)
        self.containment.run("tensorboard", self._outlets.open)
        self._write()
        self._once = self._spent()  # seconds spent at the start and, later, at the end
        self._began = clock()
        running.began(self)

    def state_dict(self) -> dict[str, Any]:
        """How far the run is and what was measured; empty in other processes than the first."""
        if self._processes is not None and not self._processes.first:
            return {}
        self.capture.end_pass()
        self.containment.run("flush", self.capture.flush)
        self.containment.run("reads", self.capture.reads.deliver, wait=True)
        return self.containment.run("state", state_of, self.record, self.capture) or {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises:
            ValueError: It is no such state, or steps were taken already.
        """
        if self._processes is not None and not self._processes.first:
            self.capture.resume(state)
        else:
            resume(state, self.record, self.capture)

    @property
    def should_stop(self) -> bool:
        """A finding named in ``stop_on`` was reported."""
        if self._processes is None:
            return self._live.stop
        return bool(self._stops())

    @contained("processes")
    def _stops(self) -> bool:
        assert self._processes is not None
        return self._processes.stops(self.capture.step, self._live.stop, self.settings.flush_every)

    # ------------------------------------------------------------------ while the training runs

    def _stepped(self, full: bool) -> None:
        if self.report is not None:
            return
        if (
            full
            or self._news
            or self.capture.book.finished != self._flushed_passes
            or self._clock() - self._last_flush > FLUSH_SECONDS
        ):
            self.flush()
        if self.should_stop and self.stop_by_raising:
            raise StopTraining("trainwatch: a finding named in stop_on was made; see the report")

    @contained("probe nonfinite")
    def _investigate(self, suspect: Suspect) -> None:
        """Run a step that went wrong again, now that batch and weights are still what they were."""
        with unheard():
            self.record.set_fact("nonfinite", nonfinite.investigate(suspect, self.settings.probe_memory // 2))
        self._news = True

    def flush(self) -> None:
        """Read what was measured, write it, and judge it if the budget allows."""
        if self.report is not None:
            return
        self._last_flush, self._news = self._clock(), False
        self._flushed_passes = self.capture.book.finished
        self.containment.run("flush", self.capture.flush)
        if self._processes is not None:
            self._exchange()
            if not self._processes.first:
                return
        self._show_curves()
        looked = self._look()
        if looked or self.settings.probes != "auto":  # what rules ask for is computed already where they just looked
            self._probe()
        self._write()
        elapsed = self._clock() - self._began
        allowed = self._budget(elapsed) * WATCH_SHARE
        if self.capture.step and self._processes is None:  # several watch the same steps, or none could be joined
            debt = self._spent(probes=False) - self._once - allowed
            self.capture.rest(elapsed, debt, allowed / self.capture.step)

    def epoch_end(self, metrics: Mapping[str, float]) -> None:
        """The user or the trainer says that an epoch is over."""
        if self.report is not None:
            return
        self.capture.end_pass()
        self._note_epoch(dict(metrics))
        self.flush()

    @contained("processes")
    def _exchange(self, *, last: bool = False, wait: float = 0.0) -> None:
        assert self._processes is not None
        if self._processes.first or torch.distributed.is_initialized():  # else nobody may be there to tell it to
            self._processes.exchange(self.capture, last=last, wait=wait)

    @contained("record")
    def _note_epoch(self, metrics: dict[str, float]) -> None:
        step = self.capture.step
        series = self.record.series("epoch", "end")
        self.record.append("epoch", "end", step, 1.0 if series is None else float(series.values[-1]) + 1)
        for name, value in metrics.items():
            self.record.append("metric", name, step, float(value))

    @contained("engine")
    def _look(self) -> bool:
        """Judge the run as it stands. Put off where looks have used up their share of the budget.

        Returns:
            It was judged.
        """
        last = self._look_seconds / self._looks if self._looks else 0.0
        elapsed = self._clock() - self._began
        if self._looks and self._look_seconds + last > self._budget(elapsed) * LOOK_SHARE:
            self._looks_put_off += 1
            return False
        began = self._clock()
        report = judge(self.record, self.settings)
        self._take(report)
        self._looks += 1
        self._look_seconds += self._clock() - began
        return True

    @contained("probes")
    def _probe(self) -> None:
        """Run the probes that are due, as far as everything together keeps the budget."""
        if self._probes.governor.waiting(self.capture.step):
            elapsed, spent = self._clock() - self._began, self._spent() - self._once
            self._experiment(elapsed, self._budget(elapsed) - spent)

    @contained("probes")
    def _probe_last(self) -> None:
        """The round at the end: what the verdict still asks for."""
        elapsed = self._watched_seconds
        self._experiment(elapsed, max(self.settings.overhead * elapsed, LAST_ROUND), last=True)
        if never := self._probes.governor.never:
            self.record.set_fact("put_off", never)
        reasons = self._probes.unmeasured
        if self._processes is not None:
            reasons = {q: PROBES_OFF for some in QUANTITIES.values() for q in some}
        missing = {q: reason for q, reason in reasons.items() if not self.record.has(q)}
        if missing:
            self.record.set_fact("switched_off", {**self.record.facts.get("switched_off", {}), **missing})

    def _budget(self, elapsed: float) -> float:
        """Seconds that watching may take in so many seconds of a run."""
        return max(self.settings.overhead * elapsed, FLOOR_PER_STEP * self.capture.step)

    def _experiment(self, elapsed: float, left: float, *, last: bool = False) -> None:
        if len(self.capture.models) != 1 or self._processes is not None:
            return
        self._probes.governor.step_seconds = elapsed / max(1, self.capture.step)
        with unheard():
            self._probes.run(self._requests, self._bench(), left, last=last)

    def _requests(self) -> list[Request]:
        """What the rules ask for, by what is known so far."""
        return [request for rule in self._rules for request in rule.asks(self.record)]

    def _bench(self) -> Bench:
        """What probes are given of the only model."""
        (model,) = self.capture.models.values()
        held = self.capture.held
        return Bench(
            model,
            held.batches,
            held.reason,
            self.record,
            self.capture.step,
            self.settings.probe_memory // 2,
            tuple(self.capture.optimizers.values()),
            self.capture.samples / max(1, self.capture.step),
            self.capture.starts.kept if self.capture.starts is not None else None,
        )

    def escape(self) -> Escaped:
        """Leave a saddle, as `trainwatch.escape` says. Its time is not taken from the budget of watching."""
        found = self.apart("escape", self._escape)
        return found or Escaped(False, reason="measuring failed: see TW000 in the report")

    def apart(self, part: str, function: Callable[..., T], *args: Any) -> T | None:
        """Run something that the user called for: its faults are contained, its time is none of the budget's."""
        before = self._spent()
        found = self.containment.run(part, function, *args)
        self._once += self._spent() - before
        return found

    def _escape(self) -> Escaped:
        if len(self.capture.models) != 1:
            return Escaped(False, reason="several models are watched, and their common loss cannot be computed again")
        return leave_saddle(self.capture, self._bench(), self._rules)

    def _told_apart(self, on_finding: Callable[[Diagnosis], None] | None) -> Callable[[Diagnosis], None] | None:
        """What the user is told by, as a part of its own: where it raises, notices and the report still come."""
        if on_finding is None:
            return None
        return lambda diagnosis: self.containment.run("on_finding", on_finding, diagnosis)

    @contained("notices")
    def _take(self, report: Report) -> None:
        self.latest = report
        self._live.look(report, self.capture.step, self.capture.book.finished)
        self._outlets.look(self.capture.step, report)
        self.containment.run("tensorboard", self._outlets.draw, self.capture.step, report)

    @contained("tensorboard")
    def _show_curves(self) -> None:
        self._outlets.curves(self.record, self.capture.step)

    @contained("record files")
    def _write(self) -> None:
        if isinstance(self.record.journal, SegmentWriter):
            self.record.journal.flush()

    # ------------------------------------------------------------------ the end

    def finish(self, error: BaseException | None = None) -> Report:
        """End the watch: take hooks off, read what is under way, judge, and write the report.

        Args:
            error: The exception that ended the training, if one did; noted in the report.
        """
        if self.report is not None:
            return self.report
        running.ended(self)
        self._watched_seconds, self._while_training = self._clock() - self._began, self._spent() - self._once
        self.containment.run("hooks", self.capture.detach)
        self.containment.run("flush", self.capture.flush, last=True)
        if self._processes is not None:
            self._exchange(last=True, wait=LAST_WAIT if error is None else 0.0)
            self._note_run(finished=error is None, error=error)
            if not self._processes.first:
                self.report = self._processes.other_report()
                return self.report
        if error is None:
            self._probe_last()
        self._show_curves()
        self._note_run(finished=error is None, error=error)
        self.report = Report("not-judged")  # should the engine itself fail
        self._settle()
        self._note_overhead()
        # Again, since faults, transitions and overhead belong to the report; the measures are kept by the record.
        report = self.containment.run("engine", judge, self.record, self.settings)
        self.report = self.report if report is None else report
        if "engine" in self.containment.off:
            self.report = replace(
                self.report, not_checked={"TW709": "the rule engine failed (see the record's faults)"}
            )
        self._close()
        return self.report

    @contained("engine")
    def _settle(self) -> None:
        report = judge(self.record, self.settings)
        self.containment.run("notices", self._live.settle, report, self.capture.step)

    @contained("record")
    def _note_overhead(self) -> None:
        self.record.set_fact("overhead", self._overhead())

    def _close(self) -> None:
        assert self.report is not None
        self.containment.run("record files", self._close_journal)
        self.containment.run("tensorboard", self._outlets.finish, self.capture.step, self.report)
        if self.directory is not None:
            self.containment.run("report files", self.report.save, self.directory)
        self.containment.run("report", self._outlets.show, self.report)

    def _close_journal(self) -> None:
        if isinstance(self.record.journal, SegmentWriter):
            self.record.journal.close()
            self.record.journal = None

    def _stop_writing(self) -> None:
        journal, self.record.journal = self.record.journal, None
        if isinstance(journal, SegmentWriter):
            journal.abandon()

    def abandon(self) -> None:
        """This process was forked from the one that trains: here nothing is watched, written or printed."""
        self.report = Report("not-judged", not_checked={"TW709": "the process that it was forked from is watched"})
        self._stop_writing()
        self.capture.detach()

    def _note_run(self, finished: bool, error: BaseException | None = None) -> None:
        started = hasattr(self, "capture")
        facts = {
            "framework": self._framework,
            "steps": self.capture.step if started else 0,
            "epochs": self.containment.run("epochs", self.capture.epochs_seen) or 0 if started else 0,
            "samples": self._samples() if started else 0,
            "train_samples": self.capture.book.train_samples if started else None,
            "finished": finished,
            "ended_by": "" if error is None else f"{type(error).__name__}: {error}".rstrip(": "),
        }
        if started and len(self.capture.optimizers) > 1:
            facts["steps_of"] = self.capture.steps_of
        self.containment.run("record", self.record.set_fact, "run", facts)

    def _samples(self) -> int:
        """Training samples seen, in all processes."""
        return self.capture.samples + (self.record.samples_elsewhere if isinstance(self.record, JointRecord) else 0)

    def _spent(self, *, probes: bool = True) -> float:
        """Seconds so far, with or without those of probes."""
        return sum(s for part, s in self.containment.seconds.items() if probes or not part.startswith("probe"))

    def _overhead(self) -> dict[str, Any]:
        run = max(self._watched_seconds, 1e-9)
        spent = self._while_training
        skipped = unmeasured(self.capture, self.record.facts, self._looks_put_off)
        return {
            "seconds": {part: round(s, 6) for part, s in sorted(self.containment.seconds.items())},
            "run_seconds": round(run, 6),
            "share": spent / run,
            "per_step_us": 1e6 * spent / max(1, self.capture.step),
            "once_seconds": round(self._spent() - spent, 6),
            "budget": self.settings.overhead,
            "skipped": [*skipped, *self._probes.governor.put_off],
        }

    def _fault(self, part: str, error: Exception) -> None:
        """Note a contained fault. Nothing in here may fail in its turn."""
        fault = fault_of(part, error, self.capture.step if hasattr(self, "capture") else 0)
        reason = f"{FAILED}{type(error).__name__} (see TW000)"
        lost = dict.fromkeys(MEASURES.get(part, ()), reason)
        try:
            if part == "record files":
                self._stop_writing()
            self.record.add_fault(fault)
            self.record.set_fact("switched_off", {**self.record.facts.get("switched_off", {}), **lost})
            if part in FILES and isinstance(error, (OSError, RecordError)):
                self._outlets.lose(part, str(error), fault["step"])
        except Exception:
            self.record.journal = None  # what could not be written is still held in memory
