"""Records made up to order: every part of a run that the rules on fit and classes look at."""

import numpy as np

from trainwatch.record import RunRecord

STEPS_A_PASS = 10


def curve(length=20, best=7, start=2.0, floor=0.5, climb=0.05):
    """A loss that falls from `start` to `floor` at pass `best` and then climbs by `climb` a pass."""
    t = np.arange(length)
    fall = (start - floor) * np.clip(1 - t / max(best, 1), 0, None) ** 2
    return floor + fall + climb * np.clip(t - best, 0, None)


def fit_record(
    validation, *, training=None, accuracy=None, noise=0.0, samples=64, spread=0.3, paired=True, scale=1.0, seed=0,
    **facts,
):  # fmt: skip
    """A run with a validation pass every ten steps.

    Args:
        validation: Mean validation loss per pass.
        training: Mean training loss per pass; by default it keeps falling.
        accuracy: Validation accuracy per pass, or None where none is recorded.
        noise: Standard deviation of a jitter per pass that all samples share.
        samples: Columns of validation losses; 0 records the mean alone.
        spread: Standard deviation of the loss over the samples.
        paired: What the facts say of the pairing.
        scale: Factor on all losses.
        seed: Of all random numbers.
        facts: Topics that replace the facts made here.
    """
    rng, record = np.random.default_rng(seed), RunRecord()
    validation = np.asarray(validation, float)
    length = len(validation)
    training = 2.0 * 0.8 ** np.arange(1, length + 1) if training is None else np.asarray(training, float)
    own = rng.standard_normal(max(samples, 1)) * spread
    jitter = noise * rng.standard_normal(length)
    if samples:
        record.append("val_group_size", "val", 0, np.ones(samples))
    for i in range(length):
        steps = np.arange(i * STEPS_A_PASS, (i + 1) * STEPS_A_PASS)
        record.append(
            "train_loss", "cross_entropy", steps, scale * (training[i] + 0.02 * rng.standard_normal(len(steps)))
        )
        at, level = (i + 1) * STEPS_A_PASS, validation[i] + jitter[i]
        record.append("val_loss", "val", at, scale * level)
        if samples:
            record.append("val_sample_loss", "val", at, scale * (level + own - own.mean()))
        if accuracy is not None:
            record.append("val_sample_correct", "val", at, np.full(max(samples, 1), accuracy[i]))
    known = {"kind": "val", "primary": True, "criterion": "cross_entropy", "paired": paired}
    values = {
        "run": {"steps": length * STEPS_A_PASS, "finished": True, "train_samples": 500},
        "parameters": [{"name": "w", "numel": 4000, "trainable": True}, {"name": "f", "numel": 9, "trainable": False}],
        "validation": {"val": known},
        "regularisation": {"dropout": [], "weight_decay": 0.0, "label_smoothing": 0.0, "early_stopping": False},
        **facts,
    }
    for topic, value in values.items():
        record.set_fact(topic, value)
    return record


def class_record(counts, tables=(), *, samples=None, **facts):
    """A run with these training targets per class and one table of predictions per validation pass."""
    record = RunRecord()
    record.append("train_classes", "targets", 0, np.append(np.asarray(counts, float), 0))
    for i, table in enumerate(tables):
        at = (i + 1) * STEPS_A_PASS
        record.append("val_loss", "val", at, 1.0)
        record.append("val_confusion", "val", at, np.asarray(table, float))
    record.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "cross_entropy"}})
    record.set_fact("run", {"steps": 10 * len(tables), "train_samples": samples})
    for topic, value in facts.items():
        record.set_fact(topic, value)
    return record


def confusion(totals, recalls):
    """A table with these true counts and recalls; wrong answers go to the largest class, its own to the next."""
    totals = np.asarray(totals)
    table = np.diag(np.round(totals * np.asarray(recalls)).astype(int))
    largest = int(totals.argmax())
    for i, total in enumerate(totals):
        table[i, (largest + 1) % len(totals) if i == largest else largest] += total - table[i].sum()
    return table


def mode_record(share=1.0, *, modules=("drop",), root=True, batch_norm=False, passes=4, kind="val", switched_at=0):
    """A run whose validation passes from `switched_at` on have this share of batches in training mode."""
    record = RunRecord()
    for i in range(passes):
        at = (i + 1) * STEPS_A_PASS
        record.append("val_loss", "val", at, 1.0 / (i + 1))
        record.append("val_train_mode", "val", at, share if i >= switched_at else 0.0)
    known = {
        "kind": kind,
        "primary": kind == "val",
        "modules_in_train_mode": list(modules),
        "root_in_train_mode": root,
        "batch_norm_in_train_mode": batch_norm,
    }
    record.set_fact("validation", {"val": known})
    return record
