"""Remedies that follow from what was measured of inputs, gradients and weights; their code runs as it is printed."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_friedman1
from synthetic import curve, fit_record
from torch import nn

from benches import bench, in_batches
from trained import REGRESSIONS, split
from trainwatch.config import Settings
from trainwatch.engine import judge
from trainwatch.probes import input_importance, small_changes
from trainwatch.record import RunRecord
from trainwatch.rules.fit_remedies import adversarial, normalisation, stronger_regularisation

SEEDS = range(3)


def given_importance(*row):
    record = RunRecord()
    if row:
        record.append("input_importance", "val", 10, row)
    return stronger_regularisation(record)


@pytest.mark.parametrize(
    ("row", "said", "selects"),
    [
        ((20, 5, 0.4, 256), "L1 rather than L2: 5 of 20 inputs", True),
        ((10, 3, 0.4, 256), "L1 rather than L2: 3 of 10 inputs", True),
        ((9, 1, np.nan, 256), "L1 rather than L2: 1 of 9 inputs", True),
        ((20, 5, 0.75, 256), "elastic net", True),
        ((20, 7, 0.4, 256), "L2 (decay) rather than L1: 7 of 20 inputs", False),
        ((20, 7, 0.9, 256), "L2 (decay) rather than L1", False),
        ((), "Whether L1 would fit better: not measured.", False),
    ],
)
def test_l1_or_l2_by_how_few_inputs_matter_and_how_alike_they_are(row, said, selects):
    remedy = given_importance(*row)
    assert said in remedy.why
    assert ("trainwatch.prox(optimizer, l1=" in remedy.how) == selects


def table(name, seed):
    """A data set of which it is known whether few inputs matter."""
    if not name.startswith("friedman"):
        parts = split(name.removesuffix(" and noise"), seed)
        if name.endswith(" and noise"):
            draw = torch.Generator().manual_seed(seed)
            parts = [torch.cat([p, torch.randn(len(p), 30, generator=draw)], 1) if p.ndim > 1 else p for p in parts]
        return parts
    x, y = make_friedman1(600, n_features=20, noise=1.0, random_state=seed)  # five of them are in the function
    if name.endswith("twice"):
        x = np.c_[x, x[:, :5] + 0.02 * np.random.default_rng(0).standard_normal((600, 5)), x[:, 10:]]
    x, y = (torch.as_tensor((t - t.mean(0)) / t.std(0), dtype=torch.float32) for t in (x, y))
    return x[:450], x[450:], y[:450], y[450:]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("name", "said"),
    [("friedman", "L1 rather"), ("diabetes and noise", "L1 rather"), ("wine and noise", "noise. L1 "),
     ("friedman twice", "elastic net"), ("wine", "L2 (decay) rather"), ("digits", "L2 (decay) rather")],
)  # fmt: skip
def test_advice_on_real_nets(name, said, seed):
    x, xv, y, yv = table(name, seed)
    regression = y.is_floating_point()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 1 if regression else int(y.max()) + 1))
    criterion, function = (nn.MSELoss(), "mse_loss") if regression else (nn.CrossEntropyLoss(), "cross_entropy")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(15 if name.split()[0] in REGRESSIONS else 12):
        for rows in torch.randperm(len(x)).split(16):
            optimizer.zero_grad()
            out = model(x[rows])
            criterion(out.flatten() if regression else out, y[rows]).backward()
            optimizer.step()
    given = bench(model, [], in_batches(xv, yv, 64, function=function))
    input_importance.measure(given)
    assert said in stronger_regularisation(given.record).why


def moved(loss=0.5, noisy=0.51, against=0.9, error=0.02):
    record = RunRecord()
    record.append("small_changes", "val", 10, [0.1, loss, noisy, error, against, error, 1.0, 3.0, 64])
    return list(adversarial(record))


def test_adversarial_training_where_a_step_against_the_loss_costs_more_than_noise():
    (remedy,) = moved()
    assert "from 0.5 to 0.9" in remedy.why
    assert "takes it to 0.51" in remedy.why
    assert remedy.strength == "weak"
    assert moved(against=0.53) == moved(noisy=0.95) == list(adversarial(RunRecord())) == []


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.criterion, self.first, self.last = nn.CrossEntropyLoss(), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        self.seen = x
        return self.last(self.first(x).relu())


def test_the_code_of_adversarial_training_moves_inputs_as_far_as_the_probe_did():
    torch.manual_seed(0)
    (remedy,) = moved()
    net, inputs, targets = Net(), torch.randn(32, 4) * torch.tensor([1.0, 10.0, 0.1, 1.0]), torch.arange(32) % 3
    names = {"torch": torch, "model": net, "criterion": net.criterion, "inputs": inputs, "targets": targets}
    exec(remedy.how, names)
    spread = small_changes._spread(inputs)
    assert (net.seen - inputs).abs() == pytest.approx((0.1 * inputs.std(0)).expand(32, 4), rel=1e-4)
    assert spread.flatten() == pytest.approx(inputs.std(0), rel=0.05)
    clean, hard = net.criterion(net(inputs), targets), net.criterion(net(names["moved"]), targets)
    assert hard > clean
    assert names["loss"].item() == pytest.approx((clean + hard).item() / 2, rel=1e-5)
    names["loss"].backward()
    lightning: dict = {"torch": torch}
    exec(remedy.lightning, lightning)
    assert lightning["training_step"](net, (inputs, targets), 0).item() == pytest.approx(names["loss"].item(), rel=1e-5)


def through_depth(factor, **facts):
    """Gradients of four layers, each so many times as large as that of the layer behind it."""
    record = RunRecord()
    parameters = [
        {"name": f"{n}.weight", "shape": [8, 8], "numel": 64, "kind": "weight", "module": str(n), "order": n,
         "module_type": "Linear", "trainable": True, "norm": 1.0, "std": 0.1}
        for n in range(5)
    ]  # fmt: skip
    record.set_fact("parameters", parameters)
    record.set_fact("optimizers", {"default": {"type": "SGD", "parameters": list(range(5)), "groups": []}})
    record.set_fact("regularisation", facts)
    for step in range(40):
        record.append("grad_norm", "default", step, [factor ** (4 - n) for n in range(5)])
    return list(normalisation(record))


def test_normalisation_where_gradients_change_over_depth_and_nothing_normalises():
    (remedy,) = through_depth(0.4)
    assert remedy.title == "Normalise after 3 layers with BatchNorm1d"
    assert "the gradient of the first layer is 0.064 times that of the last" in remedy.why
    assert through_depth(0.5) == through_depth(1.0) == through_depth(0.4, normalisation=["1"]) == []
    assert len(through_depth(2.5)) == 1
    assert list(normalisation(RunRecord())) == []
    for code, holder in ((remedy.how, "model"), (remedy.lightning, "self")):
        model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(5)))
        exec(code, {"nn": nn, holder: model})
        assert [type(m).__name__ for m in model] == ["Linear", *["Sequential"] * 3, "Linear"]
        assert model(torch.randn(4, 8)).shape == (4, 8)


def test_what_was_measured_stands_beside_the_rise():
    made = fit_record(curve(climb=0.05), accuracy=None)
    made.append("small_changes", "val", 200, [0.1, 0.5, 0.51, 0.01, 0.9, 0.02, 1.5, 3.0, 64])
    made.append("val_churn", "val", 200, 0.125)
    report = judge(made, Settings())
    (cause,) = report.findings()
    (remark,) = [d for d in cause.consequences if d.code == "TW503"]
    for found in (cause, remark):
        shown = {e.name: e for e in found.evidence}
        change = shown["change of the output under small changes of the input"]
        assert change.value == pytest.approx(1.5)
        assert "from 0.5 to 0.51 (+- 0.01), a step of that size against it to 0.9 (+- 0.02)" in change.note
        assert shown["share of predictions that change"].value == pytest.approx(0.125)
        assert found.remedies[-1].id == "adversarial-training"
    assert report.figures["churn"].lines["val"] == ((200, 0.125),)
