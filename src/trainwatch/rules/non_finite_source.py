"""What the batch that went wrong first says for itself: words, evidence and the remedy (TW303)."""

from __future__ import annotations

from collections.abc import Iterator

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.remedies.nonfinite import ANY, OTHER, SOURCES
from trainwatch.rules.base import not_later
from trainwatch.symptoms.nonfinite_source import Operand, Source

# The largest x whose exponential is finite, rounded down.
EXP_LIMIT = {"float16": 11, "float32": 88, "bfloat16": 88, "float64": 709}
WHATEVER = "not finite whatever the weights are"
POINTS = ("input", "target", "masked")  # what no step has made, nor a start of the weights
ENDS = ("root", "norm")  # nor the slope of these at 0
TINY = {"float16": "1e-4"}  # what is certainly above 0 in a type, and small
KINDS = {
    "log": ("log", "log2", "log10", "log1p", "xlogy"),
    "root": ("sqrt", "rsqrt"),
    "norm": ("linalg_vector_norm", "norm", "cdist_forward", "euclidean_dist", "std", "linalg_norm"),
    "division": ("div", "reciprocal"),
    "exp": ("exp", "expm1", "exp2", "sinh", "cosh"),
    "pow": ("pow",),
}


def grew(cause: Diagnosis, effect: Diagnosis) -> bool:
    """Predicate: steps that are too long, or weights too large, can have made what is not finite."""
    return not any(e.name == WHATEVER for e in effect.evidence)


def grew_from_then(cause: Diagnosis, effect: Diagnosis) -> bool:
    """Predicate: so they can, and began no later."""
    return grew(cause, effect) and not_later(cause, effect)


def place(source: Source) -> str:
    """Where it was made, in words."""
    if source.held_before:
        return f"'{source.module}'"
    if source.module:
        return f"'{source.module}' ({source.module_type})"
    return f"the model ({source.module_type})" if source.module_type else "the loss"


def story(source: Source) -> str:
    """How it came about, as an end of a sentence."""
    if source.phase in ("input", "target"):
        return f"; {place(source)} held it when the step began{_samples(source)}"
    if source.phase == "parameter":
        return f"; the weights held it when the step began, in {place(source)}"
    backward = "the backward pass of " if source.phase == "backward" else ""
    given = " and ".join(map(_range, source.operands[:2]))
    return (
        f"; {backward}{source.operation} in {place(source)} made it"
        + (f" of {given}" if given else "")
        + (_samples(source))
    )


def evidence(source: Source) -> Iterator[Evidence]:
    """The numbers of the batch run again."""
    if not source.found:
        yield Evidence(f"batch {source.phase}" if "reproduced" in source.phase else "batch not run again",
                       step=source.step, note=source.reason)  # fmt: skip
        return
    where = source.module or source.module_type or "loss"
    if _kind(source) in POINTS or (_kind(source) in ENDS and source.phase == "backward"):
        yield Evidence(WHATEVER, where=where, step=source.step)
    for operand in source.operands[:2] if not source.held_before else ():
        low, high = operand.low, operand.high
        yield Evidence(f"smallest {operand.name} of {source.operation}", low, where=where, step=source.step,
                       note=_largest(operand, high))  # fmt: skip
    if source.samples_bad:
        yield Evidence("samples that are not finite", source.samples_bad, where=where, step=source.step,
                       note=f"of {source.samples_total} in the batch: {_listed(source)}")  # fmt: skip
    elif source.held_before:
        yield Evidence("not finite when the step began", where=where, step=source.step)


def specific(source: Source) -> Remedy:
    """What stops this very source."""
    kind = _kind(source)
    title, code = SOURCES[kind]
    operand = _decisive(source, kind)
    numbers = {
        "step": source.step,
        "samples": _listed(source) or "not told apart",
        "module": source.module,
        "place": place(source),
        "operation": source.operation,
        "dtype": source.dtype,
        "limit": EXP_LIMIT.get(source.dtype, EXP_LIMIT["float32"]),
        "tiny": TINY.get(source.dtype, "1e-12"),
        "operand": operand.name if operand else "it",
        "low": _number(operand.low if operand else None),
        "high": _number(operand.high if operand else None),
    }
    reason = story(source).removeprefix("; ")
    return remedy(
        "find-non-finite-source",
        title=title.format(**numbers),
        reason=f"Run again on a copy, the batch of step {source.step} showed it: {reason}.",
        code=code.format(**numbers),
    )


def unknown(step: int, place: str, *, backward: bool) -> Remedy:
    """The general search, where the batch could not be run again."""
    title, code = SOURCES[ANY]
    source = (
        "The loss of that step was finite, so the backward pass made it."
        if backward
        else "It was in the forward pass already: in the data, the weights or the loss."
    )
    begins = f"It begins in '{place}'. " if place else ""
    return remedy("find-non-finite-source", title=title, reason=begins + source, code=code.format(step=step))


def overflowed(source: Source) -> bool:
    """Large numbers made it, so that shorter steps may help; not a point where an operation has no value."""
    return _kind(source) in (OTHER, "exp", "pow", "float16", "parameter")


def _kind(source: Source) -> str:
    if source.held_before:
        return source.phase
    if source.dtype == "float16" and source.operation not in KINDS["log"] + KINDS["root"] + KINDS["division"]:
        return "float16"
    if "softmax" in source.operation and any(o.nonfinite for o in source.operands):
        return "masked"
    return next((kind for kind, names in KINDS.items() if source.operation in names), OTHER)


def _decisive(source: Source, kind: str) -> Operand | None:
    """The operand that matters: the divisor, else the first."""
    operands = source.operands
    return (operands[1] if kind == "division" and len(operands) > 1 else operands[0]) if operands else None


def _range(operand: Operand) -> str:
    more = f" with {operand.nonfinite} entries not finite" if operand.nonfinite else ""
    if operand.low is None or operand.high is None:
        return f"{operand.name}{more}"
    if not operand.dtype or operand.low == operand.high:
        return f"{operand.name} {_number(operand.low)}{more}"
    return f"{operand.name} from {_number(operand.low)} to {_number(operand.high)}{more}"


def _largest(operand: Operand, high: float | None) -> str:
    parts = [f"largest {_number(high)}", operand.dtype]
    parts.append(f"{operand.nonfinite} entries not finite" if operand.nonfinite else "")
    return ", ".join(part for part in parts if part)


def _samples(source: Source) -> str:
    return f", in {source.samples_bad} of {source.samples_total} samples" if source.samples_bad else ""


def _listed(source: Source) -> str:
    more = source.samples_bad - len(source.samples)
    return ", ".join(map(str, source.samples)) + (f" and {more} more" if more else "")


def _number(value: float | None) -> str:
    return "nothing finite" if value is None else f"{value + 0.0:.3g}"


def in_process(record: RunRecord, step: int) -> str:
    """Which of several processes met a loss that is not finite at a step or before."""
    processes = record.facts.get("processes", {})
    ranks = [str(found["rank"]) for found in processes.get("nonfinite", ()) if found["step"] <= step]
    if not ranks:
        return ""
    return f"; the loss that is not finite is that of process {' and '.join(ranks)} of {processes['world']}"
