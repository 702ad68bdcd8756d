"""Precision, accumulation and clipping in every combination: recorded norms against those of the same gradients."""

import contextlib
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_ as imported_before_the_watch
from torch.nn.utils import clip_grad_value_ as values_imported_before_the_watch

import trainwatch
from trainwatch.capture.gradients import GradientRing

QUIET = {"quiet": True, "strict": True, "probes": "off", "flush_every": 3}
STEPS = 5
LIMIT = 0.05
X = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
Y = torch.randint(0, 3, (64,), generator=torch.Generator().manual_seed(2))

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "fused": lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),  # unscales within its step
}
CLIPS = {
    "none": lambda model, watch: None,
    "torch": lambda model, watch: nn.utils.clip_grad_norm_(model.parameters(), LIMIT),
    "imported": lambda model, watch: imported_before_the_watch(model.parameters(), max_norm=LIMIT),
    "watch": lambda model, watch: watch.clip_grad_norm_(LIMIT),
}


def net(precision="fp32", device="cpu"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).to(device)
    return model.bfloat16() if precision == "bf16-true" else model


def train(precision, accumulation, clip, optimizer, *, overflow=(), device="cpu", init_scale=2.0**16):
    """Train a few steps.

    Returns:
        The watch, the norms of the gradients in double precision as the loop saw them (steps, P), and the model.
    """
    model = net(precision, device)
    steps = OPTIMIZERS[optimizer](model.parameters())
    lower = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}.get(precision)
    scaler = torch.amp.GradScaler(device, init_scale=init_scale, enabled=precision == "fp16-mixed")
    kept = []
    x, y = X.to(device), Y.to(device)
    x = x.bfloat16() if precision == "bf16-true" else x
    watch = trainwatch.watch(model, steps, settings=QUIET)
    for step in range(STEPS + len(overflow)):
        steps.zero_grad()
        for rows in torch.arange(step, step + 16).split(16 // accumulation):
            with torch.autocast(device, lower) if lower else contextlib.nullcontext():
                loss = F.cross_entropy(model(x[rows]), y[rows]) / accumulation
            scaler.scale(loss).backward()
        if step in overflow:
            model[0].weight.grad[0, 0] = float("inf")
        else:
            scale = scaler.get_scale()
            kept.append([float(p.grad.double().norm()) / scale for p in model.parameters()])
        if clip != "none":
            scaler.unscale_(steps)
            CLIPS[clip](model, watch)
        scaler.step(steps)
        scaler.update()
    watch.finish()
    return watch, np.array(kept), model


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed", "fp16-mixed", "bf16-true"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_norms_are_those_of_the_gradients(precision, optimizer):
    for accumulation, clip in itertools.product((1, 4), CLIPS):
        watch, kept, _ = train(precision, accumulation, clip, optimizer)
        norms = watch.record.series("grad_norm", "default")
        np.testing.assert_allclose(norms.values, kept, rtol=1e-5, err_msg=f"{accumulation} {clip}")
        assert norms.provenance == {"before_clipping": True, "unscaled": True, "scope": "process"}
        limit = watch.record.facts["regularisation"]["clipping"]
        assert limit == (None if clip == "none" else {"max_norm": LIMIT})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_that_the_scaler_skips_is_none_whoever_skips_it(optimizer):
    """A fused optimiser is called all the same, and skips within."""
    watch, kept, _ = train("fp16-mixed", 1, "none", optimizer, overflow=(2,))
    np.testing.assert_allclose(watch.record.series("grad_norm", "default").values, kept, rtol=1e-5)
    assert watch.record.facts["scaler"] == {"used": True, "skipped_steps": 1, "in_a_row": 0}
    assert watch.record.steps == STEPS
    assert not [d for d in watch.report.diagnoses if d.code == "TW303"]


def test_where_nobody_may_wait_for_the_scaler_a_skipped_step_has_no_gradients():
    weight = nn.Parameter(torch.ones(3))
    ring, told = GradientRing([weight], 4), []
    for step, overflow in enumerate([0.0, 1.0, 0.0]):
        weight.grad = torch.full((3,), step + 1.0)
        ring.measure()
        ring.commit(step, torch.tensor(overflow))

    class Now:
        def read(self, tensors, deliver):
            deliver([t.numpy() for t in tensors])

    ring.flush(Now(), lambda steps, norms: told.append(norms[:, 0]), lambda *_: None, lambda _: None)
    np.testing.assert_allclose(told[0], [3**0.5, np.nan, 3 * 3**0.5], rtol=1e-6)


@pytest.mark.parametrize("size", [1e25, 1e-3])
def test_a_large_gradient_is_not_taken_for_one_that_is_not_finite(size):
    model = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    watch = trainwatch.watch(model, optimizer, settings=QUIET)
    for _ in range(4):
        optimizer.zero_grad()
        (model(X[:, :4]) * size).mean().backward()
        optimizer.step()
    watch.finish()
    expected = float((X[:, :4].double() * size).mean(0).norm())
    assert watch.record.series("grad_norm", "default").values[:, 0] == pytest.approx([expected] * 4, rel=1e-5)


def test_clipping_by_the_watch_is_that_of_torch_bit_for_bit():
    results = [train("fp32", 2, clip, "sgd")[2] for clip in ("torch", "watch")]
    for one, other in zip(*(m.parameters() for m in results), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("change", ["nothing", "in place", "replaced"])
def test_norms_are_used_again_only_for_the_gradients_that_were_measured(change, monkeypatch):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    counted = []
    original = torch.nn.utils.get_total_norm.__globals__["_get_total_norm"]
    monkeypatch.setitem(
        torch.nn.utils.get_total_norm.__globals__,
        "_get_total_norm",
        lambda *a, **k: counted.append(1) or original(*a, **k),
    )
    watch = trainwatch.watch(model, optimizer, settings=QUIET)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        if change == "in place":
            model[0].weight.grad.mul_(3)
        if change == "replaced":
            model[0].weight.grad = model[0].weight.grad * 3
        expected = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        assert watch.clip_grad_norm_(LIMIT) == pytest.approx(float(expected), rel=1e-6)
        clipped = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        assert float(clipped) == pytest.approx(LIMIT, rel=1e-4)
        optimizer.step()
    watch.finish()
    assert len(counted) == (1 if change == "nothing" else 4)  # at the first call nothing was followed yet


def test_optimisers_are_clipped_together_or_by_name():
    models = {"G": net(), "D": net()}
    optimizers = {name: torch.optim.SGD(m.parameters(), lr=0.1) for name, m in models.items()}
    watch = trainwatch.watch(models, optimizers, settings=QUIET)
    for _ in range(2):
        for model in models.values():
            model.zero_grad()
            F.cross_entropy(model(X), Y).backward()
        alone = float(torch.stack([p.grad.norm() for p in models["G"].parameters()]).norm())
        assert float(watch.clip_grad_norm_(1e9)) == pytest.approx(2**0.5 * alone, rel=1e-5)
        assert float(watch.clip_grad_norm_(1e9, optimizer="G")) == pytest.approx(alone, rel=1e-5)
    with pytest.raises(ValueError, match="'G', 'D', got 'E'"):
        watch.clip_grad_norm_(1.0, optimizer="E")
    watch.finish()


def test_a_limit_on_scaled_gradients_is_no_limit_on_the_gradients():
    """`unscale_` was forgotten: TW308 would compare norms with a limit that is 65,536 times too high."""
    model = net()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    watch = trainwatch.watch(model, optimizer, settings=QUIET)
    scaler.scale(F.cross_entropy(model(X), Y)).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    watch.finish()
    assert watch.record.facts["regularisation"]["clipping"] == {"max_scaled_norm": 1.0}


def test_the_watch_clips_scaled_gradients_as_torch_does():
    model = net()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=1024.0)
    watch = trainwatch.watch(model, optimizer, settings=QUIET)
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(X), Y)).backward()
        expected = float(torch.stack([p.grad.norm() for p in model.parameters()]).norm())
        assert float(watch.clip_grad_norm_(1.0)) == pytest.approx(expected, rel=1e-6)
        scaler.step(optimizer)
        scaler.update()
    watch.finish()


def test_clipping_by_value_is_seen_where_it_was_imported_by_name():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    code = values_imported_before_the_watch.__code__
    watch = trainwatch.watch(model, optimizer, settings=QUIET)
    F.cross_entropy(model(X), Y).backward()
    values_imported_before_the_watch(model.parameters(), clip_value=0.01)
    assert max(float(p.grad.abs().max()) for p in model.parameters()) == pytest.approx(0.01)
    optimizer.step()
    watch.finish()
    assert watch.record.facts["regularisation"]["clipping"] == {"max_value": 0.01}
    assert values_imported_before_the_watch.__code__ is code


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed", "fp16-mixed"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_on_a_gpu(precision, optimizer):
    for accumulation, clip in itertools.product((1, 4), CLIPS):
        watch, kept, _ = train(precision, accumulation, clip, optimizer, device="cuda")
        np.testing.assert_allclose(watch.record.series("grad_norm", "default").values, kept, rtol=1e-5)


def test_of_flat_parameters_no_norm_is_told():
    """FSDP1 would give the norms of this process's part: too small by the root of the number of parts."""

    class FullyShardedDataParallel(nn.Sequential):
        pass

    model = FullyShardedDataParallel(net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, settings=QUIET)
    for _ in range(2 * QUIET["flush_every"]):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
    watch.finish()
    assert not watch.record.has("grad_norm")
    assert "fully_shard" in watch.report.not_checked["TW301"]
