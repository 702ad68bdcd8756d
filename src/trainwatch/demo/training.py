"""The training loop of every demo: plain PyTorch, written as anyone would, watched from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

import trainwatch
from trainwatch.demo.data import Digits


@dataclass(frozen=True)
class Setup:
    """A run that is ready to start.

    Attributes:
        planted: What is wrong with it, in words.
        data: What it trains on.
        model: From pixels to ten logits.
        optimizer: Over the parameters of `model`.
        epochs: How long it trains.
        batch_size: Samples in a step.
    """

    planted: str
    data: Digits
    model: nn.Module
    optimizer: Optimizer
    epochs: int
    batch_size: int = 32


@dataclass(frozen=True)
class Epoch:
    """How a run stands at the end of an epoch."""

    number: int
    train_loss: float
    val_loss: float
    val_accuracy: float


def train(
    setup: Setup,
    seed: int,
    log_dir: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_finding: Callable[[trainwatch.Diagnosis], None] | None = None,
) -> trainwatch.Report:
    """Train a setup to its end under a watch.

    Args:
        setup: The run.
        seed: Seed of the order of the samples.
        log_dir: Where its record is kept; None keeps it in memory.
        on_epoch: Called after each epoch.
        on_finding: Called at each first finding while it trains.
    """
    d, model, optimizer = setup.data, setup.model, setup.optimizer
    order = torch.Generator().manual_seed(seed)
    train_loader = DataLoader(TensorDataset(d.x_train, d.y_train), setup.batch_size, shuffle=True, generator=order)
    val_loader = DataLoader(TensorDataset(d.x_val, d.y_val), 256)
    criterion = nn.CrossEntropyLoss()
    quiet = trainwatch.Settings(quiet=True)  # whoever called prints
    with trainwatch.watch(
        model, optimizer, loss_fn=criterion, log_dir=log_dir, settings=quiet, on_finding=on_finding
    ) as watch:
        for number in range(setup.epochs):
            model.train()
            train_loss = 0.0
            for x, y in train_loader:
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                optimizer.step()
                train_loss += loss.item() * len(y)
            model.eval()
            val_loss, right = 0.0, 0
            with torch.no_grad():
                for x, y in val_loader:
                    logits = model(x)
                    val_loss += criterion(logits, y).item() * len(y)
                    right += int((logits.argmax(1) == y).sum())
            on_epoch(Epoch(number, train_loss / len(d.y_train), val_loss / len(d.y_val), right / len(d.y_val)))
    return watch.finish()
