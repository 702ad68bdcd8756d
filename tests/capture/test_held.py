"""Batches that are held for probes: which, for how long, and that their loss comes out again."""

import gc
import weakref
from collections import UserDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch

SETTINGS = {"quiet": True, "strict": True, "probes": "off"}
Y = torch.randint(0, 3, (8,))


class Dictionary(nn.Linear):
    def forward(self, x=None, *, scale=1.0):
        return {"logits": (super().forward(x) * scale, "further")}


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, x):
        return self.net(x)[:, None].expand(-1, 2, -1).contiguous()


class Moments(nn.Linear):
    def forward(self, x):
        out = super().forward(x)
        return out[:, :1], F.softplus(out[:, 1:]) + 0.1


class Turned(nn.Linear):
    def forward(self, x):
        return super().forward(x).T


CALLS = {
    "plain": (nn.Linear(4, 3), lambda m, x: F.cross_entropy(m(x), Y)),
    "module": (nn.Linear(4, 3), lambda m, x: nn.CrossEntropyLoss(label_smoothing=0.1, weight=torch.rand(3))(m(x), Y)),
    "keywords": (nn.Linear(4, 3), lambda m, x: F.cross_entropy(input=m(x), target=Y, reduction="sum")),
    "squeezed": (nn.Linear(4, 1), lambda m, x: F.mse_loss(m(x).squeeze(1), x[:, 0])),
    "reshaped": (Language(), lambda m, x: F.cross_entropy(m(x).view(-1, 3), Y.repeat_interleave(2))),
    "transposed": (Turned(4, 3), lambda m, x: F.cross_entropy(m(x).T, Y)),
    "classes in the middle": (Language(), lambda m, x: F.cross_entropy(m(x).transpose(1, 2), Y[:, None].expand(-1, 2))),
    "part": (Dictionary(4, 3), lambda m, x: F.cross_entropy(m(x=x, scale=2.0)["logits"][0], Y)),
}
UNKNOWN = {
    "turned round": (nn.Linear(4, 8), lambda m, x: F.cross_entropy(m(x).flip(1), Y)),
    "every other": (nn.Linear(4, 6), lambda m, x: F.cross_entropy(m(x)[:, ::2], Y)),
    "arithmetic": (nn.Linear(4, 3), lambda m, x: F.cross_entropy(2 * m(x), Y)),
    "own loss": (nn.Linear(4, 3), lambda m, x: (m(x) - 1).square().mean()),
    "variance": (Moments(4, 2), lambda m, x: F.gaussian_nll_loss(m(x)[0], x[:, :1], m(x)[1])),
    "pair": (
        Dictionary(4, 3),
        lambda m, x: F.mse_loss(m(x=x, scale=1.0)["logits"][0], m(x=2 * x, scale=1.0)["logits"][0]),
    ),
}


def train(model, loss, steps=1, batch=lambda: torch.randn(8, 4), validate=0, **settings):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS | settings)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model, batch()).backward()
        optimizer.step()
        with torch.no_grad():
            for _ in range(validate):
                loss(model, batch())
    return watch


def held(watch, kind="train"):
    return watch._monitor.capture.held.batches(kind)


@pytest.mark.parametrize(("model", "loss"), CALLS.values(), ids=CALLS)
def test_the_loss_of_a_held_batch_comes_out_again(model, loss):
    values = []

    def noted(m, x):
        values.append(loss(m, x))
        return values[-1]

    torch.manual_seed(0)
    watch = train(model, noted)
    (batch,) = held(watch)
    torch.testing.assert_close(batch.loss(model), values[0])
    batch.loss(model).backward()
    watch.finish()


@pytest.mark.parametrize(("model", "loss"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_cannot_be_computed_again_is_not_held_and_the_reason_is_told(model, loss):
    watch = train(model, loss, steps=3)
    assert held(watch) == []
    assert watch._monitor.capture.held.reason
    watch.finish()


OTHERS = {
    "the same": (lambda: Y, True),
    "equal ones": (lambda: Y.clone(), True),
    "those of other samples": (lambda: Y.roll(1), False),
    "of another type": (lambda: F.one_hot(Y, 3).float(), False),
}


@pytest.mark.parametrize(("other", "kept"), OTHERS.values(), ids=OTHERS)
def test_a_batch_whose_predictions_are_held_against_further_targets_is_none_to_learn_from(other, kept):
    def mixed(m, x):
        predicted = m(x)
        return F.cross_entropy(predicted, Y) + F.cross_entropy(predicted, other())

    watch = train(nn.Linear(4, 3), mixed, steps=3)
    assert len(held(watch)) == 3 * kept
    assert ("several targets at once" in watch._monitor.capture.held.reason) is not kept
    watch.finish()


@pytest.mark.parametrize("targets", [(Y.clone(), Y.roll(1)), (Y.roll(1), Y.clone())], ids=["later", "sooner"])
def test_one_of_several_further_targets_that_differs_is_enough(targets):
    def mixed(m, x):
        predicted = m(x)
        return sum(F.cross_entropy(predicted, y) for y in (Y, *targets))

    watch = train(nn.Linear(4, 3), mixed, steps=3)
    assert held(watch) == []
    watch.finish()


def test_other_losses_of_the_same_predictions_and_the_same_loss_of_others_mix_nothing():
    def several(m, x):
        predicted = m(x)
        own = F.cross_entropy(predicted, Y)
        return own + F.multi_margin_loss(predicted, Y.roll(1)) + F.cross_entropy(2 * predicted, Y.roll(1))

    watch = train(nn.Linear(4, 3), several, steps=3)
    assert len(held(watch)) == 3
    watch.finish()


def test_of_batches_some_of_which_are_mixed_the_others_are_held():
    calls = iter(range(40))

    def mixed_now_and_then(m, x):
        predicted = m(x)
        further = F.cross_entropy(predicted, Y.roll(1)) if next(calls) % 2 else 0.0
        return F.cross_entropy(predicted, Y) + further

    watch = train(nn.Linear(4, 3), mixed_now_and_then, steps=10)
    assert [batch.step % 2 for batch in held(watch)] == [0] * 5
    watch.finish()


def test_of_many_training_batches_sixteen_are_held_each_with_the_same_chance_and_any_four_of_them_too():
    counts, first = torch.zeros(80), torch.zeros(80)
    for seed in range(30):
        model = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        watch = trainwatch.watch(model, optimizer, settings=SETTINGS | {"select": ("TW709",)})
        watch._monitor.capture.held._draw.seed(seed)
        for number in range(80):
            F.cross_entropy(model(torch.full((32, 4), float(number))), Y.repeat(4)).backward()
            optimizer.step()
        kept = [int(b.args[0][0, 0]) for b in held(watch)]
        assert len(kept) == len(set(kept)) == 16
        counts[kept] += 1
        first[kept[:4]] += 1
        watch.finish()
    for drawn, expected in ((counts, 120), (first, 30)):  # in each quarter
        quarters = [float(part.sum()) for part in drawn.split(20)]
        assert min(quarters) > 0.6 * expected
        assert max(quarters) < 1.5 * expected


def test_fewer_are_held_where_they_are_large_and_with_the_same_chance():
    counts = torch.zeros(40)
    for seed in range(30):
        model = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        room = 8 * 3 * (8 * 4 * 4 + 8 * 8)
        watch = trainwatch.watch(model, optimizer, settings=SETTINGS | {"probe_memory": room, "select": ("TW709",)})
        watch._monitor.capture.held._draw.seed(seed)
        for number in range(40):
            F.cross_entropy(model(torch.full((8, 4), float(number))), Y).backward()
            optimizer.step()
        kept = [int(b.args[0][0, 0]) for b in held(watch)]
        assert len(kept) == 3
        counts[kept] += 1
        watch.finish()
    assert float(counts[:20].sum()) == pytest.approx(45, abs=18)


@pytest.mark.parametrize(("samples", "batches"), [(64, 16), (32, 16), (16, 32), (8, 64), (1, 64)])
def test_of_small_batches_more_are_held_as_many_as_make_up_512_samples(samples, batches):
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS | {"select": ("TW709",)})
    for number in range(90):
        few = max(1, samples // 2) if number % 10 == 9 else samples  # the last one of an epoch
        F.cross_entropy(model(torch.randn(few, 4)), torch.zeros(few, dtype=torch.long)).backward()
        optimizer.step()
    assert len(held(watch)) == batches
    watch.finish()


def test_the_first_batches_of_the_latest_validation_pass_are_held():
    watch = train(*CALLS["plain"], steps=3, validate=80)
    assert [b.step for b in held(watch, "val")] == [3] * 64
    assert len(held(watch)) == 3
    watch.finish()
    watch = train(*CALLS["plain"], steps=3, validate=2)
    assert [b.step for b in held(watch, "val")] == [3] * 2
    watch.finish()


@pytest.mark.parametrize("first", ["val", "train"])
def test_training_data_that_are_evaluated_as_well_are_not_held_for_validation(first):
    """Whichever comes first: which stream is which is known after the first passes."""
    torch.manual_seed(0)
    x, xv = torch.randn(40, 4), torch.randn(30, 4) + 100
    y, yv = torch.randint(0, 3, (40,)), torch.randint(0, 3, (30,))
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS | {"flush_every": 1})
    for _ in range(6):
        for rows in torch.arange(40).split(8):
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            for inputs, labels in [(xv, yv), (x, y)] if first == "val" else [(x, y), (xv, yv)]:
                F.cross_entropy(model(inputs), labels)
    (batch,) = held(watch, "val")
    assert batch.args[0] is xv
    watch.finish()


@pytest.mark.parametrize("name", ["plain", "module", "keywords", "squeezed", "reshaped", "part"])
def test_losses_of_the_samples_have_the_loss_of_the_batch_as_their_mean(name):
    model, loss = CALLS[name]
    watch = train(model, loss)
    (batch,) = held(watch)
    each, whole = batch.losses(model), batch.loss(model)
    assert len(each) in (8, 16)
    assert each.std() > 0
    torch.testing.assert_close(each.mean(), whole)
    watch.finish()


def test_batches_that_were_changed_in_place_are_dropped():
    x = torch.randn(8, 4)
    watch = train(*CALLS["plain"], batch=lambda: x)
    assert len(held(watch)) == 1
    x.zero_()
    assert held(watch) == []
    watch.finish()


class Encoding(UserDict):
    """A mapping that is not a dict, as tokenizers return."""


class OfEncodings(nn.Linear):
    def forward(self, batch):
        return super().forward(batch["x"])


def test_batches_in_mappings_of_other_types_are_bounded_and_their_changes_seen():
    x = torch.randn(8, 4)
    call = OfEncodings(4, 3), lambda m, x: F.cross_entropy(m(Encoding(x=x)), Y)
    watch = train(*call, batch=lambda: x)
    (batch,) = held(watch)
    assert batch.size == 8 * 4 * 4 + 8 * 8
    x.zero_()
    assert held(watch) == []
    watch.finish()
    watch = train(*call, probe_memory=1024)
    assert held(watch) == []
    watch.finish()


class InPlace(nn.Linear):
    def forward(self, x):
        return super().forward(x.mul_(2))


def test_a_model_that_works_in_place_does_not_get_the_users_tensors():
    x = torch.ones(8, 4)
    watch = train(InPlace(4, 3), lambda m, x: F.cross_entropy(m(x), Y), batch=lambda: x)
    (batch,) = held(watch)
    model = InPlace(4, 3)
    assert torch.equal(batch.loss(model), batch.loss(model)), "nor does the next call get what the last one left"
    assert torch.equal(x, torch.full((8, 4), 2.0))
    watch.finish()
    assert torch.equal(x, torch.full((8, 4), 2.0))


def test_batches_larger_than_their_memory_are_not_held():
    watch = train(*CALLS["plain"], probe_memory=1024)
    assert held(watch) == []
    assert "more than probe_memory leaves for it" in watch._monitor.capture.held.reason
    watch.finish()


def test_held_batches_are_bounded_in_bytes():
    watch = train(*CALLS["plain"], steps=4, probe_memory=8 * 2 * (8 * 4 * 4 + 8 * 8))  # room for two of either kind
    assert len(held(watch)) == 2
    watch.finish()


def test_the_models_output_is_not_kept():
    outputs = []

    def loss(model, x):
        output = model(x)
        outputs.append(weakref.ref(output))
        return F.cross_entropy(output, Y)

    watch = train(nn.Linear(4, 3), loss, steps=2)
    gc.collect()
    assert [o() for o in outputs] == [None, None]
    watch.finish()


def test_batches_made_in_inference_mode_can_be_differentiated():
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS)
    F.cross_entropy(model(torch.randn(8, 4)), Y).backward()
    optimizer.step()
    with torch.inference_mode():
        value = F.cross_entropy(model(torch.randn(8, 4)), Y.clone())
    (batch,) = held(watch, "val")
    torch.testing.assert_close(batch.loss(model).detach(), value.clone())
    batch.loss(model).backward()
    watch.finish()


def test_empty_batches_are_not_held():
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS)
    F.cross_entropy(model(torch.randn(0, 4)), Y[:0], reduction="sum").backward()
    optimizer.step()
    assert held(watch) == []
    watch.finish()


def batch_of(model, loss, **options):
    watch = train(model, loss, **options)
    (batch,) = held(watch)
    watch.finish()
    return batch


@pytest.mark.parametrize("call", ["plain", "module", "keywords", "part"])
def test_some_samples_of_a_batch_are_a_batch_of_their_own(call):
    model, loss = CALLS[call]
    batch = batch_of(model, loss)
    assert len(set(batch.contents())) == 8
    some = batch.only([1, 2, 5, 6])
    assert some.samples == 4
    assert some.contents() == [batch.contents()[i] for i in (1, 2, 5, 6)]
    torch.testing.assert_close(some.predict(model), batch.predict(model)[[1, 2, 5, 6]])
    if call == "plain":
        torch.testing.assert_close(some.losses(model), batch.losses(model)[[1, 2, 5, 6]])


def test_a_sample_that_comes_again_has_the_same_contents_and_another_target_has_not():
    x = torch.randn(8, 4)
    batch = batch_of(nn.Linear(4, 3), lambda m, given: F.cross_entropy(m(given), Y), batch=lambda: x)
    again = batch_of(nn.Linear(4, 3), lambda m, given: F.cross_entropy(m(given), Y.flip(0)), batch=lambda: x.flip(0))
    other = batch_of(nn.Linear(4, 3), lambda m, given: F.cross_entropy(m(given), (Y + 1) % 3), batch=lambda: x)
    assert batch.contents() == again.contents()[::-1]
    assert not set(batch.contents()) & set(other.contents())


def test_where_rows_are_no_samples_nothing_is_told_of_them():
    batch = batch_of(*CALLS["reshaped"])
    assert batch.contents() == []


def test_a_part_of_a_batch_is_its_own_where_a_model_works_in_place():
    class InPlace(nn.Linear):
        def forward(self, x):
            return super().forward(x.add_(1.0))

    model = nn.Linear(4, 3)
    some = batch_of(model, CALLS["plain"][1]).only([0, 1])
    once, twice = some.loss(InPlace(4, 3)), some.loss(model)
    assert torch.isfinite(once)
    torch.testing.assert_close(twice, some.loss(model))


X4 = torch.randn(8, 4)
PAIRS = torch.cdist(X4, X4)


class Graph(nn.Linear):
    def forward(self, x, other):
        return super().forward(x) if isinstance(other, list) else super().forward(other.float() @ x)


NO_SAMPLES = {
    "a target for each pair": (nn.Linear(4, 8), lambda m, x: F.cross_entropy(m(x), torch.arange(8))),
    "distances within the batch": (Graph(4, 3), lambda m, x: F.cross_entropy(m(x, PAIRS), Y)),
    "lengths as numbers": (Graph(4, 3), lambda m, x: F.cross_entropy(m(x, [4] * 8), Y)),
    "a weight for each sample": (
        nn.Linear(4, 3), lambda m, x: F.binary_cross_entropy_with_logits(m(x), torch.ones(8, 3), torch.ones(8, 1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("call", NO_SAMPLES)
def test_what_may_belong_to_the_batch_as_a_whole_is_not_divided(call):
    assert batch_of(*NO_SAMPLES[call], batch=lambda: X4).contents() == []
