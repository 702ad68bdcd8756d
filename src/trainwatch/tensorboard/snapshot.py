"""What the tab shows of a report, as JSON. Words, their order and colours are settled here: tab and page agree.

Findings and figures are two texts, so that a list of many runs need not read their charts.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from trainwatch.diagnosis import Diagnosis, Remedy, to_plain
from trainwatch.report import Report
from trainwatch.reports import wording
from trainwatch.reports.drawing import COLOURS

SCHEMA = 1  # a tab that finds a newer one says so
MOST_BYTES = 1_000_000  # of the figures of one report
DIGITS = 4  # a chart shows no more


def findings_json(
    report: Report, resolved: Sequence[tuple[Diagnosis, int]] = (), unconfirmed: Collection[str] = ()
) -> str:
    """All that the tab says in words.

    Args:
        report: The report as it stands, read back from JSON (`wording.settled`).
        resolved: What was reported and is gone, with the step at which it went.
        unconfirmed: Codes of what one look found and no second one has seen yet.
    """
    present = {d.code for cause in report.diagnoses for d in cause.walk()}
    sections = (
        (wording.REGULARISATION, wording.regularisation(report)),
        (wording.NOT_CHECKED, [f"{reason}: {codes}" for reason, codes in wording.not_checked(report)]),
        (wording.OVERHEAD, wording.overhead(report)),
    )
    return _json(
        {
            "schema": SCHEMA,
            "verdict": report.verdict,
            "headline": wording.headline(report),
            "causes": [_cause(d, unconfirmed) for d in report.diagnoses],
            "resolved": [
                {"title": wording.title(d), "summary": wording.line(d.summary), "when": f"resolved at step {step:,}"}
                for d, step in resolved
                if d.code not in present
            ],
            "sections": [{"title": title, "lines": list(lines)} for title, lines in sections if lines],
            "more": wording.explain(report),
            "words": {
                "remedies": wording.REMEDIES,
                "consequences": wording.CONSEQUENCES,
                "figures": wording.FIGURES,
                "numeric": wording.NUMERIC,
            },
        }
    )


def figures_json(report: Report) -> str:
    """The charts of a report in at most `MOST_BYTES`; the largest ones are left out until that holds, and named."""
    figures = [{"name": name, "kind": f.kind, **_rounded(to_plain(f))} for name, f in wording.figures(report).items()]
    left_out: list[str] = []
    while len(text := _json({"schema": SCHEMA, "colours": COLOURS, "figures": figures, "left_out": left_out})) > (
        MOST_BYTES
    ):
        largest = max(figures, key=lambda figure: len(_json(figure)))
        figures.remove(largest)
        left_out.append(wording.short(largest["title"]))
    return text


def _cause(d: Diagnosis, unconfirmed: Collection[str]) -> dict[str, Any]:
    doubted = d.code in unconfirmed
    when = wording.when(d.with_(reported_step=None) if doubted else d)
    return {
        "severity": d.severity.value,
        "title": wording.title(d),
        "summary": wording.line(d.summary),
        "where": wording.places(d),
        "when": ", ".join(part for part in (when, "seen by one look so far" if doubted else "") if part),
        "unconfirmed": doubted,
        "evidence": wording.evidence(d) if d.evidence else [],
        "remedies": [_remedy(r) for r in wording.remedies(d)],
        "consequences": [_consequence(c) for c in d.consequences],
    }


def _remedy(remedy: Remedy) -> dict[str, Any]:
    return {
        "title": wording.remedy_title(remedy),
        "why": wording.line(remedy.why),
        "code": wording.block(remedy.how),
        "in_use": remedy.already_in_use,
    }


def _consequence(d: Diagnosis) -> dict[str, Any]:
    return {
        "title": wording.title(d),
        "text": wording.consequence(d),
        "consequences": [_consequence(c) for c in d.consequences],
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


def _json(value: Any) -> str:
    """Compact and in ASCII, so that characters are bytes."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
