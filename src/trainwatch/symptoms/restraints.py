"""What holds a network back, as far as it is written down: strong dropout, strong weight decay, a narrow layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from trainwatch.record import RunRecord
from trainwatch.symptoms.gradients import learning_rate
from trainwatch.symptoms.votes import told

MODERATE = 0.3  # dropout
USUAL = {True: 0.01, False: 1e-4}  # weight decay: decoupled, or added to the gradient
TAKES_EFFECT = 1.0  # rate x decay x steps: the weights were pulled to 1 / e of themselves or less
CLASSES_PER_UNIT = 3  # a layer of a few units, fewer than a third of the classes, can hardly tell them apart
PAIR = 2  # units: next to nothing, whatever the task
FEW_UNITS = 4  # draw as many straight boundaries: little for any two classes that need more than one
SOME_UNITS = 8  # and more of them have room for hundreds of classes


@dataclass(frozen=True)
class Restraint:
    """One thing that holds a network back.

    Attributes:
        text: What it is, in words.
        where: Module or parameter group.
        value: Its size.
        slows: The loss may go on falling slowly under it.
        remedy: Remedy that loosens it, and `numbers`, its fields.
    """

    text: str
    where: str
    value: float
    slows: bool
    remedy: str
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def strong(self) -> bool:
        """Of a strength that is hardly ever meant; a layer of a few units may be."""
        return self.remedy != "larger-model" or self.value <= PAIR


def regularisers(record: RunRecord, dropout: float, decay: float, penalty: float) -> list[Restraint]:
    """Dropout and weight decay of a strength that is hardly ever meant.

    Args:
        record: The run.
        dropout: From this probability on dropout counts.
        decay: From this coefficient on decoupled weight decay counts.
        penalty: From this coefficient on weight decay counts that is added to the gradient.
    """
    return [*_dropout(record, dropout), *_decay(record, decay, penalty)]


def _dropout(record: RunRecord, least: float) -> list[Restraint]:
    layers = record.facts.get("regularisation", {}).get("dropout") or []
    strong = [d for d in layers if least <= float(d["p"]) < 1]
    if not strong:
        return []
    p, where = max(float(d["p"]) for d in strong), ", ".join(d["name"] for d in strong)
    numbers = {"present": p, "proposed": MODERATE, "kept": 1 - p, "where": where, "measured": told(record)}
    return [Restraint(f"dropout with p = {p:g} in {where}", where, p, True, "less-dropout", numbers)]


def _decay(record: RunRecord, decay: float, penalty: float) -> list[Restraint]:
    found = []
    for key, optimizer in record.facts.get("optimizers", {}).items():
        for i, group in enumerate(optimizer["groups"]):
            present, decoupled = float(group.get("weight_decay") or 0.0), bool(group.get("decoupled_weight_decay"))
            rate = learning_rate(record, 0, i) if record.has("grad_norm") else float(group.get("lr") or 0.0)
            # An adaptive step is as long for the penalty as for the loss, however small its coefficient.
            pull = 1.0 if "Adam" in optimizer["type"] and not decoupled else present
            if present < (decay if decoupled else penalty) or rate * pull * record.steps < TAKES_EFFECT:
                continue
            numbers = {"present": present, "proposed": USUAL[decoupled], "optimizer": optimizer["type"]}
            text = f"weight decay of {present:g}"
            found.append(Restraint(text, f"{key}/{i}", present, False, "weaker-regularisation", numbers))
    return found


def narrow_layers(record: RunRecord) -> list[Restraint]:
    """Each full or recurrent layer between two others, with a handful of units or far fewer than there are classes."""
    classes = max((f.get("classes") or 0 for f in record.facts.get("loss", {}).values()), default=0)
    classified = record.facts.get("task") in ("binary", "multiclass")
    parameters = record.facts.get("parameters", ())
    layers = [p for p in parameters if p.get("kind") == "weight" and len(p["shape"]) == 2]
    ordered = sorted(layers, key=lambda p: p.get("order", 0))
    # Rows of a recurrent layer are of its gates, columns of its units.
    units = {p.get("module"): int(p["shape"][1]) for p in parameters if p.get("kind") == "recurrent"}
    single = bool(ordered) and int(ordered[-1]["shape"][0]) == 1  # an autoencoder has a narrow middle on purpose
    found = []
    for layer, following in pairwise(ordered):
        width = units.get(layer.get("module"), int(layer["shape"][0]))
        most = FEW_UNITS if classified else PAIR if single else 0
        few = width <= (SOME_UNITS if width * CLASSES_PER_UNIT < classes else most)
        if width == int(following["shape"][1]) and few:
            what = f", for {max(classes, 2)} classes" if classified else ""
            text = f"{width} unit{'s' if width > 1 else ''} between two layers{what}"
            where, reason = layer.get("module") or layer["name"], f"There is a layer of {text}."
            found.append(Restraint(text, where, float(width), False, "larger-model", {"reason": reason}))
    return found
