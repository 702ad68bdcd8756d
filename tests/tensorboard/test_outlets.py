"""What a running watch hands to TensorBoard: confirmed or not, resolved or back."""

import numpy as np
from tabs import diagnosis

from trainwatch.outlets import Outlets
from trainwatch.record import RunRecord
from trainwatch.report import Report

FOUND = diagnosis()


class Sink:
    """Keeps what it is given; wants a snapshot where the verdict changed."""

    def __init__(self):
        self.given, self.pictures = [], 0

    def wants_snapshot(self, step, changed):
        return changed

    def findings(self, step, report, resolved=(), unconfirmed=()):
        self.given.append((step, report.verdict, [(d.code, s) for d, s in resolved], sorted(unconfirmed)))

    def picture(self, step, report):
        self.pictures += 1

    def close(self):
        self.given.append("closed")


def outlets():
    made = Outlets(None, None, quiet=True)
    made._sink = Sink()
    return made, made._sink.given


def look(made, step, *found):
    made.draw(step, Report("findings" if found else "healthy", found))


def test_a_finding_is_unconfirmed_until_it_is_reported():
    made, given = outlets()
    look(made, 10, FOUND)
    look(made, 20, FOUND)
    made.say("reported", FOUND, 30)
    look(made, 30, FOUND)
    look(made, 40, FOUND)
    assert given == [(10, "findings", [], ["TW201"]), (30, "findings", [], [])]


def test_what_is_resolved_is_handed_on_with_its_step():
    made, given = outlets()
    made.say("reported", FOUND, 10)
    look(made, 10, FOUND)
    made.say("resolved", FOUND, 20)
    look(made, 20)
    assert given[-1] == (20, "healthy", [("TW201", 20)], [])
    look(made, 30, FOUND)
    assert given[-1] == (30, "findings", [("TW201", 20)], ["TW201"])  # found again, by one look


def test_the_end_confirms_what_it_holds():
    made, given = outlets()
    look(made, 10, FOUND)
    made.finish(20, Report("findings", (FOUND,)))
    assert given[-2:] == [(20, "findings", [], []), "closed"]
    assert made._sink.pictures == 1


def test_gradients_too_large_to_be_squared_are_handed_on_without_a_warning():
    record, points = RunRecord(), {}
    record.append("grad_norm", "default", 0, np.full(3, 1e30, np.float32))
    made, _ = outlets()
    made._sink.scalars = lambda step, some: points.update(some)
    made._sink.layout = lambda *tags: None
    made.curves(record, 0)
    assert points["trainwatch/grad_norm/default"] == np.inf
