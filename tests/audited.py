"""Real tables and images as parts of a data set, and what an audit says of them."""

from functools import cache

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split

from trainwatch.auditing.measures import AUDITED, measured
from trainwatch.auditing.measures.look import Look
from trainwatch.auditing.measures.tasks import task_of
from trainwatch.auditing.samples import Samples
from trainwatch.config import Settings
from trainwatch.engine import judge
from trainwatch.record import RunRecord

SETS = ("digits", "wine", "breast_cancer", "diabetes")


def part(split, x, y=None, **how):
    how = {"places": np.arange(len(x)), "total": len(x), "layout": "images" if x.ndim == 4 else "rows"} | how
    return Samples(split=split, source="arrays", inputs=x, targets=y, **how)


@cache
def loaded(name, images=True):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return (x.reshape(-1, 8, 8, 1), y) if name == "digits" and images else (x, y)


def split(name, seed=0, *, images=True):
    """Training and validation inputs, training and validation targets, as copies."""
    return [a.copy() for a in train_test_split(*loaded(name, images), random_state=seed)]


def parts(x, xv, y, yv):
    return [part("train", x, y), part("val", xv, yv)]


def audit(some, **how):
    """The record and the report."""
    record = measured(some, **how)
    return record, judge(record, Settings(strict=True), only=AUDITED)


def asked(some, *questions, near=False, **facts):
    """The record after some of the questions alone, and its report."""
    record, by_split = RunRecord(), {p.split: p for p in some}
    train = by_split["train"]
    for topic, value in {"subject": "data", "task": task_of(train, None), **facts}.items():
        record.set_fact(topic, value)
    for question in questions:
        question.measure(Look(train, by_split.get("val"), record.facts["task"], near, 0, record))
    return record, judge(record, Settings(strict=True), only=AUDITED)


def found(report, least="warning"):
    return [d.code for d in report.findings(least)]


def flipped(y, share, seed):
    """Labels of which a share is another one, and which."""
    draw, classes = np.random.default_rng(seed), int(y.max()) + 1
    wrong = draw.random(len(y)) < share
    return np.where(wrong, (y + draw.integers(1, classes, len(y))) % classes, y), wrong
