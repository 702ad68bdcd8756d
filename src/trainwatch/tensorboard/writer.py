"""Curves and findings into TensorBoard: through the trainer's own writer, or into an event file of our own.

A second event file in the directory of the trainer's own hides what the trainer writes from TensorBoard's slow loader.
So where the trainer has a writer, that one is used; otherwise a sub-directory, which is a run of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import os
import socket
import time
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainwatch.diagnosis import Diagnosis
from trainwatch.report import Report
from trainwatch.reports.drawing import png
from trainwatch.reports.wording import settled
from trainwatch.tensorboard import snapshot, summaries, tags

REPORT = "trainwatch/report"
GRADIENTS = "trainwatch/gradients"
SNAPSHOTS = 64  # of the report in one run
SUBDIRECTORY = "trainwatch"
_count = itertools.count()  # of event files of this process


def open_sink(directory: str | Path | None, writer: Any = None) -> TensorBoardSink | None:
    """A sink through the trainer's writer, else into a sub-directory of a directory, else none.

    Args:
        directory: Where trainwatch keeps the run, or None.
        writer: The trainer's own writer, or None.

    Raises:
        ImportError: TensorBoard is not installed.
        TypeError: `writer` is no writer of torch or tensorboardX.
    """
    if writer is not None:
        return TensorBoardSink(writer)
    return None if directory is None else TensorBoardSink.open(Path(directory) / SUBDIRECTORY)


class TensorBoardSink:
    """Writes what trainwatch has to say as TensorBoard events, flushed after each finding.

    TensorBoard's fast loader drops all earlier events of a tag at an event whose step does not rise, hence:
    a curve's point that does not rise is left out, a report moves to the next free step.

    Args:
        writer: A ``SummaryWriter`` of torch or tensorboardX, such as Lightning's ``logger.experiment``; `close` leaves
            it open.

    Raises:
        ImportError: TensorBoard is not installed.
        TypeError: `writer` is no such writer.
    """

    def __init__(self, writer: Any) -> None:
        _require_tensorboard()
        if not callable(getattr(writer, "_get_file_writer", None)):
            raise TypeError(f"expected a SummaryWriter of torch or tensorboardX, got {type(writer).__name__}")
        self._writer = writer
        self._steps: dict[str, int] = {}  # tag -> step of its last event
        self._charts: dict[str, list[str]] = {}
        self._snapshots = 0
        self._due = 1
        self._closed = False

    @classmethod
    def open(cls, directory: str | Path) -> TensorBoardSink:
        """A sink into an event file of its own.

        Args:
            directory: Where the file goes; made if missing. It should hold no other event file.

        Raises:
            ImportError: TensorBoard is not installed.
        """
        _require_tensorboard()
        return cls(_OwnWriter(directory))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one point a curve; TensorBoard cannot draw what is not finite, so that is left out.

        Args:
            step: Optimiser step.
            values: Tag -> value.
        """
        drawn = {t: v for t, v in values.items() if math.isfinite(v) and step > self._steps.get(t, -1)}
        if drawn:
            self._steps.update(dict.fromkeys(drawn, step))
            self._add(summaries.scalars(drawn), step)

    def layout(self, train_tags: Sequence[str], val_tags: Sequence[str], gradient_tags: Sequence[str] = ()) -> None:
        """Lay out charts that show training and validation in one picture.

        A run has one layout: it replaces one that the trainer wrote into the same run. The same tags are written once.

        Args:
            train_tags: Curves of the training loss.
            val_tags: Curves of the validation loss.
            gradient_tags: Curves of gradient norms.
        """
        charts = {"training and validation loss": [*train_tags, *val_tags], "gradient norm": list(gradient_tags)}
        if any(charts.values()) and charts != self._charts:
            self._charts = charts
            self._add(summaries.layout(charts), self._rising(summaries.LAYOUT_TAG, 0))

    def wants_snapshot(self, step: int, changed: bool) -> bool:
        """Whether `findings` should be called now: the verdict changed, or twice as many steps as last time are done.

        Each report is cumulative, so that few are enough; the last of `SNAPSHOTS` is kept for the end of the run.

        Args:
            step: Optimiser step.
            changed: The verdict differs from the last one.
        """
        return self._snapshots < SNAPSHOTS - 1 and (changed or step >= self._due)

    def findings(
        self,
        step: int,
        report: Report,
        resolved: Sequence[tuple[Diagnosis, int]] = (),
        unconfirmed: Collection[str] = (),
    ) -> None:
        """Write the whole report, as Markdown for the text panel and as JSON for the tab, and flush.

        Args:
            step: Optimiser step.
            report: The report so far.
            resolved: What was reported and is gone, with the step at which it went.
            unconfirmed: Codes of what one look found and no second one has seen yet.
        """
        self._snapshots += 1
        self._due = max(2 * step, 1)
        step = self._rising(REPORT, step)
        said = settled(replace(report, figures={}))  # only words are read back from JSON: figures are large
        self._add(summaries.markdown(REPORT, said.to_markdown()), step)
        self._add(summaries.snapshot(tags.FINDINGS, snapshot.findings_json(said, resolved, unconfirmed)), step)
        self._add(summaries.snapshot(tags.FIGURES, snapshot.figures_json(report)), step)
        self.flush()

    def picture(self, step: int, report: Report) -> None:
        """Draw the gradients over depth and time, for which TensorBoard itself has no chart.

        Args:
            step: Optimiser step.
            report: The report at the end, since drawing takes a good part of a second; it may lack that figure.
        """
        if (figure := report.figures.get("gradients")) is not None:
            self._add(summaries.picture(GRADIENTS, png(figure)), self._rising(GRADIENTS, step))
            self.flush()

    def flush(self) -> None:
        """Make events visible to TensorBoard; else they wait up to two minutes, as in tensorboardX they may still."""
        if (files := self._writer._get_file_writer()) is not None:
            files.flush()

    def close(self) -> None:
        """Flush, and close what was opened here. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            self.flush()
            if isinstance(self._writer, _OwnWriter):
                self._writer.close()

    def let_go(self) -> None:
        """Close what was opened here, whatever became of it."""
        self._closed = True
        if isinstance(self._writer, _OwnWriter):
            with contextlib.suppress(OSError):
                self._writer.close()

    def _rising(self, tag: str, step: int) -> int:
        self._steps[tag] = max(step, self._steps.get(tag, -1) + 1)
        return self._steps[tag]

    def _add(self, summary: Any, step: int) -> None:
        files = self._writer._get_file_writer()
        if files is None:  # Lightning's stand-in on all processes but the first
            return
        if type(files).__module__.startswith("tensorboardX."):  # has classes of its own for the same format
            own = importlib.import_module("tensorboardX.proto.summary_pb2").Summary
            summary = own.FromString(summary.SerializeToString())
        files.add_summary(summary, step)


class _OwnWriter:
    """An event file of our own, with what `TensorBoardSink` uses of torch's ``SummaryWriter``.

    Each event is written at once, by the thread that trains: what fails is raised where it is contained, and a forked
    process inherits neither a thread nor a buffer that it would write once more.
    """

    def __init__(self, directory: str | Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        Path(directory).mkdir(parents=True, exist_ok=True)
        unique = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_count)}"
        file = (Path(directory) / f"events.out.tfevents.{unique}").open("xb", buffering=0)
        weakref.finalize(self, file.close)  # a sink that is given up after a fault is closed by nobody
        self._events = RecordWriter(file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def _get_file_writer(self) -> _OwnWriter:
        return self

    def add_summary(self, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Any) -> None:
        self._events.write(event.SerializeToString())

    def flush(self) -> None:
        """Nothing waits to be written."""

    def close(self) -> None:
        self._events.close()


def _require_tensorboard() -> None:
    try:
        importlib.import_module("tensorboard.compat.proto")
    except ImportError as error:
        raise ImportError(f"writing to TensorBoard needs it installed: pip install tensorboard ({error})") from error
