import pytest
import torch
from torch import nn

import trainwatch
from trainwatch.capture.training_mode import TrainingMode


def frozen_body():
    body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    return nn.ModuleDict({"body": body, "head": nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.1))})


def test_what_rests_while_the_model_trains_is_named():
    model = frozen_body()
    mode = TrainingMode({"default": model}, model.parameters())
    model["body"].eval()
    mode.stepped(0)
    assert mode.facts()["resting"] == ["body.1", "body.2"]
    model["body"].train()
    mode.stepped(1)
    assert mode.facts()["resting"] == []


def test_it_is_looked_at_now_and_then_as_steps_go_on():
    model = frozen_body()
    mode = TrainingMode({"default": model}, model.parameters())
    for step in range(7):
        mode.stepped(step)
    model["body"].eval()
    mode.stepped(6)
    assert mode.facts()["resting"] == []
    mode.stepped(7)
    assert mode.facts()["resting"] == ["body.1", "body.2"]


def test_a_model_in_evaluation_mode_as_a_whole_rests_nowhere():
    model = frozen_body().eval()
    mode = TrainingMode({"default": model}, model.parameters())
    mode.stepped(0)
    assert mode.facts()["resting"] == []
    assert mode.facts()["evaluating"] == 1


def test_modules_without_a_mode_are_none():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model[1].eval()
    mode = TrainingMode({"default": model}, model.parameters())
    mode.stepped(0)
    assert mode.facts()["resting"] == []


@pytest.mark.parametrize("wrong", [False, True])
def test_a_moving_average_that_validates_tells_nothing_of_the_model_beside_it(wrong):
    """The model stays in training mode and its average in evaluation mode; or the average in training mode, too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), nn.Linear(16, 3))
    average = torch.optim.swa_utils.AveragedModel(model).train(wrong)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    settings = {"quiet": True, "strict": True, "probes": "off", "flush_every": 10}
    watch = trainwatch.watch({"model": model, "average": average}, optimizer, settings=settings)
    for step in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(8, 8)), torch.randint(0, 3, (8,))).backward()
        optimizer.step()
        average.update_parameters(model)
        if step % 10 == 9:
            with torch.no_grad():
                nn.functional.cross_entropy(average(torch.randn(16, 8)), torch.randint(0, 3, (16,)))
    said = {d.code: d.where for d in watch.finish().findings("info")}
    assert "TW702" not in said
    assert said.get("TW701") == (("average.module.1",) if wrong else None)
