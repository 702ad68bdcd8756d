"""Sound recipes drawn at random: data, net, loss, optimiser and sizes, at a rate and a length found by search."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np

from benchmarks.zoo.measured.plain import Plain
from benchmarks.zoo.scenario import Data, Loop, Loss, Model, Optimizer, Scenario

HALF = "drawn"
IMAGES = ("digits", "mnist")
CLASSES = (*IMAGES, "breast_cancer", "wine", "iris", "shuttle", "spirals", "moons", "xor", "blobs", "screening",
           "segments", "phishing", "coins", "grades", "forty")  # fmt: skip
OF_TWO = ("breast_cancer", "moons", "screening", "phishing", "coins")
VALUES = ("diabetes", "sine", "friedman", "cars", "counts")
BEGIN_AT = {"Adam": 1e-3, "AdamW": 1e-3, "NAdam": 1e-3, "RAdam": 1e-3, "RMSprop": 5e-4, "Adamax": 2e-3, "Adagrad": 1e-2,
            "SGD": 3e-2}  # fmt: skip
FALLING = ("linear", "cosine", "one_cycle", "step")
BENT = ("ReLU", "ReLU", "Tanh", "GELU", "SiLU", "LeakyReLU", "ELU")


def draw(seed: int, index: int) -> Scenario:
    """The recipe of an index, before its rate and its length are known."""
    rng = Random(seed * 10_000 + index)
    data, kind, loss = _task(rng)
    model = _model(rng, kind)
    optimizer = _optimizer(rng)
    batch = rng.choice((8, 16, 32, 32, 64, 128))
    passes = round(rng.choice((200, 400, 700, 1000)) * batch / data.train)
    loop = Loop(
        epochs=max(3, min(120, passes)), batch=batch, clip=rng.choice((1.0, 5.0)) if rng.random() < 0.15 else 0.0
    )
    return Scenario(
        HALF, f"{seed}-{index:03d}", "base", False, False, (), (), False, data, model, loss, optimizer, loop
    )


def settled(drawn: Scenario) -> Scenario:
    """The recipe at a rate with which training ends lowest, and for as many passes as validation gets better."""
    at = _at_its_rate(drawn)
    schedule = "none" if at.optimizer.schedule in FALLING else at.optimizer.schedule
    long = replace(
        at,
        loop=replace(at.loop, epochs=min(150, 3 * at.loop.epochs)),
        optimizer=replace(at.optimizer, schedule=schedule),
    )
    looks = np.array(Plain(long, 0).course.val)
    over = max(3, len(looks) // 12)
    mean = np.convolve(looks[1:], np.ones(over) / over, "valid")
    best = float(np.nanmin(mean))
    there = int(np.flatnonzero(mean <= best + 0.01 * max(looks[0] - best, abs(best)))[0]) + over
    passes = round(long.loop.epochs * there / (len(looks) - 1))
    return replace(at, loop=replace(at.loop, epochs=max(5, passes)))


def _at_its_rate(drawn: Scenario) -> Scenario:
    """The lowest rate, by factors of three, that ends within 3 % of the best one."""
    run, ends = Plain(drawn, 0), dict[int, float]()
    power, wanted = 0, [-1, 0, 1]
    for _ in range(4):
        for power in wanted:
            ends[power] = run.but(optimizer={"lr": float(f"{drawn.optimizer.lr * 3.0**power:.3g}")}).end
        best = min(ends, key=lambda p: ends[p])
        wanted = [best - 1] if best == min(ends) else [best + 1] if best == max(ends) else []
    low, high = min(ends.values()), max(v for v in ends.values() if math.isfinite(v))
    power = min(p for p, v in ends.items() if v <= low + 0.03 * max(high - low, abs(low)))
    return run.but(optimizer={"lr": float(f"{drawn.optimizer.lr * 3.0**power:.3g}")}).scenario


def _task(rng: Random) -> tuple[Data, str, Loss]:
    """Data, what kind of net reads it, and the loss."""
    n = rng.choice((150, 300, 600, 1000, 1500))
    task = rng.choices(("classes", "values", "characters", "rows", "rebuilt"), (55, 22, 8, 10, 5))[0]
    if task == "values":
        name = rng.choice(VALUES)
        if name == "counts":
            return Data(name, n, target="raw"), "mlp", Loss("poisson")
        return Data(name, n), rng.choice(("mlp", "mlp", "glu")), Loss(rng.choice(("mse", "mse", "huber", "l1")))
    if task == "characters":
        data = Data("text", rng.choice((600, 1200)), length=rng.choice((16, 32)))
        return data, rng.choice(("gru", "lstm", "transformer", "rnn")), Loss()
    if task == "rows":
        name, length = rng.choice(("digits", "memory")), rng.choice((8, 16, 32))
        return Data(name, n, length=length), rng.choice(("gru", "lstm", "rnn")), Loss()
    if task == "rebuilt":
        return Data("digits", n), "autoencoder", Loss("mse")
    name = rng.choice(CLASSES)
    kinds = ("mlp", "cnn", "cnn", "squeeze_excite", "attention") if name in IMAGES else ("mlp", "mlp", "glu", "highway")
    noise = 0.1 if rng.random() < 0.1 else 0.0
    if name in OF_TWO and rng.random() < 0.4:
        return Data(name, n, noise=noise), rng.choice(kinds), Loss("bce_logits")
    smoothing = rng.choice((0.05, 0.1)) if rng.random() < 0.2 else 0.0
    return Data(name, n, noise=noise), rng.choice(kinds), Loss(smoothing=smoothing)


def _model(rng: Random, kind: str) -> Model:
    width, depth = rng.choice((16, 32, 64, 96)), rng.choice((1, 2, 2, 3, 4))
    dropout = rng.choice((0.1, 0.2, 0.3)) if rng.random() < 0.25 and kind != "autoencoder" else 0.0
    if kind == "autoencoder":
        return Model(kind, (rng.choice((8, 16, 24)),))
    if kind in ("cnn", "squeeze_excite"):
        hidden: tuple[int, ...] = (rng.choice((8, 12, 16)), rng.choice((16, 24, 32)))
    else:
        hidden = (width,) * (depth if kind in ("mlp", "glu", "highway") else 1)
    if kind not in ("mlp", "cnn"):
        return Model(kind, hidden, dropout=dropout)
    norm, residual = rng.choice(("none", "none", "batch", "layer")), len(hidden) > 2 and rng.random() < 0.4
    return Model(kind, hidden, rng.choice(BENT), norm, dropout=dropout, residual=residual)


def _optimizer(rng: Random) -> Optimizer:
    name = rng.choice(("Adam", "Adam", "AdamW", "AdamW", "SGD", "SGD", "SGD", *BEGIN_AT))
    momentum = 0.9 if name == "SGD" and rng.random() < 0.7 else 0.0
    decays = (1e-3, 1e-2, 5e-2) if name == "AdamW" else (1e-5, 1e-4, 1e-3)
    decay = rng.choice(decays) if rng.random() < 0.35 else 0.0
    schedules: tuple[str, ...] = ("none", "none", "none", "cosine", "linear", "step", "warmup")
    if momentum or name in ("Adam", "AdamW", "NAdam", "RAdam", "Adamax"):
        schedules += ("one_cycle",)  # it turns momentum as well
    return Optimizer(name, BEGIN_AT[name] / (5 if momentum else 1), momentum, decay, schedule=rng.choice(schedules))
