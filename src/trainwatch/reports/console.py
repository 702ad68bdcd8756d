"""The report in a terminal. Severity is a word that colour only repeats; code is neither wrapped nor boxed."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from trainwatch.diagnosis import Diagnosis, Remedy, Severity
from trainwatch.report import Report
from trainwatch.reports import wording

WIDTH = 100
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "bold blue"}


def show(report: Report, console: Console | None = None) -> None:
    """Print a report.

    Args:
        report: The report.
        console: Where to; standard output by default.
    """
    console = console or Console()
    if console.encoding.lower().startswith("utf"):
        _print(report, console)
        return
    with console.capture() as captured:
        _print(report, console)
    # A name that the terminal cannot encode must not raise at the end of a training.
    console.file.write(captured.get().encode(console.encoding, "replace").decode(console.encoding))


def render(report: Report) -> str:
    """The report as plain text, 100 columns wide but for longer lines of code."""
    file = StringIO()
    _print(report, Console(file=file, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def _print(report: Report, console: Console) -> None:
    for part in _parts(wording.settled(report)):
        console.print(part, width=min(WIDTH, console.width), crop=False)


def _parts(report: Report) -> Iterator[RenderableType]:
    yield Text.assemble(("trainwatch  ", "bold"), wording.headline(report))
    for diagnosis in report.diagnoses:
        yield ""
        yield from _cause(diagnosis)
    if regularised := wording.regularisation(report):
        yield ""
        yield _rule(Text(wording.REGULARISATION, "bold"))
        yield from (_indented(Text(text)) for text in regularised)
    if read := wording.data(report):
        yield ""
        yield _rule(Text(wording.DATA, "bold"))
        yield from (_indented(Text(text)) for text in read)
    if report.not_checked:
        yield ""
        yield _rule(Text(wording.NOT_CHECKED, "bold"))
        for reason, codes in wording.not_checked(report):
            yield _hanging("-", Text(f"{reason}: {codes}"))
    if cost := wording.overhead(report):
        yield ""
        yield _rule(Text(wording.OVERHEAD, "bold"))
        yield from (_indented(Text(text)) for text in cost)
    if more := wording.explain(report):
        yield ""
        yield Text.assemble("More: ", (more, "bold"))


def _cause(d: Diagnosis) -> Iterator[RenderableType]:
    yield _rule(Text(wording.title(d), STYLES[d.severity]))
    yield _indented(Text(wording.line(d.summary), "bold"))
    if places := wording.places(d):
        yield _hanging("where", Text(places))
    if when := wording.when(d):
        yield _hanging("when ", Text(when))
    if d.evidence:
        yield ""
        yield _indented(_evidence(d))
    if d.remedies:
        yield ""
        yield _indented(Text(wording.REMEDIES, "bold"))
        for rank, remedy in enumerate(wording.remedies(d), 1):
            yield from _remedy(rank, remedy)
    if d.consequences:
        yield ""
        yield _indented(Text(wording.CONSEQUENCES, "bold"))
        yield from _consequences(d, 2)


def _evidence(d: Diagnosis) -> Table:
    headings, *rows = wording.evidence(d)
    notes = [row[-1] if headings[-1] == "note" else "" for row in rows]
    columns = [heading for heading in headings if heading != "note"]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in columns:
        table.add_column(heading, justify="right" if heading in wording.NUMERIC else "left", overflow="fold")
    for row, note in zip(rows, notes, strict=True):
        name, *cells = (Text(cell) for cell in row[: len(columns)])
        table.add_row(Group(name, _indented(Text(note, "dim"))) if note else name, *cells)
    return table


def _remedy(rank: int, remedy: Remedy) -> Iterator[RenderableType]:
    style = "dim" if remedy.already_in_use else "bold"
    yield _hanging(f"{rank}.", Text(wording.remedy_title(remedy), style))
    if remedy.why:
        yield _indented(Text(wording.line(remedy.why)), 5)
    if code := wording.block(remedy.how):
        yield _code(code)


def _code(code: str) -> Group:
    highlighted = Text(code)
    if wording.is_python(code):
        highlighted = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(code)
        highlighted.rstrip()
    lines = [Text("     ") + each for each in highlighted.split("\n")]
    # In a group, since `Console.print` joins bare texts and forgets that this one must not be wrapped.
    return Group(Text("\n", no_wrap=True, overflow="ignore").join(lines))


def _consequences(d: Diagnosis, indent: int) -> Iterator[RenderableType]:
    for effect in d.consequences:
        text = Text.assemble((wording.title(effect), STYLES[effect.severity]), ": ", wording.consequence(effect))
        yield _hanging("-", text, indent)
        yield from _consequences(effect, indent + 2)


def _rule(title: Text) -> Rule:
    return Rule(Text("-- ") + title, align="left", characters="-", style="dim")


def _indented(part: RenderableType, by: int = 2) -> Padding:
    return Padding(part, (0, 0, 0, by))


def _hanging(marker: str, text: Text, indent: int = 2) -> Padding:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    grid.add_row(marker, text)
    return _indented(grid, indent)
