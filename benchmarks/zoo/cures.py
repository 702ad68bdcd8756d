"""Remedies at work: the first remedy of a faulty run is applied as its report has it, and the run is made again."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score, recall_score
from torch import Tensor, nn
from torch.optim import Optimizer

import trainwatch
from benchmarks.zoo.data import Sets
from benchmarks.zoo.judges import said
from benchmarks.zoo.scenario import Scenario, changed
from benchmarks.zoo.store import path_of, restore
from benchmarks.zoo.training import Edits, Schedule, run
from trainwatch import Settings
from trainwatch.diagnosis import Diagnosis, Remedy, Severity
from trainwatch.engine import judge
from trainwatch.record import RunRecord

WORSE = 0.02  # of the quality: what two trainings of one recipe differ by
NUMBER = r"([-+.\de]+)"

# Remedy -> what it changes in the recipe, with the numbers of its code. Only what is wholly determined by the report.
RECIPES: dict[str, Callable[[str], dict[str, dict[str, Any]]]] = {
    "drop-frozen-parameters": lambda how: {"optimizer": {"parameters": "trainable"}, "loop": {"keep_zeros": False}},
    "drop-last-activation": lambda how: {"model": {"last": "none"}, "loss": {"name": "cross_entropy"}},
    "early-stopping": lambda how: {
        "loop": {"patience": int(_number(r">= ", how)), "restore": True, "framework": "pytorch"}
    },
    "eval-mode": lambda how: {"loop": {"val_mode": "eval"}},
    "freeze-batch-norm": lambda how: {"loop": {"keep_frozen": True}},
    "gradient-clipping": lambda how: {"loop": {"clip": _number("max_norm=", how), "clip_value": 0.0}},
    "log-probabilities": lambda how: {"model": {"last": "none"}, "loss": {"name": "cross_entropy"}},
    "lstm-gating": lambda how: {"model": {"kind": "lstm"}},
    "one-unit-per-class": lambda how: {"model": {"last": "none", "outputs": 2}, "loss": {"name": "cross_entropy"}},
    "optimise-all-parameters": lambda how: {"optimizer": {"parameters": "all"}},
    "proximal-step": lambda how: {"loss": {"l1": 0.0}, "optimizer": {"prox": _number("l1=", how)}},
    "weaker-proximal-step": lambda how: {"optimizer": {"prox": _number("l1=", how)}},
    "register-layers": lambda how: {"model": {"unregistered": False}},
    "same-class-numbers": lambda how: {"data": {"val_turn": 0}},
    "same-preparation": lambda how: {"data": {"val_scale": "", "val_multiply": 1.0, "val_lift": 0.0}},
    "same-shape": lambda how: {"loss": {"shape": "column"}},
    "shuffle": lambda how: {"loop": {"order": "shuffled"}},
    "step-before-zeroing": lambda how: {"loop": {"zero_grad": "after"}},
    "train-mode": lambda how: {"loop": {"train_mode": "train"}},
    "unbounded-output": lambda how: {"model": {"last": "none"}},
    "unfreeze-layers": lambda how: {"model": {"frozen": 0, "body_frozen": False}, "optimizer": {"parameters": "all"}},
    "zero-gradients": lambda how: {"loop": {"zero_grad": "before"}},
}
# Remedies whose code is run as it is, and where.
PASTED = {
    "adaptive-steps": "optimizer",
    "add-nonlinearity": "model",
    "class-weights": "criterion",
    "forget-gate-bias": "model",
    "freeze-layers": "optimizer",
    "group-learning-rate": "optimizer",
    "higher-learning-rate": "optimizer",
    "initialisation": "model",
    "leaky-relu": "model",
    "logit-adjustment": "criterion",
    "lower-learning-rate": "optimizer",
    "lower-momentum": "optimizer",
    "normalise-inputs": "sets",
    "normalise-targets": "sets",
    "reinitialise": "model",
    "relu-family": "model",
    "retune-weights": "criterion",
    "shorter-warm-up": "schedule",
    "slower-schedule": "schedule",
    "weaker-regularisation": "optimizer",
}
AFTERWARDS = ("move-threshold", "temperature")  # of the trained net, without another training
RELATIVE = ("less-dropout", "train-longer", "weaker-penalty")  # numbers of the recipe and of the report together
MECHANICAL = frozenset({*RECIPES, *PASTED, *AFTERWARDS, *RELATIVE})


@dataclass(frozen=True)
class Cure:
    """What the first remedy of a run did.

    Attributes:
        scenario, seed: The faulty run.
        code: Of its first diagnosis.
        remedy: The first remedy not in use; None where nothing was diagnosed.
        mechanical: It could be applied without a choice of one's own.
        gone: The diagnosis (and, of a single fault, the cause) is not said of the run made again.
        before, after: Quality of the faulty run and of the cured one, see `quality`.
        sound: Quality of the repaired form, where it is asked for.
    """

    scenario: Scenario
    seed: int
    code: str = ""
    remedy: str | None = None
    mechanical: bool = False
    gone: bool = False
    before: float = float("nan")
    after: float = float("nan")
    sound: float = float("nan")

    @property
    def better(self) -> bool:
        """By more than two trainings of one recipe differ."""
        return self.after > self.before + WORSE

    @property
    def cured(self) -> bool:
        """The fault is gone, and what the net is for has not become worse; of a remedy afterwards, it is better.

        Or the fault is still said, and half of what was lost beside the repaired form is won back.
        """
        if self.remedy in AFTERWARDS:
            return self.after > self.before
        if self.gone:
            return self.after >= self.before - WORSE
        return self.better and self.after - self.before >= (self.sound - self.before) / 2


class Pasted(Edits):
    """Runs a remedy's code where a user would paste it, and keeps what was trained."""

    def __init__(self, place: str = "", how: str = "", lightning: bool = False) -> None:
        self.place, self.how, self.lightning = place, how, lightning
        self.trained: nn.Module | None = None
        self.data: Sets | None = None

    def sets(self, sets: Sets) -> Sets:
        self.data = sets
        if self.place == "sets":
            x_train, y_train = self._prepared(sets.x_train, sets.y_train, sets)
            x_val, y_val = self._prepared(sets.x_val, sets.y_val, sets)
            self.data = replace(sets, x_train=x_train, y_train=y_train, x_val=x_val, y_val=y_val)
        return self.data

    def _prepared(self, x: Tensor, y: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        names = {"x_train": sets.x_train, "x": x, "targets": y, "outputs": y}
        done = paste(self.how, **names)
        return done["x"], done["targets"]

    def model(self, model: nn.Module) -> nn.Module:
        self.trained = model
        if self.place == "model":
            paste(self.how, model=self._root(model))
        return model

    def criterion(self, criterion: nn.Module) -> nn.Module:
        if self.place != "criterion":
            return criterion
        made: nn.Module = paste(self.how)["criterion"]
        return made

    def optimizer(self, optimizer: Optimizer, model: nn.Module) -> Optimizer:
        if self.place != "optimizer":
            return optimizer
        made: Optimizer = paste(self.how, model=self._root(model), optimizer=optimizer)["optimizer"]
        return made

    def schedule(self, make: Callable[[], Schedule], optimizer: Optimizer) -> Schedule:
        if self.place != "schedule":
            return make()
        begun = self.how.partition("# after each")[0]  # the loop steps it
        warm_up: Schedule = paste(begun, optimizer=optimizer)["warm_up"]
        return warm_up

    def _root(self, model: nn.Module) -> nn.Module:
        """What the report's names begin at: under Lightning, the module that holds the net as ``model``."""
        if not self.lightning:
            return model
        root = nn.Module()
        root.model = model
        return root


def paste(code: str, **names: Any) -> dict[str, Any]:
    """Run a remedy's code with some names at hand; gives back all names afterwards."""
    known: dict[str, Any] = {"torch": torch, "nn": nn, "copy": copy, "trainwatch": trainwatch, **names}
    exec(code, known)
    return known


def attempt(job: tuple[Path, Scenario, int, Scenario | None]) -> tuple[Scenario, Cure | None, str]:
    """`cure` for a pool: the scenario, what came of it, and what went wrong, if anything did."""
    folder, scenario, seed, repaired = job
    try:
        return scenario, cure(folder, scenario, seed, repaired), ""
    except Exception as error:
        return scenario, None, f"FAILED: {error!r}"


def cure(folder: Path, scenario: Scenario, seed: int, repaired: Scenario | None = None) -> Cure:
    """Apply the first remedy to a stored run and judge the run that comes of it; what the repaired form is worth."""
    record, _ = restore(path_of(folder, scenario, seed))
    found = _findings(record)
    remedies = [r for r in found[0].remedies if not r.already_in_use] if found else []
    if not remedies:
        return Cure(scenario, seed, found[0].code if found else "")
    remedy = remedies[0]
    told = Cure(scenario, seed, found[0].code, remedy.id, remedy.id in MECHANICAL and scenario.model.kind != "gan")
    if not told.mechanical:
        return told
    lightning = scenario.loop.framework == "lightning"
    faulty, mended = Pasted(lightning=lightning), Pasted(PASTED.get(remedy.id, ""), remedy.how, lightning)
    run(scenario, seed, edits=faulty)
    if remedy.id in AFTERWARDS:
        before, after = _afterwards(remedy, faulty)
        return replace(told, before=before, after=after)
    changed = _changed(scenario, remedy)
    named = said(_findings(run(changed, seed, edits=mended))).codes
    causes = {told.code} if scenario.every else {told.code, *scenario.truth}
    before, after = quality(faulty, scenario), quality(mended, changed)
    done = replace(told, gone=not named & causes, before=before, after=after)
    if repaired is None or done.gone or not done.better:
        return done
    run(repaired, seed, edits=(sound := Pasted()))
    return replace(done, sound=quality(sound, repaired))


def _findings(record: RunRecord) -> list[Diagnosis]:
    record.set_fact("framework", "pytorch")  # remedies in their plain form: its places are those of `Pasted`
    return [d for d in judge(record, Settings()).diagnoses if d.severity >= Severity.WARNING]


def _changed(scenario: Scenario, remedy: Remedy) -> Scenario:
    """The recipe with the remedy's numbers in it."""
    how, changes = remedy.how, RECIPES.get(remedy.id, lambda how: {})(remedy.how)
    if remedy.id == "less-dropout":
        changes = {"model": {"dropout": _number("p=", how)}}
    if remedy.id == "weaker-penalty":
        changes = {"loss": {"l1": scenario.loss.l1 * _number(r"\+ ", how)}}
    if remedy.id == "train-longer":
        more, unit = re.search(r"for (\d+) (epoch|step)", how).groups()  # type: ignore[union-attr]
        loop = scenario.loop
        if unit == "epoch":
            changes = {"loop": {"epochs": loop.epochs + int(more), "steps": 0}}
        else:
            changes = {"loop": {"epochs": 10 * loop.epochs, "steps": loop.steps + int(more)}}
    return changed(scenario, **changes)


def _number(before: str, text: str) -> float:
    found = re.search(before + NUMBER, text)
    if found is None:
        raise ValueError(f"no number after {before!r} in the remedy's code: {text!r}")
    return float(found[1])


@torch.no_grad()
def _outputs(trained: Pasted) -> tuple[Tensor, Tensor]:
    assert trained.trained is not None
    assert trained.data is not None
    trained.trained.eval()
    sets = trained.data
    outputs = torch.cat([trained.trained(x) for x in sets.x_val.split(256)])
    return outputs, sets.y_val


def quality(trained: Pasted, scenario: Scenario) -> float:
    """What a trained net is worth on its validation samples, whatever its loss was.

    Returns:
        Of classes the mean of their recalls, of yes / no answers the mean F1 of both, of numbers the share of their
        variance that is explained; minus infinity where outputs are not finite.
    """
    outputs, truth = _outputs(trained)
    if not torch.isfinite(outputs).all():
        return -np.inf
    if truth.dtype == torch.long:
        named, present = outputs.argmax(1), truth.unique()
        return float(recall_score(truth.flatten(), named.flatten(), labels=present, average="macro", zero_division=0))
    if scenario.loss.name.startswith("bce"):
        middle = 0.0 if scenario.loss.name == "bce_logits" else 0.5
        return _f1(outputs > middle, truth)
    return float(1 - ((outputs.reshape(truth.shape) - truth) ** 2).mean() / truth.var())


def _f1(named: Tensor, truth: Tensor) -> float:
    columns = zip(truth.reshape(len(truth), -1).T, named.reshape(len(named), -1).T, strict=True)
    return float(np.mean([f1_score(t.bool(), n.bool(), zero_division=0) for t, n in columns]))


def _afterwards(remedy: Remedy, trained: Pasted) -> tuple[float, float]:
    """Of the trained net, F1 at 0.5 and at the proposed threshold; or minus the loss without and with a temperature."""
    outputs, truth = _outputs(trained)
    if remedy.id == "move-threshold":
        threshold = torch.as_tensor(paste(remedy.how.split("predicted")[0])["threshold"])
        return _f1(_scores(outputs) > 0.5, truth), _f1(_scores(outputs) > threshold, truth)
    fit = torch.arange(len(truth)) % 2 == 0  # fitted on one half, looked at on the other
    loss = nn.CrossEntropyLoss()
    with torch.enable_grad():
        made = paste(remedy.how, criterion=loss, val_logits=outputs[fit], val_targets=truth[fit])
    logits, rest = outputs[~fit], truth[~fit]
    return -float(loss(logits, rest)), -float(loss(logits / made["log_t"].exp().detach(), rest))


def _scores(outputs: Tensor) -> Tensor:
    return outputs.softmax(1)[:, 1] if outputs.ndim == 2 and outputs.shape[1] == 2 else outputs.sigmoid()
