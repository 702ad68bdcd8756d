import numpy as np

from benchmarks.zoo.store import about, restore, save
from trainwatch.record import RunRecord


def test_a_record_comes_back_as_it_was_stored(tmp_path):
    record = RunRecord()
    record.append("train_loss", "mse_loss", range(30000), np.linspace(3, 1, 30000))  # more than is kept in full
    record.append("grad_norm", "default", [0, 1], [[1, np.nan], [np.inf, 2]])
    record.set_fact("task", "regression")
    record.add_transition({"code": "TW201", "where": [], "state": "reported", "step": 3})
    save(tmp_path / "a" / "run.npz", record, {"fingerprint": "x"})
    back, told = restore(tmp_path / "a" / "run.npz")
    assert told == about(tmp_path / "a" / "run.npz") == {"fingerprint": "x"}
    assert (back.facts, back.transitions, back.steps) == (record.facts, record.transitions, record.steps)
    for quantity, key, series in record.items():
        held = back.series(quantity, key)
        for ours, theirs in zip(series.history(), held.history(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["run.npz"]
