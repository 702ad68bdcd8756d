"""A training loop that fills a record by hand: slow and plain, so that rules can be tried on real trainings."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from trainwatch.record import RunRecord

CRITERIA = {"cross_entropy": F.cross_entropy, "mse_loss": F.mse_loss}


def train(
    model, train_set, val_set, *, epochs=20, lr=1e-3, batch=32, weight_decay=1e-2, seed=0, eval_mode=True,
    label_smoothing=0.0, **facts,
):  # fmt: skip
    """Train with AdamW and give back the record; float targets mean a regression."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    (x, y), (xv, yv) = ([torch.as_tensor(a) for a in s] for s in (train_set, val_set))
    regression = y.is_floating_point()
    name = "mse_loss" if regression else "cross_entropy"
    options = {} if regression else {"label_smoothing": label_smoothing}
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    record, step, classes = RunRecord(), 0, 0 if regression else int(max(y.max(), yv.max())) + 1
    record.append("val_group_size", "val", 0, _grouped(torch.ones(len(xv)), sum))
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(batch):
            loss = CRITERIA[name](model(x[rows]), y[rows], **options)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record.append("train_loss", name, step, loss.item())
            if not regression:
                record.append("train_classes", "targets", step, np.bincount(y[rows], minlength=classes + 1))
            step += 1
        model.train(not eval_mode)
        with torch.no_grad():
            out = model(xv)
        losses = CRITERIA[name](out, yv, reduction="none", **options).flatten()
        record.append("val_loss", "val", step, losses.mean().item())
        record.append("val_sample_loss", "val", step, _grouped(losses, np.mean))
        sensitive = any(m.training for m in model.modules() if isinstance(m, (nn.Dropout, nn.BatchNorm1d)))
        record.append("val_train_mode", "val", step, float(sensitive))
        if not regression:
            named = out.argmax(1)
            table = np.bincount(yv * classes + named, minlength=classes**2).reshape(classes, classes)
            record.append("val_sample_correct", "val", step, _grouped((named == yv).float(), np.mean))
            record.append("val_confusion", "val", step, table)
            if classes == 2:
                pairs = np.stack([(out[:, 1] - out[:, 0]).sigmoid(), yv], 1)[:512]
                record.append("val_scores", "val", step, pairs)
    _facts(record, model, optimizer, name, options, step, epochs, len(x), len(xv), classes, eval_mode, facts)
    return record


def _grouped(values, reduce):
    return np.array([reduce(g) for g in np.array_split(np.asarray(values), min(256, len(values)))])


def _facts(record, model, optimizer, name, options, steps, epochs, samples, val_samples, classes, eval_mode, extra):
    sensitive = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Dropout, nn.BatchNorm1d))}
    normal = [n for n, m in sensitive.items() if isinstance(m, nn.BatchNorm1d)]
    task = "regression" if not classes else "binary" if classes == 2 else "multiclass"
    decay = optimizer.param_groups[0]["weight_decay"]
    values = {
        "run": {"framework": "torch", "steps": steps, "epochs": epochs, "finished": True, "train_samples": samples},
        "task": task,
        "class_names": None,
        "parameters": [{"name": n, "numel": p.numel(), "trainable": True} for n, p in model.named_parameters()],
        "loss": {name: {"function": name, "reduction": "mean", "arguments": options, "classes": classes or None}},
        "regularisation": {
            "dropout": [{"name": n, "p": m.p} for n, m in sensitive.items() if isinstance(m, nn.Dropout)],
            "normalisation": normal,
            "weight_decay": decay,
            "label_smoothing": options.get("label_smoothing", 0.0),
            "clipping": None,
            "early_stopping": False,
            "accumulation": 1,
        },
        "validation": {
            "val": {
                "kind": "val", "primary": True, "criterion": name, "samples": val_samples, "batches": 1,
                "paired": True, "shuffled": False, "passes": epochs,
                "modules_in_train_mode": [] if eval_mode else list(sensitive),
                "root_in_train_mode": not eval_mode,
                "batch_norm_in_train_mode": bool(normal) and not eval_mode,
            }
        },
    }  # fmt: skip
    for topic, value in {**values, **extra}.items():
        record.set_fact(topic, value)
