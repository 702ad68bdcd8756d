"""A run in several processes: the first judges it by what all of them measured, the others only tell it."""

from __future__ import annotations

import contextlib

from trainwatch.capture.ranks import Ranks, signature
from trainwatch.capture.run_capture import RunCapture
from trainwatch.config import Settings
from trainwatch.record import Journal, RunRecord
from trainwatch.record.joint import ALL, JointRecord, Outbox
from trainwatch.report import Report

LAST_WAIT = 5.0  # seconds that the first process waits at the end of a run for what the others have left to tell
SILENT = 20  # flushes without a word of a process, after which nobody waits for it
PROBES_OFF = "several processes train together: an experiment in one of them may wait for the others for ever"


class Processes:
    """The processes of one run, from the inside of one of them.

    Attributes:
        first: This is the process that judges, writes and prints.
        record: Where this process records.
    """

    def __init__(self, ranks: Ranks, journal: Journal | None) -> None:
        self.ranks, self.first = ranks, ranks.rank == 0
        self._joint = JointRecord(journal, ranks.world) if self.first else None
        self._outbox = Outbox()
        self.record = self._joint or RunRecord(self._outbox)
        self._met = self._unread = False
        self._stop_at: int | None = None
        self._last_word: dict[int, int] = {}  # rank -> flushes since

    def begin(self, capture: RunCapture) -> None:
        """All is hooked: say so."""
        self._mine = signature(capture.models, capture.optimizers)
        self.ranks.announce(self._mine)

    def exchange(self, capture: RunCapture, *, last: bool = False, wait: float = 0.0) -> None:
        """At a flush: tell the first process what was measured, or join what the others told.

        Args:
            capture: Of this process, flushed.
            last: The run is over.
            wait: Seconds to wait for the last words of the others.
        """
        upto = ALL if last else capture.delivered
        if not self.first:
            data = self._outbox.pack(upto, capture.samples)
            self._unread = self._unread or not self.ranks.send(data)
            self._stop_at = self.ranks.asked_to_stop()
            if last:
                self.ranks.close()
            return
        joint = self._joint
        assert joint is not None
        if not self._met:  # nobody has come past the first steps without having said whether it is watched
            self._met = True
            self._meet(joint)
        with contextlib.suppress(RuntimeError):  # the store may be gone, with the process that held it
            if last:
                self.ranks.wait_for_ends(joint.awaited, wait)
            for rank in joint.awaited:
                self._hear(joint, rank)
        if last:
            for rank in joint.awaited:
                joint.part(rank, "it had not told everything when the run ended")
        joint.settle(upto)

    def _meet(self, joint: JointRecord) -> None:
        there = self.ranks.announced()
        apart = dict.fromkeys(set(range(1, self.ranks.world)) - set(there), "it is not watched")
        apart |= {rank: "it trains other parameters" for rank, theirs in there.items() if theirs != self._mine}
        joint.expect([rank for rank in there if rank not in apart], apart)

    def _hear(self, joint: JointRecord, rank: int) -> None:
        self._last_word[rank] = self._last_word.get(rank, 0) + 1
        for data in self.ranks.receive(rank):
            joint.take(rank, data)
            self._last_word[rank] = 0
        if self._last_word[rank] > SILENT:
            joint.part(rank, "it fell silent")

    def stops(self, step: int, wanted: bool, flush_every: int) -> bool:
        """Whether training is to stop after so many steps: in all processes after the same one.

        Args:
            step: Steps taken.
            wanted: The first process wants to stop.
            flush_every: Steps within which every process looks whether that is so.
        """
        if wanted and self._stop_at is None:
            self._stop_at = step + flush_every + 2
            self.ranks.ask_to_stop(self._stop_at)
        return self._stop_at is not None and step >= self._stop_at

    def other_report(self) -> Report:
        """What a process has to say that does not judge."""
        why = f"the run is judged in process 0; this is process {self.ranks.rank} of {self.ranks.world}"
        codes = [rule.code for rule in Settings().active_rules()]
        return Report("not-judged", not_checked=dict.fromkeys(codes, why), facts={"run": self.record.facts["run"]})
