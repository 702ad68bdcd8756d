"""Columns of tables: numbers, dates, or texts as categories."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwatch.auditing.samples import Problem
from trainwatch.auditing.sources.numbers import as_array, days
from trainwatch.auditing.sources.reading import MISSING, Reading

DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+(e[-+]?\d+)?\s*", re.IGNORECASE)
LOOKED_AT = 1_000  # cells that tell what a column holds
MOSTLY = 0.9  # of the cells that are not missing are numbers: the others are mistakes, not categories


class Column:
    """One column, told to be numbers, dates or texts by its first cells."""

    def __init__(self, name: str, reading: Reading) -> None:
        self.name = name
        self._words = reading.words_of(f"column {name}")
        self._kind = "texts" if self._words.known else ""
        self._blocks: list[NDArray[Any]] = []
        self._odd: list[str] = []

    @property
    def categorical(self) -> bool:
        return self._kind == "texts"

    def add(self, cells: Sequence[str]) -> None:
        """Further cells, as they stand in the file."""
        self._kind = self._kind or _kind_of(cells)
        if self._kind == "texts":
            self._blocks.append(self._words.codes(cell.strip() for cell in cells))
        elif self._kind == "dates":
            self._blocks.append(np.array([_date(cell) for cell in cells], "datetime64[s]"))
        else:
            self._blocks.append(self._read_numbers(cells))

    def add_array(self, values: NDArray[Any]) -> None:
        """All cells, with a type of their own."""
        self._kind = {"M": "dates", "U": "texts"}.get(values.dtype.kind, "numbers")
        self._blocks.append(self._words.codes(values.tolist()) if self._kind == "texts" else values)

    def numbers(self) -> NDArray[np.float64]:
        """The cells as numbers: dates as days since 1970, texts by the number of their category, NaN where missing."""
        cells = np.concatenate(self._blocks)
        if self._kind == "dates":
            return days(cells)
        values = cells.astype(np.float64)
        return np.where(values < 0, np.nan, values) if self.categorical else values

    def as_targets(self) -> NDArray[Any]:
        """The cells as targets: whole numbers as such, and texts as texts."""
        cells = np.concatenate(self._blocks)
        if self.categorical:
            spelled = [*self._words.known, ""]
            return np.array([spelled[code] for code in cells])
        if cells.dtype.kind == "f" and np.isfinite(cells).all() and (cells == np.round(cells)).all():
            return cells.astype(np.int64)
        return cells

    def notes(self) -> list[str]:
        """What people should know about how it was read."""
        return [f"column {self.name!r} holds dates, taken as days since 1970"] if self._kind == "dates" else []

    def problems(self) -> list[Problem]:
        """Cells that do not fit the others."""
        if not self._odd:
            return []
        count, first = len(self._odd), self._odd[0][:40]
        return [Problem(f"column {self.name!r}", f"holds {count:,} times no number, such as {first!r}")]

    def _read_numbers(self, cells: Sequence[str]) -> NDArray[np.float64]:
        try:
            return np.array(cells, np.float64)
        except ValueError:
            return np.array([self._number(cell) for cell in cells])

    def _number(self, cell: str) -> float:
        try:
            return float(cell)
        except ValueError:
            if cell.strip().lower() not in MISSING:
                self._odd.append(cell)
            return np.nan


def column_of(name: str, values: NDArray[Any], reading: Reading) -> Column:
    """A column that has a type already.

    Raises:
        AuditError: It mixes types.
    """
    column = Column(name, reading)
    column.add_array(as_array(values, f"column {name!r}"))
    return column


def _kind_of(cells: Sequence[str]) -> str:
    there = [cell.strip() for cell in cells if cell.strip().lower() not in MISSING][:LOOKED_AT]
    numbers = sum(map(is_number, there))
    if numbers >= MOSTLY * len(there):
        return "numbers"
    return "dates" if not numbers and all(not np.isnat(_date(cell)) for cell in there) else "texts"


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _date(cell: str) -> np.datetime64:
    try:
        return np.datetime64(cell.strip(), "s")
    except ValueError:
        return np.datetime64("NaT")
