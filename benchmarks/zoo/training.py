"""Runs a scenario under a watch, in a loop as a user would write it, and gives back the record."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast
from unittest import mock

import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

import trainwatch
from benchmarks.zoo import gan
from benchmarks.zoo.data import Sets, load
from benchmarks.zoo.models import adapt, build
from benchmarks.zoo.scenario import Data, Loss, Scenario, ScenarioError
from benchmarks.zoo.scenario import Optimizer as Spec
from benchmarks.zoo.store import path_of, save
from trainwatch.monitor import Monitor
from trainwatch.record import RunRecord


class Contrast(nn.Module):
    """Samples of a class are to be nearer to each other than to the rest of the batch (Khosla et al. 2020)."""

    def __init__(self, reduction: str = "mean", temperature: float = 0.3) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, output: Tensor, classes: Tensor) -> Tensor:
        unit = nn.functional.normalize(output, dim=1)
        self_ = torch.eye(len(unit), dtype=torch.bool)
        logits = (unit @ unit.T / self.temperature).masked_fill(self_, -1e9)
        same = (classes[:, None] == classes) & ~self_
        some = same.any(1)
        mean = (logits.log_softmax(1) * same).sum(1)[some] / same.sum(1)[some]
        return -mean.mean()


class Triplet(nn.Module):
    """Samples of the own class are to be nearer than those of another one, by a margin (Schroff et al. 2015)."""

    def __init__(self, reduction: str = "mean", margin: float = 0.3) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, output: Tensor, classes: Tensor) -> Tensor:
        unit = nn.functional.normalize(output, dim=1)
        near, same = unit @ unit.T, classes[:, None] == classes
        over = (near[:, None] - near[:, :, None] + self.margin).clamp(min=0)  # anchor, own class, another one
        return over[same[:, :, None] & ~same[:, None]].mean()


class Evidence(nn.Module):
    """Squared errors of what was rebuilt, and the divergence of the noisy middle from a standard normal."""

    def __init__(self, reduction: str = "mean", divergence: float = 0.02) -> None:
        super().__init__()
        self.divergence = divergence

    def forward(self, output: tuple[Tensor, Tensor, Tensor], wanted: Tensor) -> Tensor:
        rebuilt, mean, log_variance = output
        apart = (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        return nn.functional.mse_loss(rebuilt, wanted) + self.divergence * apart


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "nll": nn.NLLLoss,
    "bce_logits": nn.BCEWithLogitsLoss,
    "bce": nn.BCELoss,
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
    "huber": nn.SmoothL1Loss,
    "multi_margin": nn.MultiMarginLoss,
    "poisson": nn.PoissonNLLLoss,
    "contrast": Contrast,
    "triplet": Triplet,
    "evidence": Evidence,
}
OVER_CLASSES = ("cross_entropy", "nll", "multi_margin", "contrast", "triplet")
Probes = Literal["auto", "all"]
QUIET = trainwatch.Settings(quiet=True)  # as users get it


Schedule = lr_scheduler.LRScheduler | None


class Edits:
    """What somebody changes in a run before its loop begins; here: nothing."""

    def sets(self, sets: Sets) -> Sets:
        return sets

    def model(self, model: nn.Module) -> nn.Module:
        return model

    def criterion(self, criterion: nn.Module) -> nn.Module:
        return criterion

    def optimizer(self, optimizer: Optimizer, model: nn.Module) -> Optimizer:
        return optimizer

    def schedule(self, make: Callable[[], Schedule], optimizer: Optimizer) -> Schedule:
        return make()


NO_EDITS = Edits()


def run(scenario: Scenario, seed: int, settings: trainwatch.Settings = QUIET, edits: Edits = NO_EDITS) -> RunRecord:
    """Train a scenario to its end and give back what was recorded of it.

    Args:
        scenario: What to train.
        seed: Of the data split, the initial weights and the order of the samples.
        settings: Of the watch.
        edits: What is changed once data, model, criterion and optimiser are there.

    Raises:
        ScenarioError: A word of the scenario is not known.
    """
    if scenario.model.kind == "gan":
        with _settled(seed):
            return gan.run(scenario, load(scenario.data, seed), settings)
    watch = partial(trainwatch.watch, settings=settings)
    watched = train(scenario, seed, watch, lambda: trainwatch.TrainWatch(settings=settings), edits)
    assert watched.record is not None
    return cast(RunRecord, watched.record)


def train(
    scenario: Scenario,
    seed: int,
    watch: Callable[..., Any],
    callback: Callable[[], Any],
    edits: Edits = NO_EDITS,
) -> Any:
    """Train a scenario of one model to its end, watched by anybody.

    Args:
        scenario: What to train.
        seed: Of the data split, the initial weights and the order of the samples.
        watch: Watches a plain loop, as `trainwatch.watch` does: called with the model, the optimiser and ``loss_fn``,
            it gives back a context manager with `epoch_end`.
        callback: Makes the callback that watches Lightning's trainer.
        edits: As in `run`.

    Returns:
        What watched: the context manager or the callback.

    Raises:
        ScenarioError: A word of the scenario is not known.
    """
    with _settled(seed):
        model, sets = before_training(scenario, seed)
        sets, model = edits.sets(sets), edits.model(model)
        if scenario.loop.framework == "lightning":
            from benchmarks.zoo.lightning_run import run as run_lightning  # imports take seconds

            return run_lightning(scenario, model, sets, callback(), edits)
        return _loop(scenario, model, sets, watch, edits)


@contextmanager
def _settled(seed: int) -> Iterator[None]:
    """One thread, random numbers from a seed, and no warnings: some planted faults make torch warn.

    The watch goes by the processor's time, which on an idle machine is the time that passes: what else a busy one does
    costs no experiment.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    with warnings.catch_warnings(), mock.patch.dict(Monitor.__init__.__kwdefaults__, clock=time.process_time):
        warnings.simplefilter("ignore")
        yield


def before_training(scenario: Scenario, seed: int) -> tuple[nn.Module, Sets]:
    """The model of a scenario as its training begins with it, and the data, drawn from the random numbers at hand."""
    sets = _targets_shaped(scenario, load(scenario.data, seed))
    model = build(replace(scenario.model, compiled=False, frozen=0), sets)
    if scenario.model.pretrained_on:
        pretrain_elsewhere(scenario, model, seed)
    elif scenario.model.pretrained:
        _pretrain(scenario, model, sets)
    return _prepared(scenario, model), sets


def run_and_store(folder: Path, scenario: Scenario, seed: int, probes: Probes = "auto") -> float:
    """Train a scenario and store its record.

    Args:
        folder: Where records are stored.
        scenario: What to train.
        seed: As in `run`.
        probes: Which experiments are made while it trains; users get ``auto``.

    Returns:
        Seconds that it took.
    """
    began = time.perf_counter()
    record = run(scenario, seed, replace(QUIET, probes=probes))
    save(path_of(folder, scenario, seed), record, {"fingerprint": scenario.fingerprint, "probes": probes})
    return time.perf_counter() - began


def attempt(job: tuple[Path, Scenario, int, Probes]) -> tuple[Scenario, int, float, str]:
    """`run_and_store` for a pool: scenario, seed, seconds, and what went wrong, if anything did."""
    folder, scenario, seed, probes = job
    try:
        return scenario, seed, run_and_store(folder, scenario, seed, probes), ""
    except Exception as error:
        return scenario, seed, 0.0, f"FAILED: {error!r}"


def criterion(spec: Loss, sets: Sets) -> nn.Module:
    """The loss module of a scenario."""
    options: dict[str, Any] = {"reduction": spec.reduction}
    if spec.smoothing:
        options["label_smoothing"] = spec.smoothing
    if spec.weights == "inverse":
        counts = torch.bincount(sets.y_train.flatten().long(), minlength=2).clamp(min=1).float()
        if spec.name == "bce_logits":
            options["pos_weight"] = counts[0] / counts[1]
        else:
            options["weight"] = counts.sum() / (len(counts) * counts)
    if spec.positive:
        weighted = torch.tensor(spec.positive)
        options |= {"pos_weight": weighted} if spec.name == "bce_logits" else {"weight": torch.tensor([1.0, weighted])}
    if spec.name not in LOSSES:
        raise ScenarioError(f"there is no loss {spec.name!r}; known are {', '.join(LOSSES)}")
    return LOSSES[spec.name](**options)


def penalised(loss: Tensor, spec: Loss, model: nn.Module) -> Tensor:
    """A training loss and, where the scenario has it, an L1 term over all parameters."""
    return loss + spec.l1 * sum(p.abs().sum() for p in model.parameters()) if spec.l1 else loss


def optimizer(scenario: Scenario, model: nn.Module, steps: int, edits: Edits = NO_EDITS) -> tuple[Optimizer, Schedule]:
    """The optimiser of a scenario and its schedule over that many steps."""
    spec = scenario.optimizer
    options: dict[str, Any] = {"lr": spec.lr, "weight_decay": spec.weight_decay}
    if spec.momentum:
        options["momentum"] = spec.momentum
    layers = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    parameters = {
        "all": lambda: model.parameters(),
        "head": lambda: layers[-1].parameters(),
        "body": lambda: [p for layer in layers[:-1] for p in layer.parameters()],
        "trainable": lambda: [p for p in model.parameters() if p.requires_grad],
        "stale": lambda: copy.deepcopy(model).parameters(),
        "stale_head": lambda: [
            *(p for layer in layers[:-1] for p in layer.parameters()),
            *copy.deepcopy(layers[-1]).parameters(),
        ],
    }
    chosen = getattr(torch.optim, spec.name)(_groups(spec, model, list(parameters[spec.parameters]())), **options)
    if spec.prox:
        trainwatch.prox(chosen, l1=spec.prox)
    chosen = edits.optimizer(chosen, model)
    third = max(1, steps // 3)
    schedules: dict[str, Callable[[], Schedule]] = {
        "none": lambda: None,
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(chosen, steps),
        "linear": lambda: lr_scheduler.LinearLR(chosen, 1.0, 0.0, steps),
        "warmup": lambda: lr_scheduler.LinearLR(chosen, 0.01, 1.0, max(1, steps // 10)),
        "restarts": lambda: lr_scheduler.CosineAnnealingWarmRestarts(chosen, third),
        "step": lambda: lr_scheduler.StepLR(chosen, third, 0.1),
        "one_cycle": lambda: lr_scheduler.OneCycleLR(chosen, spec.lr, steps),
    }
    return chosen, edits.schedule(schedules[spec.schedule], chosen)


def _groups(spec: Spec, model: nn.Module, parameters: list[Tensor]) -> list[Any]:
    """The parameters, those with a rate of their own in groups of their own."""
    if not spec.rates:
        return parameters
    named = {id(p): name for name, p in model.named_parameters()}
    groups: dict[float, list[Tensor]] = {}
    for p in parameters:
        factor = next((f for start, f in spec.rates.items() if named[id(p)].startswith(start)), 1.0)
        groups.setdefault(factor, []).append(p)
    return [{"params": some, "lr": factor * spec.lr} for factor, some in groups.items()]


def loaders(scenario: Scenario, sets: Sets) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Loaders of the training and of the validation samples."""
    x, y = sets.x_train, sets.y_train
    classes = y.flatten(1)[:, 0] if y.ndim > 1 else y
    if scenario.loop.order in ("sorted", "blocks"):
        order = classes.argsort(stable=True)
        if scenario.loop.order == "blocks":
            blocks = order.split(scenario.loop.block)
            order = torch.cat([blocks[i] for i in torch.randperm(len(blocks))])
        x, y = x[order], y[order]
    train: Any = TensorDataset(x, y)
    if scenario.data.noise:
        train = _Augmented(x, y, scenario.data.noise)
    sampler = None
    if scenario.loop.order == "balanced":
        each = 1 / classes.long().bincount()
        sampler = WeightedRandomSampler(each[classes.long()].tolist(), len(classes))
    return (
        DataLoader(train, scenario.loop.batch, shuffle=scenario.loop.order == "shuffled", sampler=sampler),
        DataLoader(TensorDataset(sets.x_val, sets.y_val), 256),
    )


def _loop(scenario: Scenario, model: nn.Module, sets: Sets, watched_by: Callable[..., Any], edits: Edits) -> Any:
    loop, loss_fn = scenario.loop, edits.criterion(criterion(scenario.loss, sets))
    train_loader, val_loader = loaders(scenario, sets)
    planned = loop.epochs * math.ceil(len(train_loader) / loop.accumulate)
    optim, schedule = optimizer(scenario, model, min(planned, loop.steps or planned), edits)
    model.train(loop.train_mode != "eval")
    best, best_state, since, step = math.inf, None, 0, 0
    with watched_by(model, optim, loss_fn=loss_fn) as watch:
        for epoch in range(loop.epochs):
            if loop.freeze_after and epoch == loop.freeze_after:
                freeze_body(model)
            if loop.thaw_after and epoch == loop.thaw_after:
                model.requires_grad_(True)
            if loop.train_mode == "train":
                model.train()
            if loop.keep_frozen:
                keep_frozen(model)
            for i, (x, y) in enumerate(train_loader):
                if loop.zero_grad == "before" and i % loop.accumulate == 0:
                    optim.zero_grad(set_to_none=not loop.keep_zeros)
                if loop.mixup:
                    x, y = mixed(x, y, sets.outputs, loop.mixup)
                loss = penalised(loss_fn(model(x), y), scenario.loss, model) / loop.accumulate
                loss.backward()
                if (i + 1) % loop.accumulate:
                    continue
                if loop.clip:
                    nn.utils.clip_grad_norm_(model.parameters(), loop.clip)
                if loop.clip_value:
                    nn.utils.clip_grad_value_(model.parameters(), loop.clip_value)
                if loop.zero_grad == "between":
                    optim.zero_grad()
                optim.step()
                if loop.zero_grad == "after":
                    optim.zero_grad()
                if schedule:
                    schedule.step()
                step += 1
                if step == loop.steps:
                    break
            if loop.validate and (epoch + 1) % loop.validate == 0:
                model.train(loop.val_mode == "train")
                with torch.no_grad():
                    total = sum(loss_fn(model(x), y).item() * len(y) for x, y in val_loader)
                if loop.metrics:
                    watch.epoch_end(**_metrics(loop.metrics, model, sets))
                since = 0 if total < best else since + 1
                if total < best:
                    best, best_state = total, copy.deepcopy(model.state_dict())
            if step == loop.steps or (loop.patience and since >= loop.patience):
                break
        if loop.restore and best_state is not None:
            model.load_state_dict(best_state)
    return watch


def mixed(x: Tensor, y: Tensor, outputs: int, strength: float) -> tuple[Tensor, Tensor]:
    """Samples and their classes mixed with those of a batch in another order (Zhang et al. 2018)."""
    share = torch.distributions.Beta(strength, strength).sample()
    other, wanted = torch.randperm(len(x)), nn.functional.one_hot(y, outputs).float()
    return share * x + (1 - share) * x[other], share * wanted + (1 - share) * wanted[other]


def _metrics(names: tuple[str, ...], model: nn.Module, sets: Sets) -> dict[str, float]:
    """Metrics of validation, as a user computes them from the outputs."""
    with torch.no_grad():
        outputs, truth = model(sets.x_val), sets.y_val
    named = outputs.argmax(1) if outputs.shape != truth.shape else (outputs > 0).long()
    known: dict[str, Callable[[], float]] = {
        "accuracy": lambda: float((named == truth).float().mean()),
        "f1": lambda: float(f1_score(truth, named, average="macro", zero_division=0)),
    }
    return {name: known[name]() for name in names}


def _pretrain(scenario: Scenario, model: nn.Module, sets: Sets) -> None:
    """Train the model before anybody watches, as if it came from elsewhere; for adapters, on mirrored inputs."""
    optim, loss_fn = torch.optim.Adam(model.parameters(), 1e-3), criterion(scenario.loss, sets)
    x = sets.x_train.flip(-1) if scenario.model.adapter else sets.x_train
    for _ in range(scenario.model.pretrained):
        for rows in torch.randperm(len(x)).split(32):
            optim.zero_grad()
            loss_fn(model(x[rows]), sets.y_train[rows]).backward()
            optim.step()
    if not scenario.model.adapter:
        last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
        last.reset_parameters()  # a new head on a trained body


def pretrain_elsewhere(scenario: Scenario, model: nn.Module, seed: int) -> None:
    """Train the body of a model to tell other classes apart, by cross-entropy, and give it a new head."""
    sets = load(Data(scenario.data.name, classes=scenario.model.pretrained_on), seed)
    name = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, head = model.get_submodule(name.rpartition(".")[0]), model.get_submodule(name)
    assert isinstance(head, nn.Linear)
    setattr(parent, name.rpartition(".")[2], nn.Linear(head.in_features, sets.outputs))
    optim = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = lr_scheduler.CosineAnnealingLR(optim, scenario.model.pretrained)
    for _ in range(scenario.model.pretrained):
        for rows in torch.randperm(len(sets.x_train)).split(32):
            optim.zero_grad()
            nn.functional.cross_entropy(model(sets.x_train[rows]), sets.y_train[rows]).backward()
            optim.step()
        schedule.step()
    setattr(parent, name.rpartition(".")[2], head)


def freeze_body(model: nn.Module) -> None:
    """Freeze everything but the last layer."""
    head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    model.requires_grad_(False)
    head.requires_grad_(True)


def keep_frozen(model: nn.Module) -> None:
    """Put modules whose own parameters are frozen into evaluation mode."""
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(p.requires_grad for p in own):
            module.eval()


def _prepared(scenario: Scenario, model: nn.Module) -> nn.Module:
    if scenario.model.body_frozen:
        freeze_body(model)
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.RNNBase))]
    for layer in layers[: scenario.model.frozen]:
        layer.requires_grad_(False)
    if scenario.model.adapter:
        adapt(model, scenario.model.adapter, scenario.model.adapter_gain)
    return torch.compile(model) if scenario.model.compiled else model  # type: ignore[return-value]


def _targets_shaped(scenario: Scenario, sets: Sets) -> Sets:
    """Targets in the shape and type that the criterion is given."""
    spec = scenario.loss
    if scenario.model.kind in ("autoencoder", "variational"):
        return replace(sets, y_train=sets.x_train.flatten(1), y_val=sets.x_val.flatten(1))
    if spec.name in OVER_CLASSES:
        return sets
    if sets.task == "tags":
        return replace(sets, y_train=sets.y_train.float(), y_val=sets.y_val.float())
    if spec.shape == "ordinal":  # is it above the first grade, above the second, ...
        above = torch.arange(sets.outputs - 1)
        y_train, y_val = ((y[:, None] > above).float() for y in (sets.y_train, sets.y_val))
        return replace(sets, outputs=sets.outputs - 1, y_train=y_train, y_val=y_val)
    one_hot = spec.shape == "one_hot"
    shape: Callable[[Tensor], Tensor] = {
        "column": lambda y: y.float()[:, None],
        "flat": lambda y: y.float(),
        "one_hot": lambda y: nn.functional.one_hot(y, sets.outputs).float(),
    }[spec.shape]
    binary = sets.task == "classes" and not one_hot
    return replace(sets, outputs=1 if binary else sets.outputs, y_train=shape(sets.y_train), y_val=shape(sets.y_val))


class _Augmented(TensorDataset):
    """Samples with noise drawn anew each time."""

    def __init__(self, x: Tensor, y: Tensor, deviation: float) -> None:
        super().__init__(x, y)
        self.deviation = deviation

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        x, y = super().__getitem__(index)
        return x + self.deviation * torch.randn_like(x), y
