"""Faults of trainwatch stay inside trainwatch: a part that fails is switched off, and its time is accounted for."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Containment:
    """What went wrong and how long each part took.

    Attributes:
        off: Parts that failed and are not run again.
        seconds: Part -> seconds spent in it, without those of the parts that it called.
    """

    def __init__(self, clock: Callable[[], float], on_fault: Callable[[str, Exception], None], strict: bool) -> None:
        self.clock = clock
        self.off: set[str] = set()
        self.seconds: dict[str, float] = defaultdict(float)
        self._on_fault = on_fault
        self._strict = strict
        self.inner = 0.0  # seconds of the parts called by the one that runs now

    def run(self, part: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Call a function of a part.

        Returns:
            Its result; None where the part is off or failed now.
        """
        if part in self.off:
            return None
        outer, self.inner = self.inner, 0.0
        began = self.clock()
        try:
            return function(*args, **kwargs)
        except Exception as error:
            self.failed(part, error)
            return None
        finally:
            took = self.clock() - began
            self.seconds[part] += took - self.inner
            self.inner = outer + took

    def failed(self, part: str, error: Exception) -> None:
        """Switch a part off for good; its fault is passed on to the owner of the run (or raised, if strict)."""
        if self._strict:
            raise error
        self.off.add(part)
        self._on_fault(part, error)


class Contained(Protocol):
    """An object whose methods may be `contained`."""

    containment: Containment


S = TypeVar("S", bound=Contained)


def contained(part: str) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R | None]]:
    """Make a method part of `part`: its faults are contained, its time is counted."""

    def decorate(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R | None]:
        def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
            # `Containment.run`, written out: this is called some ten times a training step.
            guard = self.containment
            if part in guard.off:
                return None
            outer, guard.inner = guard.inner, 0.0
            began = guard.clock()
            try:
                return method(self, *args, **kwargs)
            except Exception as error:
                guard.failed(part, error)
                return None
            finally:
                took = guard.clock() - began
                guard.seconds[part] += took - guard.inner
                guard.inner = outer + took

        functools.update_wrapper(wrapper, method)
        return wrapper

    return decorate
