"""What watching takes on a GPU, whose work a clock of the host does not see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class DeviceTime:
    """Times one piece of work by events on the device's own queue, to be read when they have long passed."""

    def __init__(self, device: torch.device) -> None:
        self._measures = device.type == "cuda"  # elsewhere the host waits for the work, and its clock will do
        self._events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None

    @contextmanager
    def around(self) -> Iterator[None]:
        """Time what is queued within."""
        if not self._measures:
            yield
            return
        self._events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self._events[0].record()
        yield
        self._events[1].record()

    def seconds(self) -> float:
        """What it took; 0 where nothing was timed, or it is not over yet."""
        if self._events is None or not self._events[1].query():
            return 0.0
        return float(self._events[0].elapsed_time(self._events[1])) / 1e3
