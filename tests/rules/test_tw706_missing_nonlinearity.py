import pytest
import torch
from torch import nn
from wired import SETTINGS, codes, net, train

import trainwatch
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw706_missing_nonlinearity import MissingNonlinearity


def found_in(model, inputs, criterion=None):
    """Findings of the rule on two steps of a model that maps `inputs` to anything."""
    torch.manual_seed(0)
    criterion = criterion or (lambda output: output.square().mean())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with trainwatch.watch(model, optimizer, settings=SETTINGS) as watch:
        for _ in range(2):
            optimizer.zero_grad()
            criterion(model(inputs)).backward()
            optimizer.step()
    return list(MissingNonlinearity().check(watch.record))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_fires_on_a_stack_without_activations(batch_norm):
    model = net(nn.Identity, batch_norm=batch_norm)
    report, _ = train(model, torch.optim.Adam(model.parameters()))
    found = report.diagnoses[0]
    assert (found.code, found.severity, found.where) == ("TW706", Severity.WARNING, ("0", "3", "6"))
    assert found.evidence[0].value == 3
    assert 'model.get_submodule("0")' in found.remedies[0].how


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus, nn.PReLU, nn.Sigmoid])
def test_stays_silent_with_activations(activation):
    model = net(activation)
    assert codes(train(model, torch.optim.Adam(model.parameters()))[0]) == []


IMAGE = torch.randn(2, 3, 8, 8)
CONVOLUTIONS = nn.Conv2d(3, 8, 3), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 4)


def test_fires_on_convolutions_without_activations():
    (found,) = found_in(nn.Sequential(*CONVOLUTIONS), IMAGE)
    assert found.severity == Severity.WARNING
    assert found.where == ("0", "2", "4")


def test_a_maximum_is_not_linear():
    layers = [*CONVOLUTIONS]
    layers[1] = nn.MaxPool2d(2)
    (found,) = found_in(nn.Sequential(*layers), IMAGE)
    assert found.severity == Severity.INFO  # the last two layers are a pair
    assert found.where == ("2", "4")


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True)
        self.head = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 4))

    def forward(self, x):
        return self.head(self.body(x))


class Embedded(nn.Module):
    """Features are brought to the width of the attention, whose projections follow at once: as one, or as three."""

    def __init__(self, *, split):
        super().__init__()
        self.embed, self.split, self.head = nn.Linear(4, 16), split, nn.Linear(16, 2)
        self.attend = nn.ModuleList(nn.Linear(16, 16) for _ in range(3)) if split else nn.MultiheadAttention(16, 2)

    def forward(self, x):
        x = self.embed(x)
        if not self.split:
            return self.head(torch.relu(self.attend(x, x, x)[0]))
        query, key, value = (layer(x) for layer in self.attend)
        return self.head(torch.relu((query @ key.mT).softmax(-1) @ value))


class Residual(nn.Module):
    """The head reads the sum of what all blocks wrote."""

    def __init__(self):
        super().__init__()
        layers = (nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True) for _ in range(2))
        self.body, self.head = nn.Sequential(*layers), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.body(x))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.value, self.gate, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.value(x) * self.gate(x))


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.first(x)
        return self.head(hidden + torch.relu(self.inner(torch.relu(hidden))))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x)[0][:, -1])


SOUND = {
    "one layer": (nn.Linear(8, 2), (4, 8)),
    "bottleneck": (nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 8)), (4, 8)),
    "separable": (nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.ReLU()), (2, 8, 8, 8)),
    "attention": (Attention(), (2, 5, 16)),
    "residual": (Residual(), (2, 5, 16)),
    "embedded": (Embedded(split=False), (2, 5, 4)),
    "embedded, three layers": (Embedded(split=True), (2, 5, 4)),
    "gate": (Gated(), (4, 8)),
    "skip": (Skip(), (4, 8)),
    "recurrent": (Recurrent(), (4, 5, 8)),
    "layer norm": (nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)), (4, 8)),
    "embedding": (nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 8)), None),
}


@pytest.mark.parametrize("name", SOUND)
def test_stays_silent_on(name):
    model, shape = SOUND[name]
    torch.manual_seed(0)
    assert found_in(model, torch.randint(9, (4, 5)) if shape is None else torch.randn(shape)) == []


def test_an_activation_forgotten_once_is_info():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    (found,) = found_in(model, torch.randn(4, 8))
    assert (found.severity, found.where) == (Severity.INFO, ("0", "1"))
    assert "between 0 and 1" in found.summary


def test_a_part_that_cannot_be_seen_is_given_the_benefit_of_the_doubt():
    record = RunRecord()
    shape = [8, 8]
    record.set_fact("parameters", [{"name": f"{i}.weight", "shape": shape, "order": i} for i in range(2)])
    seen = {"layers": ["0.weight", "1.weight"], "pairs": [["1.weight", "0.weight"]], "nonlinear": False}
    for opaque, severity in ((False, Severity.WARNING), (True, Severity.INFO)):
        record.set_fact("linearity", {**seen, "opaque": opaque})
        (found,) = MissingNonlinearity().check(record)
        assert found.severity == severity


def seen(*shapes, pairs=None, nonlinear=False, names="abcdef", **thresholds):
    """Findings where layers of these weights follow one another; the first comes last in the list of parameters."""
    record, names = RunRecord(), [f"{name}.weight" for name in names[: len(shapes)]]
    facts = [{"name": n, "shape": s, "order": i} for i, (n, s) in enumerate(zip(names, shapes, strict=True)) if s]
    record.set_fact("parameters", facts[::-1])
    pairs = [[i + 1, i] for i in range(len(names) - 1)] if pairs is None else pairs
    pairs = [[names[above], names[below]] for above, below in pairs][::-1]
    record.set_fact("linearity", {"layers": names, "pairs": pairs, "nonlinear": nonlinear, "opaque": False})
    return list(MissingNonlinearity(**thresholds).check(record))


@pytest.mark.parametrize(
    ("below", "above", "found"),
    [
        ([8, 8], [8, 8], True),
        ([2, 8], [8, 2], False),  # a bottleneck
        ([4, 8], [2, 4], True),  # as narrow as what follows is none
        ([8, 8, 3, 3], [8, 8, 3, 3], True),
        ([8, 8, 1, 1], [8, 1, 3, 3], False),  # depthwise
        ([1, 8, 3, 3], [1, 1, 3, 3], True),  # a single channel is not
        ([1, 8, 3, 3], [1, 1, 1, 1], True),
        ([8, 8, 3, 3], [8, 1, 1, 1], True),
        ([8, 1, 3, 3], [8, 8, 1, 1], False),  # separable
        ([8, 8, 3, 3], [8, 8, 1, 1], True),
        ([8, 1, 3, 3], [8, 8, 3, 3], True),
        ([8, 1, 3, 3], [8, 72], True),
        ([8, 1], [8, 8, 1, 1], True),
        (None, [8, 8], False),
        ([8, 8], None, False),
    ],
)
def test_pairs_that_are_linear_on_purpose(below, above, found):
    assert bool(seen(below, above)) is found


@pytest.mark.parametrize("names", ["abc", "cba"])
def test_layers_are_named_in_order_of_execution(names):
    (found,) = seen([8, 8], [8, 8], [8, 8], names=names)
    assert (found.severity, found.where) == (Severity.WARNING, tuple(names))
    assert found.evidence[0].threshold == 2
    assert f'get_submodule("{names[0]}")' in found.remedies[0].how


def several(pairs, nonlinear):
    return bool(seen(*[[8, 8]] * 4, pairs=pairs, nonlinear=nonlinear))


@pytest.mark.parametrize("nonlinear", [False, True])
def test_only_in_a_net_that_has_non_linear_parts_are_projections_and_sums_on_purpose(nonlinear):
    """One layer that three of one shape read, and one that reads two."""
    assert several([[1, 0], [2, 0], [3, 0]], nonlinear) is not nonlinear
    assert several([[2, 0], [2, 1]], nonlinear) is not nonlinear
    assert several([[1, 0], [2, 0]], nonlinear)
    assert several([[1, 0], [3, 2]], nonlinear)


@pytest.mark.parametrize("nonlinear", [False, True])
def test_only_in_a_net_that_has_non_linear_parts_is_a_projection_of_attention_on_purpose(nonlinear):
    record = RunRecord()
    names = ["embed.weight", "attend.in_proj_weight"]
    record.set_fact("parameters", [{"name": n, "shape": [8, 8], "order": i} for i, n in enumerate(names)])
    facts = {"layers": names, "pairs": [names[::-1]], "nonlinear": nonlinear, "opaque": False}
    record.set_fact("linearity", facts)
    assert bool(list(MissingNonlinearity().check(record))) is not nonlinear


def test_a_part_without_non_linearities_is_a_remark():
    (all_of_it,) = seen([8, 8], [8, 8], nonlinear=True)
    (part,) = seen([8, 8], [8, 8], [8, 8], pairs=[[1, 0]])
    assert all_of_it.severity == part.severity == Severity.INFO


def test_how_many_layers_make_a_net_can_be_set():
    assert [seen([8, 8], [8, 8], layers=n)[0].severity for n in (2, 3)] == [Severity.WARNING, Severity.INFO]


def test_abstains_where_no_graph_was_seen():
    with pytest.raises(NotChecked):
        list(MissingNonlinearity().check(RunRecord()))
    with pytest.raises(NotChecked):
        seen()
