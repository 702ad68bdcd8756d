"""What validation batches say: losses, predictions and scores per sample, without waiting for the device."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainwatch.capture.classes import OVER_CLASSES, PER_LABEL, class_indices, labels_of
from trainwatch.capture.interception import ORIGINAL, LossCall
from trainwatch.capture.scores import scored
from trainwatch.capture.target_moments import moments

MULTIPLIER = 6364136223846793005  # odd, and its powers look random: Knuth, "Seminumerical Algorithms", 3.3.4
MOST_ERRORS = 4096  # entries that the median is taken of
MOST_CONFUSED = 64  # classes in a confusion matrix
REGRESSION = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
LIKELIHOODS = ("gaussian_nll_loss", "poisson_nll_loss")


@dataclass(slots=True)
class SampleView:
    """Neighbouring samples of a validation pass, on their device.

    Attributes:
        count: Samples.
        losses: Loss per sample, shape (count,), or None where it cannot be had.
        correct: 1.0 where the prediction is right, shape (count,).
        truth, predicted: Class indices, shape (positions,), for the confusion matrix.
        classes: Number of classes of `truth`.
        scores: Yes / no labels: logit and target, shape (count, labels, 2); see `scored`.
        variances: Regression: variance over the samples of outputs and of targets, shape (2,).
        errors: Regression: of output minus target the mean absolute value, the mean square, the largest and the median
            absolute value (of entries at even distances), shape (4,).
        moments: Likelihoods of numbers: the targets' `target_moments.moments`, shape (5,).
        hashes: Order-dependent and order-free hash of the targets, shape (2,), int64.
    """

    count: int
    losses: torch.Tensor | None = None
    correct: torch.Tensor | None = None
    truth: torch.Tensor | None = None
    predicted: torch.Tensor | None = None
    classes: int = 0
    scores: torch.Tensor | None = None
    variances: torch.Tensor | None = None
    errors: torch.Tensor | None = None
    moments: torch.Tensor | None = None
    hashes: torch.Tensor | None = None


def held_bytes(call: LossCall) -> int:
    """Bytes that keeping a call's predictions and targets costs."""
    return sum(t.numel() * t.element_size() for t in (call.input, call.target) if t is not None)


def alike(call: LossCall) -> tuple[Any, ...]:
    """Calls with equal keys can be evaluated as one, on their concatenated predictions and targets."""
    further = [*call.positional, *(v for k, v in (call.keywords or {}).items() if k not in ("input", "target"))]
    shapes = [(t.shape[1:], t.dtype, t.device) if t is not None and t.ndim else None for t in (call.input, call.target)]
    return call.name, *shapes, *(id(v) if isinstance(v, torch.Tensor) else v for v in further)


def view_samples(calls: Sequence[LossCall], counts: Sequence[int], offset: int) -> SampleView:
    """Everything that can be told about the samples of alike evaluations of a loss, at the price of one.

    Args:
        calls: The evaluations.
        counts: Samples of each.
        offset: Samples of the pass seen before them; part of the order-dependent hash.
    """
    first, count = calls[0], sum(counts)
    with torch.no_grad():
        if first.input is None or first.target is None or not first.input.ndim or not first.target.ndim:
            return SampleView(count)
        predictions = torch.cat([c.input.detach() for c in calls if c.input is not None])
        target = torch.cat([c.target.detach() for c in calls if c.target is not None])
        view = SampleView(count, hashes=target_hashes(target, offset))
        if first.known:
            view.losses = losses_per_sample(first, predictions, target)
        _judge_predictions(view, first, predictions, target)
        view.scores = scored(first, predictions, target)
        if first.sort in REGRESSION and predictions.numel() == target.numel():
            rows = [t.reshape(len(t), -1).float() for t in (predictions, target)]
            view.variances = torch.stack([r.var(0, unbiased=False).mean() for r in rows])
            view.errors = _errors(*rows)
        if first.sort in LIKELIHOODS:
            view.moments = moments(target.reshape(1, len(target), -1))[0]
        return view


def _errors(predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    away = (predictions - target).abs().reshape(-1)
    some = away[:: max(1, -(-len(away) // MOST_ERRORS))]
    return torch.stack([away.mean(), away.square().mean(), away.max(), some.median()])


def target_hashes(target: torch.Tensor, offset: int) -> torch.Tensor:
    """Two int64 hashes of a batch of targets, the first of which depends on their order."""
    flat = target.reshape(-1)
    if flat.is_floating_point():
        flat = flat.float().view(torch.int32)
    bits = flat.long() * 2654435761 + 40503
    bits = bits ^ (bits >> 13)
    place = torch.arange(offset + 1, offset + 1 + len(bits), device=bits.device) * 1099511628211
    mixed = bits * bits
    return torch.stack([(mixed * place).sum(), mixed.sum()])


def fingerprints(batch: torch.Tensor, most: int) -> torch.Tensor:
    """One int64 number per sample that hardly any other has: a polynomial of its bits, modulo 2 to the 64."""
    rows = batch.detach()[:most]
    rows = rows.flatten(1) if rows.ndim > 1 else rows[:, None]
    bits = rows.float().view(torch.int32) if rows.is_floating_point() else rows
    powers = torch.full((rows.shape[1],), MULTIPLIER, device=rows.device).cumprod(0)
    return (bits.long() * powers).sum(1)


def samples_in(call: LossCall) -> int:
    """Number of samples that a loss was computed over."""
    return next((int(t.shape[0]) for t in (call.target, call.input) if t is not None and t.ndim), 1)


def loss_again(
    name: str, predictions: torch.Tensor, target: torch.Tensor | None, *args: Any, **named: Any
) -> torch.Tensor:
    """A loss of the run as torch computes it; that shapes do not match the run's own call was warned of."""
    if target is None or predictions.shape == target.shape or name not in REGRESSION:
        return ORIGINAL[name](predictions, target, *args, **named)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return ORIGINAL[name](predictions, target, *args, **named)


def losses_per_sample(call: LossCall, predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor | None:
    """Loss of each sample under the functional loss of a call, shape (samples,); None where it has no such parts."""
    if call.nameless:
        return None
    arguments = {k: v for k, v in call.arguments.items() if k not in ("reduction", "size_average", "reduce")}
    each = loss_again(call.name, predictions, target, **arguments, reduction="none")
    if each.ndim == 0 or each.shape[0] != target.shape[0]:
        return None
    each = each.float().reshape(each.shape[0], -1)
    if call.name in OVER_CLASSES and not target.is_floating_point():
        # Ignored positions count neither above nor below the line.
        kept = (target != arguments.get("ignore_index", -100)).reshape(each.shape[0], -1)
        each, kept_count = each.sum(1, keepdim=True), kept.sum(1, keepdim=True)
        each = each / kept_count  # a sample without any position: 0 / 0, absent
    return each.mean(1)


def _judge_predictions(view: SampleView, call: LossCall, predictions: torch.Tensor, target: torch.Tensor) -> None:
    if call.sort in OVER_CLASSES:
        dimension = 1 if predictions.ndim > 1 else 0
        classes = int(predictions.shape[dimension])
        predicted, truth = predictions.argmax(dimension), class_indices(call.sort, target)
        if predicted.shape != truth.shape or classes < 2:
            return
        valid = (truth >= 0) & (truth < classes)
        right = ((predicted == truth) & valid).reshape(truth.shape[0] if truth.ndim else 1, -1).sum(1)
        view.correct = right.float() / valid.reshape(right.shape[0], -1).sum(1)
    elif call.sort in PER_LABEL and predictions.shape == target.shape:
        probabilities = predictions.float() if call.sort == "binary_cross_entropy" else predictions.float().sigmoid()
        classes = 2
        predicted, truth = (probabilities > 0.5).long(), class_indices(call.sort, target)
        view.correct = (predicted == truth).float().reshape(truth.shape[0] if truth.ndim else 1, -1).mean(1)
        if labels_of(call) > 1:
            return  # a confusion matrix per label is not kept
    else:
        return
    if classes <= MOST_CONFUSED:
        view.truth, view.predicted, view.classes = truth.reshape(-1), predicted.reshape(-1), classes


def leaves(
    value: Any, levels: float = math.inf, keys: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], torch.Tensor]]:
    """The tensors in so many levels of mappings, lists and tuples, each after the keys that lead to it."""
    if isinstance(value, torch.Tensor):
        yield keys, value
    elif levels:
        sequence = isinstance(value, (list, tuple))
        for key, part in enumerate(value) if sequence else value.items() if isinstance(value, Mapping) else ():
            yield from leaves(part, levels - 1, (*keys, key))


def bare(value: Any) -> torch.Tensor | None:
    """The first tensor with a batch dimension in what a model was called with."""
    return next((tensor for _, tensor in leaves(value) if tensor.ndim > 0), None)
