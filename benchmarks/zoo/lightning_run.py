"""A scenario trained by Lightning's Trainer, watched by a callback."""

from __future__ import annotations

import logging
import tempfile
from typing import Any

import lightning
from torch import Tensor, nn

from benchmarks.zoo import training
from benchmarks.zoo.data import Sets
from benchmarks.zoo.scenario import Scenario


class _Module(lightning.LightningModule):
    def __init__(
        self, scenario: Scenario, model: nn.Module, loss_fn: nn.Module, steps: int, edits: training.Edits
    ) -> None:
        super().__init__()
        self.scenario, self.model, self.loss_fn, self.steps = scenario, model, loss_fn, steps
        self.edits = edits

    def on_train_epoch_start(self) -> None:
        loop = self.scenario.loop
        if loop.freeze_after and self.current_epoch == loop.freeze_after:
            training.freeze_body(self.model)
        if loop.keep_frozen:
            training.keep_frozen(self.model)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=not self.scenario.loop.keep_zeros)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        if self.scenario.loop.train_mode == "eval":
            self.model.eval()
        x, y = batch
        return training.penalised(self.loss_fn(self.model(x), y), self.scenario.loss, self.model)

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        if self.scenario.loop.val_mode == "train":
            self.model.train()
        x, y = batch
        self.loss_fn(self.model(x), y)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = training.optimizer(self.scenario, self.model, self.steps, self.edits)
        return optimizer if schedule is None else ([optimizer], [{"scheduler": schedule, "interval": "step"}])


def run(scenario: Scenario, model: nn.Module, sets: Sets, callback: Any, edits: training.Edits) -> Any:
    """Train a scenario by Lightning and give back the callback that watched it."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    loop, loss_fn = scenario.loop, edits.criterion(training.criterion(scenario.loss, sets))
    train_loader, val_loader = training.loaders(scenario, sets)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=loop.epochs,
            max_steps=loop.steps or -1,
            accumulate_grad_batches=loop.accumulate,
            gradient_clip_val=loop.clip or loop.clip_value or None,
            gradient_clip_algorithm="value" if loop.clip_value else None,
            callbacks=[callback],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        module = _Module(scenario, model, loss_fn, loop.epochs * len(train_loader), edits)
        trainer.fit(module, train_loader, val_loader if loop.validate else None)
    return callback
