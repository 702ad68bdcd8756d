import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.record.series import Series
from trainwatch.symptoms.gates import attentions_of, belongs_to_gate, gates_of


def fact(order=0, kind="product", module="m", function="sigmoid", **more):
    return {"module": module, "kind": kind, "function": function, "layer": "", "activations": [], "order": order} | more


def record(facts, **series):
    """Facts of gates, and probes of them: site -> (step, row) of `gates`, or of `attention` for six columns."""
    made = RunRecord()
    made.set_fact("gates", facts)
    for site, probes in series.items():
        for step, row in probes:
            made.append("gates" if len(row) == 7 else "attention", site, step, np.array(row))
    return made


ROW = (0.25, 0.125, 0.5, 0.25, 0.375, 300.0, 64.0)
ROWS = (0.5, 0.25, 0.125, 0.75, 800.0, 4.0)


def test_nothing_seen():
    assert gates_of(RunRecord()) == attentions_of(RunRecord()) == []
    assert not belongs_to_gate(RunRecord(), "m:sigmoid", "m", "sigmoid")


def test_all_columns_of_a_gate_are_read():
    (found,) = gates_of(record({"a": fact(layer="up")}, a=[(7, ROW)]))
    assert (found.site, found.module, found.kind, found.function, found.layer) == ("a", "m", "product", "sigmoid", "up")
    assert (found.shut, found.open, found.low, found.high, found.mean, found.entries, found.units) == ROW
    assert (found.extreme, found.step, found.first, found.first_step) == (0.75, 7, (0.25, 0.125, 0.75), 7)
    assert isinstance(found.entries, int)
    assert found.note == "64 units, 300 entries of each, 0.38 on average"


def test_all_columns_of_an_attention_are_read():
    (found,) = attentions_of(record({"a": {"module": "m", "kind": "attention", "order": 0}}, a=[(7, ROWS)]))
    assert (found.site, found.module, found.step) == ("a", "m", 7)
    assert (found.sharp, found.least, found.flat, found.largest, found.rows, found.heads) == ROWS
    assert (found.first, found.first_step) == (0.5, 7)
    assert found.note == "800 rows of 4 heads, 25% in the head that has fewest"


def test_the_latest_probe_counts_and_the_first_is_kept():
    early = (1.0, 0.0, 1.0, 0.0, 0.0, 300.0, 64.0)
    (gate,) = gates_of(record({"a": fact()}, a=[(20, early), (40, ROW)]))
    assert (gate.shut, gate.step, gate.first, gate.first_step) == (0.25, 40, (1.0, 0.0, 1.0), 20)
    facts = {"a": {"module": "m", "kind": "attention", "order": 0}}
    (attention,) = attentions_of(record(facts, a=[(20, (1.0, *ROWS[1:])), (40, ROWS)]))
    assert (attention.sharp, attention.step, attention.first, attention.first_step) == (0.5, 40, 1.0, 20)


def test_they_come_in_order_of_execution_and_those_without_a_row_are_left_out():
    facts = {"c": fact(10), "a": fact(9), "b": fact(2), "d": fact(1)} | {
        "e": {"module": "e", "reason": "?", "order": 3}
    }
    made = record(facts, a=[(1, ROW)], b=[(1, ROW)], c=[(1, ROW)])
    made.put_series("gates", "d", Series((7,)))
    assert [g.site for g in gates_of(made)] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("site", "kind", "function", "place"),
    [("m:forget_l1_reverse", "lstm", "forget", "_l1_reverse"), ("m:update_l0", "gru", "update", "_l0"),
     ("m:input", "lstm", "input", ""), ("a:b:output_l0", "lstm", "output", "_l0")],
)  # fmt: skip
def test_the_place_of_a_recurrent_gate_is_the_suffix_of_its_parameters(site, kind, function, place):
    (gate,) = gates_of(record({site: fact(kind=kind, function=function)}, **{site: [(1, ROW)]}))
    assert gate.place == place
    assert gate.recurrent


@pytest.mark.parametrize(
    ("function", "shut", "opened"),
    [("input", True, False), ("forget", True, False), ("output", True, False), ("reset", False, False),
     ("update", False, True), ("sigmoid", True, False), ("hardsigmoid", True, False), ("tanh", True, False),
     ("glu", True, False)],
)  # fmt: skip
def test_some_gates_block_where_they_are_shut_and_some_where_they_are_open(function, shut, opened):
    (gate,) = gates_of(record({"a": fact(function=function)}, a=[(1, ROW)]))
    assert (gate.blocks_shut, gate.blocks_open) == (shut, opened)


def test_which_activations_are_gates():
    made = record({"a": fact(activations=["m:sigmoid#2"]), "b": fact(kind="gru", module="body"),
                   "c": {"module": "x", "kind": "attention", "order": 3}})  # fmt: skip
    assert belongs_to_gate(made, "m:sigmoid#2", "m", "sigmoid")
    assert not belongs_to_gate(made, "m:sigmoid", "m", "sigmoid")
    assert belongs_to_gate(made, "body:sigmoid#7", "body", "sigmoid")
    assert not belongs_to_gate(made, "body:tanh", "body", "tanh")
    assert not belongs_to_gate(made, "x:sigmoid", "x", "sigmoid")
