"""TW303: a loss or gradient that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, always
from trainwatch.symptoms.gradients import gradients_of, learning_rate
from trainwatch.symptoms.losses import NotFinite, not_finite

KINDS = {"train_loss": "training loss", "grad_norm": "gradient", "val_loss": "validation loss"}


@dataclass(frozen=True)
class NonFinite(Rule):
    """A loss or a gradient became NaN or infinite.

    ## Symptom
    The training loss, a validation loss or the gradient of a parameter is NaN or infinite.

    ## Why it hurts
    One update by such a gradient makes every weight it touches NaN, and all later losses with it: the rest of the run
    is wasted.

    ## How it is measured
    The first row of any loss or gradient norm that is not finite: its step, the parameters, and whether any later row
    is finite again. It is a fact, not a statistic. An error where the last row is not finite either, else a warning.
    With a gradient scaler only `patience` such rows in a row, up to the last one, count.

    ## Remedies
    `lower-learning-rate` and `gradient-clipping` where it began after the first update; `find-non-finite-source`.

    ## Not a fault when
    A gradient scaler (mixed precision) is at work: it provokes an overflow now and then and skips that step.

    ## Sources
    §9; Micikevicius et al. 2018, "Mixed Precision Training".
    """

    code: ClassVar[str] = "TW303"
    name: ClassVar[str] = "non-finite"
    severity: ClassVar[Severity] = Severity.ERROR
    section: ClassVar[str] = "§9"
    at_first_look: ClassVar[bool] = True
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(("TW203", "TW204", "TW205", "TW208"), always)

    patience: int = 20

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Report the first value that is not finite, whatever it is."""
        if not any(record.has(quantity) for quantity in KINDS):
            raise NotChecked("neither a loss nor a gradient was seen")
        scaled = record.facts.get("scaler", {}).get("used", False)
        found: list[tuple[str, str, NotFinite]] = []
        for quantity in KINDS:  # at one step the loss comes before its gradient
            for key in record.keys(quantity):
                series = record.series(quantity, key)
                first = not_finite(series) if series is not None and len(series) else None
                if first is not None and (not scaled or first.trailing >= self.patience):
                    found.append((quantity, key, first))
        if not found:
            return
        quantity, key, first = min(found, key=lambda f: f[2].step)
        where = _where(record, quantity, key, first)
        lasting = first.trailing > 0
        course = (
            f"and so are {first.share:.0%} of the later values, the last one included"
            if lasting
            else f"but later values are finite again ({first.share:.0%} of them are not)"
        )
        some = f"the {KINDS[quantity]} of '{where[0]}'" + (f" and {len(where) - 1} more" if len(where) > 1 else "")
        yield self.diagnose(
            f"At step {first.step} {some} is not finite, {course}",
            margin=inf,
            severity=Severity.ERROR if lasting else Severity.WARNING,
            where=where,
            onset_step=first.step,
            evidence=tuple(
                Evidence(f"first {KINDS[q]} that is not finite", where=k, step=f.step, note=_note(f, q))
                for q, k, f in sorted(found, key=lambda f: f[2].step)
            ),
            remedies=tuple(_remedies(record, quantity, where[0], first)),
        )


def _where(record: RunRecord, quantity: str, key: str, first: NotFinite) -> tuple[str, ...]:
    columns = record.facts.get("optimizers", {}).get(key, {}).get("parameters", [])
    if quantity != "grad_norm" or not columns:
        return (key,)
    parameters = [record.facts["parameters"][columns[i]] for i in first.columns]
    return tuple(p["name"] for p in sorted(parameters, key=lambda p: p["order"] or 0))


def _note(first: NotFinite, quantity: str) -> str:
    rows = f"{first.share:.0%} of the values from there on"
    return f"{len(first.columns)} of {first.present} parameters; {rows}" if quantity == "grad_norm" else rows


def _remedies(record: RunRecord, quantity: str, place: str, first: NotFinite) -> Iterator[Remedy]:
    gradients = record.memo(gradients_of)
    typical = gradients.typical_before(first.step) if gradients is not None else None
    if gradients is not None and typical is not None:
        present = learning_rate(record, first.step)
        yield remedy(
            "lower-learning-rate",
            present=f"{present:.3g}",
            proposed=f"{present / 10:.1g}",
            optimizer=gradients.optimizer["type"],
            reason=f"All was finite until step {first.step}: if something grew, a tenth of the step is the first try.",
        )
        yield remedy(
            "gradient-clipping",
            already_in_use=bool(record.facts.get("regularisation", {}).get("clipping")),
            max_norm=f"{typical:.2g}",
            reason=f"Nine in ten gradient norms before step {first.step} were below it, and stay as they are.",
        )
    source = (
        "The loss of that step was finite, so the backward pass made it."
        if quantity == "grad_norm"
        else "It was in the forward pass already: in the data, the weights or the loss."
    )
    yield remedy("find-non-finite-source", step=first.step, reason=f"It begins in '{place}'. {source}")
