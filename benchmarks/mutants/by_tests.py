"""Do a rule's own tests notice a mutant? The quick ones run in a forked process, in which the mutant is planted.

A test that takes longer than `LONGEST` trains a network, and the zoo stands for those. The tests are collected once,
and processes are forked from there: a mutant costs little more than the tests up to the first that fails.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import pytest

LONGEST = 0.2  # s of processor time
PATIENCE = 60.0  # s of processor time, after which a mutant hangs
ROOT = Path(__file__).parents[2]
OPTIONS = ("-n", "0", "-s", "-p", "no:terminal", "-p", "no:cacheprovider", "--rootdir", str(ROOT),
           "-W", "ignore::pytest.PytestAssertRewriteWarning")  # fmt: skip
NEVER = float("inf")
EVERY_RULE = "test_every_rule.py"
Notice = Callable[[], bool]


def with_tests(files: Iterable[Path], codes: Collection[str], kept: Path, work: Callable[[Notice], None]) -> None:
    """Do some work that can ask whether the quick tests of some files notice how this process is at that moment.

    Args:
        files: Files of tests; those that do not exist are left out.
        codes: Rules; of the tests that hold for every rule, those of other rules are left out.
        kept: File in which it is kept how long each test takes (infinity: too long, or it fails as things are), until
            its file changes.
        work: Gets the question.

    Raises:
        RuntimeError: The tests cannot be collected.
        BaseException: What the work raises.
    """
    names, session = [str(file) for file in files if file.is_file()], _Session(codes, kept, work)
    pytest.main([*names, *OPTIONS], plugins=[session])
    if session.ended is not None:
        raise session.ended


class _Session:
    """Plugin: does the work in place of running the tests."""

    def __init__(self, codes: Collection[str], kept: Path, work: Callable[[Notice], None]) -> None:
        self._codes, self._kept, self._work, self._failed = codes, kept, work, False
        self.ended: BaseException | None = RuntimeError("the tests cannot be collected: run them by pytest")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.path.name != EVERY_RULE or _parameters(item) in self._codes]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            return True
        quick = self._quick(session.items)

        def notice() -> bool:
            status, failed = _forked(lambda out: self._fails(quick, out))
            if failed:  # what noticed one mutant is likely to notice the next
                quick.insert(0, quick.pop(int(failed[0])))
            return status != 0

        try:
            self._work(notice)
            self.ended = None
        except BaseException as error:  # pytest would print it and go on
            self.ended = error
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed |= report.failed

    def _fails(self, items: Sequence[pytest.Item], out: int) -> bool:
        """Whether one of them fails, which is written; the others are not run."""
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)  # its signal ends the process
        for i, item in enumerate(items):
            if self._fail(item):
                os.write(out, str(i).encode())
                return True
        return False

    def _fail(self, item: pytest.Item) -> bool:
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        return self._failed

    def _quick(self, items: Sequence[pytest.Item]) -> list[pytest.Item]:
        """The quick ones, the quickest first."""
        times: dict[str, float] = json.loads(self._kept.read_text()) if self._kept.is_file() else {}
        written = self._kept.stat().st_mtime if times else 0.0
        for item in items:
            if item.path.stat().st_mtime > written:
                times.pop(item.nodeid, None)
                times.pop(_function(item), None)
        while new := [i for i in items if i.nodeid not in times and times.get(_function(i)) != NEVER]:
            _, told = _forked(lambda out, new=new: self._time(new, out))
            times |= {new[i].nodeid: float(seconds) for i, seconds in enumerate(told)}
            if len(told) < len(new):
                times |= dict.fromkeys((new[len(told)].nodeid, _function(new[len(told)])), NEVER)
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            self._kept.write_text(json.dumps(times))
        found = [(times.get(item.nodeid, NEVER), i) for i, item in enumerate(items)]
        return [items[i] for seconds, i in sorted(found) if seconds < NEVER]

    def _time(self, items: Sequence[pytest.Item], out: int) -> bool:
        """Write how long each takes; the process ends at the first that fails or takes too long."""
        for item in items:
            began = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, LONGEST)
            if self._fail(item):
                return True
            signal.setitimer(signal.ITIMER_PROF, 0)
            os.write(out, f"{time.process_time() - began}\n".encode())
        return False


def _parameters(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[2].rstrip("]")


def _function(item: pytest.Item) -> str:
    """A test's name without its parameters: with others it is as slow."""
    return item.nodeid.partition("[")[0]


def _forked(work: Callable[[int], bool]) -> tuple[int, list[str]]:
    """What a process of its own ends with that does some work, and the lines that it writes."""
    gc.freeze()  # what is there stays shared
    lines, out = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            code = int(work(out))
        finally:
            os._exit(code)
    os.close(out)
    with os.fdopen(lines) as told:
        text = told.read()
    return os.waitpid(child, 0)[1], text.split()
