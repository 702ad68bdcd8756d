import numpy as np
import pytest

from trainwatch.config import Settings
from trainwatch.engine import judge
from trainwatch.record import RunRecord
from trainwatch.reports import render
from trainwatch.symptoms.regularised import regularised


def record_of(measured=True):
    record = RunRecord()
    record.set_fact("regularisation", {"weight_decay": 0.01, "dropout": [{"name": "drop", "p": 0.5}]})
    if not measured:
        return record
    parameters = [{"name": "w", "shape": [4, 8], "numel": 32, "module": "", "norm": 32**0.5, "order": 0},
                  {"name": "v", "shape": [8, 8], "numel": 64, "module": "", "norm": 8.0, "order": 1},
                  {"name": "b", "shape": [4], "numel": 4, "module": "", "norm": 2.0, "order": 0}]  # fmt: skip
    record.set_fact("parameters", parameters)
    record.set_fact("optimizers", {"default": {"type": "SGD", "parameters": [0, 1, 2], "groups": []}})
    for look in range(10):
        rows = np.tile([1.5, 2.0, 5.0, 0.0, 0.3, 0.0], (3, 1))
        rows[1, 4] = 0.0
        record.append("weights", "default", 50 * (look + 1), rows)
    record.append("small_changes", "val", 500, [0.1, 0.5, 0.51, 0.01, 0.9, 0.02, 1.5, 3.0, 64])
    record.append("val_churn", "val", 500, 0.125)
    record.append("evaluated_loss", "held", 500, [0.2, 0.03, 0.3, 0.7, 0.04])
    return record


def test_inventory_and_the_four_effects_in_a_line_each():
    found = regularised(record_of())
    assert found["in_use"] == ["weight decay (0.01)", "dropout (0.5)"]
    assert found["effects"] == [
        "weights 2 times as large as at the start",
        "10.0% of the weights near zero",
        "noise of 0.1 of the inputs' spread moves outputs by 0.15 of theirs",
        "12.5% of predictions change from pass to pass",
        "validation loss 0.5 above training loss (+- 0.05)",
    ]


def test_only_what_is_known():
    assert regularised(record_of(measured=False))["effects"] == []
    assert regularised(RunRecord()) == {}


@pytest.mark.parametrize("format", ["text", "md", "html"])
def test_each_report_has_the_section_where_anything_is_known(format):
    settings = Settings(select=("TW709",), strict=True)
    text = " ".join(render(judge(record_of(), settings), format).split())
    assert "Regularisation" in text
    assert "In use: weight decay (0.01), dropout (0.5)." in text
    assert "Measured: weights 2 times as large as at the start; 10.0% of the weights near zero; noise" in text
    bare = " ".join(render(judge(record_of(measured=False), settings), format).split())
    assert "In use:" in bare
    assert "Measured:" not in bare
    assert "Regularisation" not in render(judge(RunRecord(), settings), format)
