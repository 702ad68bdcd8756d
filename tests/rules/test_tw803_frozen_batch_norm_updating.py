import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tuned import conv_net, digits, pretrained, split, tune

import trainwatch
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw803_frozen_batch_norm_updating import FrozenBatchNormUpdating

SEEDS = range(3)
NORMS = ("1", "5")


def said(report):
    return [d for cause in report.diagnoses for d in cause.walk() if d.code == "TW803"]


def frozen_body(seed=0):
    model = pretrained(seed=seed)
    model[:-1].requires_grad_(False)
    return model


def keep(model):
    model[:-1].eval()


@pytest.mark.parametrize("seed", SEEDS)
def test_fires_on_a_frozen_body_in_training_mode(seed):
    (found,) = said(tune(frozen_body(seed), seed)[0])
    assert (found.severity, found.where) == (Severity.WARNING, NORMS)
    measured = found.evidence[0]
    assert measured.value > measured.threshold == 0.1
    assert measured.where == "5"
    assert measured.step == 60
    assert "60 of 60 steps" in found.summary
    assert found.evidence[-1].value == 16 + 32
    assert [r.id for r in found.remedies] == ["freeze-batch-norm"]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_remedy_can_be_pasted_and_ends_it(seed):
    (found,) = said(tune(frozen_body(seed), seed)[0])
    code = {"torch": torch}
    exec(found.remedies[0].how, code)
    model = frozen_body(seed)
    before = copy.deepcopy(model.state_dict())
    report, record = tune(model, seed, prepare=code["keep_statistics"])
    assert said(report) == []
    assert "frozen_norms" not in record.facts
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items() if k.split(".")[0] in NORMS)


def test_many_modules_are_told_by_what_they_share():
    names = tuple(f"body.{i}.norm" for i in range(20))
    modules = [a_module(name=name) for name in names]
    (found,) = FrozenBatchNormUpdating().check(a_record(modules))
    code = {"torch": torch, "model": nn.Module()}
    blocks = [nn.ModuleDict({"norm": nn.BatchNorm1d(3).requires_grad_(i < 1)}) for i in range(20)]
    code["model"].body = nn.ModuleList(blocks)
    code["model"].head = nn.BatchNorm1d(3).requires_grad_(False)
    exec(found.remedies[0].how, code)
    assert code["frozen"] == list(names[1:])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("scale", "codes"), [(1, {"TW803", "TW709"}), (255, {"TW803", "TW709", "TW107"})])
def test_the_usual_recipe_for_fine_tuning_is_found_faulty(scale, codes, seed):
    """A frozen body under `model.train()`, images not prepared as for pretraining, nobody validates."""
    x, y, *_ = split(seed, images=(digits()[0] + 1) / 2 * scale)
    report, _ = tune(frozen_body(seed), seed, parts=(x, y, x[:0], y[:0]))
    assert codes <= {d.code for cause in report.diagnoses for d in cause.walk()}
    assert [r.id for r in said(report)[0].remedies] == ["freeze-batch-norm", "prepare-as-pretrained"]


@pytest.mark.parametrize("seed", SEEDS)
def test_stays_silent_where_statistics_have_to_follow(seed):
    assert said(tune(pretrained(seed=seed), seed)[0]) == []  # all is trained
    model = frozen_body(seed)
    for name in NORMS:
        model.get_submodule(name).requires_grad_(True)  # gain and shift are
    assert said(tune(model, seed)[0]) == []
    model = frozen_body(seed)
    model[0].requires_grad_(True)  # what lies below is
    assert said(tune(model, seed)[0]) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_task_is_a_remark(seed):
    """Batches like those that the statistics were taken from change next to nothing."""
    found = said(tune(frozen_body(seed), seed, parts=split(seed, first=True))[0])
    assert [d.severity for d in found] == [Severity.INFO]
    assert found[0].margin < 0


def test_a_body_that_no_optimiser_holds_is_frozen_too():
    model = pretrained()
    (found,) = said(tune(model, optimizer=torch.optim.Adam(model[-1].parameters(), lr=3e-3))[0])
    assert (found.severity, found.where) == (Severity.WARNING, NORMS)


class HeadFirst(nn.Module):
    """Registers its head before the body, which the order of registration alone would take for trained input."""

    def __init__(self, body, head):
        super().__init__()
        self.head, self.body = head, body

    def forward(self, x):
        return self.head(self.body(x))


def test_the_graph_tells_what_lies_below():
    model = frozen_body()
    (found,) = said(tune(HeadFirst(model[:-1], model[-1]))[0])
    assert (found.severity, found.where) == (Severity.WARNING, ("body.1", "body.5"))


def test_weights_that_are_loaded_before_the_first_step_are_the_start():
    ready, model = frozen_body(1).state_dict(), conv_net()
    model[:-1].requires_grad_(False)
    x, y, *_ = split(1)
    optimizer = torch.optim.Adam(model[-1].parameters(), lr=3e-3)
    with trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "probes": "off"}) as watch:
        model.load_state_dict(ready)
        for rows in torch.arange(300).repeat(6).split(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model.train()(x[rows]), y[rows]).backward()
            optimizer.step()
    (found,) = said(watch.report)
    assert 0.1 < found.evidence[0].value < 0.3  # of those that were loaded, not of those of a new net


def test_statistics_that_were_never_learned_are_learned():
    torch.manual_seed(0)
    model = conv_net()
    model[:-1].requires_grad_(False)
    assert said(tune(model)[0]) == []


def test_weights_that_follow_another_network_are_no_fault():
    model = frozen_body()

    def follow(_):
        for p in model[:-1].parameters():
            p.data.mul_(0.99)

    assert said(tune(model, after=follow)[0]) == []


def test_best_weights_that_are_loaded_at_the_end_do_not_hide_it():
    model, (x, y, *_) = frozen_body(1), split(1)
    states = []

    def after(epoch):
        states.append(copy.deepcopy(model.state_dict()))
        if epoch == 5:
            model.load_state_dict(states[2])

    assert [d.severity for d in said(tune(model, parts=(x, y, x[:0], y[:0]), after=after, flush_every=1000)[0])] == [
        Severity.WARNING
    ]


def a_module(name="1", **changes):
    told = {"name": name, "channels": 8, "momentum": 0.1, "training": 40, "fed": False, "shift": 0.5, "spread": 0.1}
    return told | {"learned": True, "moved": False} | changes


def a_record(modules, steps=40, samples=12800):
    record = RunRecord()
    record.set_fact("parameters", [])
    record.set_fact("run", {"steps": steps, "samples": samples})
    record.set_fact("frozen_norms", {"steps": steps, "modules": modules})
    return record


def verdict(record=None, **changes):
    return [d.severity for d in FrozenBatchNormUpdating().check(record or a_record([a_module(**changes)]))]


def test_thresholds():
    assert verdict() == [Severity.WARNING]
    assert verdict(shift=0.11) == verdict(shift=0.0, spread=0.11) == [Severity.WARNING]
    assert verdict(shift=0.09) == [Severity.INFO]
    assert verdict(shift=0.0, spread=0.0) == []
    assert verdict(training=20) == []
    assert verdict(training=21) == [Severity.WARNING]
    assert verdict(fed=True) == verdict(moved=True) == verdict(learned=False) == []
    assert verdict(a_record([a_module(training=7)], steps=7)) == []
    assert verdict(a_record([a_module(training=8)], steps=8)) == [Severity.WARNING]
    assert verdict(shift=np.nan) == verdict(shift=np.inf) == [Severity.WARNING]


def test_what_small_batches_make_waver_is_told_and_counts():
    # Two samples in a batch: (2 * 0.1 / 1.9 / 2) ** 0.5 = 0.229, and 8 channels say what 2 would.
    (found,) = FrozenBatchNormUpdating().check(a_record([a_module(shift=0.3)], samples=80))
    assert found.evidence[0].note.endswith("0.23 by the chance of batches")
    assert found.margin == pytest.approx((0.3 - 0.1) / (0.2 / 1.9 / 2 / 4) ** 0.5)
    (alone,) = FrozenBatchNormUpdating().check(a_record([a_module(shift=0.3, channels=2)], samples=80))
    assert alone.margin == pytest.approx((0.3 - 0.1) / (0.2 / 1.9 / 2 / 2) ** 0.5)
    (all_,) = FrozenBatchNormUpdating().check(a_record([a_module(shift=0.3, momentum=None)], samples=80))
    assert all_.margin == pytest.approx((0.3 - 0.1) / (2 / 40 / 2 / 4) ** 0.5)


def test_while_a_run_goes_on_its_loader_tells_the_size_of_a_batch_or_it_is_taken_for_one():
    going = a_record([a_module(shift=0.5)])
    going.set_fact("run", {})
    chances = []
    for known in ({}, {"loaders": {"train": {"batch_size": 2}}}):
        for name, fact in known.items():
            going.set_fact(name, fact)
        (found,) = FrozenBatchNormUpdating().check(going)
        chances.append(found.evidence[0].note.split("; ")[1])
    assert chances == ["0.32 by the chance of batches", "0.23 by the chance of batches"]


def test_the_module_that_drifted_furthest_decides():
    (found,) = FrozenBatchNormUpdating().check(a_record([a_module(shift=0.05, spread=0.0), a_module("5", shift=0.4)]))
    square = 2 * 0.1 / 1.9 / 320
    assert found.severity == Severity.WARNING
    assert found.margin == pytest.approx((0.4 - 0.1) / (square / 4) ** 0.5)
    (sure,) = FrozenBatchNormUpdating().check(a_record([a_module(momentum=0.0)]))
    assert sure.margin == np.inf


@pytest.mark.parametrize(("shift", "ids"), [(0.45, 1), (0.55, 2)])
def test_inputs_are_suspected_where_the_first_statistics_are_far_off(shift, ids):
    (found,) = FrozenBatchNormUpdating().check(a_record([a_module(shift=shift)]))
    assert [r.id for r in found.remedies] == ["freeze-batch-norm", "prepare-as-pretrained"][:ids]


def test_it_is_known_while_the_training_runs():
    model, (x, y, *_) = frozen_body(), split(0)
    optimizer = torch.optim.Adam(model[-1].parameters(), lr=3e-3)
    settings = {"quiet": True, "strict": True, "probes": "off", "flush_every": 10}
    watch = trainwatch.watch(model, optimizer, settings=settings)
    loader = DataLoader(TensorDataset(x, y), 32, shuffle=True)
    for _ in range(5):
        for inputs, targets in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model.train()(inputs), targets).backward()
            optimizer.step()
    assert verdict(watch.record) == [Severity.WARNING]
    watch.finish()


@pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::FutureWarning:lightning")
def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self, kept):
            super().__init__()
            self.net, self.kept = frozen_body(), kept

        def on_train_epoch_start(self):
            if self.kept:
                keep(self.net)

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.net[-1].parameters(), lr=3e-3)

    x, y, *_ = split(0)
    loader = DataLoader(TensorDataset(x, y), 32)
    for kept in (False, True):
        callback = trainwatch.TrainWatch(settings=Settings)
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = lightning.Trainer(
            max_epochs=6, callbacks=[callback], accelerator="cpu", default_root_dir=tmp_path, **quiet
        )
        trainer.fit(Module(kept), loader)
        assert [d.where for d in said(callback.report)] == ([] if kept else [("net.1", "net.5")])


Settings = trainwatch.Settings(quiet=True, strict=True, probes="off")


def test_abstains_where_parameters_are_unknown():
    with pytest.raises(NotChecked):
        list(FrozenBatchNormUpdating().check(RunRecord()))
    nothing_frozen = RunRecord()
    nothing_frozen.set_fact("parameters", [])
    assert verdict(nothing_frozen) == []
