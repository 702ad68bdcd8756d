import pytest
import torch
from torch import nn
from wired import codes, data, net, train

import trainwatch
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw704_gradients_not_zeroed import GradientsNotZeroed

OPTIMIZERS = [torch.optim.SGD, torch.optim.Adam]


def facts(**counts):
    record = RunRecord()
    known = {"cycles": 40, "kept": 0, "emptied": 0, "first": None, "looked": 0, "nonzero": 0}
    record.set_fact("zeroing", {"default": {**known, **counts}})
    return record


def verdict(record, **thresholds):
    return list(GradientsNotZeroed(**thresholds).check(record))


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("seed", range(3))
def test_fires_first_on_a_loop_that_never_zeroes(make, seed):
    model = net()
    report, _ = train(model, make(model.parameters(), lr=0.01), zero="never", seed=seed)
    first = report.diagnoses[0]
    assert (first.code, first.severity, first.onset_step) == ("TW704", Severity.ERROR, 1)
    assert first.evidence[0].value == 1.0
    assert "not zero at" in first.evidence[0].note
    assert first.evidence[1].value > 0
    assert "optimizer.zero_grad()\nloss.backward()" in first.remedies[0].how


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("zero", ["before", "after", "values"])
@pytest.mark.parametrize("parts", [1, 3])
def test_stays_silent_however_gradients_are_zeroed(make, zero, parts):
    model = net()
    assert codes(train(model, make(model.parameters(), lr=0.01), zero=zero, parts=parts)[0]) == []


@pytest.mark.parametrize("inner", [True, False])
def test_stays_silent_where_an_optimiser_zeroes_at_the_end_of_its_step(inner):
    class Sharpness(torch.optim.Optimizer):
        """Takes the gradient at a neighbouring point, as Foret et al. (2021) do."""

        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.05})
            self.base = torch.optim.SGD(self.param_groups, lr=0.05)

        @torch.no_grad()
        def step(self, closure):
            if inner:
                torch.enable_grad()(closure)()
            weights = [p for group in self.param_groups for p in group["params"]]
            length = torch.stack([p.grad.norm() for p in weights]).norm()
            moves = [0.05 * p.grad / length for p in weights]
            torch._foreach_add_(weights, moves)
            self.zero_grad()
            torch.enable_grad()(closure)()
            torch._foreach_sub_(weights, moves)
            self.base.step()
            self.zero_grad()

    torch.manual_seed(0)
    model, (x, y) = net(), data()
    optimizer = Sharpness(model.parameters())
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True})
    for rows in torch.arange(len(x)).split(16) * 4:

        def closure(rows=rows):
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            return loss

        if not inner:
            closure()
        optimizer.step(closure)
    report = watch.finish()
    assert watch.record.facts["zeroing"]["default"]["cycles"] > 10
    assert "TW704" not in [d.code for cause in report.diagnoses for d in cause.walk()]


def test_fires_where_gradients_are_emptied_before_the_step():
    model = net()
    report, _ = train(model, torch.optim.SGD(model.parameters(), lr=0.1), zero="between")
    assert report.diagnoses[0].code == "TW704"
    assert "changes nothing" in report.diagnoses[0].summary
    assert [r.id for r in report.diagnoses[0].remedies] == ["step-before-zeroing"]


def test_stays_silent_with_clipping_and_a_closure():
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    (x, y), criterion = data(), nn.CrossEntropyLoss()
    with trainwatch.watch(model, optimizer, loss_fn=criterion, settings={"quiet": True, "strict": True}) as watch:
        for _ in range(8):

            def closure():
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                return loss

            optimizer.step(closure)
    assert codes(watch.report) == []


@pytest.mark.parametrize("forgotten", [False, True])
def test_what_another_models_loss_leaves_behind_counts_only_at_the_own_step(forgotten):
    torch.manual_seed(0)
    generator, critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), nn.Linear(2, 1)
    makers, judges = torch.optim.Adam(generator.parameters()), torch.optim.Adam(critic.parameters())
    criterion = nn.BCEWithLogitsLoss()
    models, optimizers = {"G": generator, "D": critic}, {"G": makers, "D": judges}
    with trainwatch.watch(models, optimizers, loss_fn=criterion, settings={"quiet": True, "strict": True}) as watch:
        for _ in range(12):
            made, real = generator(torch.randn(16, 4)), torch.randn(16, 2)
            if not forgotten:
                judges.zero_grad()
            on_both = criterion(critic(torch.cat([real, made.detach()])), torch.arange(32).lt(16).float()[:, None])
            on_both.backward()
            judges.step()
            makers.zero_grad()
            criterion(critic(made), torch.ones(16, 1)).backward()  # leaves gradients in the critic
            makers.step()
    assert codes(watch.report) == (["TW704"] if forgotten else [])
    if forgotten:
        assert next(d for d in watch.report.diagnoses if d.code == "TW704").where == ("D",)


def test_it_takes_a_share_of_the_steps():
    assert not verdict(facts(kept=20, looked=4, nonzero=4, first=1))
    assert verdict(facts(kept=21, looked=4, nonzero=4, first=1))
    assert not verdict(facts(emptied=20, first=1))
    assert verdict(facts(emptied=21, first=1))


def test_gradients_whose_values_are_zero_were_zeroed():
    assert not verdict(facts(kept=40, looked=6, nonzero=3, first=1))
    assert verdict(facts(kept=40, looked=6, nonzero=4, first=1))


def test_few_steps_tell_nothing():
    assert not verdict(facts(cycles=3, kept=3, looked=2, nonzero=2, first=1))
    assert verdict(facts(cycles=4, kept=4, looked=2, nonzero=2, first=1))


def test_abstains_where_nothing_was_followed():
    with pytest.raises(NotChecked):
        verdict(RunRecord())
    with pytest.raises(NotChecked):
        verdict(facts(cycles=0))
