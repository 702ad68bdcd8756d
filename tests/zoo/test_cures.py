from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.zoo import cures, tables
from benchmarks.zoo.cures import AFTERWARDS, MECHANICAL, PASTED, RECIPES, Cure, Pasted, cure, paste
from benchmarks.zoo.data import Sets
from benchmarks.zoo.scenario import Data, Loop, Loss, Model, Optimizer, Scenario
from benchmarks.zoo.store import path_of, save
from benchmarks.zoo.training import run
from trainwatch.diagnosis import Remedy
from trainwatch.remedies import CATALOGUE

SMALL = Data("wine")
FAULTY = Scenario(
    "tuning", "tried", "one", True, False, ("TW704",), (), False,
    SMALL, Model(hidden=(16,)), Loss(), Optimizer(name="SGD", lr=0.05), Loop(epochs=30, zero_grad="never"),
)  # fmt: skip


def test_every_remedy_that_is_tried_is_in_the_catalogue():
    assert set(CATALOGUE) >= MECHANICAL
    assert not set(RECIPES) & set(PASTED)


@pytest.mark.parametrize(
    ("id", "how", "part", "changed"),
    [
        (
            "gradient-clipping",
            "clip_grad_norm_(model.parameters(), max_norm=1.6e+04)  # between",
            "loop",
            {"clip": 1.6e4},
        ),
        ("early-stopping", "elif (since := since + 1) >= 9:", "loop", {"patience": 9, "restore": True}),
        ("proximal-step", "trainwatch.prox(optimizer, l1=0.003)", "optimizer", {"prox": 0.003}),
        ("less-dropout", "torch.nn.Dropout(p=0.3)  # 2, 5", "model", {"dropout": 0.3}),
        ("weaker-penalty", "criterion(outputs, targets) + 0.1 * penalty", "loss", {"l1": 0.05}),
        ("train-longer", "as they are now, for 4 epochs;", "loop", {"epochs": 34}),
        ("train-longer", "as they are now, for 12 steps;", "loop", {"steps": 22}),
    ],
)
def test_numbers_are_those_of_the_report(id, how, part, changed):
    scenario = replace(FAULTY, loss=Loss(l1=0.5), loop=Loop(epochs=30, steps=10 if "steps" in changed else 0))
    made = cures._changed(scenario, Remedy(id, "", "", how))
    assert {name: getattr(getattr(made, part), name) for name in changed} == changed


def test_a_number_that_is_not_there_is_told_with_the_code():
    with pytest.raises(ValueError, match="no number after 'max_norm='"):
        cures._changed(FAULTY, Remedy("gradient-clipping", "", "", "clip it"))


def test_code_is_run_at_its_place():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
    Pasted("model", "model.get_submodule('model.0').bias.data.fill_(7)", lightning=True).model(model)
    assert model[0].bias.tolist() == [7, 7]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    how = "for group in optimizer.param_groups:\n    group['lr'] = 0.25"
    assert Pasted("optimizer", how).optimizer(optimizer, model).param_groups[0]["lr"] == 0.25
    assert Pasted("model", how).optimizer(optimizer, model) is optimizer
    x, y = torch.arange(8.0).reshape(4, 2), torch.zeros(4)
    how = "mean, std = x_train.mean(0), x_train.std(0)\nx = (x - mean) / std"
    made = Pasted("sets", how).sets(Sets("classes", 2, x, y, x + 1, y))
    torch.testing.assert_close(made.x_train.std(0), torch.ones(2))
    assert made.x_val.mean() > made.x_train.mean()
    assert paste("a = b + 1", b=1)["a"] == 2


def test_a_fault_is_cured_as_its_report_says(tmp_path, monkeypatch):
    monkeypatch.setattr("trainwatch.monitor.LAST_ROUND", 0.0)  # no experiment is needed to tell
    save(path_of(tmp_path, FAULTY, 0), run(FAULTY, 0), {})
    done = cure(tmp_path, FAULTY, 0)
    assert (done.code, done.remedy, done.mechanical) == ("TW704", "zero-gradients", True)
    assert done.gone
    assert done.cured
    assert done.after > 0.9


def test_a_sound_run_needs_none(tmp_path, monkeypatch):
    monkeypatch.setattr("trainwatch.monitor.LAST_ROUND", 0.0)
    sound = replace(FAULTY, loop=Loop(epochs=30))
    save(path_of(tmp_path, sound, 0), run(sound, 0), {})
    assert cure(tmp_path, sound, 0).remedy is None
    assert "1 runs; of 1 nothing is diagnosed, 0 need" in str(tables.cure_table([cure(tmp_path, sound, 0)], "").caption)


@pytest.mark.parametrize(
    ("gone", "before", "after", "cured"),
    [
        (True, 0.5, 0.9, True),
        (True, 0.5, 0.49, True),
        (True, 0.5, 0.4, False),
        (False, 0.5, 0.9, False),
        (True, 0.5, float("nan"), False),
    ],
)
def test_cured_is_without_the_fault_and_no_worse(gone, before, after, cured):
    assert Cure(FAULTY, 0, "TW704", "zero-gradients", True, gone, before, after).cured is cured
    assert Cure(FAULTY, 0, "TW104", AFTERWARDS[0], True, gone, before, after).cured is (after > before)


@pytest.mark.parametrize(("after", "sound", "cured"), [(0.75, 0.9, True), (0.65, 0.9, False), (0.9, np.nan, False)])
def test_half_of_what_was_lost_is_a_cure_though_the_fault_is_still_said(after, sound, cured):
    assert Cure(FAULTY, 0, "TW101", "class-weights", True, False, 0.5, after, sound).cured is cured


def test_quality_is_that_of_the_task():
    done = Pasted()
    x, classes = torch.eye(3), torch.tensor([0, 1, 1])
    done.model(nn.Identity())
    done.sets(Sets("classes", 3, x, classes, x, classes))
    assert cures.quality(done, FAULTY) == pytest.approx(0.75)
    numbers = torch.tensor([[1.0], [2.0], [3.0]])
    done.sets(Sets("regression", 1, numbers, numbers, numbers, numbers))
    assert cures.quality(done, FAULTY) == 1
    done.sets(Sets("regression", 1, numbers, numbers, numbers * np.nan, numbers))
    assert cures.quality(done, FAULTY) == -np.inf


def test_the_table_has_a_row_for_each_remedy_and_one_for_all():
    some = [Cure(FAULTY, 0, "TW704", "zero-gradients", True, True, 0.5, 0.9), Cure(FAULTY, 0, "TW207", "more-data")]
    table = tables.cure_table(some, "title")
    assert list(table.columns[0].cells) == ["zero-gradients", "all"]
    assert list(table.columns[4].cells) == ["1 (100%)", "1 (100%)"]
    assert "2 runs; of 0 nothing is diagnosed, 1 need" in str(table.caption)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_temperature_is_found_however_small_or_large_logits_are(scale):
    torch.manual_seed(0)
    targets, logits = torch.randint(10, (200,)), torch.randn(200, 10)
    logits[torch.arange(200), targets] += 1.5
    how = CATALOGUE["temperature"].how
    made = paste(how, criterion=nn.CrossEntropyLoss(), val_logits=scale * logits, val_targets=targets)
    usual = paste(how, criterion=nn.CrossEntropyLoss(), val_logits=logits, val_targets=targets)
    assert made["log_t"].exp().item() == pytest.approx(scale * usual["log_t"].exp().item(), rel=1e-2)
