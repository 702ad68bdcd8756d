"""What several processes measured becomes one record, whatever becomes of the processes."""

import numpy as np
import pytest

from trainwatch.record import joining
from trainwatch.record.joint import ALL, JointRecord, Outbox

SHARDED = [{"name": "w", "numel": 6, "held": 3, "copies": 1, "norm": 3**0.5, "mean": 1.0, "std": 0.0},
           {"name": "b", "numel": 2, "norm": 1.0, "mean": 0.5, "std": 0.0}]  # fmt: skip
PLAIN = [{"name": "w", "numel": 6, "norm": 3.0, "mean": 1.0, "std": 0.0}]


def joint(world=2, parameters=PLAIN, ranks=(1,), apart=None):
    record = JointRecord(None, world)
    record.set_fact("parameters", parameters)
    record.set_fact("optimizers", {"default": {"parameters": list(range(len(parameters)))}})
    record.expect(ranks, apart or {})
    return record


def sent(*rows, upto=10, samples=5, parameters=None):
    """What another process sends that measured some rows: (quantity, key, steps, values)."""
    outbox = Outbox()
    if parameters:
        outbox.event("fact", {"topic": "parameters", "value": parameters})
    for quantity, key, steps, values in rows:
        outbox.append(quantity, key, np.array(steps), np.array(values, np.float32), {})
    return outbox.pack(upto, samples)


def rows(record, quantity, key="s"):
    series = record.series(quantity, key)
    return None if series is None else (series.steps.tolist(), series.values.tolist())


def test_rows_wait_until_all_have_told_theirs():
    record = joint()
    record.append("train_loss", "s", [0, 1, 2, 3], [1.0, 2.0, 3.0, 4.0])
    record.take(1, sent(("train_loss", "s", [0, 1], [3.0, 4.0]), upto=2))
    record.settle(4)
    assert rows(record, "train_loss") == ([0, 1], [2.0, 3.0])
    record.take(1, sent(("train_loss", "s", [2, 3], [5.0, 6.0]), upto=4))
    record.settle(3)  # this process itself knows no further
    assert rows(record, "train_loss") == ([0, 1, 2], [2.0, 3.0, 4.0])


def test_of_a_process_that_falls_silent_nothing_is_awaited():
    record = joint()
    record.append("train_loss", "s", [0, 1], [1.0, 2.0])
    record.take(1, sent(("train_loss", "s", [0], [3.0]), upto=1))
    record.part(1, "it fell silent")
    record.settle(2)
    assert rows(record, "train_loss") == ([0, 1], [2.0, 2.0])
    assert record.facts["processes"]["apart"] == {"1": "it fell silent"}
    assert record.facts["processes"]["joined"] == []


def test_a_process_that_has_told_all_is_no_more_silent():
    record = joint()
    record.take(1, sent(upto=ALL))
    record.part(1, "it fell silent")
    record.settle(1)
    assert record.facts["processes"]["apart"] == {}


def test_norms_of_shards_are_recorded_only_where_all_are_known():
    record = joint(parameters=SHARDED)
    record.append("grad_norm", "default", [0, 1], [[3.0, 1.0], [3.0, 1.0]], {"scope": "process"})
    record.take(1, sent(("grad_norm", "default", [0], [[4.0, 1.0]]), upto=1, parameters=SHARDED))
    record.part(1, "gone")
    record.settle(2)
    assert rows(record, "grad_norm", "default") == ([0], [[5.0, 1.0]])
    assert record.series("grad_norm", "default").provenance == {"scope": "global"}


def test_what_shards_began_as():
    record = joint(parameters=SHARDED)
    other = [{**SHARDED[0], "norm": 12.0**0.5, "mean": -2.0}, SHARDED[1]]  # entries 1, 1, 1 and -2, -2, -2
    record.take(1, sent(parameters=other))
    told = record.facts["parameters"][0]
    assert told["mean"] == pytest.approx(-0.5)
    assert told["norm"] == pytest.approx(15**0.5)
    assert told["std"] == pytest.approx((15 / 6 - 0.25) ** 0.5)
    assert "held" not in told
    assert record.facts["parameters"][1] == SHARDED[1]


def test_a_gradient_that_differs_between_processes_is_that_of_one():
    for theirs, scope in ([3.001, "global"], [4.0, "process"]):
        record = joint()
        record.append("grad_norm", "default", [0, 1], [[3.0], [3.0]], {"scope": "process"})
        record.take(1, sent(("grad_norm", "default", [0, 1], [[theirs], [9.0]])))  # one row a flush is sent
        record.append("grad_norm", "default", [2], [[3.0]], {"scope": "process"})
        record.settle(3)
        assert record.series("grad_norm", "default").provenance == {"scope": scope}
        assert record.facts["processes"]["gradients_differ"] is (scope == "process")


def test_counts_of_all_are_summed_whenever_they_come():
    record = joint()
    record.append("train_classes", "targets", 3, [1.0, 2.0, 0.0])
    record.settle(4)
    record.take(1, sent(("train_classes", "targets", [3], [[10.0, 0.0, 0.0]])))
    record.settle(4)
    record.append("train_classes", "targets", 7, [1.0, 1.0, 0.0])
    record.settle(8)
    assert np.sum(rows(record, "train_classes", "targets")[1], 0).tolist() == [12.0, 3.0, 0.0]
    assert record.facts["processes"]["classes"]["targets"] == [[2, 3, 0], [10, 0, 0]]


def test_counts_that_come_last_are_recorded_without_a_row_of_ones_own():
    record = joint()
    record.append("train_classes", "targets", 3, [1.0, 2.0, 0.0])
    record.take(1, sent(upto=4))
    record.settle(4)
    record.take(1, sent(("train_classes", "targets", [2], [[10.0, 0.0, 0.0]]), upto=ALL))
    record.settle(4)
    assert rows(record, "train_classes", "targets")[0] == [3]
    record.settle(ALL)
    assert rows(record, "train_classes", "targets") == ([3, 3], [[1.0, 2.0, 0.0], [10.0, 0.0, 0.0]])


@pytest.mark.parametrize("same", [True, False])
def test_a_pass_over_the_same_samples_is_one_pass(same):
    record = joint()
    losses = [1.0, 2.0] if same else [3.0, 4.0]
    for put in (record.append, None):
        mine = [("val_group_size", "val", [1], [[1.0, 1.0]]), ("val_sample_loss", "val", [1], [[1.0, 2.0]]),
                ("val_loss", "val", [1], [1.5]), ("val_confusion", "val", [1], [[[1.0, 0.0], [0.0, 1.0]]])]  # fmt: skip
        if put:
            for row in mine:
                put(*row)
        else:
            mine[1], mine[2] = ("val_sample_loss", "val", [1], [losses]), ("val_loss", "val", [1], [np.mean(losses)])
            record.take(1, sent(*mine))
    record.settle(2)
    assert np.sum(rows(record, "val_confusion", "val")[1]) == (2 if same else 4)
    assert rows(record, "val_loss", "val")[1] == [1.5 if same else 2.5]
    assert rows(record, "val_sample_loss", "val")[1] == [[1.0, 2.0] if same else [1.0, 2.0, 3.0, 4.0]]


def test_the_first_loss_of_each_process_that_is_not_finite_is_noted():
    record = joint(3, ranks=(1, 2))
    record.append("train_loss", "s", [0, 1], [1.0, np.inf])
    record.take(2, sent(("train_loss", "s", [0, 1], [np.inf, np.inf])))
    record.settle(0)
    assert record.facts["processes"]["nonfinite"] == [
        {"rank": 2, "step": 0, "stream": "s"}, {"rank": 0, "step": 1, "stream": "s"}
    ]  # fmt: skip


def test_memory_is_bounded():
    record = joint()
    for step in range(0, 1000, 10):
        steps = list(range(step, step + 10))
        record.append("train_loss", "s", steps, [1.0] * 10)
        record.take(1, sent(("train_loss", "s", steps, [1.0] * 10), upto=step + 10))
        record.settle(step + 10)
    assert sum(map(len, record._held.values())) == 0
    assert sum(len(by_step) for by_step in record._others[1].rows.values()) == 0


def test_arithmetic():
    copies = np.array([1, 2, 0])  # parted over four processes, over two and copied, and whole
    norms = [np.array([1.0, 3.0, 7.0]), np.array([2.0, 4.0, 7.0]), np.array([2.0, 3.0, 7.0]), np.array([4.0, 4.0, 7.0])]
    np.testing.assert_allclose(joining.sharded_norms(norms, copies), [5.0, 5.0, 7.0])
    others = [np.array([[2.0, 3.0, n], [1.0, 2.0, n], [9.0, 9.0, 9.0]]) for n in (1.0, 4.0, 2.0, 3.0)]
    np.testing.assert_allclose(joining.sharded_others(others, copies), [[8, 12, 4], [2, 4, 4], [9, 9, 9]])
    samples = np.array([30.0, 10.0])
    np.testing.assert_allclose(joining.by_samples([np.array(1.0), np.array(5.0)], samples), 2.0)
    np.testing.assert_allclose(joining.mean([np.array(1.0), np.array(5.0)], samples), 3.0)
    np.testing.assert_allclose(joining.spread([np.array([1.0]), np.array([3.0])], np.ones(2)), [5**0.5])
    error = joining.error([np.array([1.0, 1.0, 9.0, 1.0]), np.array([5.0, 3.0, 4.0, 5.0])], samples)
    np.testing.assert_allclose(error, [2.0, 3**0.5, 9.0, 2.0])
    many = [np.arange(200.0), np.arange(200.0, 400.0)]
    sizes = [np.ones(200), np.ones(200)]
    joined, widths = joining.columns(many, sizes), joining.group_sizes(sizes)
    assert (len(joined), widths.sum()) == (256, 400)
    np.testing.assert_allclose((joined * widths).sum(), np.arange(400.0).sum())
    assert np.isnan(joining.columns([np.array([np.nan]), np.array([1.0])], [np.ones(1), np.ones(1)])[0])
    assert joining.scores([np.zeros((15_000, 1, 2)), np.ones((15_000, 1, 2))], samples).mean() == 0.5
