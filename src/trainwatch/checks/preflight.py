"""Tries a model on one batch within a few seconds, and judges what came of it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from trainwatch.capture.interception import unheard
from trainwatch.capture.ranks import several_processes
from trainwatch.checks import dependence
from trainwatch.checks.batch import OneBatch, StepFailed
from trainwatch.checks.failure import facts_of
from trainwatch.checks.trial import RATE, device_of, take_steps
from trainwatch.config import Settings
from trainwatch.containment import Containment
from trainwatch.engine import fault_of, judge
from trainwatch.probes import activations, future, one_batch
from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.isolation import CannotIsolate, untouched
from trainwatch.record import RunRecord
from trainwatch.report import Report

SECONDS = 5.0
SUBJECT = "preflight"
# What can be said before training: facts of the wiring, and what a single batch shows.
PREFLIGHT = (
    "TW107", "TW108", "TW109", "TW303", "TW304", "TW305", "TW309", "TW703", "TW705", "TW706", "TW707", "TW708", "TW709",
    "TW710", "TW711", "TW712", "TW802",
)  # fmt: skip
FACTS = ("subject", "run", "task", "loss", "optimizers", "parameters", "tuning")
OVER = "the time for preflight was over before it was measured"


class Preflight:
    """One model, tried on one batch. Nothing that goes wrong in here reaches the caller, unless `Settings.strict`.

    Attributes:
        record: What was measured.
    """

    def __init__(
        self, settings: Settings, *, seconds: float = SECONDS, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.record = RunRecord()
        self._settings, self._clock = settings, clock
        self._until = clock() + seconds
        self._refused = ""  # why the model was left alone
        self._containment = Containment(clock, self._fault, settings.strict)

    def judge(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        batch: Batch,
        *,
        validation: Batch | None = None,
        validated: bool | None = None,
        first_is_batch: bool = False,
        call: OneBatch | None = None,
        framework: str = "pytorch",
    ) -> Report:
        """Try the model and say what was found.

        Args:
            model: The live model; it stays as it is.
            optimizer: Its optimiser; without one, Adam stands in.
            batch: The batch.
            validation: A batch of validation, if there is one.
            validated: Whether there is validation; None where nobody said.
            first_is_batch: The samples lie along the first dimension.
            call: How the model itself is called; by default as `batch` says, if it is a `OneBatch`.
            framework: For remedies.
        """
        for topic, known in (("subject", SUBJECT), ("framework", framework), ("validated", validated)):
            self.record.set_fact(topic, known)
        if several_processes():
            return _untried("preflight is for a single process")
        call = batch if isinstance(batch, OneBatch) else call
        steps = self._containment.run(
            "trial", self._in_peace, model, optimizer, batch, validation, call, first_is_batch
        )
        if self._refused:
            return _untried(self._refused)
        self._note_run(steps or 0, batch.samples)
        report = self._containment.run("engine", judge, self.record, self._settings, PREFLIGHT)
        if report is None:
            return _untried("the rule engine failed (see TW000)")
        if not steps and report.verdict == "healthy":  # a fault of our own kept it from being tried
            report = replace(report, verdict="not-judged")
        return _of_no_run(report)

    def _in_peace(self, model: nn.Module, *given: Any) -> int:
        device = device_of(model)
        if device.type == "meta":
            self._refused = "the model lies on the meta device, where nothing is computed"
            return 0
        with untouched(device, model):
            return self._try(model, *given)

    def _try(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        batch: Batch,
        validation: Batch | None,
        call: OneBatch | None,
        first_is_batch: bool,
    ) -> int:
        """Take the steps and measure the rest, and give back how many steps there were."""
        if optimizer is None:
            parameters = list(model.parameters())
            sparse = any(getattr(module, "sparse", False) for module in model.modules())  # which Adam does not take
            kind = torch.optim.Adagrad if sparse else torch.optim.Adam
            optimizer = kind([p for p in parameters if p.requires_grad] or parameters, lr=RATE)
        more = lambda: self._clock() < self._until  # noqa: E731
        began = self._clock()
        try:
            steps = take_steps(
                model, optimizer, batch, self.record, self._containment, self._settings, more, validation
            )
        except StepFailed as failed:
            tried = validation if failed.validating and validation is not None else batch
            self.record.set_fact("failure", facts_of(failed, model, tried))
            return 0
        except CannotIsolate as reason:
            self._refused = str(reason)
            return 0
        bench, pace = self._bench(model, optimizer, batch), (self._clock() - began) / steps
        self._measure("activity", pace, functools.partial(activations.measure, bench(0)))
        if call is not None:
            look = functools.partial(dependence.measure, bench(0), call, first_is_batch=first_is_batch)
            self._measure("batch_dependence", pace, look)
        self._measure("future", pace, functools.partial(future.measure, bench(0)))
        self._measure("one_batch_fit", one_batch.STEPS * pace, functools.partial(one_batch.measure, bench(steps)))
        return steps

    def _measure(self, quantity: str, worth: float, look: Callable[[], None]) -> None:
        """Measure something, if there is time."""
        if self._clock() + worth > self._until:
            self._switch_off(quantity, OVER)
            return
        self._containment.run(f"probe {quantity}", self._look, quantity, look)

    def _look(self, quantity: str, look: Callable[[], None]) -> None:
        try:
            with unheard():
                look()
        except (CannotIsolate, NotImplementedError) as reason:
            self._switch_off(quantity, str(reason))
        except StepFailed as failed:
            self._switch_off(quantity, f"in evaluation mode the model raises {type(failed.error).__name__}")

    def _switch_off(self, quantity: str, reason: str) -> None:
        self.record.set_fact("switched_off", {**self.record.facts.get("switched_off", {}), quantity: reason})

    def _bench(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> Callable[[int], Bench]:
        batches = {"train": [batch], "val": []}
        return lambda step: Bench(
            model, batches.__getitem__, "", self.record, step, self._settings.probe_memory, (optimizer,)
        )

    def _note_run(self, steps: int, samples: int) -> None:
        facts: dict[str, Any] = {"framework": self.record.facts["framework"], "steps": steps, "epochs": 0,
                 "samples": steps * samples, "train_samples": None, "finished": True, "ended_by": ""}  # fmt: skip
        self.record.set_fact("run", facts)

    def _fault(self, what: str, error: Exception) -> None:
        self.record.add_fault(fault_of(what, error, 0))


def _untried(reason: str) -> Report:
    return Report("not-judged", not_checked=dict.fromkeys(PREFLIGHT, reason), facts={"subject": SUBJECT})


def _of_no_run(report: Report) -> Report:
    """The report without what only a run has: curves, what regularises it."""
    facts = {topic: known for topic, known in report.facts.items() if topic in FACTS}
    return replace(report, facts=facts, figures={})
