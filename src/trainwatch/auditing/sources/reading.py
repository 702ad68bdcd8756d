"""What all sources share while they are read: limits, the words behind class numbers, a progress bar."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
SAMPLES = 200_000  # of each part
BYTES = 512 << 20  # of each part; what is measured takes a few times as much
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>"})


class AuditError(ValueError):
    """Data that cannot be audited; the text names the input and the remedy."""


@dataclass
class Words:
    """The texts behind the numbers of a column; a text met later, as in validation, gets the next number."""

    known: dict[str, int] = field(default_factory=dict)

    def codes(self, texts: Iterable[str]) -> NDArray[np.int64]:
        """One number a text; -1 where it is missing."""
        texts = list(texts)
        for text in sorted({t for t in texts if t not in self.known and t.strip().lower() not in MISSING}):
            self.known[text] = len(self.known)
        return np.array([self.known.get(text, -1) for text in texts], np.int64)


@dataclass
class Reading:
    """How the parts of one data set are read, so that validation is read as training was.

    Attributes:
        limit: Most samples of each part.
        target: Column or key that holds the targets.
        task: What the targets are; set by the first part where the user does not say.
        class_names: One per class number, as given.
        consume: One-shot iterables may be used up.
        progress: Whether a bar is shown.
        words: Column -> its texts, shared by all parts.
        features: Columns of the first part, which the others must have.
        picture: Mode and (width, height) of the images of the first part, to which the others are brought.
        tokens: The inputs are token numbers, as their key says.
    """

    limit: int = SAMPLES
    target: str | None = None
    task: str | None = None
    class_names: tuple[str, ...] = ()
    consume: bool = False
    progress: bool = False
    words: dict[str, Words] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    picture: tuple[str, tuple[int, int]] | None = None
    tokens: bool = False

    def words_of(self, column: str) -> Words:
        """The words of a column, which are the same in all parts."""
        return self.words.setdefault(column, Words())

    def room(self, size: int) -> int:
        """Most samples of so many bytes, at least one."""
        return max(1, min(self.limit, BYTES // max(size, 1)))

    def track(self, items: Iterable[T], label: str, total: int | None) -> Iterable[T]:
        """The items, with a bar on standard error where one is wanted."""
        if not self.progress:
            return items
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        return track(items, label, total=total, console=console, transient=console.is_terminal)


def spread(total: int, most: int) -> NDArray[np.int64]:
    """Places of an even subset: of each of `most` stretches one, drawn with a fixed seed.

    A regular grid would meet data whose order repeats (every tenth sample a zero) always at the same place.
    """
    if total <= most:
        return np.arange(total)
    edges = np.arange(most + 1, dtype=np.int64) * total // most
    return edges[:-1] + (np.random.default_rng(0).random(most) * np.diff(edges)).astype(np.int64)


def in_part(read: int, there: int, what: str = "samples") -> tuple[str, ...]:
    """A note on a subset; none where all were read."""
    return (f"an even subset of {read:,} of {there:,} {what} was looked at",) * (read < there)


def named(names: Sequence[str], most: int = 8) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(str(n)) for n in names[:most]) + more
