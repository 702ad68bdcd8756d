import pytest
import torch
from torch import nn
from tried import CE, Forward, batch, net, only, tried

from trainwatch.checks.batch import one_batch
from trainwatch.record import RunRecord
from trainwatch.rules.tw708_failing_step import FailingStep

X, Y = batch()
YES = (Y > 1).float()
WIDE = torch.randint(0, 50, (16, 5))


def reading():
    return Forward(lambda s, x: s.head(s.words(x).mean(1)), words=nn.Embedding(50, 8), head=nn.Linear(8, 4))


def frozen():
    return net().requires_grad_(False)


# What is wrong -> model, loss, batch, words of the summary, remedy.
CASES = {
    "a label too high": (net, CE(), (X, Y + 1), "hold class 4, the outputs have 4 columns: classes go from 0 to 3",
                         "classes-from-zero"),
    "a label too low": (net, CE(), (X, Y - 1), "targets hold class -1", "classes-from-zero"),
    "an index too high": (reading, CE(), (WIDE.clone().index_fill_(0, torch.tensor(3), 60), Y),
                          "'words' has 50 rows, for indices 0 to 49, and is given others up to 60",
                          "rows-for-all-indices"),
    "inputs of doubles": (net, CE(), (X.double(), Y), "types do not fit (model float32, inputs float64)", "same-type"),
    "inputs of bytes": (net, CE(), (X.byte(), Y), "inputs uint8", "same-type"),
    "classes as floats": (net, CE(), (X, Y.float()), "Long", "same-type"),
    "several losses": (net, lambda o, t: (CE()(o, t), {}), (X, Y), "returns a tuple: let it give back the loss alone",
                       "repeat-the-step"),
    "a single sample": (lambda: nn.Sequential(nn.BatchNorm1d(12), net()), CE(), (X[:1], Y[:1]),
                        "more than 1 value per channel", "repeat-the-step"),
    "yes and no as integers": (lambda: net(outputs=1), nn.BCEWithLogitsLoss(), (X, YES.long()[:, None]),
                               "targets int64", "same-type"),
    "another device": (net, CE(), (X.to("meta"), Y), "inputs meta", "same-device"),
    "inputs too narrow": (lambda: net(inputs=64), CE(), (X, Y), "'0' (in_features 64) is given (16, 12)",
                          "fitting-shapes"),
    "in the model itself": (lambda: Forward(lambda s, x: s.net(x) @ torch.ones(3, 3), net=net()), CE(), (X, Y),
                            "the model is given (16, 12)", "fitting-shapes"),
    "channels last": (lambda: nn.Conv2d(3, 4, 3), nn.MSELoss(), (torch.randn(4, 8, 8, 3), torch.randn(4)),
                      "(in_channels 3) is given (4, 8, 8, 3)", "fitting-shapes"),
    "column against row": (lambda: net(outputs=1), nn.BCEWithLogitsLoss(), (X, YES),
                           "outputs (16, 1) and targets (16,) do not fit", "fitting-shapes"),
    "fewer targets": (net, CE(), (X, Y[:8]), "outputs (16, 4) and targets (8,)", "fitting-shapes"),
    "detached": (lambda: Forward(lambda s, x: s.net(x).detach(), net=net()), CE(), (X, Y), "no parameter that is",
                 "keep-the-graph"),
    "all frozen": (frozen, CE(), (X, Y), "no parameter that is trained leads to the loss", "keep-the-graph"),
    "a Python number": (net, lambda o, t: nn.functional.cross_entropy(o, t).item(), (X, Y), "no parameter",
                        "keep-the-graph"),
    "a loss for each sample": (net, CE(reduction="none"), (X, Y), "several entries", "one-number-loss"),
    "logits for probabilities": (lambda: net(outputs=1), nn.BCELoss(), (X, YES[:, None]),
                                 "it wants probabilities, and is given numbers from", "loss-of-logits"),
    "an error of the user's": (net, lambda o, t: o / {}["scale"], (X, Y), "KeyError: 'scale'", "repeat-the-step"),
    "no loss at all": (net, None, X, "the model returns no loss", "repeat-the-step"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_failure_is_told_with_its_cause(name):
    make, loss_fn, given, words, advice = CASES[name]
    found = only(tried(make(), loss_fn, given))
    assert (found.code, found.severity) == ("TW708", "error")
    assert words in found.summary
    assert [r.id for r in found.remedies] == [advice]
    assert "Error" in found.evidence[-1].note
    assert "Traceback" not in found.evidence[-1].note


def test_numbers_of_a_label_beyond_the_outputs():
    found = only(tried(net(), CE(), (X, Y + 3)))
    assert (found.evidence[0].value, found.evidence[0].threshold) == (6, 3)
    assert "give the net 7 outputs" in found.remedies[0].title


def test_a_label_that_is_to_be_ignored_is_none_beyond():
    assert tried(net(), CE(), (X, Y.masked_fill(Y == 1, -100))).findings() == []


def test_a_failure_of_the_backward_pass_is_told():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            raise ArithmeticError("not today")

    found = only(tried(Forward(lambda s, x: Broken.apply(s.net(x)), net=net()), CE(), (X, Y)))
    assert found.summary == "the backward pass raises: ArithmeticError: not today"


def test_a_failure_of_validation_alone_is_told():
    model = net()
    found = only(tried(model, CE(), (X, Y), validation=one_batch((X, Y + 1), CE(), model)))
    assert "validation" in found.summary
    assert found.remedies[0].id == "classes-from-zero"


def test_says_nothing_of_a_run():
    record = RunRecord()
    record.set_fact("failure", {"phase": "loss"})
    assert list(FailingStep().check(record)) == []


@pytest.mark.parametrize(("module", "where"), [("", "loss"), ("2", "2")])
def test_the_place_is_the_module_or_else_the_phase(module, where):
    record = RunRecord()
    record.set_fact("subject", "preflight")
    assert list(FailingStep().check(record)) == []
    failure = {"phase": "loss", "validating": False, "cause": "scalar", "module": module, "error": "RuntimeError"}
    record.set_fact("failure", {**failure, "targets": [], "outputs": [], "inputs": [], "widths": {}, "given": []})
    (found,) = FailingStep().check(record)
    assert found.where == (where,)
