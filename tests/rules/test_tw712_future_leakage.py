import pytest
import torch
import torch.nn.functional as F
from torch import nn
from tried import tried

import trainwatch
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw712_future_leakage import FutureLeakage

V, T, D = 12, 16, 16


def chain(n, seed):
    """Sequences of a random chain, whose next entry can be told to some degree: inputs and targets."""
    generator = torch.Generator().manual_seed(seed)
    turns = torch.rand(V, V, generator=torch.Generator().manual_seed(99)).pow(6)
    found = [torch.randint(0, V, (n,), generator=generator)]
    for _ in range(T):
        found.append(torch.multinomial(turns[found[-1]], 1, generator=generator)[:, 0])
    sequences = torch.stack(found, 1)
    return sequences[:, :-1], sequences[:, 1:]


class Language(nn.Module):
    """A small language model of some kind, which sees what comes later or does not."""

    def __init__(self, kind, leaks):
        super().__init__()
        self.kind, self.leaks = kind, leaks
        self.words, self.places = nn.Embedding(V, D), nn.Parameter(0.02 * torch.randn(T, D))
        if kind == "transformer":
            layer = nn.TransformerEncoderLayer(D, 2, 32, dropout=0.1, batch_first=True)
            self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        elif kind == "lstm":
            self.body = nn.LSTM(D, D // 2 if leaks else D, batch_first=True, bidirectional=leaks)
        else:
            self.body = nn.Conv1d(D, D, 3, padding=1 if leaks else 0)
        self.head = nn.Linear(D, V)

    def forward(self, x):
        h = self.words(x) + self.places
        if self.kind == "transformer":
            mask = None if self.leaks else nn.Transformer.generate_square_subsequent_mask(T)
            h = self.body(h, mask=mask, is_causal=not self.leaks)
        elif self.kind == "lstm":
            h = self.body(h)[0]
        else:
            h = h.transpose(1, 2) if self.leaks else F.pad(h.transpose(1, 2), (2, 0))
            h = self.body(h).transpose(1, 2).relu()
        return self.head(h)


def flat(outputs, y):
    return F.cross_entropy(outputs.reshape(-1, V), y.reshape(-1))


def between(outputs, y):
    return F.cross_entropy(outputs.transpose(1, 2), y)


def watched(model, loss, seed, steps=60):
    x, y = chain(64, seed)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    settings = {"quiet": True, "strict": True, "select": ("TW712",), "flush_every": 20}
    watch = trainwatch.watch(model, optimizer, settings=settings)
    for step in range(steps):
        rows = slice(16 * (step % 4), 16 * (step % 4) + 16)
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return watch.finish()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("loss", [flat, between])
@pytest.mark.parametrize("kind", ["transformer", "lstm", "convolution"])
def test_a_language_model_that_sees_the_next_word_is_told_from_one_that_does_not(kind, loss, seed):
    torch.manual_seed(seed)
    assert watched(Language(kind, leaks=False), loss, seed).findings() == []
    (found,) = watched(Language(kind, leaks=True), loss, seed).findings()
    assert (found.code, found.severity, found.where) == ("TW712", "error", ("model",))
    assert found.evidence[0].value > found.evidence[0].threshold == FutureLeakage.share
    module = {"transformer": "body.layers.0.self_attn", "lstm": "body", "convolution": "body"}[kind]
    assert module in found.remedies[0].why


@pytest.mark.parametrize("kind", ["transformer", "lstm", "convolution"])
def test_a_preflight_tells_it_before_the_first_step(kind):
    torch.manual_seed(0)
    for leaks in (False, True):
        report = tried(Language(kind, leaks), between, chain(16, 0))
        assert [d.code for d in report.findings() if d.code == "TW712"] == ["TW712"] * leaks
        assert "TW712" not in report.not_checked


def test_tagging_may_look_ahead():
    torch.manual_seed(0)
    x, _ = chain(64, 0)
    tags = (x + x.roll(-1, 1)) % V

    def tagging(outputs, _):
        rows = len(outputs)
        return flat(outputs, tags[:rows])

    report = watched(Language("lstm", leaks=True), tagging, 0)
    assert report.findings() == []
    assert report.not_checked["TW712"] == "what the loss wants was not recognised as the inputs one position further"


def record_of(before, behind, key="input"):
    record = RunRecord()
    record.append("future", key, 20, [before, behind, 16.0])
    return record


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("ratio", "fires"), [(0.0, False), (0.0009, False), (0.0011, True), (1.9, True)])
def test_the_threshold_is_a_share_whatever_the_unit(ratio, fires, unit):
    found = list(FutureLeakage().check(record_of(ratio * unit, unit)))
    assert bool(found) == fires
    for one in found:
        assert one.evidence[0].value == pytest.approx(ratio)
        assert (one.evidence[0].step, one.onset_step) == (20, 0)


def test_the_remedy_names_what_mixes_positions_and_nothing_else():
    record = record_of(0.5, 1.0)
    types = {
        "words": "Embedding",
        "attention.out_proj": "NonDynamicallyQuantizableLinear",
        "body": "GRU",
        "head": "Linear",
    }
    record.set_fact("modules", [{"name": name, "type": kind} for name, kind in types.items()])
    (found,) = FutureLeakage().check(record)
    assert "look at attention, body first" in found.remedies[0].why
    (unknown,) = FutureLeakage().check(record_of(0.5, 1.0))
    assert "look at forward() first" in unknown.remedies[0].why


def test_abstains_with_a_reason():
    for record, reason in (
        (RunRecord(), "no experiment looked"),
        (record_of(2.1, 1.0), "as in an autoencoder"),
        (record_of(0.0, 0.0), "do not depend on the inputs"),
        (record_of(float("nan"), 1.0), "no numbers"),
    ):
        with pytest.raises(NotChecked, match=reason):
            list(FutureLeakage().check(record))
    refused = RunRecord()
    refused.set_fact("switched_off", {"future": "why not"})
    with pytest.raises(NotChecked, match="why not"):
        list(FutureLeakage().check(refused))


@pytest.mark.parametrize(
    ("kind", "asked"),
    [("Embedding", True), ("NonDynamicallyQuantizableLinear", True), ("GRU", True), ("Conv2d", False)],
)
def test_asks_once_and_of_nets_for_sequences_alone(kind, asked):
    record = RunRecord()
    record.set_fact("modules", [{"name": "a", "type": kind}, {"name": "b", "type": "Linear"}])
    assert [request.kind for request in FutureLeakage().asks(record)] == ["future"] * asked
    record.append("future", "input", 20, [0.0, 1.0, 16.0])
    assert list(FutureLeakage().asks(record)) == []
