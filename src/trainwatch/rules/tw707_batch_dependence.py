"""TW707: what the model says of a sample depends on the samples beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, always
from trainwatch.symptoms.dependence import Dependence, dependence
from trainwatch.symptoms.subject import before_training


@dataclass(frozen=True)
class BatchDependence(Rule):
    """Samples of a batch leak into one another, even in evaluation mode.

    ## Symptom
    Where some samples of a batch are exchanged, the outputs of the others change by more than `share` of what those of
    the exchanged ones do; or the outputs do not follow where the batch is put into another order. Judged before
    training alone.

    ## Why it hurts
    The net learns from neighbours that it will not have: validation depends on the size and the order of the batches,
    and what is predicted for one sample alone is something else. Labels of neighbours may leak.

    ## How it is measured
    `batch_dependence`: a copy of the model in evaluation mode is given the batch, the batch with one half replaced by
    copies of the other, and the batch turned round, with the same random numbers, in double precision where the model
    bears it. Changes of `rounding` rounding units are no dependence. Where two dimensions agree in inputs and targets,
    either may count the samples: then both must leak.

    ## Remedies
    `keep-samples-apart`.

    ## Not a fault when
    In training mode batch norm makes it so by design. A graph whose nodes are given as a batch, or a set that is
    compared within itself, is one sample.

    ## Sources
    §6; Karpathy, "A recipe for training neural networks" (2019): "use backprop to chart dependencies"; documentation of
    `torch.nn.MultiheadAttention` (batch_first).
    """

    code: ClassVar[str] = "TW707"
    name: ClassVar[str] = "batch-dependence"
    severity: ClassVar[Severity] = Severity.ERROR
    section: ClassVar[str] = "§6"
    at_first_look: ClassVar[bool] = True
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(("TW204", "TW208", "TW710"), always)

    share: float = 1e-3
    rounding: float = 1000.0

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if not before_training(record):
            raise NotChecked("whether samples leak into one another is looked at by trainwatch.preflight alone")
        looks = record.memo(dependence)
        if not looks:
            raise NotChecked(
                record.facts.get("switched_off", {}).get("batch_dependence", "the outputs were not compared")
            )
        if any(max(look.kept, look.replaced) <= self._noise(look) for look in looks):
            raise NotChecked("the outputs hardly depend on the inputs, so they tell nothing of the other samples")
        if all(self._leaks(look) or self._misplaced(look) for look in looks):
            yield self._found(record, looks[0])

    def _noise(self, look: Dependence) -> float:
        return self.rounding * look.unit * look.size

    def _leaks(self, look: Dependence) -> bool:
        return look.kept > max(self.share * look.replaced, self._noise(look))

    def _misplaced(self, look: Dependence) -> bool:
        return not look.random and look.turned > max(self.share * look.apart, self._noise(look))

    def _found(self, record: RunRecord, look: Dependence) -> Diagnosis:
        leaks, ratio = self._leaks(look), look.kept / max(look.kept, look.replaced)
        what = (
            f"those of samples that stayed change by {ratio:.2g} of what those of exchanged ones do"
            if leaks
            else f"in another order they change by {look.turned / max(look.apart, 1e-300):.2g} of the distance between "
            "samples"
        )
        return self.diagnose(
            f"in evaluation mode an output depends on the other samples of its batch: {what}",
            margin=float("inf"),
            where=("model",),
            onset_step=0,
            evidence=(
                Evidence("change of the outputs of samples that stayed, over that of exchanged ones",
                         ratio, self.share, step=look.step, note=f"{look.samples} samples"),
                Evidence("change in another order of the batch, over the distance between samples",
                         None if look.random or not look.apart else look.turned / look.apart, self.share,
                         step=look.step, note="not judged: the model draws random numbers" if look.random else ""),
            ),
            remedies=(remedy("keep-samples-apart", samples=look.samples, suspects=_suspects(record)),),
        )  # fmt: skip


def _suspects(record: RunRecord) -> str:
    """Modules that mix samples where their batch comes first or they keep no statistics."""
    mixing = ("MultiheadAttention", "NonDynamicallyQuantizableLinear", "LSTM", "GRU", "RNN")
    names = [m["name"] for m in record.facts.get("modules", ()) if m["type"] in mixing or "BatchNorm" in m["type"]]
    return ", ".join(names[:4]) or "forward()"
