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
MIXING = ("Conv1d", "GRU", "GroupNorm", "InstanceNorm", "LSTM", "RNN", ATTENTION)  # positions, by names of types
OF_SEQUENCES = ("Embedding", *MIXING)
SHOWN = 4


@dataclass(frozen=True)
class FutureLeakage(Rule):
    """The net is to tell what comes next in a sequence, and is shown it.

    ## Symptom
    The targets of the loss are an input one position further, and where the later half of a sequence is exchanged, what
    is said of a position before it changes by more than `share` of what the positions behind it change by; and not by
    more than `most` times that, as where a sequence is told from a summary of itself.

    ## Why it hurts
    The answer stands in the input, so the net learns to copy it: losses of training and of validation fall far below
    what can be had, and where it has to go on by itself, there is nothing to copy.

    ## How it is measured
    `future`: a copy of the model in evaluation mode is given a held training batch, and the same with the later half of
    each sequence taken from another sample. Root mean square changes of what the loss is given are taken over the
    samples, and the largest over the positions; those that the loss leaves out do not count. Asked of nets with an
    embedding, attention, recurrent cells or convolutions over one dimension, where the loss is one of torch's own.

    ## Remedies
    `hide-the-future`.

    ## Not a fault when
    Later inputs are known when the net is used, as in tagging or filling of gaps: there targets are no next inputs, and
    nothing is said. An autoencoder of sequences tells each position from a summary of all.

    ## Sources
    §6; Karpathy, "A recipe for training neural networks" (2019): "use backprop to chart dependencies"; Vaswani et al.,
    "Attention is all you need" (2017), section 3.2.3.
    """

    code: ClassVar[str] = "TW712"
    name: ClassVar[str] = "future-leakage"
    severity: ClassVar[Severity] = Severity.ERROR
    section: ClassVar[str] = "§6"
    at_first_look: ClassVar[bool] = True

    share: float = 1e-3
    most: float = 2.0

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Exchange what comes later, once, in a net that may be for sequences."""
        types = [m["type"] for m in record.facts.get("modules", ())]
        if not record.keys("future") and any(part in kind for part in OF_SEQUENCES for kind in types):
            yield ProbeRequest("future", (), "a net for sequences: does it see what it has to tell?", 0.9)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the change before the exchange with the one behind it."""
        rows = {key: record.latest("future", key) for key in record.keys("future")}
        if not rows:
            reason = record.facts.get("switched_off", {}).get(
                "future", "no experiment looked at what is said of sequences"
            )
            raise NotChecked(reason)
        for name, row in rows.items():
            if row is None or not np.isfinite(row[1]).all():
                raise NotChecked("the outputs are no numbers")
            before, behind, *_, positions = row[1].tolist()
            if behind <= 0:
                raise NotChecked("the outputs do not depend on the inputs")
            if before > self.most * behind:
                raise NotChecked("earlier positions depend on later ones more than these do, as in an autoencoder")
            if before > self.share * behind:
                yield self._found(record, name, before / behind, round(positions), row[0])

    def _found(self, record: RunRecord, name: str, ratio: float, positions: int, step: int) -> Diagnosis:
        mixing = [
            m["name"].removesuffix(".out_proj")
            for m in record.facts.get("modules", ())
            if any(part in m["type"] for part in MIXING)
        ]
        return self.diagnose(
            f"the net sees what it is to predict: where the later half of {name} is replaced, earlier outputs change "
            f"{ratio:.2g} times as much as later ones",
            margin=float("inf"),
            where=("model",),
            onset_step=0,
            evidence=(
                Evidence("change of earlier outputs, over that of later ones", ratio, self.share,
                         step=step, note=f"sequences of {positions}"),
            ),
            remedies=(remedy("hide-the-future", input=name, suspects=", ".join(mixing[:SHOWN]) or "forward()"),),
        )  # fmt: skip
