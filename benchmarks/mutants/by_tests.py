"""Do a rule's own tests notice a mutant? The quick ones run in a forked process, in which the mutant is planted.

A test that takes longer than `LONGEST` trains a network, and the zoo stands for those. The tests are collected once,
and processes are forked from there: a mutant costs little more than the tests up to the first that fails.
"""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

LONGEST = 0.5  # s of processor time
PATIENCE = 60.0  # s of processor time, after which a mutant hangs
ROOT = Path(__file__).parents[2]
OPTIONS = ("-n", "0", "-s", "-p", "no:terminal", "-p", "no:cacheprovider", "--rootdir", str(ROOT),
           "-W", "ignore::pytest.PytestAssertRewriteWarning")  # fmt: skip
NEVER = float("inf")
Notice = Callable[[], bool]


def with_tests(files: Iterable[Path], kept: Path, work: Callable[[Notice], None]) -> None:
    """Do some work that can ask whether the quick tests of some files notice how this process is at that moment.

    Args:
        files: Files of tests; those that do not exist are left out.
        kept: File in which it is kept how long each test takes (infinity: too long, or it fails as things are).
        work: Gets the question.
    """
    names = [str(file) for file in files if file.is_file()]
    pytest.main([*names, *OPTIONS], plugins=[_Session(kept, work)])


class _Session:
    """Plugin: does the work in place of running the tests."""

    def __init__(self, kept: Path, work: Callable[[Notice], None]) -> None:
        self._kept, self._work, self._failed = kept, work, False

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        quick = self._quick(session.items)
        self._work(lambda: bool(_forked(lambda: self._fails(quick), PATIENCE)[0]))
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed |= report.failed

    def _fails(self, items: Sequence[pytest.Item]) -> bool:
        """Whether one of them fails; the others are not run."""
        for item in items:
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
            if self._failed:
                return True
        return False

    def _quick(self, items: Sequence[pytest.Item]) -> list[pytest.Item]:
        """The quick ones, the quickest first."""
        times: dict[str, float] = json.loads(self._kept.read_text()) if self._kept.is_file() else {}
        for item in items:
            function = item.nodeid.partition("[")[0]
            if item.nodeid not in times and times.get(function) != NEVER:
                failed, seconds = _forked(lambda item=item: self._fails([item]), LONGEST)
                times[item.nodeid] = NEVER if failed else seconds
                if failed:
                    times[function] = NEVER  # with other parameters it is as slow
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        self._kept.write_text(json.dumps(times))
        found = [(times.get(item.nodeid, NEVER), i) for i, item in enumerate(items)]
        return [items[i] for seconds, i in sorted(found) if seconds < NEVER]


def _forked(work: Callable[[], bool], patience: float) -> tuple[int, float]:
    """Whether some work in a process of its own says so, fails or takes too long; and its seconds of processor time."""
    gc.freeze()  # what is there stays shared
    child = os.fork()
    if not child:
        code = 1
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            signal.setitimer(signal.ITIMER_PROF, patience)  # its signal ends the process
            code = int(work())
        finally:
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
