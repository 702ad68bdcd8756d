"""Small real trainings in several processes over gloo, and the same in one."""

import contextlib
import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

import trainwatch

QUIET = {"quiet": True, "strict": True, "flush_every": 3}
START = "forkserver"
STEPS, BATCH, LIMIT = 7, 48, 0.05
X = torch.randn(192, 8, generator=torch.Generator().manual_seed(1))
Y = torch.randint(0, 3, (192,), generator=torch.Generator().manual_seed(2))
MATRIX = list(itertools.product(("fp32", "bf16"), (1, 4), (False, True)))  # precision, accumulation, clipping


def net(kind, precision, world):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))  # the last bias has fewer entries than 4
    if kind == "ddp":
        return DistributedDataParallel(model)
    if kind in ("fsdp", "hsdp"):
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if precision == "bf16" else MixedPrecisionPolicy()
        shape, names = ((2, world // 2), ("replicate", "shard")) if kind == "hsdp" else ((world,), ("shard",))
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
        for layer in (model[0], model[2], model):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
    return model


def whole_norms(model):
    """Norms of whole gradients in double precision; a collective where they are sharded."""
    gradients = [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in model.parameters()]
    return [float(g.double().norm()) for g in gradients]


def train(kind="single", precision="fp32", accumulation=1, clip=False, rank=0, world=1, **options):
    """Train a few steps on a batch that the processes share, with two validation passes.

    Args:
        kind: ``single``, ``ddp``, ``fsdp`` or ``hsdp``.
        options: ``watch`` and ``settings`` of it; ``spoil``, the rank whose batch of step 4 holds a NaN; ``classes``,
            how each process draws its samples;
            ``validate``, ``shared`` among them, ``all`` in each, or ``first`` in the first alone; ``watched``, ranks.

    Returns:
        (watch or None, norms of the gradients (steps, P)).
    """
    model = net(kind, precision, world)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    watched = rank in options.get("watched", range(world))
    watch = (
        trainwatch.watch(
            model, optimizer, settings={**QUIET, **options.get("settings", {})}, **options.get("watch", {})
        )
        if watched
        else None
    )
    lower = precision == "bf16" and kind != "fsdp" and kind != "hsdp"
    kept = []
    for step in range(options.get("steps", STEPS)):
        optimizer.zero_grad()
        order = torch.arange(step * BATCH, (step + 1) * BATCH) % len(X)
        mine = options["classes"](rank, order) if "classes" in options else order[rank::world]
        for i, rows in enumerate(mine.split(len(mine) // accumulation)):
            last = i == accumulation - 1
            if kind in ("fsdp", "hsdp"):
                model.set_requires_gradient_sync(last)
            with contextlib.nullcontext() if last or kind != "ddp" else model.no_sync():
                x = X[rows].clone()
                if options.get("spoil") == rank and step == 4:
                    x[0, 0] = float("nan")
                with torch.autocast("cpu", torch.bfloat16) if lower else contextlib.nullcontext():
                    loss = F.cross_entropy(model(x), Y[rows])
                (loss / accumulation).backward()
        kept.append(whole_norms(model))
        if clip:
            norm = (
                nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
                if step % 2 or not watched
                else watch.clip_grad_norm_(LIMIT)
            )
            norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
            assert abs(norm / np.linalg.norm(kept[-1]) - 1) < 1e-4
        try:
            optimizer.step()
        except trainwatch.StopTraining:
            break
        if step in (3, 6):
            validate(model, options.get("validate", "shared"), rank, world)
    if watched:
        watch.finish()
    return watch, np.array(kept)


def validate(model, how, rank, world):
    if how == "first" and rank:
        return
    rows = torch.arange(40) if how != "shared" else torch.arange(40)[rank::world]
    bare = getattr(model, "module", model)
    bare.eval()
    with torch.no_grad():
        for some in rows.split(10):
            F.cross_entropy(bare(X[some]), Y[some])
    bare.train()


def told(watch, kept):
    """What a test looks at, as plain data."""
    if watch is None:
        return {"kept": kept}
    return {
        "kept": kept,
        "series": {(q, k): (s.steps.tolist(), s.values.copy(), dict(s.provenance)) for q, k, s in watch.record.items()},
        "facts": watch.record.facts,
        "verdict": watch.report.verdict,
        "report": watch.report.to_dict(),
        "found": {d.code: (d.summary, d.severity.value) for d in watch.report.diagnoses},
    }


def run_all(rank, world, store, found, cases):
    """In each process: join the group, run the cases, and keep what they told."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    results = {name: told(*train(rank=rank, world=world, **case)) for name, case in cases.items()}
    torch.save(results, f"{found}/{rank}")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def processes(world, path, cases):
    """Name of a case -> what each process told."""
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(["several"])  # torch is imported once
    arguments = world, str(path / "store"), str(path), cases
    torch.multiprocessing.start_processes(run_all, arguments, nprocs=world, start_method=START)
    all_told = [torch.load(path / str(rank), weights_only=False) for rank in range(world)]
    return {name: [of_rank[name] for of_rank in all_told] for name in cases}
