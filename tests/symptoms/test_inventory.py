"""The inventory of what regularises, from facts and from a real run."""

import pytest
import torch
from torch import nn

import trainwatch
from trainwatch.record import RunRecord
from trainwatch.symptoms.inventory import inventory


def inventory_of(regularisation=None, groups=None, augmentation=None):
    record = RunRecord()
    if regularisation is not None:
        record.set_fact("regularisation", regularisation)
    if groups is not None:
        record.set_fact("optimizers", {"default": {"type": "SGD", "groups": groups}})
    if augmentation is not None:
        record.set_fact("loaders", {"train": {"augmentation": augmentation}})
    return inventory(record)


NOTHING = {"dropout": [], "normalisation": [], "weight_decay": 0.0, "penalties": {}, "label_smoothing": 0.0,
           "clipping": {"max_norm": 1.0}, "early_stopping": False, "accumulation": 4}  # fmt: skip
KINDS = {
    "weight decay": ({"groups": [{"weight_decay": 0.01}, {"weight_decay": 0.01}]}, "0.01"),
    "weight decay, apart": ({"groups": [{"weight_decay": 0.01}, {"weight_decay": 0.1}]},
                            "0.01 in default/0, 0.1 in default/1"),
    "weight decay, told": ({"regularisation": {"weight_decay": 0.5}}, "0.5"),
    "L1": ({"regularisation": {"penalties": {"l1": {"a": 1e-4, "b": 1e-4}}}}, "0.0001"),
    "L1, proximal": ({"groups": [{"l1": 1e-3}, {"l1": 0.0}]}, "proximal steps, 0.001"),
    "L2": ({"regularisation": {"penalties": {"l2": {"a": 1e-4, "b": 1e-3}}}}, "0.0001 in a, 0.001 in b"),
    "dropout": ({"regularisation": {"dropout": [{"name": "d", "p": 0.5}]}}, "0.5"),
    "normalisation": ({"regularisation": {"normalisation": list("abcdef")}}, "a, b, c, d ..."),
    "augmentation": ({"augmentation": ["RandomCrop"]}, "RandomCrop"),
    "early stopping": ({"regularisation": {"early_stopping": True}}, "in the trainer"),
    "label smoothing": ({"regularisation": {"label_smoothing": 0.1}}, "0.1"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "made", "text"), [(k, *v) for k, v in KINDS.items()], ids=KINDS)
def test_each_kind_alone(kind, made, text):
    assert inventory_of(**made) == {kind.partition(",")[0]: text}


def test_clipping_and_accumulation_are_none():
    assert inventory_of() == inventory_of(NOTHING, [{"weight_decay": 0}], []) == {}


def test_of_a_real_run():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    trainwatch.prox(optimizer, l1=1e-4)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "probes": "off"})
    for _ in range(3):
        (
            criterion(model(torch.randn(8, 4)), torch.randint(0, 3, (8,))) + 0.5 * model[0].weight.square().sum()
        ).backward()
        optimizer.step()
    watch.finish()
    assert inventory(watch.record) == {
        "weight decay": "0.01", "L1": "proximal steps, 0.0001", "L2": "0.5", "dropout": "0.3", "normalisation": "1",
        "label smoothing": "0.1"
    }  # fmt: skip
