"""TW303: a loss or gradient that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.rules import non_finite_source as at_source
from trainwatch.rules.base import NotChecked, Rule, always, no_remark
from trainwatch.rules.step_remedies import clipping, lower_rate
from trainwatch.symptoms.gradients import gradients_of, learning_rate
from trainwatch.symptoms.losses import NotFinite, not_finite
from trainwatch.symptoms.nonfinite_source import Source, source_of

SCALER, SKIPPED = "scaler", "skipped"
KINDS = {
    "train_loss": "training loss",
    "grad_norm": "gradient",
    "val_loss": "validation loss",
    SCALER: "scaled gradient",
    SKIPPED: "loss of a batch that was not trained on",
}


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
    With a gradient scaler only `patience` such rows, or skipped steps, up to the last one, count. Where the batch could
    be run again at once, on a copy (`Settings(nonfinite=...)`), module, operation, its inputs and samples are named.

    ## Remedies
    `find-non-finite-source`, for the very operation where it is known; `lower-learning-rate` and `gradient-clipping`
    where it began after the first update and large numbers may have made it.

    ## Not a fault when
    A gradient scaler (mixed precision) is at work: it provokes an overflow now and then and skips that step. A loop
    that does not train on such a batch: only the source of the first one is told, as a remark.

    ## Sources
    §9; Micikevicius et al. 2018, "Mixed Precision Training".
    """

    code: ClassVar[str] = "TW303"
    name: ClassVar[str] = "non-finite"
    severity: ClassVar[Severity] = Severity.ERROR
    section: ClassVar[str] = "§9"
    at_first_look: ClassVar[bool] = True
    explains: ClassVar[Any] = dict.fromkeys(("TW203", "TW204", "TW205", "TW208"), always) | {"TW602": no_remark}

    patience: int = 20

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Report the first value that is not finite, whatever it is."""
        found = sorted(self._found(record), key=lambda f: f[2].step)
        found = [f for f in found if f[0] != SKIPPED] or found  # a row tells more
        if not found:
            return
        quantity, key, first = found[0]
        turns = max(0, len(record.facts.get("optimizers", ())) - 1)  # optimisers that step in turn count for themselves
        source = source_of(record, first.step, first.until + turns)
        known = source if source and source.found else None
        where = _where(record, quantity, key, first)
        some = f"the {KINDS[quantity]}" + (f" of '{where[0]}'" if where[0] else "")
        some += f" and {len(where) - 1} more" if len(where) > 1 else ""
        named = known and (known.module or known.module_type)
        yield self.diagnose(
            f"At step {known.step if known else first.step} {some} is not finite{_course(quantity, first)}"
            + (at_source.story(known) if known else at_source.in_process(record, first.step)),
            margin=inf,
            severity=Severity.ERROR if first.trailing else Severity.WARNING if quantity != SKIPPED else Severity.INFO,
            where=(named,) if named else tuple(filter(None, where)),
            onset_step=known.step if known else first.step,
            evidence=(
                *(Evidence(f"first {KINDS[q]} that is not finite", where=k, step=f.step, note=_note(f, q))
                  for q, k, f in found if q != SKIPPED),
                *(at_source.evidence(source) if source else ()),
            ),
            remedies=tuple(_remedies(record, quantity, where[0], first, known)),
        )  # fmt: skip

    def _found(self, record: RunRecord) -> Iterator[tuple[str, str, NotFinite]]:
        """(quantity, key, where it first was not finite); at one step the loss comes before its gradient."""
        scaler, source = record.facts.get("scaler", {}), source_of(record, 0, record.steps)
        skipped = scaler.get("in_a_row", 0)
        if not skipped and source is None and not any(record.has(quantity) for quantity in KINDS):
            raise NotChecked("neither a loss nor a gradient was seen")
        for quantity in KINDS:
            for key in record.keys(quantity):
                series = record.series(quantity, key)
                first = not_finite(series) if series is not None else None
                if first is not None and (not scaler.get("used") or first.trailing >= self.patience):
                    yield quantity, key, first
        if skipped >= self.patience:  # no row was kept of them: they are no steps
            yield SCALER, "", NotFinite(record.steps, record.steps, (), 0, 1.0, skipped)
        elif source is not None and source.found and source.seen == "loss":
            ended = bool(record.facts.get("run", {}).get("ended_by")) and source.step == record.steps
            yield SKIPPED, "", NotFinite(source.step, source.step, (), 0, 0.0, int(ended))


def _course(quantity: str, first: NotFinite) -> str:
    if quantity == SCALER:
        return f", and the gradient scaler has skipped the last {first.trailing} steps"
    if quantity == SKIPPED:
        return ", and there the run ended" if first.trailing else ""
    if first.trailing:
        return f", and so are {first.share:.0%} of the later values, the last one included"
    return f", but later values are finite again ({first.share:.0%} of them are not)"


def _where(record: RunRecord, quantity: str, key: str, first: NotFinite) -> tuple[str, ...]:
    columns = record.facts.get("optimizers", {}).get(key, {}).get("parameters", [])
    if quantity != "grad_norm" or not columns:
        return (key,)
    parameters = [record.facts["parameters"][columns[i]] for i in first.columns]
    return tuple(p["name"] for p in sorted(parameters, key=lambda p: p["order"] or 0))


def _note(first: NotFinite, quantity: str) -> str:
    columns = f"{len(first.columns)} of {first.present} parameters; " if quantity == "grad_norm" else ""
    return f"{columns}{first.share:.0%} of the values from there on"


def _remedies(record: RunRecord, quantity: str, place: str, first: NotFinite, known: Source | None) -> Iterator[Remedy]:
    if known is not None:
        yield at_source.specific(known)
    gradients = record.memo(gradients_of)
    typical = gradients.typical_before(first.step) if gradients is not None else None
    if gradients is not None and typical is not None and (known is None or at_source.overflowed(known)):
        present = learning_rate(record, first.step)
        reason = f"All was finite until step {first.step}: if something grew, a tenth of the step is the first try."
        yield lower_rate(gradients.optimizer["type"], present, present / 10, reason)
        reason = f"Nine in ten gradient norms before step {first.step} were below it, and stay as they are."
        yield clipping(record, typical, reason)
    if known is None:
        yield at_source.unknown(first.step, place, backward=quantity in ("grad_norm", SCALER))
