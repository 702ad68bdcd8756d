from torch import nn

from trainwatch.capture.training_mode import TrainingMode


def frozen_body():
    body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    return nn.ModuleDict({"body": body, "head": nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.1))})


def test_what_rests_while_the_model_trains_is_named():
    model = frozen_body()
    mode = TrainingMode({"default": model})
    model["body"].eval()
    mode.stepped(0)
    assert mode.facts()["resting"] == ["body.1", "body.2"]
    model["body"].train()
    mode.stepped(1)
    assert mode.facts()["resting"] == []


def test_it_is_looked_at_now_and_then_as_steps_go_on():
    model = frozen_body()
    mode = TrainingMode({"default": model})
    for step in range(7):
        mode.stepped(step)
    model["body"].eval()
    mode.stepped(6)
    assert mode.facts()["resting"] == []
    mode.stepped(7)
    assert mode.facts()["resting"] == ["body.1", "body.2"]


def test_a_model_in_evaluation_mode_as_a_whole_rests_nowhere():
    model = frozen_body().eval()
    mode = TrainingMode({"default": model})
    mode.stepped(0)
    assert mode.facts()["resting"] == []
    assert mode.facts()["evaluating"] == 1


def test_modules_without_a_mode_are_none():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model[1].eval()
    mode = TrainingMode({"default": model})
    mode.stepped(0)
    assert mode.facts()["resting"] == []
