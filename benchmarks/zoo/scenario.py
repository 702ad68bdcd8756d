"""What a scenario is: a training declared in a TOML file, the faults planted in it, and the truth about each."""

from __future__ import annotations

import difflib
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FAMILIES = Path(__file__).parent / "families"
HALVES = ("tuning", "held_out")
SEEDS = (0, 1, 2)


def _later(value: Any) -> Any:
    """A field that came when records were stored already: where it is not said, their fingerprints stay as they are."""
    return field(default_factory=lambda: value, metadata={"later": True})


class ScenarioError(ValueError):
    """A scenario's file cannot be used; the text names the file and the remedy."""


@dataclass(frozen=True)
class Data:
    """What is trained on.

    Attributes:
        name: One of `zoo.data.SETS`.
        train, val: Most samples of each part; 0 for all.
        scale: ``standard`` (mean 0, deviation 1), ``unit`` (0 to 1) or ``raw``.
        target: The same for the targets of a regression.
        multiply, offset: Applied to the scaled inputs, in training and validation.
        val_scale, val_multiply: As above where validation data are prepared differently.
        label_noise: Share of the training labels that are drawn at random.
        labels: ``right``, ``off_by_one`` (classes counted from 1) or ``shuffled``.
        keep: Class -> share of its training samples that is kept.
        positive: A class: the task is then this one against all others.
        noise: Deviation of noise added anew to each training batch: augmentation.
        outliers: Share of the training samples whose inputs are multiplied by 1,000.
        missing: Share of the training samples in which one entry is missing: NaN.
        length: Of a sequence, where the set is made of them.
        classes: Only these, renumbered; all by default.
        modulo: Classes are taken modulo this: 2 for odd or even; 0 for what they are.
        flips, val_flips: Shares of the training and of the validation labels that are exchanged for another one.
        split: ``random``, or ``by_place``: validation lies beyond training along the first principal direction.
        without: Classes that have no training samples.
        val_lift: Added to every third validation feature, in scaled units.
        val_turn: By how much classes are numbered higher in validation, the last ones from 0 on.
        val_keep: As `keep`, of the validation samples.
    """

    name: str = "digits"
    train: int = 0
    val: int = 0
    scale: str = "standard"
    target: str = "standard"
    multiply: float = 1.0
    offset: float = 0.0
    val_scale: str = ""
    val_multiply: float = 1.0
    label_noise: float = 0.0
    labels: str = "right"
    keep: Mapping[str, float] = field(default_factory=dict)
    positive: int = -1
    noise: float = 0.0
    outliers: float = 0.0
    missing: float = 0.0
    length: int = 32
    classes: tuple[int, ...] = _later(())
    modulo: int = _later(0)
    flips: float = _later(0.0)
    val_flips: float = _later(0.0)
    split: str = _later("random")
    without: tuple[int, ...] = _later(())
    val_lift: float = _later(0.0)
    val_turn: int = _later(0)
    val_keep: Mapping[str, float] = _later({})


@dataclass(frozen=True)
class Model:
    """The network.

    Attributes:
        kind: One of `zoo.models.KINDS`.
        hidden: Widths of the hidden layers (channels of a CNN, units of a recurrent net, width of each block).
        activation: Name in `torch.nn`, or ``none``.
        norm: ``none``, ``batch`` or ``layer``, after each hidden layer.
        input_norm: Batch norm on the inputs.
        dropout: After each hidden layer.
        residual: Hidden layers of equal width add to their input.
        last: Activation after the last layer: ``none``, ``softmax``, ``sigmoid``, ``log_softmax``, ``relu``, ``tanh``.
        outputs: Units of the last layer; 0 for what the task needs.
        init: Of all weights: ``default``, ``zero``, ``constant``, ``alike`` (constant, and biases of zero, so that all
            units of a layer are twins), ``normal``, ``kaiming``, ``xavier``, ``orthogonal``.
        gain: Deviation of ``normal``, value of ``constant`` and ``alike``, factor on the others.
        zero_last: The last layer begins at zero, on purpose.
        frozen: How many of the first layers do not require gradients.
        pretrained: Epochs that it is trained before the watch begins.
        unregistered: The hidden layers are held in a plain list.
        compiled: Through `torch.compile`.
        branch: Factor on what a residual block adds to its input.
        gate_bias: Gate -> its first bias: ``input``, ``forget``, ``output`` (LSTM), ``reset``, ``update`` (GRU),
            ``gate`` (GLU, squeeze-excite, highway).
        gate_gain: Factor on the first weights from which gates are computed, or the queries and keys of attention.
        shift: Added to all first biases.
        adapter: Rank of adapters beside the linear layers of a net that is otherwise frozen; 0 for none.
        adapter_gain: Deviation of both factors of an adapter; 0 for the usual: one of them zero, the other not.
        pretrained_on: Classes of the same set that it is pretrained to tell apart, on inputs that are scaled as usual,
            with right labels, under a head of its own; by default it is pretrained on what it is trained on.
        body_frozen: Everything but the last layer is frozen, norms included.
        causal: Over characters: nothing that comes later is seen, by a mask, padding or cells in one direction.
    """

    kind: str = "mlp"
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "ReLU"
    norm: str = "none"
    input_norm: bool = False
    dropout: float = 0.0
    residual: bool = False
    last: str = "none"
    outputs: int = 0
    init: str = "default"
    gain: float = 1.0
    zero_last: bool = False
    frozen: int = 0
    pretrained: int = 0
    unregistered: bool = False
    compiled: bool = False
    branch: float = _later(1.0)
    gate_bias: Mapping[str, float] = _later({})
    gate_gain: float = _later(1.0)
    shift: float = _later(0.0)
    adapter: int = _later(0)
    adapter_gain: float = _later(0.0)
    pretrained_on: tuple[int, ...] = _later(())
    body_frozen: bool = _later(False)
    causal: bool = _later(True)


@dataclass(frozen=True)
class Loss:
    """The criterion.

    Attributes:
        name: One of `zoo.training.LOSSES`.
        reduction: ``mean`` or ``sum``.
        smoothing: Label smoothing.
        weights: ``none`` or ``inverse`` (per class, inverse frequency).
        shape: Of targets that are no class indices: ``column`` (N, 1), ``flat`` (N,), ``one_hot`` (N, classes) or
            ``ordinal`` (N, classes - 1): whether a grade is above the first, above the second, and so on.
        l1: Factor on the sum of all absolute weights, which the loop adds to the training loss.
        positive: How much class 1 of two weighs beside class 0; 0 for what `weights` says.
    """

    name: str = "cross_entropy"
    reduction: str = "mean"
    smoothing: float = 0.0
    weights: str = "none"
    shape: str = "column"
    l1: float = _later(0.0)
    positive: float = _later(0.0)


@dataclass(frozen=True)
class Optimizer:
    """The optimiser and its schedule.

    Attributes:
        name: In `torch.optim`.
        lr, momentum, weight_decay: As there.
        parameters: ``all``; ``trainable``: those that require gradients; ``head`` or ``body`` alone; ``stale``: those
            of a copy of the model; ``stale_head``: the last layer was replaced after the optimiser was made.
        schedule: ``none``, ``cosine``, ``linear`` (decay to zero), ``warmup``, ``restarts``, ``step`` or ``one_cycle``.
        rates: How the names of parameters begin -> factor on their rate; each is a group of its own.
        prox: L1 coefficient of proximal steps, by `trainwatch.prox`; 0 for none.
    """

    name: str = "Adam"
    lr: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    parameters: str = "all"
    schedule: str = "none"
    rates: Mapping[str, float] = _later({})
    prox: float = _later(0.0)


@dataclass(frozen=True)
class Loop:
    """How it is trained.

    Attributes:
        epochs: Passes over the data.
        steps: Most optimiser steps; 0 for no limit.
        batch: Samples in a batch.
        order: ``shuffled``, ``fixed``, ``sorted`` (by class or by number), ``blocks`` (of `block` samples of one class,
            in random order) or ``balanced`` (drawn so that all classes are alike).
        zero_grad: ``before`` the backward pass, ``after`` the step, ``never``, or ``between`` backward and step.
        train_mode: ``train``, ``eval``, or ``eval_after_validation``: evaluation mode is never left again.
        val_mode: ``eval`` or ``train``.
        validate: Every how many epochs; 0 for never.
        accumulate: Batches in a step.
        clip: Largest norm of the gradient; 0 for none.
        clip_value: Largest entry of the gradient; 0 for none.
        block: Samples in a block.
        metrics: What a plain loop reports after each validation: ``accuracy``, ``f1`` (of each class, averaged).
        patience: Passes without improvement after which it stops; 0 for none.
        restore: The weights of the best pass are restored at the end.
        framework: ``pytorch`` or ``lightning``.
        keep_frozen: Frozen modules are put into evaluation mode after each `model.train()`.
        freeze_after: Epochs after which everything but the last layer is frozen; 0 for never.
        keep_zeros: Gradients are zeroed, not set to None.
        thaw_after: Epochs after which all parameters require gradients again; 0 for never.
        mixup: Of the distribution (Beta) by which two samples and their classes are mixed; 0 for not at all.
    """

    epochs: int = 20
    steps: int = 0
    batch: int = 32
    order: str = "shuffled"
    zero_grad: str = "before"
    train_mode: str = "train"
    val_mode: str = "eval"
    validate: int = 1
    accumulate: int = 1
    clip: float = 0.0
    patience: int = 0
    restore: bool = False
    framework: str = "pytorch"
    clip_value: float = _later(0.0)
    keep_frozen: bool = _later(False)
    freeze_after: int = _later(0)
    keep_zeros: bool = _later(False)
    block: int = _later(64)
    metrics: tuple[str, ...] = _later(())
    thaw_after: int = _later(0)
    mixup: float = _later(0.0)


PARTS = {"data": Data, "model": Model, "loss": Loss, "optimizer": Optimizer, "loop": Loop}


@dataclass(frozen=True)
class Scenario:
    """One training and the truth about it.

    Attributes:
        half: ``tuning`` or ``held_out``.
        family: Name of its file.
        form: ``base``, or the name of a variant or of a planted fault.
        planted: It is faulty.
        repaired: It is the repaired form of a faulty family: as `planted` False, and part of a pair.
        truth: Codes of the true cause: any of them, or all where `every`.
        also: Codes that are true of the run as well: saying them counts neither for nor against a rule. A sound run may
            have some, such as wrong labels that it gets over.
        every: There is more than one fault, and all of `truth` must be named.
    """

    half: str
    family: str
    form: str
    planted: bool
    repaired: bool
    truth: tuple[str, ...]
    also: tuple[str, ...]
    every: bool
    data: Data
    model: Model
    loss: Loss
    optimizer: Optimizer
    loop: Loop

    def shown(self, seed: int) -> str:
        """The name of a run, as commands print it: cases of the held-out half are not to be looked at."""
        return f"{self.family}/{self.form}-{seed}" if self.half == "tuning" else "a held-out run"

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes the training."""
        text = json.dumps(words(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def told(part: Any) -> dict[str, Any]:
    """The words of a part that make up its fingerprint."""
    unsaid = {f.name for f in fields(part) if f.metadata.get("later") and getattr(part, f.name) == f.default_factory()}
    return {name: value for name, value in asdict(part).items() if name not in unsaid}


def changed(scenario: Scenario, **parts: Mapping[str, Any]) -> Scenario:
    """The scenario with some words changed: part -> word -> value."""
    return replace(scenario, **{part: replace(getattr(scenario, part), **words) for part, words in parts.items()})


def words(scenario: Scenario) -> dict[str, dict[str, Any]]:
    """Part -> its words, of what is trained."""
    return {part: told(getattr(scenario, part)) for part in PARTS}


def of_words(half: str, family: str, form: str, truth: tuple[str, ...], told: Mapping[str, Any]) -> Scenario:
    """A scenario from what `words` gave.

    Raises:
        ScenarioError: A word is unknown, or a value has the wrong type.
    """
    parts = {part: _overlaid(cls(), told.get(part, {}), part) for part, cls in PARTS.items()}
    return Scenario(half, family, form, bool(truth), False, truth, (), False, **parts)


def scenarios(half: str | None = None, *families: str) -> list[Scenario]:
    """All scenarios of a half (of both by default), or those of some families alone.

    Raises:
        ScenarioError: A file cannot be used, or there is no such family.
    """
    files = [p for h in HALVES if half in (None, h) for p in sorted((FAMILIES / h).glob("*.toml"))]
    names = [p.stem for p in files]
    for name in families:
        if name not in names:
            raise ScenarioError(f"there is no family {name!r}{_nearest(name, names)}")
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise ScenarioError(f"a family belongs to one half alone, but {', '.join(sorted(twice))} is in both")
    return [s for p in files if not families or p.stem in families for s in read_family(p)]


def read_family(path: Path) -> list[Scenario]:
    """The scenarios of one file: its base, its variants and its faults.

    Raises:
        ScenarioError: A key is unknown, or a value has the wrong type; the file is named.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        return list(_scenarios(path.parent.name, path.stem, found))
    except (ScenarioError, tomllib.TOMLDecodeError) as error:
        raise ScenarioError(f"{path.name}: {error}") from None


def _scenarios(half: str, family: str, found: dict[str, Any]) -> Iterator[Scenario]:
    for key in found:
        if key not in ("summary", "truth", "also", "every", "base", "variants", "faults"):
            raise ScenarioError(f"unknown key {key!r}")
    if "summary" not in found:
        raise ScenarioError("a family needs a summary: one sentence on what is wrong or healthy")
    faults, truth = found.get("faults", {}), tuple(found.get("truth", ()))
    if bool(faults) != bool(truth):
        raise ScenarioError("faults need a truth, and a truth needs faults")
    twice = {"base", *found.get("variants", {})} & set(faults) | {"base"} & set(found.get("variants", {}))
    if twice:
        raise ScenarioError(f"two forms have the same name: {', '.join(sorted(twice))}")
    parts = {part: _overlaid(cls(), found.get("base", {}).get(part, {}), part) for part, cls in PARTS.items()}
    _known(found.get("base", {}), {*PARTS, "also"}, "base")
    sound = tuple(found.get("base", {}).get("also", ()))
    base = Scenario(half, family, "base", False, bool(faults), (), sound, False, **parts)
    yield base
    for planted, forms in ((False, found.get("variants", {})), (True, faults)):
        for form, changes in forms.items():
            _known(changes, {*PARTS, "also", *(("truth", "every") if planted else ())}, form)
            changed = {part: _overlaid(parts[part], changes.get(part, {}), part) for part in PARTS}
            claims = {
                "truth": tuple(changes.get("truth", truth)),
                "also": tuple(changes.get("also", found.get("also", ()))),
                "every": bool(changes.get("every", found.get("every", False))),
            }
            yield replace(base, form=form, planted=planted, repaired=not planted and base.repaired, **changed,
                          **(claims if planted else {"also": tuple(changes.get("also", sound))}))  # fmt: skip


def _overlaid(default: Any, changes: Mapping[str, Any], part: str) -> Any:
    known = {f.name: getattr(default, f.name) for f in fields(default)}
    _known(changes, known, part)
    values = {}
    for name, value in changes.items():
        wanted = type(known[name])
        if wanted is tuple and isinstance(value, list):
            value = tuple(value)
        elif wanted is float and type(value) is int:
            value = float(value)
        if not isinstance(value, wanted):
            raise ScenarioError(f"{part}.{name} must be of type {wanted.__name__}, got {value!r}")
        values[name] = value
    return replace(default, **values)


def _known(given: Mapping[str, Any], known: Any, where: str) -> None:
    for name in given:
        if name not in known:
            raise ScenarioError(f"{where} has no {name!r}{_nearest(name, list(known))}")


def _nearest(name: str, known: list[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
