"""Faults of trainwatch stay inside trainwatch: a part that fails is switched off, and its time is accounted for."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Containment:
    """What went wrong and how long each part took.

    Attributes:
        off: Parts that failed and are not run again.
        seconds: Part -> seconds spent in it; a part called by another counts under the outer one.
    """

    def __init__(self, clock: Callable[[], float], on_fault: Callable[[str, Exception], None], strict: bool) -> None:
        self.clock = clock
        self.off: set[str] = set()
        self.seconds: dict[str, float] = defaultdict(float)
        self._on_fault = on_fault
        self._strict = strict
        self._depth = 0

    def run(self, part: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Call a function of a part.

        Returns:
            Its result; None where the part is off or failed now.
        """
        if part in self.off:
            return None
        self._depth += 1
        began = self.clock()
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if self._strict:
                raise
            self.off.add(part)
            self._on_fault(part, error)
            return None
        finally:
            self._depth -= 1
            if not self._depth:
                self.seconds[part] += self.clock() - began


class Contained(Protocol):
    """An object whose methods may be `contained`."""

    containment: Containment


S = TypeVar("S", bound=Contained)


def contained(part: str) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R | None]]:
    """Make a method part of `part`: its faults are contained, its time is counted."""

    def decorate(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R | None]:
        @functools.wraps(method)
        def wrapper(self: S, *args: P.args, **kwargs: P.kwargs) -> R | None:
            bound: Callable[..., Any] = method
            return self.containment.run(part, bound, self, *args, **kwargs)

        return wrapper

    return decorate
