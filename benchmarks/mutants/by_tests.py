"""Do a rule's own tests notice a mutant? The quick ones run in a forked process, in which the mutant is planted.

A test that takes longer than `LONGEST` trains a network, and the zoo stands for those. Which tests are quick is found by
running all once, in processes that end at the first test that is not.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

LONGEST = 0.5  # s of processor time
PATIENCE = 60.0  # s of processor time, after which a mutant hangs
ROOT = Path(__file__).parents[2]
OPTIONS = ("-n", "0", "-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT))


class Tests:
    """The quick tests of files.

    Args:
        kept: File in which it is kept how long each test takes (infinity: too long, or it fails as things are).
    """

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        self._times: dict[str, float] = json.loads(kept.read_text()) if kept.is_file() else {}

    def learn(self, file: Path) -> None:
        """Find the quick tests of a file, and load what it needs, so that forked processes have it."""
        _collect(file)
        while True:
            before = dict(self._times)
            _forked(lambda: int(pytest.main([str(file), *OPTIONS], plugins=[_Clock(self._times, self._kept)])))
            self._times = json.loads(self._kept.read_text()) if self._kept.is_file() else {}
            if self._times == before:
                return

    def notice(self, files: Iterable[Path]) -> bool:
        """Whether a quick test of these files fails in this process as it is now."""
        names = [str(file) for file in files if file.is_file()]
        outcome = _forked(lambda: int(pytest.main([*names, *OPTIONS], plugins=[_Quick(self._times)])), PATIENCE)
        return outcome not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


class _Quick:
    """Plugin: the quick tests alone, the quickest first."""

    def __init__(self, times: dict[str, float]) -> None:
        self._times = times

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        times = {item: self._times.get(item.nodeid, float("inf")) for item in items}
        items[:] = sorted((item for item in items if times[item] <= LONGEST), key=lambda item: times[item])


class _Clock:
    """Plugin: tests of which it is not known how long they take; the process ends at the first that takes too long."""

    def __init__(self, times: dict[str, float], kept: Path) -> None:
        self._times, self._kept = dict(times), kept

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if not {item.nodeid, _function(item)} & set(self._times)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._times[_function(item)] = float("inf")  # and all of its parameters, until it has passed
        signal.signal(signal.SIGPROF, lambda *_: self._end())
        signal.setitimer(signal.ITIMER_PROF, LONGEST)
        began = time.process_time()
        self._passed = True
        outcome = yield
        signal.setitimer(signal.ITIMER_PROF, 0)
        if self._passed:
            del self._times[_function(item)]
            self._times[item.nodeid] = time.process_time() - began
        else:
            self._end()
        return outcome

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._passed &= not report.failed

    def pytest_sessionfinish(self) -> None:
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        self._kept.write_text(json.dumps(self._times))

    def _end(self) -> None:
        self.pytest_sessionfinish()
        os._exit(pytest.ExitCode.INTERRUPTED)


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _collect(file: Path) -> None:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        pytest.main([str(file), *OPTIONS, "--collect-only"])


def _forked(work: Callable[[], Any], patience: float = 0.0) -> int:
    """Exit code of some work in a process of its own, silent; minus the signal that ended it."""
    gc.freeze()  # what is there stays shared
    child = os.fork()
    if not child:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        code = 1
        try:
            signal.setitimer(signal.ITIMER_PROF, patience)
            code = int(work())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
