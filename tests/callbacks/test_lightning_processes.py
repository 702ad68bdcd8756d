"""The callback in a run that Lightning trains in two processes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainwatch
from trainwatch.report import Report

lightning = pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")

generator = torch.Generator().manual_seed(1)
X, Y = torch.randn(64, 8, generator=generator), torch.randint(0, 3, (64,), generator=generator)


class Module(lightning.LightningModule):
    """Keeps norms and losses, and leaves them behind: nothing else comes back from the processes."""

    def __init__(self, directory):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        self.directory, self.norms, self.losses = directory, [], []

    def training_step(self, batch, index):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.norms.append([p.grad.norm().item() for p in self.parameters()])

    def validation_step(self, batch, index):
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_fit_end(self):
        (watch,) = [c for c in self.trainer.callbacks if isinstance(c, trainwatch.TrainWatch)]
        series = {(q, k): s.values.copy() for q, k, s in watch.record.items()}
        logged = float(self.trainer.callback_metrics["val_loss"])
        kept = {"norms": self.norms, "losses": self.losses, "series": series, "logged": logged}
        torch.save({**kept, "verdict": watch.report.verdict}, f"{self.directory}/{self.global_rank}")


def test_two_processes_give_one_report(tmp_path):
    watch = trainwatch.TrainWatch(settings={"quiet": True, "strict": True, "flush_every": 4}, log_dir=tmp_path)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", max_epochs=4, gradient_clip_val=0.1, callbacks=[watch],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    train = DataLoader(TensorDataset(X[:48], Y[:48]), batch_size=4)
    trainer.fit(Module(str(tmp_path)), train, DataLoader(TensorDataset(X[48:], Y[48:]), batch_size=4))
    first, other = (torch.load(tmp_path / str(rank), weights_only=False) for rank in range(2))
    np.testing.assert_allclose(first["series"]["grad_norm", "default"], first["norms"], rtol=1e-5)
    mean = np.mean([first["losses"], other["losses"]], 0)
    np.testing.assert_allclose(first["series"]["train_loss", "cross_entropy"], mean, rtol=1e-5)
    assert first["series"]["val_loss", "val"][-1] == pytest.approx(first["logged"], rel=1e-5)
    assert first["series"]["val_confusion", "val"][-1].sum() == 16
    assert other["verdict"] == "not-judged"
    report = Report.from_json((tmp_path / "trainwatch" / "report.json").read_text())
    assert report.verdict == first["verdict"] != "not-judged"
    assert report.facts["processes"]["joined"] == [1]
    assert report.facts["run"]["samples"] == 4 * 48
