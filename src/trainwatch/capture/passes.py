"""Validation passes: which loss calls belong together, what they say, and which stream a pass continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.interception import LossCall
from trainwatch.capture.samples import SampleView, alike, fingerprints, held_bytes, samples_in, view_samples
from trainwatch.capture.scores import EvenSubset
from trainwatch.record import RunRecord, joining

HELD_BYTES = 32 << 20  # of predictions and targets, until they are evaluated together
COLUMNS = 256  # columns of the per-sample matrices
MOST_SAMPLES = 1 << 20  # per pass at one number a sample; beyond, one number a batch
MOST_STREAMS = 16
ENOUGH = 16  # samples of a stream that would be known if it were over training data, before it is judged
UNLIKE = 0.9  # share of different samples in a stream whose samples tell where they are from
KNOWN = 0.9  # share of a stream's samples that are training samples, where it is over training data
TRAIN_EVAL = "train-eval"  # kind (and, where the user says so, name) of a stream over training data
FINGERPRINTS = 4096  # samples of a pass that are compared with those of training batches
PER_BATCH = 256
PRINTED_PASSES = 8  # of a run: after a few passes it is known what each stream is
KNOWN_TRAIN = 20_000
FOLLOWED = 4096  # predictions of a pass that are compared with those of the pass before


@dataclass(slots=True)
class Pass:
    """One validation pass while it runs.

    Predictions and targets are held until `HELD_BYTES` of alike batches have come together, and then evaluated at once:
    a handful of operations a pass instead of a handful a batch.

    Attributes:
        step: Optimiser steps taken before it.
        name: Stream that the user or the trainer named; None where it must be found out.
        position: How many passes came before it in this stretch without training.
        source: What tells its loader from others.
        criterion: Name of the loss, and `arguments`, its further arguments.
        values: Loss of each batch, as the loop saw it.
        counts: Samples of each batch.
        others: Further losses computed on the batches, by name.
        train_mode, with_grad: Batches computed in training mode, and with gradients.
        modules: Mode-sensitive modules seen in training mode, in order.
        root_in_train_mode: The whole model was in training mode. The next two: a module that holds a mode-sensitive one
            was; a batch norm was.
        prints: Fingerprints of samples.
        scores: Of yes / no labels.
    """

    step: int
    name: str | None
    position: int
    source: Any = None
    criterion: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    values: list[torch.Tensor] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    views: list[SampleView] = field(default_factory=list)
    others: dict[str, list[tuple[torch.Tensor, int]]] = field(default_factory=dict)
    train_mode: int = 0
    with_grad: int = 0
    modules: dict[str, None] = field(default_factory=dict)
    root_in_train_mode: bool = False
    parent_in_train_mode: bool = False
    norm_in_train_mode: bool = False
    prints: list[torch.Tensor] = field(default_factory=list)
    scores: EvenSubset = field(default_factory=EvenSubset)
    _held: list[tuple[LossCall, int]] = field(default_factory=list)
    _bytes: int = 0
    _alike: Any = None
    _viewed: int = 0

    def add(self, call: LossCall) -> None:
        """Take a batch in."""
        count = samples_in(call)
        if not count:
            return
        self.add_value(call.output.detach(), count)
        key, size = alike(call), held_bytes(call)
        if self._held and (key != self._alike or self._bytes + size > HELD_BYTES):
            self.evaluate()
        self._alike = key
        self._bytes += size
        self._held.append((call, count))

    def add_value(self, value: torch.Tensor, count: int) -> None:
        """Take in a batch of which nothing is known but its loss."""
        self.values.append(value if value.ndim == 0 else value.float().mean())
        self.counts.append(count)

    def add_other(self, call: LossCall) -> None:
        """Take in a further loss on a batch."""
        value = call.output.detach()
        value = value if value.ndim == 0 else value.float().mean()
        self.others.setdefault(call.name, []).append((value, samples_in(call)))

    def add_prints(self, batch: torch.Tensor) -> None:
        """Remember fingerprints of the batch's samples."""
        if len(self.prints) * PER_BATCH < FINGERPRINTS:
            self.prints.append(fingerprints(batch, PER_BATCH))

    def evaluate(self) -> None:
        """Evaluate the batches held so far."""
        if self._held:
            calls, counts = zip(*self._held, strict=True)
            view = view_samples(calls, counts, self._viewed)
            if view.scores is not None:
                self.scores.add(view.scores)
                view.scores = None
            self.views.append(view)
            self._viewed += sum(counts)
        self._held, self._bytes = [], 0


@dataclass(slots=True)
class Stream:
    """Passes over the same data."""

    name: str
    samples: int
    batches: int
    ordered: int  # hash of the targets in their order
    unordered: int
    source: Any
    position: int
    kind: str = "val"
    passes: int = 0
    paired: bool = True
    scores: tuple[int, NDArray[Any]] | None = None  # step and scores of the last pass, until they are written
    predicted: NDArray[Any] | None = None  # classes that the last pass predicted, of samples at even distances
    facts: dict[str, Any] = field(default_factory=dict)


class PassBook:
    """Gives finished passes to their streams and writes them into the record."""

    def __init__(self, record: RunRecord, reads: DeferredReads, primary: str | None) -> None:
        self.record, self.reads, self.wanted = record, reads, primary
        self.streams: dict[str, Stream] = {}
        self.train_prints: set[int] = set()
        self.train_samples: int | None = None
        self.finished = 0

    @property
    def wants_prints(self) -> bool:
        """Whether passes are still to be compared with training batches."""
        return self.finished < PRINTED_PASSES

    def know_training_batch(self, batch: torch.Tensor) -> None:
        """Remember fingerprints of a training batch, to recognise training data in a validation pass."""
        if len(self.train_prints) < KNOWN_TRAIN:
            self.reads.read([fingerprints(batch, PER_BATCH)], lambda a: self.train_prints.update(a[0].tolist()))

    def close(self, done: Pass) -> None:
        """Reduce a finished pass on its device and send the result on its way to the record."""
        if not done.values:
            return
        done.evaluate()
        counts = np.asarray(done.counts, np.float64)
        parts: dict[str, torch.Tensor] = {"loss": torch.stack([v.float() for v in done.values])}
        views = done.views if sum(v.count for v in done.views) == sum(done.counts) else []
        if int(counts.sum()) <= MOST_SAMPLES:
            for name in ("losses", "correct"):
                if (whole := _joined(views, name)) is not None:
                    parts[name] = _columns(whole)
        truth, predicted = _joined(views, "truth"), _joined(views, "predicted")
        if truth is not None and predicted is not None and len({v.classes for v in views}) == 1:
            parts["confusion"] = _confusion(truth, predicted, views[0].classes)
            parts["predicted"] = _followed(truth, predicted, views[0].classes)
        if views and (scores := done.scores.rows()) is not None:
            parts["scores"] = scores
        if views and all(v.variances is not None for v in views):
            parts["variances"] = torch.stack([v.variances for v in views if v.variances is not None])
        if views and all(v.errors is not None for v in views):
            parts["errors"] = torch.stack([v.errors for v in views if v.errors is not None])
        if views and all(v.moments is not None for v in views):
            parts["moments"] = torch.stack([v.moments for v in views if v.moments is not None])
        if views and all(v.hashes is not None for v in views):
            parts["hashes"] = torch.stack([v.hashes for v in views if v.hashes is not None]).sum(0)
        if done.prints:
            parts["prints"] = torch.cat(done.prints)
        for name, calls in done.others.items():
            parts[f"other:{name}"] = torch.stack([value.float() for value, _ in calls])
        seen = [v.count for v in views]
        done.values, done.views, done.prints, done.scores = [], [], [], EvenSubset()  # what they say is in the parts
        names = list(parts)

        def arrived(arrays: list[NDArray[Any]]) -> None:
            values = dict(zip(names, arrays, strict=True))
            if "variances" in values:  # of the views, each the variance within it
                values["spread"] = np.sqrt(np.average(values["variances"], axis=0, weights=seen))
            if "errors" in values:
                values["error"] = _error(values["errors"], seen)
            if "moments" in values:
                values["moments"] = joining.moments(list(values["moments"]), np.asarray(seen))
            self._arrived(done, counts, values)

        self.reads.read(list(parts.values()), arrived)

    def _arrived(self, done: Pass, counts: NDArray[Any], parts: dict[str, NDArray[Any]]) -> None:
        losses = parts["loss"].astype(np.float64)
        samples = int(counts.sum())
        ordered, unordered = (int(h) for h in parts.get("hashes", np.zeros(2, np.int64)))
        stream = self._stream(done, samples, len(counts), ordered, unordered)
        if stream is None:
            return
        paired_again = stream.ordered == ordered and stream.samples == samples
        stream.paired = stream.paired and paired_again
        churn = _churn(stream, parts.get("predicted"))
        stream.passes += 1
        self._recognise(stream, parts.get("prints"))
        key, step = stream.name, done.step
        provenance = {"criterion": done.criterion, "pass": stream.passes - 1}
        put = self.record.append
        put("val_loss", key, step, _finite(np.asarray(np.average(losses, weights=counts))), provenance)
        matrix = {"val_sample_loss": parts.get("losses", _few(losses)), "val_sample_correct": parts.get("correct")}
        sizes = _sizes(samples) if "losses" in parts else _few(counts)
        for quantity, row in matrix.items():
            if row is not None and self.record.fits(quantity, key, row):
                put(quantity, key, step, _finite(row) if quantity == "val_sample_loss" else row)
        if self.record.series("val_group_size", key) is None:
            put("val_group_size", key, step, sizes)
        self._put_alike("val_confusion", key, step, parts.get("confusion"))
        self._put_alike("val_spread", key, step, parts.get("spread"))
        self._put_alike("val_error", key, step, parts.get("error"))
        self._put_alike("val_target_moments", key, step, parts.get("moments"))
        if churn is not None:
            put("val_churn", key, step, churn)
        stream.scores = (step, parts["scores"]) if "scores" in parts else None
        if stream.passes & (stream.passes - 1) == 0:
            self._put_scores(stream)
        put("val_train_mode", key, step, done.train_mode / len(counts))
        put("val_with_grad", key, step, done.with_grad / len(counts))
        for name, calls in done.others.items():
            values, weights = parts[f"other:{name}"], [n for _, n in calls]
            put("val_loss", f"{key}:{name}", step, _finite(np.asarray(np.average(values, weights=weights))))
        self._note(stream, done)
        self.finished += 1

    def finish(self) -> None:
        """The run is over: write the scores of the last passes."""
        for stream in self.streams.values():
            self._put_scores(stream)

    def _put_scores(self, stream: Stream) -> None:
        """Write the scores of a stream's last pass: those of every pass would be too much to keep."""
        step, scores = stream.scores or (0, None)
        stream.scores = None
        self._put_alike("val_scores", stream.name, step, scores)

    def _put_alike(self, quantity: str, key: str, step: int, row: NDArray[Any] | None) -> None:
        """Write a row, unless its shape differs from those before it."""
        if row is not None and self.record.fits(quantity, key, row):
            self.record.append(quantity, key, step, row)

    def _stream(self, done: Pass, samples: int, batches: int, ordered: int, unordered: int) -> Stream | None:
        """The stream that a pass continues, by name, by its data, by its source, or by its place; else a new one."""
        known = [s for s in self.streams.values() if done.name is None or s.name == done.name]
        tests = (
            lambda s: done.name is not None,
            lambda s: (s.samples, s.unordered) == (samples, unordered) and unordered != 0,
            lambda s: done.source is not None and s.source == done.source,
            lambda s: unordered == 0 and (s.samples, s.batches) == (samples, batches) and s.position == done.position,
            lambda s: (s.samples, s.batches, s.position) == (samples, batches, done.position) and done.source is None,
        )
        for test in tests:
            for stream in known:
                if test(stream):
                    return stream
        if len(self.streams) >= MOST_STREAMS:
            return None
        taken = sum(1 for s in self.streams.values() if s.name == "val" or s.name.startswith("val/"))
        name = done.name or ("val" if taken == 0 else f"val/{taken}")
        self.streams[name] = Stream(name, samples, batches, ordered, unordered, done.source, done.position)
        if name == TRAIN_EVAL:
            self.streams[name].kind = TRAIN_EVAL
        return self.streams[name]

    def _recognise(self, stream: Stream, prints: NDArray[Any] | None) -> None:
        """Call a stream ``train-eval`` where its samples are those of the training batches."""
        if prints is None or not self.train_prints or stream.name == TRAIN_EVAL:
            return
        mine = set(prints.tolist())
        expected = len(mine) * min(1.0, len(self.train_prints) / max(1, self.train_samples or len(self.train_prints)))
        expected = min(expected, len(self.train_prints))
        if expected < min(ENOUGH, len(mine)):
            return  # too little of the training data is known yet
        # Rows of a few categories recur by chance in any set; of the training set nearly all are known.
        known = len(mine & self.train_prints) >= max(3.0, KNOWN * expected - expected**0.5)
        stream.kind = TRAIN_EVAL if known and len(mine) >= UNLIKE * len(prints) else "val"

    def _note(self, stream: Stream, done: Pass) -> None:
        known = stream.facts
        modules = list(dict.fromkeys([*known.get("modules_in_train_mode", []), *done.modules]))
        stream.facts = {
            "kind": stream.kind,
            "criterion": done.criterion,
            "arguments": done.arguments,
            "samples": stream.samples,
            "batches": stream.batches,
            "paired": stream.paired,
            "shuffled": None if not stream.ordered else not stream.paired,
            "modules_in_train_mode": modules[:50],
            "parent_in_train_mode": done.parent_in_train_mode or known.get("parent_in_train_mode", False),
            "root_in_train_mode": done.root_in_train_mode or known.get("root_in_train_mode", False),
            "batch_norm_in_train_mode": done.norm_in_train_mode or known.get("batch_norm_in_train_mode", False),
            "passes": stream.passes,
        }
        primary = self.primary()
        facts = {s.name: {**s.facts, "primary": s.name == primary} for s in self.streams.values() if s.facts}
        self.record.set_fact("validation", facts)

    def primary(self) -> str | None:
        """The stream that verdicts are reached on: the one asked for, else that of most passes over validation data."""
        if self.wanted in self.streams:
            return self.wanted
        candidates = [s for s in self.streams.values() if s.kind == "val"]
        return max(candidates, key=lambda s: s.passes).name if candidates else None

    def primary_position(self) -> int:
        """The place of the primary stream among the passes of a stretch without training; 0 until one is known."""
        name = self.primary()
        return self.streams[name].position if name is not None else 0


def _columns(values: torch.Tensor) -> torch.Tensor:
    """Means over at most `COLUMNS` runs of neighbouring samples, shape (columns,)."""
    n = len(values)
    if n <= COLUMNS:
        return values
    group = torch.arange(n, device=values.device) * COLUMNS // n
    absent = torch.isnan(values)
    zeros = torch.zeros(COLUMNS, device=values.device)
    total = zeros.scatter_add(0, group, torch.where(absent, 0.0, values))
    return total / zeros.scatter_add(0, group, (~absent).float())


def _sizes(n: int) -> NDArray[Any]:
    if n <= COLUMNS:
        return np.ones(n)
    return np.bincount(np.arange(n) * COLUMNS // n, minlength=COLUMNS)


def _few(values: NDArray[Any]) -> NDArray[Any]:
    """One number a batch, thinned to `COLUMNS` by taking every k-th: where nothing is known per sample."""
    return np.asarray(values[np.linspace(0, len(values) - 1, min(len(values), COLUMNS)).astype(int)])


def _joined(views: Sequence[SampleView], name: str) -> torch.Tensor | None:
    rows = [getattr(v, name) for v in views]
    return torch.cat(rows) if rows and all(r is not None for r in rows) else None


def _confusion(truth: torch.Tensor, predicted: torch.Tensor, classes: int) -> torch.Tensor:
    valid = (truth >= 0) & (truth < classes)
    cell = torch.where(valid, truth * classes + predicted, classes * classes)
    counts = torch.zeros(classes * classes + 1, dtype=torch.long, device=cell.device)
    return counts.scatter_add_(0, cell, torch.ones_like(cell))[:-1].reshape(classes, classes)


def _error(views: NDArray[Any], counts: Sequence[int]) -> NDArray[Any]:
    """Of neighbouring samples, shape (views, 4), for all: (mean, root mean square, largest, median) absolute error."""
    mean, square, _, median = np.average(views, axis=0, weights=counts)
    return _finite(np.array([mean, np.sqrt(square), views[:, 2].max(), median]))


def _followed(truth: torch.Tensor, predicted: torch.Tensor, classes: int) -> torch.Tensor:
    """Predicted classes at even distances, shape (at most `FOLLOWED`,); -1 where there is nothing to predict."""
    some = slice(None, None, max(1, -(-len(truth) // FOLLOWED)))
    valid = (truth[some] >= 0) & (truth[some] < classes)
    return torch.where(valid, predicted[some], -1).to(torch.int32)


def _churn(stream: Stream, predicted: NDArray[Any] | None) -> float | None:
    """Share of predictions that are others than in the pass before; None where the samples are not the same."""
    before, stream.predicted = stream.predicted, predicted if stream.paired else None
    if before is None or stream.predicted is None or before.shape != stream.predicted.shape:
        return None
    known = before >= 0
    return float((before != stream.predicted)[known].mean()) if known.any() else None


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    """In the record infinity means "not finite"; NaN would read as absent. A sample without a position stays absent."""
    return np.where(np.isinf(values), np.inf, values) if values.ndim else np.where(np.isfinite(values), values, np.inf)
