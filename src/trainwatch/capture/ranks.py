"""The processes of a distributed run, and how they tell one another something without waiting.

Everything goes through the key-value store by which `torch.distributed` brought the processes together: who writes does
not wait for a reader, and who reads takes what is there. No collective is used, so that no process can hang for
another, whatever that one does.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from trainwatch.capture import wiring

POLL = 0.01  # seconds between two looks for last words
UNREAD = 8  # messages of a process that may lie in the store; beyond, nobody reads them
_runs = 0  # watches of this process under several processes: the n-th of each belong together


def several_processes() -> bool:
    """Whether this process trains together with others."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


class Ranks:
    """This process among those of one run.

    Args:
        store: A `torch.distributed.Store`.
        rank: Of this process; 0 collects.
        world: Number of processes.
        run: Number of the run.
    """

    def __init__(self, store: Any, rank: int, world: int, run: int) -> None:
        self.rank, self.world = rank, world
        self._store, self._prefix = store, f"trainwatch/{run}"
        self._sent = 0
        self._received = dict.fromkeys(range(1, world), 0)

    @classmethod
    def here(cls) -> Ranks | None:
        """The processes that train together; None where there is only this one."""
        global _runs
        if not several_processes():
            return None
        _runs += 1
        distributed = torch.distributed
        store = distributed.distributed_c10d._get_default_store()
        return cls(store, distributed.get_rank(), distributed.get_world_size(), _runs)

    def announce(self, signature: str) -> None:
        """Say that this process is watched, and what it trains."""
        self._store.set(self._key("here", self.rank), signature)

    def announced(self) -> dict[int, str]:
        """Rank -> signature of the other processes that are watched, as far as they have said so."""
        keys = {rank: self._key("here", rank) for rank in range(self.world) if rank != self.rank}
        return {rank: self._store.get(key).decode() for rank, key in keys.items() if self._store.check([key])}

    def send(self, data: bytes) -> bool:
        """Leave a message for the first process; False where it does not read them."""
        oldest = self._sent - UNREAD
        if oldest >= 0 and self._store.check([self._key(self.rank, oldest)]):
            return False
        self._store.set(self._key(self.rank, self._sent), data)
        self._sent += 1
        return True

    def receive(self, rank: int) -> Iterable[bytes]:
        """The messages of a process that are there."""
        while self._store.check([key := self._key(rank, self._received[rank])]):
            self._received[rank] += 1
            yield self._store.get(key)
            self._store.delete_key(key)

    def close(self) -> None:
        """Say that no message will follow."""
        self._store.set(self._key("end", self.rank), "")

    def wait_for_ends(self, ranks: Sequence[int], seconds: float) -> None:
        """Wait until processes have said that no message of theirs will follow, but no longer than so many seconds."""
        keys, until = [self._key("end", rank) for rank in ranks], time.monotonic() + seconds
        while keys and not self._store.check(keys) and time.monotonic() < until:
            time.sleep(POLL)

    def ask_to_stop(self, step: int) -> None:
        """Let all processes stop after a step."""
        self._store.set(self._key("stop", "step"), str(step))

    def asked_to_stop(self) -> int | None:
        """The step after which all processes are to stop, if the first one said so."""
        key = self._key("stop", "step")
        return int(self._store.get(key)) if self._store.check([key]) else None

    def _key(self, *parts: str | int) -> str:
        return "/".join([self._prefix, *map(str, parts)])


def signature(models: wiring.Models, optimizers: Mapping[str, torch.optim.Optimizer]) -> str:
    """What a process trains: the same in processes whose rows belong together."""
    told = [(name, tuple(p.shape)) for name, p in wiring.parameters_of(models).items()]
    return hashlib.sha256(repr((told, sorted(optimizers))).encode()).hexdigest()
