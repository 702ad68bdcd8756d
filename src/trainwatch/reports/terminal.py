"""Lines on a terminal that progress bars use as well."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def above_bars() -> Iterator[None]:
    """Take the bars of tqdm off the terminal while something is written, and draw them again below it.

    Rich needs no help: while it shows a bar, it passes on what is written to standard output and error.
    """
    tqdm: Any = sys.modules.get("tqdm.std")  # where no bar was ever made, it need not be loaded
    if tqdm is None:
        yield
        return
    with tqdm.tqdm.external_write_mode(file=sys.stderr):
        yield


def tell(text: str) -> None:
    """Write a line to standard error, above any progress bar."""
    with above_bars():
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
