"""TW501: an L1 term in the loss pulls weights about zero to and fro, and makes none of them zero."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import MODEST, NotChecked, ProbeRequest, Rule
from trainwatch.symptoms.losses import penalty_share, penalty_size
from trainwatch.symptoms.sparsity import Planned, Pulled, plan, pulled


@dataclass(frozen=True)
class L1WithoutProximalStep(Rule):
    """The loss has an L1 term, gradient steps follow it, and weights hover about zero instead of being zero.

    ## Symptom
    A sum of absolute weights is part of what is backpropagated. At least `hovering` of those weights lie next to zero
    without being zero, and at least `crossing` of all change sign from one step to the next. Or the term makes up
    `part` of what is backpropagated at some time and is on average `weighty` of the loss of a constant guess, and less
    than `selected` of those weights are zero.

    ## Why it hurts
    An L1 penalty is chosen to select: weights that matter little are to be exactly zero. Its gradient is as large for
    a weight next to zero as for any other, so a step overshoots and the next one comes back. The network pays for the
    penalty and stays dense; and the to and fro adds noise.

    ## How it is measured
    The term is read off the graph behind the loss, with its parameters and its coefficient. `weights`: of up to 1,024
    fixed entries of each parameter, those within a twentieth of the root mean square (now or at the start), those that
    are exactly zero, and those of which two neighbouring steps have different signs; means of the second half of the
    run, over weights of two dimensions or more. At the end a copy goes on by proximal steps (`sparsity_path`): how many
    weights become zero under the coefficient of the run and under larger ones, and what the loss says to that.

    ## Remedies
    `proximal-step`.

    ## Not a fault when
    Fewer weights than `hovering` are near zero and the term is next to nothing beside the loss: then it shrinks them a
    little. The network was never meant to be sparse: a penalty on the squares shrinks without the to and fro.

    ## Sources
    §8 §16; Parikh and Boyd, "Proximal algorithms" (2014); Duchi and Singer, "Efficient online and batch learning using
    forward backward splitting" (2009).
    """

    code: ClassVar[str] = "TW501"
    name: ClassVar[str] = "l1-without-proximal-step"
    section: ClassVar[str] = "§8 §16"
    needs: ClassVar[tuple[str, ...]] = ("weights",)

    hovering: float = 0.1
    crossing: float = 0.02
    part: float = 0.1
    weighty: float = 0.01
    selected: float = 0.01

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Where weights hover, or are to be selected: how many of them proximal steps would make zero."""
        found = record.memo(pulled)
        if found is not None and (self._margin(found) > 0 or self._selects_none(record, found)):
            yield ProbeRequest("sparsity", found.names, "how many weights would proximal steps make zero?", 0.5)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Look at the weights that an L1 term pulls at."""
        found = record.memo(pulled)
        if found is None:
            if record.memo(penalty_share) > 0 and not record.facts.get("regularisation", {}).get("penalties"):
                raise NotChecked("a term is added to the loss, and it was not seen what it is made of")
            return
        margin, share = self._margin(found), record.memo(penalty_share)
        if margin <= 0 and not self._selects_none(record, found):
            return
        lines = record.memo(plan)
        told = f"{found.hovering:.0%} hover about it, and {found.crossing:.0%} change sign from one step to the next"
        if margin <= 0:
            told = f"it makes up as much as {share:.0%} of what is minimised, and gradient steps select none"
        yield self.diagnose(
            f"an L1 term of {_range(found)} is in the loss and {found.zeros:.1%} of the weights are zero: {told}",
            margin=min(margin, 1e3) if margin > 0 else MODEST,
            where=found.names,
            evidence=(
                Evidence("share of weights next to zero and not zero", found.hovering, self.hovering, step=found.step),
                Evidence("share of weights that change sign in a step", found.crossing, self.crossing, step=found.step),
                Evidence("share of weights that are zero", found.zeros, self.selected, step=found.step),
                Evidence("share of what is backpropagated that the term makes up", share, self.part),
                Evidence("term over the loss of a constant guess", record.memo(penalty_size), self.weighty),
                *(_planned(line) for line in lines),
            ),
            remedies=(remedy("proximal-step", coefficient=found.largest, planned=_promise(lines)),),
        )

    def _selects_none(self, record: RunRecord, found: Pulled) -> bool:
        """The term is a good part of what is minimised, and next to no weight is zero for it."""
        others = record.facts["regularisation"]["penalties"].keys() - {"l1"}
        weighs = record.memo(penalty_share) >= self.part and record.memo(penalty_size) >= self.weighty
        return not others and weighs and found.zeros < self.selected

    def _margin(self, found: Pulled) -> float:
        """Standard errors beyond the nearer of both thresholds."""
        measured = ((found.hovering, self.hovering), (found.crossing, self.crossing))
        return min((value - least) / found.error(value) for value, least in measured)


def _range(found: Pulled) -> str:
    few, most = f"{found.smallest:.3g}", f"{found.largest:.3g}"
    return most if few == most else f"{few} to {most}"


def _planned(line: Planned) -> Evidence:
    change = "" if np.isnan(line.worsened) else f"; validation loss {line.worsened:+.2g} (+- {line.error:.1g})"
    stay = "" if np.isnan(line.kept) else f"; the gradient keeps {line.kept:.0%} of them at zero"
    note = f"after {line.steps} further steps on held batches{stay}; training loss {line.training:.3g}{change}"
    return Evidence(f"share of weights that proximal steps of {line.l1:.3g} make zero", line.zeros, note=note)


def _promise(lines: list[Planned]) -> str:
    if not lines:
        return "How many: not measured."
    own, *larger = lines
    layers = ", ".join(f"{share:.0%} of '{name}'" for name, share in list(own.layers.items())[:6])
    more = "".join(f", {line.zeros:.0%} under {line.l1:.3g}" for line in larger)
    return f"On a copy it made {own.zeros:.0%} of them zero ({layers}){more}."
