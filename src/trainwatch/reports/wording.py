"""The words that all renderers share: what is said, in which order. How it looks is each renderer's own."""

from __future__ import annotations

import ast
import math
import re
import warnings
from dataclasses import replace
from typing import Any

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.figures import Curve, Figure
from trainwatch.report import IN_PART, Report

EVIDENCE = ("evidence", "measured", "threshold", "where", "step", "note")
NUMERIC = ("measured", "threshold", "step")
REMEDIES = "What to do"
CONSEQUENCES = "Leads to"
NOT_CHECKED = "Not checked"
OVERHEAD = "Cost of watching"
REGULARISATION = "Regularisation"
FIGURES = "Figures"
ONSETS = 3  # marked in the chart of the loss
DATA = "What was read"
SPLITS = {"train": "training", "val": "validation"}
MOST_PROBLEMS = 5
MOST_PLACES = 6
# Characters that steer a terminal, a parser or the direction of writing, and halves of characters.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def settled(report: Report) -> Report:
    """The report as it reads back from JSON, so that a stored report looks the same as a fresh one."""
    return Report.from_json(report.to_json())


def line(text: str) -> str:
    """Text of anyone's making on one line, without control characters."""
    return _UNSAFE.sub("?", " ".join(text.split()))


def block(code: str) -> str:
    """Code of several lines, without control characters and blank lines round it."""
    lines = [_UNSAFE.sub("?", each.expandtabs(4).rstrip()) for each in code.split("\n")]
    return "\n".join(lines).strip("\n")


def short(name: str, width: int = 80) -> str:
    """A name on one line; a long one loses its middle, since its ends tell it from others."""
    name, half = line(name), (width - 3) // 2
    return name if len(name) <= width else f"{name[:half]}...{name[-half:]}"


def number(value: float | None) -> str:
    """A number at four digits; absent and NaN are the empty text."""
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if 1e4 <= abs(value) < 1e9 or (value == int(value) and abs(value) < 1e9):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def count(n: int, noun: str) -> str:
    """``1 step``, ``1,200 steps``."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def headline(report: Report) -> str:
    """What was found, in how long a run of how large a model, in one sentence."""
    serious = [d for d in report.diagnoses if d.severity >= Severity.WARNING]
    notes = len(report.diagnoses) - len(serious)
    beside = f" Also {count(notes, 'note')}." if notes else ""
    if report.verdict == "findings":
        named = [f"{d.code} {line(d.name)} ({d.severity})" for d in serious]
        more = f" and {len(named) - 4} more" if len(named) > 4 else ""
        return f"{count(len(named), 'problem')} found in {_extent(report)}: {', '.join(named[:4])}{more}.{beside}"
    in_part = sum(reason.startswith(IN_PART) for reason in report.not_checked.values())
    blind = f" {count(n, 'rule')} could not judge." if (n := len(report.not_checked) - in_part) else ""
    blind += f" {count(in_part, 'rule')} could judge only in part." if in_part else ""
    if report.verdict == "healthy":
        partly = any(d.code == "TW709" for d in report.diagnoses)  # no validation, or a few steps
        healthy = "Healthy as far as could be seen" if partly else "Healthy"
        return f"{healthy}: nothing wrong was found in {_extent(report)}.{beside}{blind}"
    return f"Not judged: too little was seen in {_extent(report)} to call it sound or faulty.{beside}{blind}"


def _extent(report: Report) -> str:
    if report.facts.get("subject") == "preflight":
        size = _parameters(report.facts.get("parameters"))
        return "a model " + (f"of {count(size, 'parameter')} " if size else "") + "before training"
    if report.facts.get("subject") == "data":
        return _samples(report)
    run = report.facts.get("run") or {}
    if run.get("steps") is None:
        return "this run"
    text = count(int(run["steps"]), "step") + (" of an unfinished run" if run.get("finished") is False else "")
    sizes = [(run.get("epochs"), "epoch"), (_parameters(report.facts.get("parameters")), "parameter")]
    known = [count(int(n), noun) for n, noun in sizes if n]
    trained = (report.facts.get("tuning") or {}).get("trained")
    if sizes[1][0] and trained is not None and trained < sizes[1][0]:
        known.append(f"{_percent(trained / sizes[1][0])} of them trained")
    return text + (f" ({', '.join(known)})" if known else "")


def _samples(report: Report) -> str:
    parts = (report.facts.get("data") or {}).items()
    read = [f"{part['samples']:,} {SPLITS.get(split, split)}" for split, part in parts]
    return f"{' and '.join(read)} samples" if read else "these data"


def _parameters(fact: Any) -> int | None:
    if isinstance(fact, list):
        return sum(int(p["numel"]) for p in fact)
    return int(fact) if fact else None


def title(d: Diagnosis) -> str:
    """Code, name and severity."""
    return f"{d.code} {line(d.name)} ({d.severity})"


def when(d: Diagnosis) -> str:
    """Onset against report, and how sure a finding is.

    Of a remark confidence is the chance that it is a fault all the same: beside what it states it would read as doubt
    in that.
    """
    begun = f"began near step {d.onset_step:,}" if d.onset_step is not None else ""
    said = f"reported at step {d.reported_step:,}" if d.reported_step is not None else ""
    sure = f"confidence {d.confidence:.2f}" if d.confidence and d.severity >= Severity.WARNING else ""
    return ", ".join(part for part in (begun, said, sure) if part)


def places(d: Diagnosis) -> str:
    """Where, the first few by name."""
    names = ", ".join(short(name) for name in d.where[:MOST_PLACES])
    more = len(d.where) - MOST_PLACES
    return f"{names} and {more} more" if more > 0 else names


def evidence(d: Diagnosis) -> list[tuple[str, ...]]:
    """The numbers behind a verdict as a table: headings, then rows; columns that hold nothing are left out."""
    rows = [
        (
            line(e.name),
            _with_unit(e.value, e.unit),
            _with_unit(e.threshold, e.unit),
            short(e.where),
            "" if e.step is None else f"{e.step:,}",
            _note(e),
        )
        for e in d.evidence
    ]
    kept = [i for i in range(len(EVIDENCE)) if i == 0 or any(row[i] for row in rows)]
    return [tuple(row[i] for i in kept) for row in (EVIDENCE, *rows)]


def _with_unit(value: float | None, unit: str) -> str:
    return f"{number(value)} {line(unit)}".strip() if number(value) else ""


def _note(e: Evidence) -> str:
    if "Traceback (most recent call last)" not in e.note:
        return line(e.note)
    return f"{line(e.note.strip().splitlines()[-1])} (the record holds the whole traceback)"


def remedies(d: Diagnosis) -> list[Remedy]:
    """What to do: new things first, well-supported ones first, otherwise in the rule's order."""
    return sorted(d.remedies, key=lambda r: (r.already_in_use, r.strength == "weak"))


def remedy_title(remedy: Remedy) -> str:
    """Headline of a remedy with what speaks against trying it first."""
    marks = [" (weakly supported)"] * (remedy.strength == "weak") + [" (already in use)"] * remedy.already_in_use
    return line(remedy.title) + "".join(marks)


def is_python(code: str) -> bool:
    """Does it parse as Python? Else it is steps in words or shell commands."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def consequence(d: Diagnosis) -> str:
    """A nested diagnosis in brief."""
    said = line(d.summary)
    return f"{said.rstrip('.')}. It began near step {d.onset_step:,}." if d.onset_step is not None else said


def explain(report: Report) -> str:
    """Where to read on, if anything was found."""
    codes = [d.code for d in report.diagnoses if d.code != "TW000"]
    return f"trainwatch explain {codes[0]}" if codes else ""


def figures(report: Report) -> dict[str, Figure]:
    """The charts in order; that of the loss marks where the first few problems began."""
    shown = dict(report.figures)
    loss = shown.get("loss")
    if isinstance(loss, Curve):
        marks = dict(loss.marks)
        begun = [(d.onset_step, d.code) for d in report.diagnoses if d.severity >= Severity.WARNING]
        for step, code in [(step, code) for step, code in begun if step is not None][:ONSETS]:
            marks[step] = f"{marks[step]}; {code} began" if step in marks else f"{code} began"
        shown["loss"] = replace(loss, marks=dict(sorted(marks.items())))
    return shown


def regularisation(report: Report) -> list[str]:
    """What regularises the run, and what it brought as far as it was measured; empty where nothing is known."""
    known = report.facts.get("regularised") or {}
    if not known:
        return []
    lines = [f"In use: {', '.join(map(line, known.get('in_use') or ())) or 'nothing that was seen'}."]
    if known.get("effects"):
        lines.append(f"Measured: {'; '.join(map(line, known['effects']))}.")
    return lines


def data(report: Report) -> list[str]:
    """What an audit read of each part, and what it could not read; empty for a run."""
    return [text for split, part in (report.facts.get("data") or {}).items() for text in _part(split, part)]


def _part(split: str, part: dict[str, Any]) -> list[str]:
    name = SPLITS.get(split, split).capitalize()
    known = part["total"] is not None and part["total"] != part["samples"]
    read = f"{part['samples']:,} of {count(part['total'], 'sample')}" if known else count(part["samples"], "sample")
    about = ", ".join(map(line, part["about"]))
    lines = [f"{name}: {read} of {line(part['source'])}, {about}."]
    lines += [f"{name}: {line(note)}." for note in part["notes"]]
    problems = part["problems"]
    lines += [f"{name}: {short(p['place'])} {line(p['what'])}." for p in problems["first"][:MOST_PROBLEMS]]
    more = problems["count"] - len(problems["first"][:MOST_PROBLEMS])
    return [*lines, f"{name}: {count(more, 'more problem')} of that kind."] if more else lines


def not_checked(report: Report) -> list[tuple[str, str]]:
    """Each reason once, with the codes of the rules that could not judge for it."""
    by_reason: dict[str, list[str]] = {}
    for code, reason in sorted(report.not_checked.items()):
        by_reason.setdefault(line(reason), []).append(code)
    return [(reason, ", ".join(codes)) for reason, codes in by_reason.items()]


def overhead(report: Report) -> list[str]:
    """What watching cost, and what was left out to keep the budget; empty where it was not measured."""
    cost = report.overhead
    parts = sorted((cost.get("seconds") or {}).items(), key=lambda part: (-part[1], part[0]))
    said = []
    if cost.get("share") is not None:
        of = f"{_duration(cost['run_seconds'])} of training" if cost.get("run_seconds") else "training"
        said.append(f"{_percent(cost['share'])} of {of}")
    if cost.get("per_step_us") is not None:
        said.append(f"{cost['per_step_us']:,.0f} us a step")
    if cost.get("once_seconds"):
        said.append(f"{_duration(cost['once_seconds'])} once, to start and to end")
    by_part = ", ".join(f"{line(name)} {_duration(seconds)}" for name, seconds in parts)
    lines = [f"{', '.join(said)}: {by_part}".removeprefix(": ").removesuffix(": ")] if said or parts else []
    if cost.get("skipped"):
        lines.append("Skipped: " + ", ".join(line(str(each)) for each in cost["skipped"]))
    return [f"{text}." for text in lines]


def _duration(seconds: float) -> str:
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.001 else "under 1 ms"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "under 0.1 %"
