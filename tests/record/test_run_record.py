from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.record.run_record import EVENTS


def test_one_row_or_many() -> None:
    record = RunRecord()
    record.append("val_loss", "val", 3, 0.5)
    record.append("val_loss", "val", [4, 5], [0.4, 0.3])
    series = record.series("val_loss", "val")
    assert series is not None
    assert series.steps.tolist() == [3, 4, 5]
    assert series.values.tolist() == pytest.approx([0.5, 0.4, 0.3])


def test_refused_rows_leave_no_series_behind() -> None:
    record = RunRecord()
    with pytest.raises(ValueError, match="do not fit"):
        record.append("val_loss", "val", [1, 2], [[0.5]])
    assert not record.has("val_loss")


def test_no_rows_leave_no_series_behind() -> None:
    record = RunRecord()
    record.append("grad_norm", "default", np.zeros(0, np.int64), np.zeros((0, 3)))
    assert not record.has("grad_norm")


def test_provenance_is_merged() -> None:
    record = RunRecord()
    record.append("grad_norm", "default", 0, [1.0], {"unscaled": True})
    record.append("grad_norm", "default", 1, [1.0], {"before_clipping": True})
    series = record.series("grad_norm", "default")
    assert series is not None
    assert series.provenance == {"unscaled": True, "before_clipping": True}


def test_facts_are_copies_as_json_gives_them_back() -> None:
    record, shape = RunRecord(), [np.int64(3), np.float32(0.5)]
    record.set_fact("parameters", ({"shape": shape, "betas": (0.9, np.array([1, 2]))},))
    shape.append(np.int64(4))
    assert record.facts["parameters"] == [{"shape": [3, 0.5], "betas": [0.9, [1, 2]]}]


def test_a_fact_that_json_cannot_hold_is_refused() -> None:
    record = RunRecord()
    with pytest.raises(TypeError, match="object is not"):
        record.set_fact("task", object())
    assert record.facts == {}


@pytest.mark.parametrize("kind", ["fault", "transition"])
def test_the_oldest_events_are_dropped_and_counted(kind: str) -> None:
    record = RunRecord()
    for step in range(EVENTS + 3):
        getattr(record, f"add_{kind}")({"step": step})
    events: list[dict[str, Any]] = getattr(record, f"{kind}s")
    assert len(events) == EVENTS
    assert (events[0]["step"], events[-1]["step"]) == (3, EVENTS + 2)
    assert record.dropped[f"{kind}s"] == 3
    assert sum(record.dropped.values()) == 3


def test_steps_come_from_the_losses_the_gradients_or_the_facts() -> None:
    record = RunRecord()
    assert record.steps == 0
    record.append("grad_norm", "default", [0, 9], [[1.0], [1.0]])
    assert record.steps == 10
    record.set_fact("run", {"steps": 12})
    assert record.steps == 12
    record.set_fact("run", {"steps": None})
    assert record.steps == 10


def test_a_memo_lasts_until_the_record_changes() -> None:
    record, calls = RunRecord(), []

    def symptom(r: RunRecord) -> int:
        calls.append(r)
        return r.steps

    assert record.memo(symptom) == record.memo(symptom) == 0
    record.append("train_loss", "root", 0, 1.0)
    assert record.memo(symptom) == 1
    assert len(calls) == 2


def test_the_journal_hears_what_the_record_was_told() -> None:
    heard: list[Any] = []

    class Heard:
        def append(self, *told: Any) -> None:
            heard.append(told)

        def event(self, *told: Any) -> None:
            heard.append(told)

    record = RunRecord(Heard())
    for step in range(2):
        record.append("lr", "default/0", step, 0.1, {"schedule": ["cosine"]})
    record.set_fact("task", "binary")
    record.add_fault({"part": "capture"})
    record.add_transition({"code": "TW101"})
    provenances = [told[-1] for told in heard[:2]]
    assert provenances == [{"schedule": ["cosine"]}, {}]
    assert [told[0] for told in heard] == ["lr", "lr", "fact", "fault", "transition"]
