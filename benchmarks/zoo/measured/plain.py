"""A scenario trained without trainwatch, and what was seen of it: by these trainings faults are defined."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.zoo import training
from benchmarks.zoo.data import Sets
from benchmarks.zoo.scenario import Loss, Scenario, changed

LOOKS = 25  # at the losses of both parts, over a training
MOST = 1500  # training samples that a loss is taken over
MOST_VALIDATION = 3000
WITHOUT_GUESS = ("contrast", "triplet", "evidence")


@dataclass
class Course:
    """What was seen of one training.

    Attributes:
        before: The model as training began with it.
        model: As training left it.
        sets: The data.
        loss_fn: The criterion, averaged over samples.
        cut: Of two classes, or of a label: the output above which it is told.
        train, val: Losses in evaluation mode, without penalties and what no net gets below: before training, then at
            every look.
        score: Accuracy, or R2 of regression, of validation at the same times; NaN where there is no such thing.
        score_halves: The same of both halves of the validation samples.
        batches: Losses of the batches.
        norms: Norms of the gradients, as steps were taken with them.
        layers: Norms of the gradients of each weight matrix, one row every fifth step.
        weights: Names of the weight matrices.
        kinds: Of each step, how many classes its samples are of, and how many samples.
    """

    before: nn.Module
    model: nn.Module
    sets: Sets
    loss_fn: nn.Module
    cut: float
    train: list[float] = field(default_factory=list)
    val: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    score_halves: list[tuple[float, float]] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    layers: list[list[float]] = field(default_factory=list)
    weights: tuple[str, ...] = ()
    kinds: list[tuple[int, int]] = field(default_factory=list)

    @property
    def finite(self) -> bool:
        values = (*(p for p in self.model.parameters()), self.sets.x_train, torch.tensor(self.batches))
        return math.isfinite(self.train[-1]) and all(bool(torch.isfinite(v).all()) for v in values)

    @property
    def outputs(self) -> Tensor:
        """Of the validation samples, as training left the model."""
        return first(outputs(self.model, self.sets.x_val[:MOST_VALIDATION]))

    @property
    def wanted(self) -> Tensor:
        return self.sets.y_val[:MOST_VALIDATION]


class Plain:
    """A scenario that is trained plainly when it is asked for, as its watched run is: with the same random numbers.

    Args:
        scenario: What to train.
        seed: As in `training.run`.
        begin: Gives the model that training begins with, from the one that the scenario has.
    """

    def __init__(self, scenario: Scenario, seed: int, begin: Callable[[nn.Module], nn.Module] | None = None) -> None:
        self.scenario = replace(scenario, model=replace(scenario.model, compiled=False))
        self.seed, self.begin = seed, begin
        self._others: dict[str, Plain] = {}

    @cached_property
    def course(self) -> Course:
        seen = _Seen(self.begin or _as_it_is)
        watch = partial(_Watch, self.scenario, seen)
        watched = training.train(self.scenario, self.seed, watch, lambda: _callback(watch), seen)
        course: Course = watched.course
        return course

    @cached_property
    def guess(self) -> tuple[float, float]:
        """Loss of the best constant guess, of the training and of the validation samples; NaN where there is none."""
        if self.scenario.loss.name in WITHOUT_GUESS:
            return math.nan, math.nan
        return guess(self.scenario, self.course.sets)

    @cached_property
    def end(self) -> float:
        """What training made small, penalty included, at the end and in evaluation mode; infinite where it broke."""
        course = self.course
        with torch.no_grad():
            end = float(training.penalised(torch.tensor(course.train[-1]), self.scenario.loss, course.model))
        return end if math.isfinite(end) else math.inf

    def but(self, **parts: Mapping[str, Any]) -> Plain:
        """The same with some words changed: part of the scenario -> word -> value."""
        key = repr(sorted((part, sorted(words.items(), key=str)) for part, words in parts.items()))
        if key not in self._others:
            self._others[key] = Plain(changed(self.scenario, **parts), self.seed)
        return self._others[key]


def outputs(model: nn.Module, x: Tensor) -> Any:
    """Outputs in evaluation mode; each module is left in its mode."""
    modes = {m: m.training for m in model.modules()}
    model.eval()
    with torch.no_grad():
        parts = [model(some) for some in x.split(1000)]
    for module, mode in modes.items():
        module.training = mode
    return (
        torch.cat(parts) if torch.is_tensor(parts[0]) else tuple(torch.cat(some) for some in zip(*parts, strict=True))
    )


def score(output: Tensor, wanted: Tensor, task: str, cut: float) -> float:
    """Accuracy where classes are told, R2 where values are, NaN where it is neither."""
    if wanted.dtype == torch.int64:
        return float((output.argmax(1) == wanted).float().mean()) if task != "tags" else math.nan
    if output.shape != wanted.shape:
        return math.nan
    if task == "classes":
        one_hot = wanted.ndim > 1 and wanted.shape[1] > 1 and bool((wanted.sum(1) == 1).all())
        if one_hot:
            return float((output.argmax(1) == wanted.argmax(1)).float().mean())
        if set(wanted.unique().tolist()) <= {0.0, 1.0}:
            return float(((output > cut) == (wanted > 0.5)).float().mean())
    return float(1 - ((output - wanted) ** 2).mean() / ((wanted - wanted.mean(0)) ** 2).mean())


def floor(spec: Loss, y: Tensor, classes: int) -> float:
    """The loss that no net gets below: of smoothed labels their entropy, of counts what their own rates cost."""
    if spec.name == "poisson":
        return float((y - torch.special.xlogy(y, y)).mean())
    if not spec.smoothing:
        return 0.0
    rest = spec.smoothing / classes
    return -(1 - spec.smoothing + rest) * math.log(1 - spec.smoothing + rest) - (classes - 1) * rest * math.log(rest)


def guess(scenario: Scenario, sets: Sets) -> tuple[float, float]:
    """Loss of the best constant guess above what no net gets below, of the training and of the validation samples."""
    loss_fn, y = _averaged(scenario, sets), sets.y_train
    if y.dtype == torch.int64:
        classes = scenario.model.outputs or sets.outputs
        counts = torch.bincount(y.flatten(), minlength=classes).float().clamp(min=0.1)
        constant = (counts / counts.sum()).log()
    elif scenario.loss.name in ("l1", "huber"):
        constant = y.median(0).values
    elif scenario.loss.name == "bce_logits":
        constant = torch.logit(y.mean(0).clamp(1e-4, 1 - 1e-4))
    else:
        constant = y.mean(0)

    def cost(constant: Tensor, wanted: Tensor) -> Tensor:
        value = constant.log_softmax(0) if scenario.model.last == "log_softmax" else constant
        if wanted.dtype != torch.int64:
            return torch.as_tensor(loss_fn(value.expand_as(wanted), wanted))
        over = value.expand(len(wanted), -1)
        over = over[:, :, None].expand(-1, -1, wanted.shape[1]) if wanted.ndim == 2 else over
        return torch.as_tensor(loss_fn(over, wanted))

    constant = constant.clone().requires_grad_(True)
    if scenario.loss.name not in ("mse", "l1", "huber"):  # where the constant above is not the best by itself
        optimizer = torch.optim.LBFGS([constant], lr=0.5, max_iter=40)

        def closure() -> float:
            optimizer.zero_grad()
            loss = cost(constant, y)
            loss.backward()
            return float(loss)

        optimizer.step(closure)
    with torch.no_grad():
        train, val = (
            float(cost(constant, some)) - floor(scenario.loss, some, sets.outputs) for some in (y, sets.y_val)
        )
    return train, val


class _Seen(training.Edits):
    """Remembers the data that a run begins with, and lets it begin with another model."""

    def __init__(self, begin: Callable[[nn.Module], nn.Module]) -> None:
        self.begin = begin

    def model(self, model: nn.Module) -> nn.Module:
        return self.begin(model)

    def sets(self, sets: Sets) -> Sets:
        self.data = sets
        return sets


class _Watch:
    """Looks at a training from outside: after steps, without a random number drawn."""

    def __init__(
        self, scenario: Scenario, seen: _Seen, model: nn.Module, optimizer: Optimizer, loss_fn: nn.Module
    ) -> None:
        sets = seen.data
        batches = math.ceil(len(sets.x_train) / scenario.loop.batch)
        each = max(1, batches // scenario.loop.accumulate)
        passes = scenario.loop.epochs
        self.every = each * max(1, passes // LOOKS if not scenario.loop.patience else 1)
        if scenario.loop.steps:
            self.every = max(1, min(self.every, scenario.loop.steps // LOOKS))
        weights = tuple(n for n, p in model.named_parameters() if p.ndim > 1 and p.requires_grad)
        cut = 0.0 if scenario.loss.name == "bce_logits" else 0.5
        self.course = Course(copy.deepcopy(model), model, sets, _averaged(scenario, sets), cut, weights=weights)
        self.spec, self.step, self.looked = scenario.loss, 0, -1
        self._drawn: list[Tensor] = []  # classes of the samples since the last step
        self._hooks = [
            optimizer.register_step_post_hook(self._after_step),
            loss_fn.register_forward_hook(self._after_loss),
        ]

    def __enter__(self) -> _Watch:
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        if self.looked == self.step:  # weights may have been put back since
            for seen in (self.course.train, self.course.val, self.course.score, self.course.score_halves):
                seen.pop()
        self._look()

    def epoch_end(self, **_: float) -> None: ...

    def _after_loss(self, _: nn.Module, given: tuple[Any, ...], loss: Tensor) -> None:
        if torch.is_grad_enabled() and loss.requires_grad:
            self.course.batches.append(float(loss))
            self._drawn.append(given[-1].flatten())

    def _after_step(self, *_: Any) -> None:
        course = self.course
        self.step += 1
        norms = {n: float(p.grad.norm()) for n, p in course.model.named_parameters() if p.grad is not None}
        course.norms.append(math.sqrt(sum(v * v for v in norms.values())))
        drawn = torch.cat(self._drawn)
        course.kinds.append((len(drawn.unique()), len(drawn)))
        self._drawn.clear()
        if self.step % 5 == 1:
            course.layers.append([norms.get(n, math.nan) for n in course.weights])
        if self.step % self.every == 0:
            self._look()

    def _look(self) -> None:
        course, sets, wanted = self.course, self.course.sets, self.course.wanted
        self.looked, half = self.step, len(wanted) // 2
        told, held = outputs(course.model, sets.x_train[:MOST]), outputs(course.model, sets.x_val[:MOST_VALIDATION])
        with torch.no_grad():
            for losses, output, y in ((course.train, told, sets.y_train[:MOST]), (course.val, held, wanted)):
                losses.append(float(course.loss_fn(output, y)) - floor(self.spec, y, sets.outputs))
        output = first(held)
        parts = ((output, wanted), (output[:half], wanted[:half]), (output[half:], wanted[half:]))
        whole, one, other = (score(out, y, sets.task, course.cut) for out, y in parts)
        course.score.append(whole)
        course.score_halves.append((one, other))


def _callback(watch: Callable[..., _Watch]) -> Any:
    """A callback of Lightning that looks at a training as `_Watch` does."""
    import lightning  # takes seconds

    class Looks(lightning.Callback):
        def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
            self.watch = watch(module.model, trainer.optimizers[0], loss_fn=module.loss_fn).__enter__()

        def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
            self.watch.__exit__()

        @property
        def course(self) -> Course:
            return self.watch.course

    return Looks()


def _as_it_is(model: nn.Module) -> nn.Module:
    return model


def _averaged(scenario: Scenario, sets: Sets) -> nn.Module:
    return training.criterion(replace(scenario.loss, reduction="mean"), sets)


def first(output: Any) -> Tensor:
    """The outputs alone, of a net that gives more."""
    return output if torch.is_tensor(output) else output[0]
