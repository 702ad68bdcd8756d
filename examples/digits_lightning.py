"""Lightning: one line, the callback. A healthy run, so that you see what that looks like.

Run it: `python examples/digits_lightning.py`.
"""

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainwatch


class Classifier(L.LightningModule):
    """An ordinary module: nothing in it knows of trainwatch."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        return self.criterion(self.net(inputs), targets)

    def validation_step(self, batch, batch_idx):
        inputs, targets = batch
        self.log("val_loss", self.criterion(self.net(inputs), targets))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=1e-2)


def main():
    L.seed_everything(0, verbose=False)
    images, classes = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 8 - 1, torch.tensor(classes))
    train, val = torch.utils.data.random_split(data, [1200, 597])

    watch = trainwatch.TrainWatch()
    trainer = L.Trainer(max_epochs=15, accelerator="cpu", callbacks=[watch], logger=False, enable_checkpointing=False)
    trainer.fit(Classifier(), DataLoader(train, 32, shuffle=True), DataLoader(val, 256))  # prints the report at its end
    return watch.report


if __name__ == "__main__":
    main()
