"""The command line. A user's mistake ends with one line on standard error and exit code 2, never with a traceback."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

import trainwatch
from trainwatch.config import SettingsError, rule_named
from trainwatch.demo import Fault
from trainwatch.record import RecordError
from trainwatch.remedies import CATALOGUE
from trainwatch.report import Report
from trainwatch.rules import all_rules
from trainwatch.rules.page import page, thresholds

if TYPE_CHECKING:
    from rich.table import Table

FINE, FOUND, FAILED = 0, 1, 2
WIDE = 1000
SUFFIXES = {".md": "md", ".markdown": "md", ".json": "json", ".html": "html", ".htm": "html"}
INTERNAL = """\
# TW000 internal-fault

A part of trainwatch itself failed, or the `on_finding` that it was given. It was switched off, the training went on
untouched, and the traceback is in the report. Rules that needed this part are listed as not checked. Please report a
part of trainwatch as a bug, with the traceback; `Settings(strict=True)` raises it where it happens.
"""

app = typer.Typer(
    help="A linter for training runs: what went wrong, the evidence, and what to do about it.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Format(str, enum.Enum):
    """Formats of a report."""

    TEXT = "text"
    MD = "md"
    JSON = "json"
    HTML = "html"


class FailOn(str, enum.Enum):
    """What `diagnose` and `audit` answer with a failure."""

    WARNING = "warning"
    ERROR = "error"
    NOT_JUDGED = "not-judged"


def main() -> None:
    """Entry point of the command ``trainwatch``."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trainwatch {trainwatch.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    fault: Annotated[Fault, typer.Option(help="What is planted in the run.")] = Fault.OVERFIT,
    seed: Annotated[int, typer.Option(min=0, help="Seed of data, weights and order.")] = 0,
    log_dir: Annotated[
        Path | None, typer.Option(help="Where the record and the report go [default: runs/demo-FAULT]")
    ] = None,
) -> None:
    """Train a small net on real digits with a planted fault, and see it be found.

    Exit code 0 where the planted fault is the first cause of the report or due to it (none: no finding), else 1.
    """
    directory = log_dir or Path("runs") / f"demo-{fault.value}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _fail(f"cannot make the directory {directory}: {error.strerror}")
    from trainwatch.demo.show import show  # with torch, which takes a second

    try:
        report = show(fault, seed, directory)
    except RecordError as error:
        _fail(str(error))
    said = [d.code for d in report.findings()[0].walk()] if report else [None]  # what it leads to belongs to a cause
    if fault.code not in said or report.verdict == "not-judged":
        typer.echo(f"This is not what was planted: {fault.code or 'nothing'} was expected.", err=True)
        raise typer.Exit(FOUND)


@app.command()
def diagnose(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The log_dir of a run.", show_default=False)],
    format: Annotated[
        Format | None, typer.Option(help="[default: text, or as the suffix of --output says]", show_default=False)
    ] = None,
    fail_on: Annotated[FailOn, typer.Option(help="The least finding that gives exit code 1.")] = FailOn.WARNING,
    output: Annotated[Path | None, typer.Option(help="Write the report to this file.", show_default=False)] = None,
) -> None:
    """Judge the record of a run: finished, crashed, or still going on.

    Exit code 0: fine. 1: findings at or above --fail-on (never with not-judged). 2: too little was seen to judge the
    run, or an error.
    """
    try:
        report = trainwatch.diagnose(directory)
    except (RecordError, SettingsError) as error:
        _fail(str(error))
    _answer(report, format, fail_on, output)


@app.command()
def audit(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A folder of images, a .csv, .parquet, .npy or .npz, or a folder with both parts.",
            show_default=False,
        ),
    ],
    val: Annotated[Path | None, typer.Option(help="The validation part.", show_default=False)] = None,
    target: Annotated[
        str | None, typer.Option(help="Column of the targets, where its name does not tell.", show_default=False)
    ] = None,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Look for samples that are almost equal, too.")
    ] = False,
    format: Annotated[
        Format | None, typer.Option(help="[default: text, or as the suffix of --output says]", show_default=False)
    ] = None,
    fail_on: Annotated[FailOn, typer.Option(help="The least finding that gives exit code 1.")] = FailOn.WARNING,
    output: Annotated[Path | None, typer.Option(help="Write the report to this file.", show_default=False)] = None,
) -> None:
    """Look at data before training: broken, wrongly labelled, there twice, or other in validation.

    Exit code 0: fine. 1: findings at or above --fail-on (never with not-judged). 2: too little was seen to judge the
    data, or an error.
    """
    try:
        report = trainwatch.audit(path, val, target=target, near_duplicates=near_duplicates)
    except (trainwatch.AuditError, SettingsError) as error:
        _fail(str(error))
    _answer(report, format, fail_on, output)


@app.command()
def explain(
    rule: Annotated[
        str, typer.Argument(help="Code or name of a rule, such as TW301, or id of a remedy.", show_default=False)
    ],
) -> None:
    """Explain a diagnosis: what it means, how it is measured, what to do. Or a remedy: when it fits, and its code."""
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(_page(rule)))


@app.command()
def rules() -> None:
    """List every rule: code, name, severity, section of the knowledge base, thresholds."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = WIDE  # one line a rule, to be searched
    console.print(_table())


def _fail(message: str) -> NoReturn:
    typer.echo(f"trainwatch: {message}", err=True)
    raise typer.Exit(FAILED)


def _answer(report: Report, format: Format | None, fail_on: FailOn, output: Path | None) -> NoReturn:
    """Deliver a report in the format that was asked for, and leave with the exit code that it gives."""
    _deliver(report, format.value if format else SUFFIXES.get(output.suffix.lower() if output else "", "text"), output)
    raise typer.Exit(_exit_code(report, fail_on))


def _exit_code(report: Report, fail_on: FailOn) -> int:
    if report.verdict == "not-judged":
        return FAILED
    if fail_on is FailOn.NOT_JUDGED or not report.findings(fail_on.value):
        return FINE
    return FOUND


def _deliver(report: Report, format: str, output: Path | None) -> None:
    if output is None and format == "text":
        report.print()
        return
    from trainwatch.reports import render

    text = render(report, format)
    if output is None:
        sys.stdout.buffer.write(text.encode())  # whatever the terminal's encoding
        sys.stdout.buffer.flush()
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        _fail(f"cannot write {output}: {error.strerror}")


def _page(name: str) -> str:
    if name.upper() == "TW000":
        return INTERNAL
    if name.lower() in CATALOGUE:
        return CATALOGUE[name.lower()].page()
    try:
        rule = rule_named(name)
    except SettingsError as error:
        _fail(str(error))
    return page(rule)


def _table() -> Table:
    from rich.table import Table

    table = Table("code", "name", "severity", "section", "thresholds", box=None, pad_edge=False, header_style="bold")
    for code, rule in all_rules().items():
        name = rule.name if rule.status == "stable" else f"{rule.name} ({rule.status})"
        values = ", ".join(f"{k}={v!r}" for k, v in thresholds(rule).items())
        table.add_row(code, name, str(rule.severity), rule.section, values)
    return table
