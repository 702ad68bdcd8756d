from functools import cache

import numpy as np
import pytest
import torch
from batched import recorded
from sklearn.datasets import load_diabetes, load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from watched import drawn, watched

import trainwatch
from trainwatch.diagnosis import Severity
from trainwatch.engine import nest
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked, all_rules
from trainwatch.rules.tw105_classes_missing_from_batches import ClassesMissingFromBatches

TEN = np.repeat(np.arange(10), 64)


def verdict(record, **thresholds):
    return list(ClassesMissingFromBatches(**thresholds).check(record))


def blocks(targets, length, seed=0):
    """The samples in blocks of one class each, in random order."""
    pieces = targets.reshape(-1, length)
    return np.random.default_rng(seed).permutation(pieces).reshape(-1)


def shuffled(targets, seed=0):
    return np.random.default_rng(seed).permutation(targets)


FAULTS = {
    "sorted": (TEN, 16),
    "two-classes": (np.repeat([0, 1], 320), 16),
    "two-uneven-classes": (np.repeat([0, 1], [560, 80]), 16),
    "blocks-of-one-batch": (blocks(TEN, 16), 16),
    "mild: blocks-of-a-quarter-batch": (blocks(TEN, 8), 32),
    "milder: blocks-of-an-eighth-of-a-batch": (blocks(TEN, 2), 16),
    "small-batches": (TEN, 4),
}


@pytest.mark.parametrize(("targets", "size"), FAULTS.values(), ids=FAULTS)
def test_fires(targets, size):
    (found,) = verdict(recorded(targets, size, classes=int(targets.max()) + 1, epochs=3, samples=len(targets)))
    assert found.margin > 0
    assert found.onset_step == 0


SOUND = {
    **{f"shuffled-{size}": (shuffled(TEN), size) for size in (2, 4, 16, 32)},
    "uneven": (shuffled(np.repeat([0, 1, 2], [600, 35, 5])), 16),
    "dealt-out": (np.tile(np.arange(10), 64), 20),
    "one-class": (np.zeros(640, int), 16),
    "blocks-of-two-samples": (blocks(TEN, 2), 32),
}


@pytest.mark.parametrize(("targets", "size"), SOUND.values(), ids=SOUND)
def test_stays_silent(targets, size):
    assert verdict(recorded(targets, size, classes=10, epochs=3, samples=len(targets))) == []


def test_abstains_where_nothing_can_be_told():
    with pytest.raises(NotChecked, match="19 training batches"):
        verdict(recorded(TEN[:304], 16, classes=10))
    with pytest.raises(NotChecked, match=r"1\.00 classes by chance"):
        verdict(recorded(TEN, 1, classes=10))
    with pytest.raises(NotChecked, match=r"1\.2\d classes by chance"):
        verdict(recorded(np.repeat([0, 1], [630, 10]), 16, classes=2))
    tokens = recorded(TEN, 16, classes=10)
    tokens.set_fact("task", "language-model")
    with pytest.raises(NotChecked, match="tokens"):
        verdict(tokens)


@pytest.mark.parametrize(("threshold", "value"), [("shortfall", 1.1), ("min_errors", 1e3)])
def test_each_threshold_can_silence_it(threshold, value):
    assert verdict(recorded(TEN, 16, classes=10))
    assert not verdict(recorded(TEN, 16, classes=10), **{threshold: value})


def test_a_shortfall_within_its_error_is_none():
    """Twenty batches of four: the classes of each vary by nature."""
    targets = np.concatenate([shuffled(TEN, 7)[:80]])
    record = recorded(targets, 4, classes=10)
    assert verdict(record, shortfall=-1.0, min_errors=-10.0)
    assert not verdict(record, shortfall=-1.0)


@pytest.mark.parametrize(("batches", "found"), [(23, 0), (26, 1)])
def test_a_shortfall_counts_from_four_standard_errors_on(batches, found):
    """Batches of two samples of one class: 1.5 classes by chance, with a variance of 3 / 8 in each."""
    pairs = np.repeat(np.arange(batches) % 2, 2)
    assert len(verdict(recorded(pairs, 2, classes=2))) == found


def test_the_margin_is_in_standard_errors():
    """The shortfall is 1, and its error that of 26 batches."""
    (found,) = verdict(recorded(np.repeat(np.arange(26) % 2, 2), 2, classes=2))
    assert found.margin == pytest.approx((1 - 0.25) / (np.sqrt(3 / 8 / 26) / 0.5))
    assert found.severity == Severity.WARNING


def test_message_and_remedies():
    record = recorded(np.repeat([0, 1, 2], [512, 112, 16]), 16, classes=3, samples=640)
    record.set_fact("class_names", ["ant", "bee", "cow"])
    record.set_fact("loaders", {"train": {"batch_size": 16, "shuffled": False}})
    (found,) = verdict(record)
    assert found.severity == Severity.WARNING
    assert found.summary == (
        "training batches of 16 hold 1.0 of 3 classes on average, a shuffled draw gives 2.3: they are sorted by class"
    )
    assert found.where == ("bee",)
    assert found.evidence[2].value == pytest.approx(33 / 40)
    shuffle, dealt = found.remedies
    assert "batch_size=16, shuffle=True" in shuffle.how
    assert not shuffle.already_in_use
    assert "without cow in 66%" in dealt.why
    compile(shuffle.how, "remedy", "exec")


def test_the_code_of_stratified_batches_deals_out_every_class():
    (found,) = verdict(recorded(TEN, 20, classes=10, samples=640))
    code, scope = found.remedies[1].how.rpartition("\n")[0], {"torch": torch}
    exec(code, scope)
    batches = scope["batches"](torch.as_tensor(TEN), 20)
    assert sorted(i for batch in batches for i in batch) == list(range(640))
    assert all(len(set(TEN[batch])) == 10 for batch in batches)


def test_batches_composed_on_purpose_are_a_remark():
    record = recorded(blocks(TEN, 8), 32, classes=10)
    record.set_fact("loaders", {"train": {"batch_size": None, "shuffled": False}})
    (found,) = verdict(record)
    assert found.severity == Severity.INFO


def test_what_follows_from_it_is_nested():
    (found,) = verdict(recorded(TEN, 16, classes=10))
    effect = all_rules()["TW603"]().diagnose("swings", margin=9.0)
    assert [d.code for d in nest([effect, found])] == ["TW105"]


@cache
def digits():
    x, y = load_digits(return_X_y=True)
    return torch.as_tensor(x / 16, dtype=torch.float32), torch.as_tensor(y)


def trained(batches, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return watched(model, torch.optim.Adam(model.parameters(), 1e-3), batches, nn.CrossEntropyLoss())


@pytest.mark.parametrize("seed", range(3))
def test_real_trainings(seed):
    x, y = digits()
    assert verdict(trained(drawn(x, y, batch=32, steps=60, seed=seed), seed)) == []
    order = y.argsort(stable=True)
    (found,) = verdict(trained(zip(x[order].split(32), y[order].split(32), strict=True), seed))
    assert found.evidence[0].value > 0.9


@pytest.mark.parametrize("apart", [True, False])
def test_classes_that_come_one_by_one_within_a_step_are_a_batch(apart):
    """A discriminator is given real samples, then made ones; where each class has a step of its own it is a fault."""
    torch.manual_seed(0)
    x, _ = digits()
    model, criterion = nn.Linear(64, 2), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    watch = trainwatch.watch(model, optimizer, loss_fn=criterion, settings={"quiet": True, "strict": True})
    for real in x.split(64):
        optimizer.zero_grad()
        for samples, kind in ((real, 1), (torch.rand_like(real), 0)):
            criterion(model(samples), torch.full((len(samples),), kind)).backward()
            if apart:
                optimizer.step()
                optimizer.zero_grad()
        if not apart:
            optimizer.step()
    watch.finish()
    assert bool(verdict(watch.record)) == apart
    assert watch.record.keys("batches_without_class")[0] == ("64" if apart else "128")


def of_numbers(y, size=16, epochs=3, shuffle=None, loader=None):
    record = RunRecord()
    step = 0
    for _ in range(epochs):
        for batch in np.split(y if shuffle is None else shuffle.permutation(y), np.arange(size, len(y), size)):
            row = [batch.mean(), batch.var(), 0.0, batch.var(), len(batch)]
            record.append("target_moments", "mse_loss", step, row)
            record.append("train_loss", "mse_loss", step, 1.0)
            step += 1
    record.set_fact("run", {"train_samples": len(y)})
    record.set_fact("loaders", {"train": loader or {"batch_size": size, "shuffled": False}})
    return record


NUMBERS = np.sort(np.random.default_rng(0).gamma(2.0, size=640))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_sorted_numbers(scale):
    (found,) = verdict(of_numbers(scale * NUMBERS))
    assert found.severity == Severity.WARNING
    assert "variance of the targets lies between training batches of 16" in found.summary
    assert found.evidence[0].value > 0.9
    assert found.evidence[0].threshold == 0.25
    assert found.onset_step == 0
    (shuffle,) = found.remedies
    assert "batch_size=16, shuffle=True" in shuffle.how
    assert not shuffle.already_in_use


def test_the_margin_of_numbers_is_in_standard_errors():
    """That of the mean over 120 batches of 16."""
    (found,) = verdict(of_numbers(NUMBERS))
    assert found.margin == pytest.approx((found.evidence[0].value - 0.25) / (np.sqrt(2 / 119) / 16), rel=1e-6)


def test_sorted_numbers_without_a_loader_come_again_in_the_same_order():
    made = of_numbers(NUMBERS)
    made.set_fact("loaders", {})
    (found,) = verdict(made)
    assert found.severity == Severity.WARNING
    assert not found.remedies[0].already_in_use


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_numbers(seed):
    assert verdict(of_numbers(NUMBERS, shuffle=np.random.default_rng(seed))) == []


@pytest.mark.parametrize(("threshold", "value"), [("shortfall", 1.1), ("min_errors", 1e4)])
def test_each_threshold_can_silence_it_of_numbers(threshold, value):
    assert not verdict(of_numbers(NUMBERS), **{threshold: value})


def test_numbers_in_few_batches_or_of_batches_composed_on_purpose():
    with pytest.raises(NotChecked, match="18 training batches"):
        verdict(of_numbers(NUMBERS, 35, epochs=1))
    (found,) = verdict(of_numbers(NUMBERS, loader={"batch_size": None}))
    assert found.severity == Severity.INFO
    with pytest.raises(NotChecked, match="nor numbers in whole passes"):
        verdict(RunRecord())


WAVE = np.sin(np.arange(640) / 60) + 0.2 * np.random.default_rng(0).normal(size=640)


def of_a_wave(held=None, error=0.1):
    """A time series, whose loss was 1 as samples came; `held` is that of the first ones at the end."""
    made = of_numbers(WAVE)
    if held is not None:
        made.append("evaluated_loss", "held", 119, [held, error, held, np.nan, np.nan])
    return made


@pytest.mark.parametrize(("held", "severity"), [(None, "info"), (0.9, "info"), (1.19, "info"), (1.21, "warning")])
def test_numbers_in_an_order_are_a_fault_where_the_first_ones_are_forgotten(held, severity):
    (found,) = verdict(of_a_wave(held))
    assert found.severity == severity
    assert "come in an order" in found.summary
    shown = [e for e in found.evidence if e.name == "loss of the first samples over that of all"]
    assert [e.value for e in shown] == ([] if severity == "info" else [pytest.approx(0.21)])
    assert "are sorted by what is to be predicted" in verdict(of_numbers(NUMBERS))[0].summary


def test_it_asks_whether_the_first_ones_are_forgotten():
    assert [wish.kind for wish in ClassesMissingFromBatches().asks(of_a_wave())] == ["train_eval"]
    assert not list(ClassesMissingFromBatches().asks(of_numbers(NUMBERS)))
    assert not list(ClassesMissingFromBatches().asks(of_numbers(NUMBERS, shuffle=np.random.default_rng(0))))
    assert not list(ClassesMissingFromBatches().asks(recorded(TEN, 16, classes=10)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("by", ["loader", "slices"])
def test_real_trainings_on_numbers(seed, by):
    x, y = (torch.as_tensor(part, dtype=torch.float32) for part in load_diabetes(return_X_y=True))
    y = ((y - y.mean()) / y.std())[:, None]
    order = y[:, 0].argsort()
    for rows, count in ((torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)), 0), (order, 1)):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1))
        loader = DataLoader(TensorDataset(x[rows], y[rows]), 32)
        slices = list(zip(x[rows].split(32), y[rows].split(32), strict=True))
        batches = (pair for _ in range(4) for pair in (loader if by == "loader" else slices))
        record = watched(model, torch.optim.Adam(model.parameters(), 1e-3), batches, nn.MSELoss())
        assert len(verdict(record)) == count
