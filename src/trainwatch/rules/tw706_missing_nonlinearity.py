"""TW706: layers follow one another with nothing non-linear in between."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, no_remark

SHOWN = 4
PROJECTION = "in_proj_weight"  # to queries, keys and values, where they are no three layers of one shape


@dataclass(frozen=True)
class MissingNonlinearity(Rule):
    """Several layers in a row compute what a single one could.

    ## Symptom
    No operation between the first and the last of at least `layers` weight layers is non-linear: a warning. A pair of
    layers without one, inside a net that has others: info.

    ## Why it hurts
    A product of matrices is a matrix. However deep, the net can only draw straight boundaries, and its further layers
    cost time and make the step size harder to choose.

    ## How it is measured
    In the autograd graph behind the first losses: from each weight layer down through operations that are linear
    (reshaping, sums, mean pooling, dropout, and batch norm, which is a fixed scale and shift in use) to the layers
    it is applied to.

    ## Remedies
    `add-nonlinearity` between the named layers.

    ## Not a fault when
    The inner layer is narrower than both sides (a factorised layer, a linear autoencoder), or one of the two is a
    depthwise convolution: such pairs are linear on purpose. So is, in a net that has non-linear parts, what leads to
    attention: queries, keys and values are projections of one input; and what reads the sum of several layers, as a
    head does behind blocks with residual connections. A model of one layer is a linear model.

    ## Sources
    §3; Humbatova et al., "Taxonomy of real faults in deep learning systems" (2020); Zhang et al., "AUTOTRAINER" (2021).
    """

    code = "TW706"
    name = "missing-nonlinearity"
    section = "§3"
    at_first_look = True
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(("TW204", "TW205", "TW208", "TW402"), no_remark)

    layers: int = 2

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        known = record.facts.get("linearity")
        if not known or not known["layers"]:
            raise NotChecked("no graph was seen that shows which layer follows which")
        shapes = {p["name"]: p["shape"] for p in record.facts.get("parameters", ())}
        fed = Counter((below, tuple(shapes.get(above, ()))) for above, below in known["pairs"])
        read = Counter(above for above, _ in known["pairs"])
        pairs = [
            (below, above)
            for above, below in known["pairs"]
            if not _on_purpose(shapes, below, above)
            and not (
                known["nonlinear"]
                and (above.endswith(PROJECTION) or fed[below, tuple(shapes[above])] >= 3 or read[above] >= 2)
            )
        ]
        if not pairs:
            return
        chained = list(dict.fromkeys(name for pair in pairs for name in pair))
        whole = not known["nonlinear"] and not known["opaque"] and len(known["layers"]) >= self.layers
        whole = whole and set(chained) == set(known["layers"])
        yield self._found(record, pairs, chained, whole)

    def _found(self, record: RunRecord, pairs: list[Any], chained: list[str], whole: bool) -> Diagnosis:
        order = {_module(p["name"]): p["order"] for p in record.facts.get("parameters", ())}
        first, second = min((tuple(map(_module, pair)) for pair in pairs), key=lambda pair: order.get(pair[0], 0))
        modules = sorted({_module(name) for name in chained}, key=lambda m: order.get(m, 0))
        named = ", ".join(modules[:SHOWN]) + (f" and {len(modules) - SHOWN} more" if len(modules) > SHOWN else "")
        return self.diagnose(
            f"nothing non-linear stands between the {len(modules)} layers of the net ({named}): together they are one "
            "linear map" if whole else f"no non-linearity between {_pairs(pairs)}",
            margin=float("inf"),
            severity=Severity.WARNING if whole else Severity.INFO,
            where=tuple(modules),
            onset_step=0,
            evidence=(
                Evidence("weight layers in a row without a non-linearity", float(len(modules)),
                         threshold=float(self.layers), where=named, step=0),
            ),
            remedies=(remedy("add-nonlinearity", below=first, above=second),),
        )  # fmt: skip


def _on_purpose(shapes: dict[str, list[int]], below: str, above: str) -> bool:
    """A bottleneck between the two, or a depthwise convolution among them."""
    if below not in shapes or above not in shapes:
        return True
    low, high = shapes[below], shapes[above]
    depthwise = high[1] == 1 and high[0] > 1 and _kernel(high) > 1
    depthwise |= len(low) > 2 and low[1] == 1 and len(high) > 2 and _kernel(high) == 1
    narrow = low[0] < min(math.prod(low[1:]), high[0])
    return depthwise or narrow


def _kernel(shape: list[int]) -> int:
    return math.prod(shape[2:])


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _pairs(pairs: list[Any]) -> str:
    told = [f"{_module(below)} and {_module(above)}" for below, above in pairs[:SHOWN]]
    return ", ".join(told) + (f" and {len(pairs) - SHOWN} more pairs" if len(pairs) > SHOWN else "")
