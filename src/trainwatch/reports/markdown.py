"""The report as Markdown that GitHub, notebooks and TensorBoard's text panel render alike: no raw HTML in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from trainwatch.diagnosis import Diagnosis, Remedy
from trainwatch.report import Report
from trainwatch.reports import wording

# By entity what not every renderer can escape with a backslash.
_ENTITIES = {"<": "&lt;", ">": "&gt;", "~": "&#126;"}
_SPECIAL = re.compile(r"[\\`*\[\]|]|(?<![^\W_])_|_(?![^\W_])|^(?:#|[-+](?=[-\s]|$)|\d+(?=[.)](?:\s|$)))")


def render(report: Report) -> str:
    """The report as Markdown; the same report gives the same text."""
    return "\n\n".join(_parts(wording.settled(report))) + "\n"


def escape(text: str) -> str:
    """Text of anyone's making as one line that Markdown shows as it is."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", wording.line(text))
    text = _SPECIAL.sub(lambda m: f"{m[0]}\\" if m[0].isdigit() else f"\\{m[0]}", text)
    return re.sub("[<>~]", lambda m: _ENTITIES[m[0]], text)


def _parts(report: Report) -> Iterator[str]:
    yield "# trainwatch"
    yield escape(wording.headline(report))
    for diagnosis in report.diagnoses:
        yield from _cause(diagnosis)
    if regularised := wording.regularisation(report):
        yield f"## {wording.REGULARISATION}"
        yield _list(escape(text) for text in regularised)
    if read := wording.data(report):
        yield f"## {wording.DATA}"
        yield _list(escape(text) for text in read)
    if report.not_checked:
        yield f"## {wording.NOT_CHECKED}"
        yield _list(f"{escape(reason)}: {codes}" for reason, codes in wording.not_checked(report))
    if cost := wording.overhead(report):
        yield f"## {wording.OVERHEAD}"
        yield "\n".join(escape(text) for text in cost)
    if more := wording.explain(report):
        yield f"More: `{more}`"


def _cause(d: Diagnosis) -> Iterator[str]:
    yield f"## {escape(wording.title(d))}"
    yield f"**{escape(d.summary)}**"
    facts = [("Where", wording.places(d)), ("When", wording.when(d))]
    if any(text for _, text in facts):
        yield _list(f"{name}: {escape(text)}" for name, text in facts if text)
    if d.evidence:
        yield _evidence(d)
    if d.remedies:
        yield f"### {wording.REMEDIES}"
        for rank, remedy in enumerate(wording.remedies(d), 1):
            yield from _remedy(rank, remedy)
    if d.consequences:
        yield f"### {wording.CONSEQUENCES}"
        yield "\n".join(_consequences(d, ""))


def _evidence(d: Diagnosis) -> str:
    headings, *rows = wording.evidence(d)
    align = ("---:" if heading in wording.NUMERIC else "---" for heading in headings)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, align, *(map(escape, row) for row in rows)))


def _remedy(rank: int, remedy: Remedy) -> Iterator[str]:
    # Not a list: fenced code inside a list is beyond TensorBoard's renderer.
    yield f"**{rank}. {escape(wording.remedy_title(remedy))}**"
    if remedy.why:
        yield escape(remedy.why)
    if code := wording.block(remedy.how):
        fence = max(["```", *(run + "`" for run in re.findall("`{3,}", code))], key=len)
        yield f"{fence}{'python' if wording.is_python(code) else 'text'}\n{code}\n{fence}"


def _consequences(d: Diagnosis, indent: str) -> Iterator[str]:
    for effect in d.consequences:
        yield f"{indent}- {escape(wording.title(effect))}: {escape(wording.consequence(effect))}"
        yield from _consequences(effect, indent + "    ")


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
