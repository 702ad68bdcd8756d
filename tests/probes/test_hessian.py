"""The public function against the whole Hessian in double precision."""

import copy
import random
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from trainwatch.probes import hessian_extremes
from trainwatch.probes.curvature import NoCurvature
from trainwatch.probes.hessian_input import averaging
from twice import LOSSES, NETS, Detached, Square, Squares, case


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def whole(model, loss, batches):
    """The Hessian entry by entry, of a double-precision copy in evaluation mode."""
    model = copy.deepcopy(model).double().eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    wide = [tuple(t.double() if t.is_floating_point() else t for t in batch) for batch in batches]
    with sdpa_kernel(SDPBackend.MATH):
        mean = sum(loss(model, batch) for batch in wide) / len(wide)
        gradient = flat(torch.autograd.grad(mean, parameters, create_graph=True, materialize_grads=True))
    rows = (torch.autograd.grad(g, parameters, retain_graph=True, materialize_grads=True) for g in gradient)
    zero = torch.zeros(len(gradient), dtype=torch.float64)
    return torch.stack([flat(row) if g.requires_grad else zero for g, row in zip(gradient, rows, strict=True)])


@cache
def truth(net, loss):
    model, criterion, batches = case(net, loss)
    return torch.linalg.eigvalsh(whole(model, criterion, batches))


DEAR = ("convolutions", "multihead", "gru", "lstm", "tied")  # seconds until the whole Hessian is there
ENDS = [(net, loss, None) for loss in LOSSES for net in NETS if loss == "cross-entropy" or net not in DEAR]
MORE = [
    pytest.param(net, loss, None, marks=pytest.mark.long) for loss in LOSSES for net in DEAR if loss != "cross-entropy"
]


@pytest.mark.parametrize(
    ("net", "loss", "dtype"), [*ENDS, *MORE, *((net, "cross-entropy", torch.float64) for net in NETS)], ids=str
)
def test_both_ends_are_those_of_the_whole_hessian(net, loss, dtype):
    model, criterion, batches = case(net, loss)
    values = truth(net, loss)
    radius = float(values.abs().max())
    found = hessian_extremes(model, loss=criterion, batches=batches, dtype=dtype)
    assert found.converged
    assert found.method == "double backward"
    assert found.products < len(values) / 2
    for (value,), (bound,), exact in (
        (found.smallest, found.smallest_bounds, float(values[0])),
        (found.largest, found.largest_bounds, float(values[-1])),
    ):
        assert abs(value - exact) <= bound <= 1e-3 * radius


@pytest.mark.parametrize("net", ["tanh", "multihead", "gru"])
def test_several_at_each_end_come_in_order(net):
    model, criterion, batches = case(net, "cross-entropy")
    values = truth(net, "cross-entropy").tolist()
    found = hessian_extremes(model, loss=criterion, batches=batches, k=4, dtype=torch.float64, tolerance=1e-6)
    assert found.smallest == pytest.approx(values[:4], abs=1e-6 * values[-1])
    assert found.largest == pytest.approx(values[:-5:-1], abs=1e-6 * values[-1])


def test_the_saddle_of_a_textbook_is_exact():
    x, y = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    found = hessian_extremes(lambda: (x.square() - y.square()).sum(), {"x": x, "y": y})
    assert (found.largest, found.smallest) == ((2.0,), (-2.0,))
    assert found.products == 2
    assert found.smallest_vectors[0]["y"].abs().tolist() == [1.0]
    assert found.smallest_vectors[0]["x"].tolist() == [0.0]
    assert x.grad is None


def test_each_end_has_a_count_of_its_own():
    model, loss, batches = case("tanh", "mse")
    many = hessian_extremes(model, loss=loss, batches=batches, k=5)
    for largest, smallest in ((5, 1), (1, 3), (4, None), (None, 2), (0, 2)):
        found = hessian_extremes(model, loss=loss, batches=batches, largest=largest, smallest=smallest)
        assert found.converged
        assert (len(found.largest), len(found.smallest)) == (largest or 0, smallest or 0)
        assert (len(found.largest_vectors), len(found.smallest_bounds)) == (largest or 0, smallest or 0)
        radius = many.largest[0]
        assert found.largest == pytest.approx(many.largest[: largest or 0], abs=2e-3 * radius)
        assert found.smallest == pytest.approx(many.smallest[: smallest or 0], abs=2e-3 * radius)
        assert found.products <= many.products
    few = hessian_extremes(model, loss=loss, batches=batches, largest=5, smallest=1)
    assert few.products < many.products  # which looks for four more


def test_batches_come_from_a_loader_of_any_kind():
    model, loss, batches = case("tanh", "mse")
    listed = hessian_extremes(model, loss=loss, batches=batches)
    assert hessian_extremes(model, loss=loss, batches=(batch for batch in batches)).largest == listed.largest
    named = [{"x": x, "y": y} for x, y in batches]
    dataset = torch.utils.data.TensorDataset(*batches[0])
    shuffled = torch.utils.data.DataLoader(dataset, 8, shuffle=True)
    before = torch.get_rng_state()
    hessian_extremes(model, loss=loss, batches=shuffled)
    assert torch.equal(torch.get_rng_state(), before)
    of_dicts = hessian_extremes(model, loss=lambda m, b: loss(m, (b["x"], b["y"])), batches=named, dtype=torch.float64)
    assert of_dicts.largest == pytest.approx(listed.largest, rel=1e-3)


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_one_end_alone_takes_fewer_products(which):
    model, loss, batches = case("tanh", "mse")
    both = hessian_extremes(model, loss=loss, batches=batches)
    one = hessian_extremes(model, loss=loss, batches=batches, which=which)
    other = "smallest" if which == "largest" else "largest"
    assert getattr(one, which) == pytest.approx(getattr(both, which), rel=1e-3)
    assert getattr(one, other) == ()
    assert one.products <= both.products


def test_vectors_are_eigenvectors_named_as_the_parameters():
    model, loss, batches = case("tied", "mse")
    hessian = whole(model, loss, batches)
    found = hessian_extremes(model, loss=loss, batches=batches, k=2, dtype=torch.float64, tolerance=1e-8)
    trained = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    for value, vector in zip(
        found.largest + found.smallest, found.largest_vectors + found.smallest_vectors, strict=True
    ):
        assert {name: part.shape for name, part in vector.items()} == trained
        unit = flat(vector.values())
        assert unit.norm() == pytest.approx(1.0)
        assert unit.dtype == torch.float64
        torch.testing.assert_close(hessian @ unit, value * unit, atol=1e-6, rtol=0)
        assert vector["unused.weight"].abs().max() < 1e-6


def test_a_bounded_memory_restarts_and_gets_there():
    model, loss, batches = case("tanh", "cross-entropy")
    vector = 4 * sum(p.numel() for p in model.parameters())
    roomy = hessian_extremes(model, loss=loss, batches=batches)
    tight = hessian_extremes(model, loss=loss, batches=batches, memory=2 * 8 * vector)
    assert tight.products > roomy.products
    assert tight.converged
    assert tight.smallest == pytest.approx(roomy.smallest, abs=1e-3 * roomy.largest[0])
    with pytest.raises(ValueError, match="memory allows 3 vectors of 4: allow 1 MiB or ask for fewer"):
        hessian_extremes(model, loss=loss, batches=batches, memory=2 * 3 * vector)


def test_not_converged_is_said():
    model, loss, batches = case("gelu", "mse")
    capped = hessian_extremes(model, loss=loss, batches=batches, max_products=4)
    assert (capped.converged, capped.products, capped.reason) == (False, 4, "`max_products` was reached")
    stopped = hessian_extremes(model, loss=loss, batches=batches, stop=lambda ritz: float(ritz.values[0]) < 0)
    assert stopped.reason == "`stop` ended it"
    assert stopped.products < 4
    assert stopped.smallest[0] < 0
    assert hessian_extremes(model, loss=loss, batches=batches).reason == ""


@pytest.mark.parametrize("square", [Square, Detached])
@pytest.mark.parametrize("loss", LOSSES)
def test_where_an_operation_has_no_second_derivative_differences_serve(loss, square):
    """It says so itself, or double backward takes it for a constant silently: products are not symmetric then."""
    model, criterion, batches = case(Squares(square.apply), loss)
    twin = Squares(torch.square)
    twin.load_state_dict(model.state_dict())
    values = torch.linalg.eigvalsh(whole(twin, criterion, batches))
    for dtype, off in ((None, 1e-3), (torch.float64, 1e-5)):
        found = hessian_extremes(model, loss=criterion, batches=batches, dtype=dtype)
        assert found.method == "finite differences"
        assert found.largest[0] == pytest.approx(float(values[-1]), abs=off * float(values[-1]))
        assert found.smallest[0] == pytest.approx(float(values[0]), abs=off * float(values[-1]))


@pytest.mark.parametrize("seed", range(5))
def test_kinks_that_differences_trip_over_are_stepped_round_in_double_precision(seed):
    """Steps in single precision are long enough to reach a kink of ReLU: what they find is not symmetric."""
    torch.manual_seed(seed)
    model, loss, batches = case(nn.Sequential(nn.Linear(32, 16), nn.ReLU(), Squares(Square.apply, width=16)), "mse")
    smooth = nn.Sequential(model[0], nn.ReLU(), Squares(torch.square, width=16))
    smooth.load_state_dict(model.state_dict())
    values = torch.linalg.eigvalsh(whole(smooth, loss, batches))
    found = hessian_extremes(model, loss=loss, batches=batches)
    assert found.method == "finite differences"
    assert found.largest_vectors[0]["0.weight"].dtype == torch.float64
    assert found.largest[0] == pytest.approx(float(values[-1]), abs=1e-3 * float(values[-1]))
    assert found.smallest[0] == pytest.approx(float(values[0]), abs=1e-3 * float(values[-1]))
    with pytest.raises(NoCurvature, match=r"kinks such as those of ReLU .* dtype=torch\.float64"):
        hessian_extremes(model, loss=loss, batches=batches, dtype=torch.float32)


def test_a_function_is_not_cast_to_double_precision():
    model, loss, batches = case(nn.Sequential(nn.Linear(32, 16), nn.ReLU(), Squares(Square.apply, width=16)), "mse")
    with pytest.raises(NoCurvature, match=r"dtype=torch\.float64, or such parameters"):
        hessian_extremes(lambda: loss(model, batches[0]), model.parameters())
    model.double()
    found = hessian_extremes(lambda: loss(model, tuple(t.double() for t in batches[0])), model.parameters(), largest=1)
    assert found.method == "finite differences"


def test_an_operation_that_says_it_has_one_derivative_is_not_taken_for_linear():
    """Before a mere sum nothing would show it: its second derivative is silently zero, which is symmetric."""
    w = torch.arange(20.0, dtype=torch.float64).requires_grad_()
    found = hessian_extremes(lambda: Square.apply(w).sum(), [w])
    assert found.method == "finite differences"
    assert found.largest == pytest.approx([2.0], rel=1e-5)


def test_what_is_no_gradient_of_anything_has_no_hessian_in_any_precision():
    model, loss, batches = case(Squares(Twisted.apply), "mse")
    with pytest.raises(NoCurvature, match="not those of a smooth"):
        hessian_extremes(model, loss=loss, batches=batches)


class Twisted(torch.autograd.Function):
    """Its backward pass is no gradient of anything."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].roll(1, -1)


def test_sparse_gradients_are_gradients():
    torch.manual_seed(0)
    tokens, targets = torch.randint(0, 9, (40,)), torch.randint(0, 3, (40,))
    found = []
    for sparse in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Embedding(9, 5, sparse=sparse), nn.Tanh(), nn.Linear(5, 3))
        found.append(
            hessian_extremes(
                model,
                loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]),
                batches=[(tokens, targets)],
                dtype=torch.float64,
            )
        )
    assert found[1].largest == pytest.approx(found[0].largest, rel=1e-5)
    assert found[1].smallest == pytest.approx(found[0].smallest, rel=1e-3)


def test_a_linear_function_has_no_curvature_to_find():
    x = torch.ones(20, requires_grad=True)
    found = hessian_extremes(lambda: (3 * x).sum(), [x])
    assert (found.largest, found.smallest, found.converged) == ((0.0,), (0.0,), True)


def test_nothing_is_left_behind():
    model, loss, batches = case("batch-norm", "cross-entropy")
    model.train()
    loss(model, batches[0]).backward()
    model[1].weight.requires_grad_(False)

    def everything():
        kept = [*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None)]
        flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
        return (
            [t.clone() for t in kept],
            flags,
            torch.get_rng_state(),
            random.getstate(),
            np.random.get_state()[1].tolist(),
        )

    before = everything()
    with torch.no_grad():  # as in a validation loop
        hessian_extremes(model, loss=loss, batches=batches)
    after = everything()
    assert all(map(torch.equal, before[0], after[0]))
    assert torch.equal(before[2], after[2])
    assert (before[1], *before[3:]) == (after[1], *after[3:])


def test_of_a_data_parallel_model_processes_take_the_average(tmp_path):
    """A world of one: what is called, and that wrapping changes nothing. Two processes: test_two_processes."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model, loss, batches = case("tanh", "mse")
        wrapped = nn.parallel.DistributedDataParallel(model)
        alone = hessian_extremes(model, loss=loss, batches=batches)
        assert hessian_extremes(wrapped, loss=loss, batches=batches).largest == alone.largest
        averaged = torch.ones(3)
        averaging(wrapped)(averaged)
        assert torch.equal(averaged, torch.ones(3))
    finally:
        torch.distributed.destroy_process_group()


def _worker(rank, store, found):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model, loss, batches = case("tanh", "mse", batches=4)
    wrapped = nn.parallel.DistributedDataParallel(model)
    mine = hessian_extremes(wrapped, loss=loss, batches=batches[rank::2])
    torch.save((mine.largest, mine.smallest, mine.products), f"{found}/{rank}")
    torch.distributed.destroy_process_group()


def test_two_processes_find_the_hessian_of_all_their_batches(tmp_path):
    torch.multiprocessing.spawn(_worker, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    model, loss, batches = case("tanh", "mse", batches=4)
    together = hessian_extremes(model, loss=loss, batches=batches)
    half = hessian_extremes(model, loss=loss, batches=batches[::2])
    for rank in range(2):
        largest, smallest, products = torch.load(tmp_path / str(rank))
        assert largest == pytest.approx(together.largest, rel=1e-5)
        assert smallest == pytest.approx(together.smallest, rel=1e-3)
        assert products == together.products
    assert abs(half.largest[0] - together.largest[0]) > 0.01 * together.largest[0]


W = torch.ones(4, requires_grad=True)
MODEL, LOSS, BATCHES = case("tanh", "mse")
OF_MODEL = {"function": MODEL, "parameters": None, "loss": LOSS, "batches": BATCHES}
BAD = {
    "which": ({"which": "all"}, ValueError, "which must be one of both, largest, smallest, got 'all'"),
    "k": ({"k": 0}, ValueError, "k must be a whole number, at least 1, got 0"),
    "k beyond": ({"k": 3}, ValueError, "the parameters have 4 entries, too few for 6 eigenvalues: ask for fewer"),
    "too many": ({"largest": 5}, ValueError, "the parameters have 4 entries, too few for 5 eigenvalues: ask for fewer"),
    "none": ({"largest": 0, "smallest": 0}, ValueError, "largest and smallest are both 0"),
    "negative": ({"largest": -1}, ValueError, "largest must be a whole number, at least 0, got -1"),
    "broken": ({"smallest": 1.0}, ValueError, "smallest must be a whole number, at least 0, got 1.0"),
    "said twice": ({"largest": 1, "k": 2}, TypeError, "leave k and which out"),
    "said otherwise": ({"smallest": 1, "which": "largest"}, TypeError, "leave k and which out"),
    "tolerance": ({"tolerance": 0.0}, ValueError, "tolerance must be a number above 0, got 0.0"),
    "no tolerance": ({"tolerance": "1e-3"}, ValueError, "tolerance must be a number above 0, got '1e-3'"),
    "products": ({"max_products": 1.5}, ValueError, "max_products must be a whole number"),
    "memory": ({"memory": "1GB"}, ValueError, "memory must be a whole number, at least 1, got '1GB'"),
    "stop": ({"stop": True}, TypeError, "stop must be a function"),
    "no function": ({"function": torch.ones(3)}, TypeError, "function must be a model or a function .* got Tensor"),
    "no tensors": ({"parameters": None}, TypeError, "a function needs `parameters`"),
    "one tensor": ({"parameters": W}, TypeError, r"got one tensor: \[tensor\]"),
    "pairs": ({"parameters": MODEL.named_parameters()}, TypeError, "got tuple: dict\\(model.named_parameters"),
    "numbers": ({"parameters": [1.0]}, TypeError, "parameter '0' must be a tensor, got float"),
    "empty": ({"parameters": []}, ValueError, "one or more different tensors"),
    "twice": ({"parameters": [W, W]}, ValueError, "one or more different tensors"),
    "no leaf": ({"parameters": [W * 2]}, ValueError, "parameter '0' must be a leaf tensor .* computed from others"),
    "frozen": ({"parameters": {"w": W.detach()}}, ValueError, "parameter 'w' must be .*float32 without gradients"),
    "integers": ({"parameters": [torch.arange(3)]}, ValueError, "parameter '0' must be .*int64 without gradients"),
    "batches": ({"batches": BATCHES}, TypeError, "loss, batches and dtype belong to a model"),
    "a model's tensors": ({"function": MODEL, "loss": LOSS, "batches": BATCHES}, TypeError, "a model needs `loss`"),
    "no loss": (OF_MODEL | {"loss": None}, TypeError, "a model needs `loss`"),
    "no batches": (OF_MODEL | {"batches": None}, TypeError, "a model needs `loss` and `batches`"),
    "an empty list": (OF_MODEL | {"batches": []}, ValueError, "batches is empty: pass at least one"),
    "an empty loader": (OF_MODEL | {"batches": iter(())}, ValueError, "batches is empty: pass at least one"),
    "one dict": (OF_MODEL | {"batches": {"x": W}}, TypeError, r"got one dict: \[batch\]"),
    "one batch": (OF_MODEL | {"batches": (W, torch.arange(3))}, TypeError, r"looks like one batch: \[batch\]"),
    "dtype": (OF_MODEL | {"dtype": torch.int64}, ValueError, "dtype must be a floating one, .* got torch.int64"),
    "no dtype": (OF_MODEL | {"dtype": "float64"}, ValueError, "dtype must be a floating one, .* got 'float64'"),
    "no values": (OF_MODEL | {"function": nn.Linear(2, 2, device="meta")}, ValueError, "on the meta device"),
    "all frozen": (
        OF_MODEL | {"function": nn.Linear(2, 2).requires_grad_(False)},
        ValueError,
        "no parameter of the model requires gradients",
    ),
    "no samples": (OF_MODEL | {"batches": [tuple(t[:0] for t in BATCHES[0])]}, NoCurvature, "the loss is nan"),
    "infinite": ({"function": lambda: W.sum() + torch.inf}, NoCurvature, "the loss is inf: look at the weights"),
    "a vector": ({"function": lambda: W * W}, NoCurvature, "not a single real number"),
    "a number": ({"function": lambda: 3.0}, NoCurvature, "not a single real number"),
    "another model": (
        OF_MODEL | {"loss": lambda _, b: MODEL(b[0]).square().mean()},
        NoCurvature,
        "does not depend on the parameters: compute it from the model that it is given",
    ),
    "hidden": (
        OF_MODEL
        | {"loss": lambda m, b: checkpoint(m, b[0].clone().requires_grad_(), use_reentrant=True).square().mean()},
        NoCurvature,
        "a reentrant checkpoint hides its parameters",
    ),
    "seed": ({"seed": "a"}, ValueError, "seed must be a whole number, at least 0, got 'a'"),
    "elsewhere": ({"function": lambda: torch.ones(4).sum()}, NoCurvature, "does not depend on the parameters"),
    "not finite": ({"function": lambda: (W - 1).sqrt().sum()}, NoCurvature, "not finite"),
    "half": ({"parameters": [torch.ones(4, dtype=torch.bfloat16, requires_grad=True)]}, NoCurvature, "bfloat16"),
    "complex": ({"parameters": [torch.ones(4, dtype=torch.cfloat, requires_grad=True)]}, NoCurvature, "complex"),
}


@pytest.mark.parametrize(("case", "error", "text"), BAD.values(), ids=BAD)
def test_bad_input_is_named_with_the_remedy(case, error, text):
    given = {"function": lambda: W.pow(4).sum(), "parameters": [W]} | case
    with pytest.raises(error, match=text):
        hessian_extremes(given.pop("function"), given.pop("parameters"), **given)


def test_a_fault_of_the_users_own_loss_is_theirs():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        hessian_extremes(MODEL, loss=lambda m, b: m(b[0][:, :3]).sum(), batches=BATCHES)
