"""TW708: the first training step raises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import Predicate, Rule, always
from trainwatch.symptoms.subject import before_training

PHASES = {"forward": "the forward pass", "loss": "the loss", "backward": "the backward pass", "step": "the step"}


@dataclass(frozen=True)
class FailingStep(Rule):
    """Model, loss and batch do not go together: the very first step raises.

    ## Symptom
    Before training, one step on a copy of the model raises: shapes, devices or types that do not fit, a label or an
    index beyond its range, a loss that is no single number or does not depend on any parameter.

    ## Why it hurts
    Training cannot begin. On a GPU a label beyond the outputs ends the whole process, with a message that names neither
    the label nor the outputs.

    ## How it is measured
    By taking that step. The part that raised, the innermost module, and the shapes, types, devices and ranges of what
    they were given are noted. What a GPU could not survive (indices of embeddings, the loss) is tried on the CPU first.

    ## Remedies
    `classes-from-zero`, `rows-for-all-indices`, `same-device`, `same-type`, `fitting-shapes`, `keep-the-graph`,
    `one-number-loss`, `loss-of-logits`, else `repeat-the-step`.

    ## Not a fault when
    The step needs what a copy cannot be given; then nothing is said.

    ## Sources
    §6; Zhang et al., "An empirical study on TensorFlow program bugs" (2018); Humbatova et al., "Taxonomy of real faults
    in deep learning systems" (2020).
    """

    code: ClassVar[str] = "TW708"
    name: ClassVar[str] = "failing-step"
    severity: ClassVar[Severity] = Severity.ERROR
    section: ClassVar[str] = "§6"
    at_first_look: ClassVar[bool] = True
    explains: ClassVar[dict[str, Predicate]] = {"TW709": always}

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        failure = record.facts.get("failure")
        if not failure or not before_training(record):
            return
        known = {**failure, "targets": _first(failure, "targets"), "outputs": _first(failure, "outputs"),
                 "inputs": _first(failure, "inputs")}  # fmt: skip
        what, advice, evidence = _told(known)
        module = failure["module"]
        yield self.diagnose(
            f"{PHASES[failure['phase']]}{' of validation' if failure['validating'] else ''} raises: {what}",
            margin=float("inf"),
            where=(module or failure["phase"],),
            onset_step=0,
            evidence=(*evidence, Evidence("error", note=failure["error"], step=0)),
            remedies=(advice,),
        )


def _first(failure: dict[str, Any], what: str) -> dict[str, Any]:
    return next(iter(failure.get(what, ())), {})


def _told(known: dict[str, Any]) -> tuple[str, Remedy, tuple[Evidence, ...]]:
    """The cause in words, what to do, and the numbers behind it."""
    cause, targets, outputs = known["cause"], known["targets"], known["outputs"]
    width = (outputs.get("shape") or [0])[1:2] or [0]
    if cause == "labels" and targets.get("most") is not None and width[0]:
        last, least, most = width[0] - 1, targets["least"], targets["most"]
        wrong = most if most > last else least
        what = f"targets hold class {wrong:g}, the outputs have {last + 1} columns: classes go from 0 to {last}"
        numbers = Evidence("class beyond the outputs", wrong, last if most > last else 0, where="targets", step=0)
        advice = remedy("classes-from-zero", least=f"{least:g}", most=f"{most:g}", width=last + 1, last=last,
                        needed=f"{most - min(least, 0) + 1:g}")  # fmt: skip
        return what, advice, (numbers,)
    rows = known["widths"].get("num_embeddings")
    if cause == "indices" and rows and known["inputs"].get("most") is not None:
        most = known["inputs"]["most"]
        what = f"'{known['module']}' has {rows} rows, for indices 0 to {rows - 1}, and is given others up to {most:g}"
        advice = remedy("rows-for-all-indices", module=known["module"], rows=rows, most=f"{most:g}",
                        needed=f"{most + 1:g}")  # fmt: skip
        return what, advice, (Evidence("largest index of the inputs", most, rows - 1, where="inputs", step=0),)
    what, id = _in_words(known)
    return what, remedy(id, found=what[:1].upper() + what[1:]), ()


def _in_words(known: dict[str, Any]) -> tuple[str, str]:
    """The cause in words, and the remedy that fits it."""
    cause = known["cause"]
    if cause in ("devices", "types"):
        concerned = ("outputs", "targets") if (cause, known["phase"]) == ("types", "loss") else ("model", "inputs")
        listed = {what: found for what, found in known[cause].items() if cause == "devices" or what in concerned}
        if cause == "types" and len({tuple(found) for found in listed.values()}) < 2:  # which therefore do not tell it
            return known["error"], "same-type"
        parts = (f"{what} {' and '.join(found)}" for what, found in listed.items() if found)
        return f"the {cause} do not fit ({', '.join(parts)})", f"same-{cause[:-1]}"
    if cause == "range":
        return f"it wants probabilities, and is given {_range(known['outputs'])}", "loss-of-logits"
    if cause == "gradient":
        return "no parameter that is trained leads to the loss", "keep-the-graph"
    if cause == "scalar":
        return "the loss has several entries, where one number is needed", "one-number-loss"
    if cause == "shapes" and known["phase"] == "loss":
        return f"outputs {_shape(known['outputs'])} and targets {_shape(known['targets'])} do not fit", "fitting-shapes"
    if cause == "shapes" and known["given"]:
        given = ", ".join(str(tuple(shape)) for shape in known["given"])
        takes = ", ".join(f"{name} {width}" for name, width in known["widths"].items())
        name = f"'{known['module']}'" if known["module"] else "the model"
        return f"{name}{f' ({takes})' if takes else ''} is given {given}", "fitting-shapes"
    return known["error"], "fitting-shapes" if cause == "shapes" else "repeat-the-step"


def _range(tensor: dict[str, Any]) -> str:
    return f"numbers from {tensor['least']:.3g} to {tensor['most']:.3g}" if tensor.get("most") is not None else "others"


def _shape(tensor: dict[str, Any]) -> str:
    return str(tuple(tensor["shape"])) if tensor else "of unknown shape"
