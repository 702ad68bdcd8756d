import numpy as np
import pytest

from trainwatch.config import Settings
from trainwatch.engine import judge
from trainwatch.record import RunRecord
from trainwatch.symptoms.norms import LAYERS, norms_at_end, norms_figure, norms_of


def followed(layers=2, looks=3):
    """Weights that double from look to look, with a quarter of zeros, and gradients that halve; a bias beside each."""
    record = RunRecord()
    parameters = []
    for n in range(layers):
        parameters.append(
            {
                "name": f"{n}.weight",
                "shape": [4, 8],
                "kind": "weight",
                "numel": 32,
                "module": str(n),
                "order": layers - n,
            }
        )
        parameters.append(
            {"name": f"{n}.bias", "shape": [4], "kind": "bias", "numel": 4, "module": str(n), "order": layers - n}
        )
    record.set_fact("parameters", parameters)
    width = len(parameters)
    record.set_fact("optimizers", {"default": {"type": "SGD", "parameters": list(range(width)), "groups": []}})
    for look in range(looks):
        size = 2.0**look
        record.append("grad_norm", "default", 50 * look + 49, np.full(width, 0.5**look))
        record.append("other_grad_norms", "default", 50 * look, np.tile([8.0, 3 * 0.5**look, 0.4 * size], (width, 1)))
        record.append(
            "weights", "default", 50 * (look + 1), np.tile([size, 2 * size, 5 * size, 0.25, 0.3, 0.0], (width, 1))
        )
    return record


def test_norms_are_those_of_a_tensor_that_is_looked_at_as_a_whole():
    w = np.random.default_rng(0).standard_normal(64)
    w[:16] = 0.0
    row = [np.abs(w).mean(), np.sqrt((w**2).mean()), np.abs(w).max(), (w == 0).mean(), 0.0, 0.0]
    expected = [np.linalg.norm(w, ord) for ord in (0, 1, 2, np.inf)]
    np.testing.assert_allclose(norms_of(np.array(row), 64), expected)


def test_a_row_for_each_norm_of_each_weight_in_order_of_execution_over_its_first_value():
    figure = norms_figure(followed())
    rows = dict(zip(figure.rows, figure.values, strict=True))
    assert list(rows)[:8] == [f"|{of}|{norm} 1.weight" for of in "wg" for norm in ("0", "1", "2", "inf")]
    assert len(rows) == 16
    assert figure.columns == (50, 100, 150)
    assert rows["|w|0 0.weight"] == (1.0, 1.0, 1.0)
    assert rows["|w|1 0.weight"] == rows["|w|2 0.weight"] == rows["|w|inf 0.weight"] == (1.0, 2.0, 4.0)
    assert rows["|g|1 0.weight"] == rows["|g|2 0.weight"] == (1.0, 0.5, 0.25)
    assert rows["|g|0 0.weight"] == (1.0, 1.0, 1.0)
    assert rows["|g|inf 0.weight"] == (1.0, 2.0, 4.0)


def test_the_norms_at_the_end_are_in_the_report():
    report = judge(followed(), Settings(select=("TW709",), strict=True))
    expected = {"|w|0": 24.0, "|w|1": 128.0, "|w|2": 8 * 32**0.5, "|w|inf": 20.0}
    expected |= {"|g|0": 8.0, "|g|1": 0.75, "|g|2": 0.25, "|g|inf": 1.6}
    assert report.facts["norms"]["0.weight"] == pytest.approx(expected)
    assert "norms" in report.figures


def test_few_layers_are_shown_of_many():
    shown = norms_at_end(followed(layers=40))
    assert len(shown) == LAYERS
    assert {"0.weight", "39.weight"} <= set(shown)


def test_without_gradients_or_weights():
    bare = RunRecord()
    for topic in ("parameters", "optimizers"):
        bare.set_fact(topic, followed().facts[topic])
    assert norms_figure(bare) is None
    assert norms_at_end(bare) == {}
    lost = np.tile([np.inf, np.inf, np.inf, 0.0, 0.0, 0.0], (4, 1))
    bare.append("weights", "default", 50, lost)
    assert list(norms_at_end(bare)["0.weight"]) == ["|w|0"]
    assert [row for row in norms_figure(bare).rows if "|g|" in row or "inf" in row] == []


def test_a_fault_in_facts_or_figures_spares_the_rest_of_the_report(monkeypatch):
    def fails(record):
        raise ZeroDivisionError("made to fail")

    for name in ("norms_at_end", "figures_of"):
        monkeypatch.setattr(f"trainwatch.engine.{name}", fails)
    record = followed()
    record.set_fact("task", "regression")
    report = judge(record, Settings(select=("TW709",)))
    assert [d.where for d in report.diagnoses if d.code == "TW000"] == [("figures",), ("facts of the report",)]
    assert report.facts["task"] == "regression"
    with pytest.raises(ZeroDivisionError, match="made to fail"):
        judge(record, Settings(strict=True))
