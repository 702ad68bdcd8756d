"""Where a running watch speaks: notices on the terminal, curves and findings in TensorBoard, the report at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainwatch.diagnosis import Diagnosis
from trainwatch.record import RunRecord
from trainwatch.report import Report
from trainwatch.reports.notice import all_well, notice
from trainwatch.reports.terminal import above_bars, tell
from trainwatch.tensorboard.writer import TensorBoardSink, open_sink


class Outlets:
    """Everything that a watch prints or draws.

    Args:
        directory: Where an event file is opened, if the trainer has no writer of its own.
        writer: The trainer's own TensorBoard writer, or None.
        quiet: Print nothing.
    """

    def __init__(self, directory: Path | None, writer: Any, *, quiet: bool) -> None:
        self._directory, self._writer, self._quiet = directory, writer, quiet
        self._sink: TensorBoardSink | None = None
        self._drawn: dict[tuple[str, str], int] = {}  # series -> last step drawn
        self._judged = False
        self._verdict: tuple[list[str], set[str]] = ([], set())  # codes found, those among them not reported yet
        self._reported: set[str] = set()
        self._lost: dict[str, str] = {}  # what could not be written, and why
        self._resolved: dict[str, tuple[Diagnosis, int]] = {}

    def open(self) -> None:
        """Open the event file, or take the trainer's own writer."""
        parent = None if self._directory is None else self._directory.parent  # the sink makes its own sub-directory
        self._sink = open_sink(parent, self._writer)

    def say(self, state: str, diagnosis: Diagnosis, step: int) -> None:
        """Print one line for a finding that was first reported or is resolved."""
        if state == "resolved":
            self._reported.discard(diagnosis.code)
            self._resolved[diagnosis.code] = (diagnosis, step)
        else:
            self._reported.add(diagnosis.code)
        if not self._quiet:
            tell(f"trainwatch: {notice(diagnosis, step, resolved=state == 'resolved')}")

    def lose(self, part: str, why: str, step: int) -> None:
        """Say, once, that the disk fails: one line, whatever it fails next."""
        if part == "tensorboard" and self._sink is not None:
            self._sink.let_go()
            self._sink = None
        if str(self._directory) not in why:
            why = f"cannot write into {self._directory}: {why}"
        first = not self._lost
        self._lost.setdefault(part, why)
        if first and part != "report files" and not self._quiet:
            tell(f"trainwatch: step {step:,}  {why}. The run is still watched, and its report comes at the end")

    def curves(self, record: RunRecord, step: int) -> None:
        """One point a flush for each loss, the learning rates and the gradient norm of all parameters together."""
        sink = self._sink
        if sink is None:
            return
        points: dict[str, float] = {}
        for quantity in ("train_loss", "val_loss", "lr"):
            for key in record.keys(quantity):
                if (values := self._new(record, quantity, key)) is not None:
                    points[f"trainwatch/{quantity}/{key}"] = float(np.mean(values))
        for key in record.keys("grad_norm"):
            if (norms := self._new(record, "grad_norm", key)) is not None:
                with np.errstate(over="ignore"):  # of a run that was thrown off
                    total = np.sqrt(np.nansum(np.square(norms), axis=1))
                points[f"trainwatch/grad_norm/{key}"] = float(np.mean(total))
        if points:
            sink.scalars(step, points)
            tags = {q: [f"trainwatch/{q}/{k}" for k in record.keys(q)] for q in ("train_loss", "val_loss", "grad_norm")}
            sink.layout(tags["train_loss"], tags["val_loss"], tags["grad_norm"])

    def look(self, step: int, report: Report) -> None:
        """Where the first verdict is that all is well, say so."""
        if not self._judged and report.verdict != "not-judged":
            self._judged = True
            if report.ok and not self._quiet:
                tell(f"trainwatch: {all_well(report, step)}")

    def draw(self, step: int, report: Report) -> None:
        """Draw the findings, where they changed or are due."""
        codes = [d.code for d in report.findings()]
        verdict = codes, set(codes) - self._reported
        if self._sink is not None and self._sink.wants_snapshot(step, verdict != self._verdict):
            self._sink.findings(step, report, tuple(self._resolved.values()), verdict[1])
        self._verdict = verdict

    def finish(self, step: int, report: Report) -> None:
        """Draw the last findings and close."""
        if self._sink is not None:
            self._sink.findings(step, report, tuple(self._resolved.values()))
            self._sink.picture(step, report)
            self._sink.close()

    def show(self, report: Report) -> None:
        """Print the report and where its files are."""
        if self._quiet:
            return
        with above_bars():
            report.print()
            if self._directory is not None:
                print(self._whereabouts())  # noqa: T201 - to standard output, as the report

    def _whereabouts(self) -> str:
        if "report files" in self._lost:
            return f"The report could not be written to {self._directory}: {self._lost['report files']}"
        if self._lost:
            return f"Report: {self._directory}. Not all of the run is recorded there: {next(iter(self._lost.values()))}"
        return f"Record and report: {self._directory}"

    def _new(self, record: RunRecord, quantity: str, key: str) -> Any:
        series = record.series(quantity, key)
        if series is None or not len(series):
            return None
        fresh = series.steps > self._drawn.get((quantity, key), -1)
        self._drawn[quantity, key] = series.last_step
        return series.values[fresh] if fresh.any() else None
