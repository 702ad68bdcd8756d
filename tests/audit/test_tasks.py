import numpy as np
import pytest

from audited import loaded, part
from trainwatch.auditing.measures.tasks import task_of

X = np.zeros((100, 2))
TARGETS = {
    "two": (np.arange(100) % 2, "binary"),
    "two as numbers": ((np.arange(100) % 2).astype(float), "binary"),
    "ten": (np.arange(100) % 10, "multiclass"),
    "negative": (np.arange(100) % 3 - 1, "regression"),
    "counts": (np.arange(100), "regression"),
    "numbers": (np.linspace(0, 1, 100), "regression"),
    "whole numbers": (loaded("diabetes")[1][:100], "regression"),
    "several numbers": (np.linspace(0, 1, 200).reshape(100, 2), "regression"),
    "yes and no": (np.eye(2)[np.arange(100) % 2].astype(int), "multilabel"),
    "a column": ((np.arange(100) % 3)[:, None], "multiclass"),
}


@pytest.mark.parametrize(("y", "task"), TARGETS.values(), ids=TARGETS)
def test_targets_tell_the_task(y, task):
    assert task_of(part("train", X, y), None) == task
    assert task_of(part("train", X, y), "regression") == "regression"


def test_without_targets_there_is_none():
    assert task_of(part("train", X), None) is None
