"""The first batch that goes wrong is run again, on a copy: module, operation, ranges and samples are named."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import trainwatch
from trainwatch.capture import interception

SETTINGS = {"quiet": True, "strict": True, "probes": "off", "flush_every": 2}
N = 8
NAN, INF = float("nan"), float("inf")


class Does(nn.Module):
    """A module of the user's own round a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def net(function, width=5):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, width), nn.Sequential(nn.Linear(width, 3), Does(function)))


def data(step=0):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(N, 4, generator=generator), torch.randint(0, 3, (N,), generator=generator)


def train(model, batches, criterion=F.cross_entropy, *, lr=0.1, watched=True, step=None, **settings):
    """One step on each batch; what the watch found, and the weights at the end."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS | settings) if watched else None
    for x, y in batches:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        if step is not None and not step(loss):
            continue
        loss.backward()
        optimizer.step()
    if watch is None:
        return None
    report = watch.finish()
    assert watch.record.faults == []
    return watch.record.facts.get("nonfinite"), report


def fact_of(model, batches, criterion=F.cross_entropy, **more):
    return train(model, batches, criterion, **more)[0]


def operand(fact, name):
    return next(o for o in fact["inputs"] if o["name"] == name)


FORWARD = {
    # operation -> function of the module, operand that is decisive, its smallest value
    "log": (lambda z: torch.log(z.relu()), "input", 0.0),
    "log10": (lambda z: torch.log10(z.relu()), "input", 0.0),
    "div": (lambda z: torch.ones_like(z) / z.relu(), "other", 0.0),
    "reciprocal": (lambda z: z.relu().reciprocal(), "input", 0.0),
    "rsqrt": (lambda z: z.relu().rsqrt(), "input", 0.0),
    "pow": (lambda z: z.relu() ** -0.5, "input", 0.0),
}


@pytest.mark.parametrize("operation", FORWARD)
def test_an_operation_without_a_value_at_zero_is_named_with_its_module_and_range(operation):
    function, name, low = FORWARD[operation]
    fact = fact_of(net(function), [data()])
    assert (fact["step"], fact["seen"], fact["phase"], fact["module"]) == (0, "loss", "forward", "1.1")
    assert (fact["module_type"], fact["operation"], fact["dtype"]) == ("Does", operation, "float32")
    assert operand(fact, name)["min"] == low
    assert operand(fact, name)["max"] > low
    assert operand(fact, name)["nonfinite"] == 0


def test_an_exponential_that_overflows():
    x, y = data(1)
    x[2] *= 1e4
    fact = fact_of(net(torch.exp), [data(), (x, y)])
    assert (fact["step"], fact["operation"], fact["samples"], fact["samples_bad"]) == (1, "exp", [2], 1)
    assert operand(fact, "input")["max"] > 88.7


def test_what_infinity_turns_into_goes_back_to_what_made_it():
    """The loss is NaN, from a softmax of an infinity, which an exponential made two modules below."""
    model = nn.Sequential(net(lambda z: torch.exp(1e4 * z)), nn.Linear(3, 3), nn.Softmax(1))
    fact = fact_of(model, [data()])
    assert (fact["module"], fact["operation"]) == ("0.1.1", "exp")


BACKWARD = {
    "sqrt": lambda z: (z * (z > 0)).sqrt(),
    "log": lambda z: torch.where(z > 0, (z * (z > 0)).log(), 0.0),  # masked too late
    "pow": lambda z: (z * (z > 0)) ** 0.3,
    "acos": lambda z: z.clamp(-1, 1).mul(0).add(1).acos(),
}


@pytest.mark.parametrize("operation", BACKWARD)
def test_an_operation_without_a_slope_at_zero_is_found_in_the_backward_pass(operation):
    fact = fact_of(net(BACKWARD[operation]), [data()])
    assert (fact["seen"], fact["phase"], fact["module"], fact["module_type"]) == ("gradient", "backward", "1.1", "Does")
    assert fact["operation"] == operation
    assert operand(fact, "input")["min"] == (1 if operation == "acos" else 0)


def test_samples_of_a_backward_operation_are_told():
    model = nn.Sequential(nn.Linear(4, 3), Does(lambda z: (z * (z > 0)).sqrt()), nn.Linear(3, 3))
    nn.init.zeros_(model[0].weight)
    nn.init.constant_(model[0].weight[0], 1.0)
    nn.init.constant_(model[0].bias, 9.0)
    x, y = data(1)
    x[5] = -100.0
    fact = fact_of(model, [data(), (x, y)])
    assert (fact["step"], fact["phase"], fact["operation"], fact["samples"]) == (1, "backward", "sqrt", [5])


@pytest.mark.parametrize("bad", [NAN, INF])
def test_samples_that_were_not_finite_when_they_came(bad):
    x, y = data(1)
    x[3, 1] = x[6] = bad
    fact = fact_of(net(torch.tanh), [data(), (x, y)])
    assert (fact["step"], fact["phase"], fact["module"]) == (1, "input", "input")
    assert (fact["samples"], fact["samples_bad"], fact["samples_total"]) == ([3, 6], 2, N)


def test_at_most_sixteen_samples_are_listed_and_all_are_counted():
    x = torch.full((40, 4), NAN)
    fact = fact_of(nn.Linear(4, 3), [(x, torch.zeros(40, dtype=torch.long))])
    assert (fact["samples"], fact["samples_bad"], fact["samples_total"]) == (list(range(16)), 40, 40)


def test_targets_that_were_not_finite():
    targets = torch.randn(N, 3)
    targets[2, 0] = NAN
    fact = fact_of(nn.Linear(4, 3), [(data()[0], targets)], F.mse_loss)
    assert (fact["phase"], fact["module"], fact["samples"]) == ("target", "target", [2])


def test_a_value_that_the_model_replaces_is_no_fault_and_the_real_one_is_found():
    x, y = data()
    x[3] = NAN
    mend = nn.Sequential(Does(torch.nan_to_num), nn.Linear(4, 3))
    assert fact_of(copy.deepcopy(mend), [(x, y)]) is None
    fact = fact_of(nn.Sequential(mend, Does(lambda z: z.relu().log())), [(x, y)])
    assert (fact["phase"], fact["operation"]) == ("forward", "log")


def test_a_weight_or_a_buffer_that_is_not_finite():
    model = net(torch.tanh)

    def batches():
        yield data()
        with torch.no_grad():
            model[1][0].weight[0, 0] = NAN
        yield data()

    fact = fact_of(model, batches())
    assert (fact["step"], fact["phase"]) == (1, "parameter")
    assert (fact["module"], fact["module_type"]) == ("1.0.weight", "Linear")
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    model[1].running_var[1] = NAN
    fact = fact_of(model, [data()])
    assert (fact["phase"], fact["module"], fact["module_type"]) == ("parameter", "1.running_var", "BatchNorm1d")


@pytest.mark.parametrize("how", ["fill", "buffer", "input"])
def test_a_mask_is_no_fault_but_a_row_of_nothing_else_is(how):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.scores = nn.Linear(4, 3)
            self.register_buffer("mask", torch.zeros(N, 3))

        def forward(self, x):
            hidden = x[:, :3] < -0.2
            if how == "buffer":
                self.mask = torch.zeros(N, 3).masked_fill(hidden, -INF)
                return (self.scores(x) + self.mask).softmax(1)
            return self.scores(x).masked_fill(hidden, -INF).softmax(1)

    class Given(nn.Module):
        def __init__(self):
            super().__init__()
            self.scores = nn.Linear(4, 3)

        def forward(self, pair):
            return (self.scores(pair[0]) + pair[1]).softmax(1)

    x, y = data()
    x[:, 0] = 1.0  # never masked
    model = Given() if how == "input" else Masked()
    given = (lambda x: (x, torch.zeros(N, 3).masked_fill(x[:, :3] < -0.2, -INF))) if how == "input" else lambda x: x
    assert fact_of(copy.deepcopy(model), [(given(x), y)]) is None
    x = x.clone()
    x[4] = -1.0
    fact = fact_of(model, [(given(x), y)])
    assert (fact["phase"], fact["operation"], fact["samples"]) == ("forward", "softmax", [4])
    assert operand(fact, "input")["nonfinite"] > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_overflow_of_autocast_is_found_under_autocast(dtype):
    factor = 1e5 if dtype == torch.float16 else 1e38
    model = nn.Sequential(nn.Linear(4, 5), Does(lambda z: factor * 1e2 * z), nn.Linear(5, 3))

    def criterion(given, y):
        return F.cross_entropy(given.float(), y)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS)
    x, y = data()
    with torch.autocast("cpu", dtype=dtype):
        loss = F.cross_entropy(model(x), y)
    loss.backward()
    watch.finish()
    fact = watch.record.facts["nonfinite"]
    assert (fact["phase"], fact["module"], fact["module_type"]) == ("forward", "1", "Does")
    assert (fact["operation"], fact["dtype"]) == ("mul", str(dtype).removeprefix("torch."))


def test_a_compiled_model_is_run_eagerly():
    model = net(lambda z: z.relu().log())
    torch._dynamo.reset()
    fact = fact_of(torch.compile(model, backend="eager"), [data()])
    assert (fact["module"], fact["operation"]) == ("1.1", "log")


def test_a_part_that_is_compiled_is_run_eagerly():
    torch._dynamo.reset()
    model = nn.Sequential(torch.compile(Does(lambda z: z.relu().log()), backend="eager"), nn.Linear(4, 3))
    fact = fact_of(model, [data()])
    assert fact["operation"] == "log"
    assert fact["module"].startswith("0")


def test_a_loss_that_the_model_computes_itself():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = net(lambda z: z.relu().log())

        def forward(self, x, labels):
            return {"loss": F.cross_entropy(self.head(x), labels)}

    model = Whole()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS)
    x, y = data()
    model(x, labels=y)["loss"].backward()
    optimizer.step()
    watch.finish()
    fact = watch.record.facts["nonfinite"]
    assert (fact["module"], fact["operation"]) == ("head.1.1", "log")


class Criterion(nn.Module):
    def forward(self, given, y):
        return -(given.softmax(1).sub(0.9).relu().log() * F.one_hot(y, 3)).mean()


def test_a_criterion_of_the_users_own_is_run_again():
    model, criterion = nn.Linear(4, 3), Criterion()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, loss_fn=criterion, settings=SETTINGS)
    x, y = data()
    criterion(model(x), y).backward()
    optimizer.step()
    watch.finish()
    fact = watch.record.facts["nonfinite"]
    assert (fact["phase"], fact["module"], fact["operation"]) == ("forward", "", "log")


def test_a_loss_by_code_in_the_loop_cannot_be_run_again_but_the_model_is():
    fact = fact_of(nn.Linear(4, 3), [data()], lambda given, y: Criterion()(given, y))
    assert (fact["phase"], fact["reason"]) == (
        "not replayed",
        "the loss is computed from the model's output by code that cannot be run again",
    )
    fact = fact_of(net(lambda z: z.relu().log()), [data()], lambda given, y: given.mean())
    assert (fact["module"], fact["operation"]) == ("1.1", "log")


def test_of_accumulated_batches_the_bad_one_is_run_again():
    model = net(torch.tanh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS)
    for part in range(3):
        x, y = data(part)
        if part == 1:
            x[7] = NAN
        (F.cross_entropy(model(x), y) / 3).backward()
    optimizer.step()
    watch.finish()
    fact = watch.record.facts["nonfinite"]
    assert (fact["step"], fact["phase"], fact["samples"]) == (0, "input", [7])


def test_of_two_models_the_one_called_last_is_run_again():
    models = {"G": net(torch.tanh), "D": nn.Sequential(nn.Linear(3, 3), Does(lambda z: z.relu().log()))}
    optimizers = {k: torch.optim.SGD(m.parameters(), lr=0.1) for k, m in models.items()}
    watch = trainwatch.watch(models, optimizers, settings=SETTINGS)
    x, y = data()
    F.cross_entropy(models["D"](models["G"](x)), y).backward()
    watch.finish()
    fact = watch.record.facts["nonfinite"]
    assert (fact["module"], fact["operation"]) == ("D.1", "log")


def test_of_several_losses_the_bad_one_is_run_again():
    model = nn.Linear(4, 3)
    targets = torch.randn(N, 3)
    targets[4] = NAN
    fact = fact_of(model, [data()], lambda given, y: F.cross_entropy(given, y) + F.mse_loss(given, targets))
    assert (fact["phase"], fact["samples"]) == ("target", [4])
    model = net(lambda z: (z * (z > 0)).sqrt())  # only the backward pass fails, with either loss
    fact = fact_of(model, [data()], lambda given, y: F.cross_entropy(given, y) + F.mse_loss(given, 0 * given.detach()))
    assert (fact["phase"], fact["operation"]) == ("backward", "sqrt")


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_modules_keep_their_names(reentrant):
    class Thrifty(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.inner = nn.Linear(4, 4), net(lambda z: (z * (z > 0)).sqrt())

        def forward(self, x):
            return checkpoint(self.inner, self.first(x), use_reentrant=reentrant)

    fact = fact_of(Thrifty(), [data()])
    assert (fact["phase"], fact["module"], fact["operation"]) == ("backward", "inner.1.1", "sqrt")


def test_a_function_of_the_users_own_is_named():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z.abs().pow(1 / 3)

        @staticmethod
        def backward(ctx, gradient):
            (z,) = ctx.saved_tensors
            return gradient * z.abs().relu().mul(0).pow(-2 / 3)

    fact = fact_of(net(Cube.apply), [data()])
    assert (fact["phase"], fact["module"], fact["operation"]) == ("backward", "1.1", "Cube")


def test_memory_that_nothing_was_written_to_is_no_source():
    """With deterministic algorithms it is filled with NaN, until something is written over it."""
    torch.use_deterministic_algorithms(True)
    try:
        fact = fact_of(net(lambda z: torch.empty(N, 3).copy_(z.sub(9).log())), [data()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert (fact["phase"], fact["operation"]) == ("forward", "log")


def test_what_an_operation_only_writes_to_is_no_source():
    def written(z):
        room = torch.full_like(z, NAN)
        torch.log(z.detach().sub(9), out=room)
        return z + room

    assert fact_of(net(written), [data()])["operation"] == "log"


def test_a_part_that_is_mended_in_place_leaves_the_rest():
    def half_mended(z):
        z = z.relu().log().clone()
        z[0] = 0.0
        return z.sum(1, keepdim=True) + z

    assert fact_of(net(half_mended), [data()])["operation"] == "log"


def test_what_an_operation_in_place_was_given_is_told_as_it_was_before():
    def inflated(z):
        with torch.no_grad():
            return z + (100 + z.detach()).exp_()

    fact = fact_of(net(lambda z: z + inflated(z)), [data()])
    assert fact["operation"] == "exp"
    assert 88 < operand(fact, "input")["min"] <= operand(fact, "input")["max"] < 120
    assert operand(fact, "input")["nonfinite"] == 0


def test_a_constant_that_is_not_finite_is_meant_and_what_makes_nan_of_it_is_the_source():
    fact = fact_of(net(lambda z: z.masked_fill(z > 0, INF) * 0.0), [data()])
    assert fact["operation"] == "mul"
    fact = fact_of(net(lambda z: z.masked_fill(z > 0, NAN) * 2.0), [data()])
    assert fact["operation"] == "masked_fill"


def test_of_two_sources_the_first_in_time_is_named():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = net(BACKWARD["sqrt"]), net(BACKWARD["sqrt"])

        def forward(self, x):
            return self.a(x) + self.b(x)

    assert fact_of(Two(), [data()])["module"] == "b.1.1"  # the backward pass goes from the end


def test_rows_that_are_no_samples_are_not_taken_for_them():
    fact = fact_of(net(lambda z: z + z.relu().sum(0).mul(0).log()), [data()])
    assert (fact["operation"], fact["samples"], fact["samples_bad"]) == ("log", [], 0)
    model = nn.Linear(4, N, bias=False)  # its gradient has as many rows as the batch has samples
    nn.init.constant_(model.weight, 1e-38)
    fact = fact_of(model, [(torch.full((N, 4), 1e38), torch.full((N, N), 1e3))], F.mse_loss)
    assert (fact["phase"], fact["samples"]) == ("backward", [])


def test_what_is_mended_in_place_is_no_source():
    def mended(z):
        z = z.relu().log()
        z = z.clone()
        z[z == -INF] = -9.0
        return z * torch.exp(1e3 * z.exp())

    fact = fact_of(net(mended), [data()])
    assert (fact["phase"], fact["operation"]) == ("forward", "exp")


# ---------------------------------------------------------------------- once, and without a trace


def test_a_healthy_run_has_no_such_fact():
    assert fact_of(net(torch.tanh), [data(i) for i in range(20)]) is None


def test_only_the_first_bad_step_is_run_again(monkeypatch):
    calls = []
    found = trainwatch.monitor.nonfinite.investigate
    monkeypatch.setattr(trainwatch.monitor.nonfinite, "investigate", lambda *args: calls.append(args) or found(*args))
    bad = data()[0].index_fill(0, torch.tensor([1]), NAN), data()[1]
    fact = fact_of(net(torch.tanh), [data(), bad, bad, data()], step=lambda loss: bool(torch.isfinite(loss)))
    assert fact["step"] == 1
    assert len(calls) == 1


def test_off_means_off():
    assert fact_of(net(lambda z: z.relu().log()), [data()], nonfinite="off") is None


@pytest.mark.parametrize("mode", ["auto", "immediate"])
def test_a_loop_that_skips_bad_batches_goes_on_bit_by_bit_as_without_a_watch(mode):
    def run(watched):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 3), Does(changing))
        x, y = data(2)
        x[1] = NAN
        batches = [data(0), data(1), (x, y), data(3), data(4)]
        found = train(model, batches, watched=watched, step=lambda loss: bool(torch.isfinite(loss)), nonfinite=mode)
        assert not watched or found[0]["phase"] == "input"
        return [*model.state_dict().values(), torch.get_rng_state(), x]

    def changing(z):
        return z.add_(1.0)

    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(run(True), run(False), strict=True))


def test_a_model_that_changes_its_input_leaves_the_users_batch_alone():
    """It cannot be run again from what is left; and it is not touched a second time."""
    model = nn.Sequential(Does(lambda x: x.mul_(2.0)), nn.Linear(4, 3))
    x, y = data()
    kept = x.clone()
    x[0] = NAN
    fact = fact_of(model, [(x, y)])
    assert (fact["phase"], fact["reason"]) == (
        "not replayed",
        "the model's input was changed in place before it could be run again",
    )
    assert torch.equal(x[1:], 2 * kept[1:])


def test_a_batch_given_by_keyword_is_not_changed_a_second_time_either():
    class Doubling(nn.Linear):
        def forward(self, *, x):
            return super().forward(x.mul_(2.0))

    model = Doubling(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS)
    x, y = data()
    kept = x.clone()
    x[0] = NAN
    F.cross_entropy(model(x=x), y).backward()
    watch.finish()
    assert watch.record.facts["nonfinite"]["samples"] == [0]
    assert torch.equal(x[1:], 2 * kept[1:])


def test_what_is_run_again_is_heard_by_nobody():
    class Ear:
        def __init__(self):
            self.heard = []

        def __getattr__(self, name):
            return lambda *_: self.heard.append(name)

    ear = Ear()
    interception.subscribe(ear)
    try:
        assert fact_of(net(BACKWARD["sqrt"]), [data()])["phase"] == "backward"
    finally:
        interception.unsubscribe(ear)
    assert ear.heard == ["on_loss", "on_backward_start", "on_backward_end"]


def test_a_run_may_stop_at_once():
    model = net(lambda z: z.relu().log())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = SETTINGS | {"flush_every": 50}
    with trainwatch.watch(model, optimizer, settings=settings, stop_on=("TW303",)) as watch:
        for i in range(9):
            x, y = data(i)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert watch.record.facts["run"]["steps"] == 1


def test_what_cannot_be_copied_is_said():
    class Uncopyable(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("holds a socket")

    x, y = data()
    x[0] = NAN
    fact, report = train(Uncopyable(4, 3), [(x, y)])
    assert fact["phase"] == "not replayed"
    assert "holds a socket" in fact["reason"]
    (found,) = [d for d in report.diagnoses if d.code == "TW303"]
    assert any("holds a socket" in e.note for e in found.evidence)


def test_copies_are_bounded_by_the_memory_for_probes():
    x, y = data()
    x[0] = NAN
    fact = fact_of(nn.Linear(4, 3), [(x, y)], probe_memory=100)
    assert "a copy of the batch takes" in fact["reason"]
    room = 2 * (x.numel() * 4 + y.numel() * 8 + 15 * 4)  # for the batch and the model
    assert fact_of(nn.Linear(4, 3), [(x, y)], probe_memory=room)["phase"] == "input"
    assert "probe_memory allows" in fact_of(nn.Linear(4, 3), [(x, y)], probe_memory=room - 2)["reason"]
    root = nn.Sequential(nn.Linear(4, 3), Does(BACKWARD["sqrt"]))  # a gradient takes as much as the model again
    assert "probe_memory allows" in fact_of(copy.deepcopy(root), [data()], probe_memory=room)["reason"]
    assert fact_of(root, [data()], probe_memory=room + 2 * 15 * 4)["phase"] == "backward"


def test_one_of_several_processes_runs_nothing_alone(monkeypatch):
    """A collective operation in the model would wait for the others for ever."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr("trainwatch.capture.ranks.Ranks.here", lambda: None)  # there is no group to ask
    x, y = data()
    x[0] = NAN
    fact = fact_of(nn.Linear(4, 3), [(x, y)])
    assert (fact["phase"], "several processes" in fact["reason"]) == ("not replayed", True)


def test_what_depends_on_chance_may_not_come_again_and_that_is_said():
    class Once(nn.Dropout):
        """Fails in the original alone, as an unlucky mask would."""

        def forward(self, z):
            return super().forward(z) / (0 if self is original else 1)

    original = Once()
    fact = fact_of(nn.Sequential(nn.Linear(4, 3), original), [data()])
    assert fact["phase"] == "not reproduced"
    assert "other masks" in fact["reason"]


def test_a_loop_that_stops_at_a_loss_that_is_not_finite_gets_its_source():
    model = net(lambda z: z.relu().log())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = data()
    with pytest.raises(ValueError, match="NaN"), trainwatch.watch(model, optimizer, settings=SETTINGS) as watch:
        if not torch.isfinite(F.cross_entropy(model(x), y)):
            raise ValueError("NaN")
    (found,) = [d for d in watch.report.diagnoses if d.code == "TW303"]
    assert (found.severity, found.where) == ("error", ("1.1",))


def test_a_norm_that_overflows_while_each_entry_is_finite():
    assert fact_of(net(lambda z: 1e25 * z), [data()]) is None  # measured in double precision
    x, y = data()
    fact = fact_of(net(lambda z: 1e170 * z).double(), [(x.double(), y)])
    assert fact["phase"] == "not reproduced"
    assert "only the gradient's norm is not" in fact["reason"]


@pytest.mark.filterwarnings("ignore:Error detected in MulBackward0")
def test_the_users_own_anomaly_detection_works_on():
    model = net(lambda z: (z * (z > 0)).sqrt())
    with torch.autograd.set_detect_anomaly(True), pytest.raises(RuntimeError, match="returned nan"):
        train(model, [data()])
    with torch.autograd.set_detect_anomaly(True):
        fact = fact_of(net(lambda z: z.relu().log()), [data()], step=lambda loss: bool(torch.isfinite(loss)))
        assert torch.is_anomaly_enabled()
    assert fact["operation"] == "log"


# ---------------------------------------------------------------------- gradient scalers


def scaled(model, steps, *, init_scale=2.0, lr=0.1, batch=data, factor=1, **settings):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=4)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS | settings)
    for i in range(steps):
        x, y = batch(i)
        optimizer.zero_grad()
        scaler.scale(factor * F.cross_entropy(model(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()
    report = watch.finish()
    assert watch.record.faults == []
    return watch.record.facts, [d for d in report.diagnoses if d.code == "TW303"]


def test_a_scaler_that_searches_its_scale_is_no_fault():
    facts, found = scaled(net(torch.tanh), 60, init_scale=2.0**127, factor=8)
    assert facts["scaler"]["skipped_steps"] >= 3
    assert facts["scaler"]["in_a_row"] < 5
    assert found == []
    assert facts.get("nonfinite") is None


def test_a_scaler_that_skips_every_step_is_and_its_source_is_named():
    facts, found = scaled(net(lambda z: (z * (z > 0)).sqrt()), 30)
    assert facts["scaler"] == {"used": True, "skipped_steps": 30, "in_a_row": 30}
    assert (facts["nonfinite"]["phase"], facts["nonfinite"]["operation"]) == ("backward", "sqrt")
    (only,) = found
    assert "the gradient scaler has skipped the last 30 steps" in only.summary
    assert only.where == ("1.1",)
    assert scaled(net(lambda z: (z * (z > 0)).sqrt()), 10)[1] == []


def test_a_gradient_that_overflows_by_the_scale_alone_is_run_again_under_that_scale():
    model = net(lambda z: z + 1e4 * (z - z.detach()))  # of an ordinary loss, with large slopes
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, backoff_factor=0.9)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS)
    for i in range(6):
        x, y = data(i)
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()
    watch.finish()
    assert (watch.record.facts["nonfinite"]["phase"], watch.record.facts["nonfinite"]["module"]) == ("backward", "1.1")


def test_a_loss_that_is_not_finite_is_looked_at_whatever_the_scaler_does():
    def batch(i):
        x, y = data(i)
        if i == 3:
            x[6] = NAN
        return x, y

    facts, found = scaled(net(torch.tanh), 12, batch=batch)
    assert (facts["nonfinite"]["step"], facts["nonfinite"]["samples"]) == (3, [6])
    assert found == []  # it was one step, and the scaler skipped it


# ---------------------------------------------------------------------- Lightning


@pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::FutureWarning:lightning")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("own_loss", [False, True])
def test_a_lightning_module_runs_its_training_step_again(own_loss, precision, tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net(torch.tanh)

        def training_step(self, batch, index):
            x, y = batch
            given = self.net(x)
            if own_loss:
                return (given.mul(0) if index == 2 else given.exp()).log().mean()
            loss = F.cross_entropy(given, y)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    x, y = data()
    x, y = x.repeat(4, 1), y.repeat(4)
    if not own_loss:
        x[2 * N + 5] = NAN
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=N)
    callback = trainwatch.TrainWatch(settings=SETTINGS)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback], default_root_dir=tmp_path,
        precision=precision,
    )  # fmt: skip
    trainer.fit(Module(), loader)
    fact = callback.record.facts["nonfinite"]
    assert callback.record.faults == []
    assert fact["step"] == 2
    if own_loss:
        assert (fact["phase"], fact["operation"], fact["module_type"]) == ("forward", "log", "")
        assert fact["dtype"] == ("bfloat16" if precision == "bf16-mixed" else "float32")
    else:
        assert (fact["phase"], fact["module"], fact["samples"]) == ("input", "batch[0]", [5])
