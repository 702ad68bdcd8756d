"""Tables: CSV by Python's own reader, Parquet by pyarrow or polars, and data frames."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwatch.auditing.samples import Problem, Samples, Split
from trainwatch.auditing.sources.assembling import assemble
from trainwatch.auditing.sources.columns import DECIMAL_COMMA, Column, column_of, is_number
from trainwatch.auditing.sources.numbers import as_array
from trainwatch.auditing.sources.reading import AuditError, Reading, in_part, named, spread
from trainwatch.auditing.sources.targets import NAMES

BLOCK = 5_000  # rows
CELL = 40  # bytes that a cell takes while its table is read
DELIMITERS = ",;\t|"
CSV = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
PARQUET = (".parquet", ".pq")


def is_table(path: Path) -> bool:
    """Whether its name is that of a table."""
    return path.name.lower().endswith((*CSV, *PARQUET))


def read_table(path: Path, split: Split, reading: Reading) -> Samples:
    """A table in a file, one sample a row.

    Raises:
        AuditError: It cannot be read, or has no rows.
    """
    if path.name.lower().endswith(PARQUET):
        return read_frame(_parquet(path), None, split, reading, path.name)
    return _csv(path, split, reading)


def read_frame(frame: Any, goal: Any, split: Split, reading: Reading, source: str, **more: Any) -> Samples:
    """A data frame of pandas or polars, or a mapping of columns, with its targets apart or in a column of it."""
    names = list(frame if isinstance(frame, Mapping) else frame.columns)
    at = [frame.iloc[:, i] for i in range(len(names))] if hasattr(frame, "iloc") else [frame[name] for name in names]
    held = dict(zip(_apart([str(name) for name in names]), at, strict=True))
    total = len(at[0]) if at else 0
    places = spread(total, reading.room(CELL * len(held)))
    chosen = slice(None) if len(places) == total else places
    columns = []
    for name, values in held.items():
        array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
        columns.append(column_of(name, array[chosen], reading))
    notes = in_part(len(places), total, "rows")
    if goal is not None and len(goal) != total:
        raise AuditError(f"{source} has {total:,} inputs but {len(goal):,} targets")
    targets = None if goal is None else as_array(goal, f"the targets of {source}")[chosen]
    return _assembled(columns, targets, places, total, split, reading, source, [], notes=notes, **more)


def _csv(path: Path, split: Split, reading: Reading) -> Samples:
    with rows_of(path) as rows:
        first = next(rows, None)
        if first is None:
            raise AuditError(f"{path} is empty")
        header = not any(is_number(_with_point(cell)) for cell in first)
        total = int(not header)
        semicolons, commas = rows.dialect.delimiter == ";", False
        with suppress(csv.Error):  # which is told when it is met again
            for row in rows:
                total += bool(row)
                commas = commas or (semicolons and any(map(DECIMAL_COMMA.fullmatch, row)))
    said = [cell.strip() if header else "" for cell in first]
    names = _apart(said)
    columns = [Column(name, reading) for name in names]
    places = spread(total, reading.room(CELL * len(names)))
    problems: list[Problem] = []
    read: list[int] = []
    with rows_of(path) as rows:
        if header:
            next(rows)
        wanted, block = iter(places.tolist()), []
        target = next(wanted, None)
        try:
            for place, row in enumerate(reading.track((r for r in rows if r), f"reading {split}", total)):
                if place != target:
                    continue
                target = next(wanted, None)
                if len(row) != len(names):
                    problems.append(Problem(f"row {place}", f"has {len(row)} cells, the table {len(names)} columns"))
                    continue
                read.append(place)
                block.append(list(map(_with_point, row)) if commas else row)
                if len(block) == BLOCK:
                    _add(columns, block)
                    block = []
        except csv.Error as error:
            problems.append(Problem(f"row {read[-1] + 1 if read else 0}", f"cannot be read, nor what follows: {error}"))
        _add(columns, block)
    if not header:
        problems.append(Problem("first row", "holds numbers, so the columns have no names"))
    notes = in_part(len(places), total, "rows")
    notes += ("commas within numbers were taken for decimal points",) * commas
    return _assembled(columns, None, np.array(read, np.int64), total, split, reading, path.name, problems, notes=notes)


@contextmanager
def rows_of(path: Path) -> Iterator[Any]:
    """The rows of a CSV file, packed or not, with the delimiter that its first line has most of.

    Raises:
        AuditError: It cannot be read.
    """
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            head = text.readline()
            text.seek(0)
            yield csv.reader(text, delimiter=max(DELIMITERS, key=head.count))
    except UnicodeDecodeError as error:
        raise AuditError(f"cannot read {path}: it is not text in UTF-8 ({error.reason}); save it as UTF-8") from None
    except (OSError, EOFError, csv.Error) as error:
        raise AuditError(f"cannot read {path}: {error}") from None


def _with_point(cell: str) -> str:
    """A number whose decimal point is a comma, as where semicolons part the cells, with a point."""
    return cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell


def _apart(names: list[str]) -> list[str]:
    """Names of columns: by their number where they have none or another one's."""
    return [name if name and name not in names[:i] else f"column {i}" for i, name in enumerate(names)]


def _add(columns: list[Column], block: list[list[str]]) -> None:
    for column, cells in zip(columns, zip(*block, strict=True), strict=False):
        column.add(cells)


def _parquet(path: Path) -> Any:
    for library, reader in (("pyarrow.parquet", "read_table"), ("polars", "read_parquet")):
        try:
            read = getattr(importlib.import_module(library), reader)
        except ImportError:
            continue
        try:
            table = read(path)
        except Exception as error:  # each library has errors of its own
            raise AuditError(f"cannot read {path}: {error}") from None
        if library == "polars":
            return table
        return {name: table.column(name).to_numpy() for name in table.column_names}
    raise AuditError(f"reading {path} needs pyarrow or polars: pip install pyarrow")


def _assembled(
    columns: list[Column],
    targets: NDArray[Any] | None,
    places: NDArray[np.int64],
    total: int,
    split: Split,
    reading: Reading,
    source: str,
    problems: list[Problem],
    notes: tuple[str, ...],
    **more: Any,
) -> Samples:
    if not len(places):
        why = f" that can be used: {problems[0].place} {problems[0].what}" if problems else ""
        raise AuditError(f"{source} has no rows{why or f': there is no {split} sample to look at'}")
    goal, told = _goal([c.name for c in columns], reading, source) if targets is None else (None, ())
    rest = [c for c in columns if c.name != goal]
    if not rest:
        raise AuditError(f"{source} has no column but its target {goal!r}")
    rest, further = _like_the_first(rest, reading, source)
    notes = (*notes, *told, *further)
    if goal is not None:
        targets = next(c for c in columns if c.name == goal).as_targets()
    inputs = np.stack([c.numbers() for c in rest], 1)
    problems = [*problems, *(p for c in rest for p in c.problems())]
    notes = (*notes, *(note for c in rest for note in c.notes()))
    categorical = tuple(c.categorical for c in rest)
    return assemble(
        inputs, targets, places, total, split=split, source=source, reading=reading, notes=notes, problems=problems,
        feature_names=tuple(c.name for c in rest), categorical=categorical if any(categorical) else (),
        **more,
    )  # fmt: skip


def _like_the_first(columns: list[Column], reading: Reading, source: str) -> tuple[list[Column], tuple[str, ...]]:
    """The columns that the first part has, in its order."""
    by_name = {c.name: c for c in columns}
    reading.features = reading.features or tuple(by_name)
    if lacking := [name for name in reading.features if name not in by_name]:
        raise AuditError(f"{source} lacks {named(lacking)}, which training has")
    more = [name for name in by_name if name not in reading.features]
    notes = (f"left out {named(more)}, which training lacks",) * bool(more)
    return [by_name[name] for name in reading.features], notes


def _goal(names: list[str], reading: Reading, source: str) -> tuple[str | None, tuple[str, ...]]:
    """The column with the targets."""
    if reading.target is not None:
        if reading.target not in names:
            if reading.features:
                return None, (f"there is no column {reading.target!r}: no targets",)
            raise AuditError(f"{source} has no column {reading.target!r}; it has {named(names)}")
        return reading.target, ()
    likely = [name for name in names if name.lower() in NAMES]
    if len(likely) == 1:
        reading.target = likely[0]
        return likely[0], (f"column {likely[0]!r} was taken for the target, by its name",)
    why = f"several could be the target ({named(likely)})" if likely else "no column is known as the target"
    return None, (f"{why}: name it by target= or --target; the audit goes on without",)
