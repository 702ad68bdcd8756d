"""Device values that are read later, so that the training never waits for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Deliver = Callable[[list[NDArray[Any]]], None]


class DeferredReads:
    """Copies tensors to the host without waiting; hands them over at the next `deliver`.

    On an accelerator the copies go to pinned memory and are handed over one round later, when they have long arrived.
    On the CPU there is nothing to wait for.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[list[torch.Tensor], Deliver, Any]] = []

    def read(self, tensors: Sequence[torch.Tensor], deliver: Deliver) -> None:
        """Ask for tensors as NumPy arrays.

        Args:
            tensors: Tensors that nobody writes to afterwards.
            deliver: Called with the arrays, in the order of the requests.
        """
        event = None
        copies = []
        for tensor in tensors:
            if tensor.device.type == "cuda":
                host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                host.copy_(tensor, non_blocking=True)
                event = torch.cuda.Event()
                event.record(torch.cuda.current_stream(tensor.device))
                copies.append(host)
            else:
                copies.append(tensor.detach())
        self._waiting.append((copies, deliver, event))

    def deliver(self, wait: bool = False) -> None:
        """Hand over what has arrived.

        Args:
            wait: Hand over everything, waiting for the device: at the end of the run.
        """
        while self._waiting:
            copies, deliver, event = self._waiting[0]
            if event is not None and not event.query():
                if not wait:
                    return
                event.synchronize()
            self._waiting.pop(0)
            deliver([_array(t) for t in copies])


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    if tensor.device.type != "cpu":  # devices without a queue of their own to wait on, such as mps
        tensor = tensor.cpu()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return np.asarray(tensor.numpy())
