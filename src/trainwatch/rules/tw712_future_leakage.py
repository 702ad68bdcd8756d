"""TW712: outputs follow inputs that come later, where those are what is to be told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, ProbeRequest, Rule

ATTENTION = "NonDynamicallyQuantizableLinear"  # the innermost module of `nn.MultiheadAttention`
MIXING = ("Attention", "Conv1d", "GRU", "LSTM", "RNN", ATTENTION)  # positions, by what is in names of types
OF_SEQUENCES = ("Embedding", *MIXING)
SHOWN = 4


@dataclass(frozen=True)
class FutureLeakage(Rule):
    """The net is to tell what comes next in a sequence, and is shown it.

    ## Symptom
    Targets are the inputs one position further, and where the later half of a sequence is exchanged, what is said of a
    position before it changes by more than `share` of what the positions behind it change by.

    ## Why it hurts
    The answer stands in the input, so the net learns to copy it: losses of training and of validation fall far below
    what can be had, and where it has to go on by itself, there is nothing to copy.

    ## How it is measured
    `future`: a copy of the model in evaluation mode is given a held training batch, and the same with the later half of
    each sequence taken from another sample. Root mean square changes of the outputs are taken over the samples, and the
    largest over the positions. Targets that are left out of the loss by a negative class are no obstacle.

    ## Remedies
    `hide-the-future`.

    ## Not a fault when
    Later inputs are known when the net is used, as in tagging or filling of gaps: there targets are no next inputs, and
    nothing is said.

    ## Sources
    §6; Karpathy, "A recipe for training neural networks" (2019): "use backprop to chart dependencies"; Vaswani et al.,
    "Attention is all you need" (2017), section 3.2.3.
    """

    code: ClassVar[str] = "TW712"
    name: ClassVar[str] = "future-leakage"
    severity: ClassVar[Severity] = Severity.ERROR
    section: ClassVar[str] = "§6"
    at_first_look: ClassVar[bool] = True

    share: float = 0.01

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Exchange what comes later, once, in a net that may be for sequences."""
        types = [m["type"] for m in record.facts.get("modules", ())]
        if not record.keys("future") and any(part in kind for part in OF_SEQUENCES for kind in types):
            yield ProbeRequest("future", (), "a net for sequences: does it see what it has to tell?", 0.9)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the change before the exchange with the one behind it."""
        rows = {key: record.latest("future", key) for key in record.keys("future")}
        if not rows:
            reason = record.facts.get("switched_off", {}).get("future", "whether targets are next inputs was not asked")
            raise NotChecked(reason)
        for name, row in rows.items():
            if row is None or not np.isfinite(row[1]).all():
                raise NotChecked("the outputs are no numbers")
            before, behind, _, positions = row[1].tolist()
            if behind <= 0:
                raise NotChecked("the outputs do not depend on the inputs")
            if before > self.share * behind:
                yield self._found(record, name, before / behind, round(positions), row[0])

    def _found(self, record: RunRecord, name: str, ratio: float, positions: int, step: int) -> Diagnosis:
        mixing = [
            m["name"].removesuffix(".out_proj")
            for m in record.facts.get("modules", ())
            if any(part in m["type"] for part in MIXING)
        ]
        return self.diagnose(
            f"the net sees what it is to tell: targets are the next of {name}, and exchanged ones change what is said "
            f"before them by {ratio:.2g} of what is said behind",
            margin=float("inf"),
            where=("model",),
            onset_step=0,
            evidence=(
                Evidence("change of outputs before exchanged inputs, over that behind them", ratio, self.share,
                         step=step, note=f"sequences of {positions}"),
            ),
            remedies=(remedy("hide-the-future", input=name, suspects=", ".join(mixing[:SHOWN]) or "forward()"),),
        )  # fmt: skip
