"""Confidence from margins: a hierarchical logistic model of the diagnoses of the tuning half."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.model_selection import GroupKFold

from benchmarks.zoo.score import Outcome
from trainwatch.rules import calibrated
from trainwatch.rules.confidence import Curve, squashed

KINDS = ("findings", "remarks")
FORM = 1  # of the model, in the version of a table
SOUND = 0.5  # share of runs with nothing to find, before anything is said: the prior
SHARED = 2.5  # deviation of the log-odds that all rules share, before anything is seen (Gelman et al., 2008)
SPREADS = (0.01, 0.25, 0.5, 1.0, 2.0, 4.0)  # deviations of a rule's log-odds from these; the first pools all rules
FOLDS = 20
TABLE = Path(calibrated.__file__)


@dataclass(frozen=True)
class Case:
    """One diagnosis of one run.

    Attributes:
        family: The run's family.
        code: The rule.
        remark: It is below a warning.
        margin: As the rule gave it.
        confidence: As the report gave it.
        right: A code of the truth or true beside it, or a consequence of such a one.
        weight: A family counts once for each code, however many runs it has, and sound runs count by their prior.
    """

    family: str
    code: str
    remark: bool
    margin: float
    confidence: float
    right: bool
    weight: float


def cases(outcomes: Sequence[Outcome]) -> list[Case]:
    """The diagnoses of some runs."""
    planted = sum(o.scenario.planted for o in outcomes)
    prior = {True: (1 - SOUND) / max(planted, 1), False: SOUND / max(len(outcomes) - planted, 1)}
    alike = Counter((o.scenario.family, d.code, d.remark) for o in outcomes for d in o.said.told)
    return [
        Case(o.scenario.family, d.code, d.remark, d.margin, d.confidence, o.right(d),
             prior[o.scenario.planted] * len(outcomes) / alike[o.scenario.family, d.code, d.remark])
        for o in outcomes for d in o.said.told
    ]  # fmt: skip


def fit(some: Sequence[Case], spread: float) -> Curve:
    """The most probable curve of a hierarchical logistic model (Gelman and Hill, 2007, chapter 14).

    The log-odds of a diagnosis are an intercept, a slope times the squashed margin (or a step for facts) and an offset
    of its rule, drawn from a normal distribution about 0 whose deviation is `spread`: rules of which the zoo shows
    little are pulled towards what all have in common. The slope is not negative. The lapse rate, as of psychometric
    functions (Wichmann and Hill, 2001), is the rule of three over families: what none of n shows has a chance of up to
    3 / n.
    """
    codes = sorted({c.code for c in some})
    rule = np.array([codes.index(c.code) for c in some], int)
    fact = np.array([c.margin == math.inf for c in some], float)
    far = np.array([squashed(c.margin) for c in some]) * (1 - fact)
    right, weight = np.array([c.right for c in some], float), np.array([c.weight for c in some])
    precision = np.r_[np.full(3, SHARED**-2), np.full(len(codes), spread**-2)]

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        odds = at[0] + at[1] * far + at[2] * fact + at[3:][rule]
        off = weight * (expit(odds) - right)
        value = (weight * (np.logaddexp(0, odds) - right * odds)).sum() + (precision * at**2).sum() / 2
        slopes = np.r_[off.sum(), (off * far).sum(), (off * fact).sum(), np.bincount(rule, off, len(codes))]
        return float(value), slopes + precision * at

    free = (None, None)
    bounds = [free, (0, None), free, *[free] * len(codes)]
    at = [round(float(v), 3) for v in minimize(loss, np.zeros(len(bounds)), jac=True, bounds=bounds).x]
    lapse = round(min(0.5, 3 / max(len({c.family for c in some}), 1)), 3)
    return Curve(at[0], at[1], at[2], lapse, dict(zip(codes, at[3:], strict=True)))


def unseen(some: Sequence[Case], spread: float) -> np.ndarray:
    """The probability of each case by a curve that was fitted to other families."""
    families = [c.family for c in some]
    folds = min(FOLDS, len(set(families)))
    if folds < 2:
        return np.full(len(some), 0.5)
    chances = np.zeros(len(some))
    for rest, part in GroupKFold(folds).split(families, groups=families):
        curve = fit([some[i] for i in rest], spread)
        chances[part] = [curve(some[i].margin, some[i].code) for i in part]
    return chances


def log_loss(some: Sequence[Case], chances: np.ndarray) -> float:
    """Mean log loss in nats, by weight."""
    if not some:
        return 0.0
    right, weight = np.array([c.right for c in some]), np.array([c.weight for c in some])
    return float(-(weight * np.log(np.where(right, chances, 1 - chances))).sum() / weight.sum())


@dataclass(frozen=True)
class Fitted:
    """A curve, and how it was chosen.

    Attributes:
        curve: Fitted to all cases.
        cases, families: How many.
        right: Share that is right.
        losses: Spread -> log loss on families left out; the first is of rules that are all alike.
        spread: With the lowest.
        chances: Of each case, on families left out.
    """

    curve: Curve
    cases: int
    families: int
    right: float
    losses: dict[float, float]
    spread: float
    chances: np.ndarray


def fitted(some: Sequence[Case]) -> Fitted:
    """The curve of some cases, with the spread that predicts families left out best."""
    tried = {spread: unseen(some, spread) for spread in SPREADS}
    losses = {spread: log_loss(some, chances) for spread, chances in tried.items()}
    best = min(losses, key=lambda spread: losses[spread])
    right = float(np.mean([c.right for c in some])) if some else math.nan
    families = len({c.family for c in some})
    return Fitted(fit(some, best), len(some), families, right, losses, best, tried[best])


def version(curves: dict[str, dict[str, Any]]) -> str:
    """Of a table: the form of the model, and what tells its numbers from others."""
    return f"{FORM}-{hashlib.sha256(json.dumps(curves, sort_keys=True).encode()).hexdigest()[:8]}"


def write(path: Path, finding: Curve, remark: Curve) -> str:
    """Write the table that the package reads, and give back its version."""
    curves = {"finding": asdict(finding), "remark": asdict(remark)}
    lines = [
        '"""How often diagnoses are right. Written by `python -m benchmarks.zoo calibrate`: not to be edited."""',
        "",
        "from typing import Any",
        "",
        f'VERSION = "{version(curves)}"',
        f"CURVES: dict[str, dict[str, Any]] = {'{'}",
        *_lines(curves, 1),
        "}",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return version(curves)


def _lines(table: dict[str, Any], depth: int) -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield f'{"    " * depth}"{key}": {"{"}'
            yield from _lines(value, depth + 1)
            yield f"{'    ' * depth}}},"
        else:
            yield f'{"    " * depth}"{key}": {value},'
