"""TW803: batch norm in a frozen part goes on updating its running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Rule
from trainwatch.symptoms.ranges import range_of

SHOWN = 3
ALIKE = 4  # channels that say as much as one: they look at the same samples
LISTED = 12  # names in code that can be pasted; of more, what they have in common


@dataclass(frozen=True)
class FrozenBatchNormUpdating(Rule):
    """A frozen part is not frozen: its batch norm learns new statistics from every batch.

    ## Symptom
    Batch norm whose gain and shift no optimiser trains, in a part that is frozen as a whole, was in training mode at
    more than `share` of the steps (of at least `steps`), and its running mean or deviation has drifted by more than
    `drift` standard deviations. A remark where it drifted less so far. A drift above `inputs` in the first of the
    modules comes from the inputs.

    ## Why it hurts
    The features of the frozen part are no longer those that were pretrained, though no weight of it moves. In training
    they depend on what else is in the batch, in use they do not. A checkpoint of the new layers alone does not bring
    the model back, and other heads on the same body change with it.

    ## How it is measured
    Modes are read when the optimiser steps. Running means and variances are kept at the start and compared with those
    now: the root mean square over the channels of the change of the mean in standard deviations, and of the logarithm
    of the ratio of both deviations. Small batches alone can bring that about: n samples and a momentum m make a running
    mean waver by the root of m / (2 - m) / n, at the start as well as now, which is told beside it and makes the
    margin; channels vary together: four count as one. Frozen as a whole: the graph behind the loss shows nothing
    trained below the module.

    ## Remedies
    `freeze-batch-norm`: evaluation mode for the modules named, after each `model.train()`. `prepare-as-pretrained`
    where the inputs are not those that the part was pretrained on.

    ## Not a fault when
    Gain and shift are trained, or a layer below: statistics have to follow then. The module never learned statistics.
    Frozen weights follow another network, as an average does. Statistics are adapted to new data on purpose (Li et al.,
    "Revisiting Batch Normalization For Practical Domain Adaptation", 2016): ignore the rule with that reason.

    ## Sources
    §11; Ioffe and Szegedy, "Batch Normalization" (2015); documentation of `torch.nn.BatchNorm2d`.
    """

    code: ClassVar[str] = "TW803"
    name: ClassVar[str] = "frozen-batch-norm-updating"
    section: ClassVar[str] = "§11"
    at_first_look: ClassVar[bool] = True

    share: float = 0.5
    steps: int = 8
    drift: float = 0.1
    inputs: float = 0.5

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if "parameters" not in record.facts:
            raise NotChecked("the parameters could not be read (see TW000)")
        known = record.facts.get("frozen_norms")
        if known is None or known["steps"] < self.steps:
            return
        found = [m for m in known["modules"] if m["learned"] and not (m["fed"] or m["moved"])]
        found = [m for m in found if m["training"] > self.share * known["steps"] and _drift(m) > 0]
        if not found:
            return
        furthest = max(found, key=_drift)
        waver = _waver(record, furthest)
        alone = max(1.0, furthest["channels"] / ALIKE)
        error = waver / np.sqrt(2 * alone)
        names = tuple(m["name"] for m in found)
        count = f"{len(names)} modules" if len(names) > 1 else f"'{names[0]}'"
        yield self.diagnose(
            f"batch norm in the frozen part was in training mode at {furthest['training']} of {known['steps']} steps: "
            f"the statistics of {count} drifted, by up to {_drift(furthest):.2g} standard deviations",
            margin=(_drift(furthest) - self.drift) / error if error else float("inf"),
            severity=self.severity if _drift(furthest) > self.drift else Severity.INFO,
            where=names,
            onset_step=0,
            evidence=tuple(_evidence(record, found, self.drift)),
            remedies=(
                remedy("freeze-batch-norm", count=count, furthest=f"'{furthest['name']}'", shift=_drift(furthest),
                       lines=_names(names)),
                *(_prepared(record, found[0]) if _drift(found[0]) > self.inputs else ()),
            ),
        )  # fmt: skip


def _prepared(record: RunRecord, first: dict[str, Any]) -> Iterator[Remedy]:
    """Where the first statistics are far off, the inputs are prepared otherwise than for pretraining."""
    inputs = range_of(record, "input_stats", "train")
    now = f" (now: mean {inputs.mean:.3g}, deviation {inputs.sd:.3g})" if inputs is not None else ""
    yield remedy("prepare-as-pretrained", first=first["name"], shift=first["shift"], factor=np.exp(first["spread"]),
                 now=now)  # fmt: skip


def _drift(module: dict[str, Any]) -> float:
    """The larger of both, in standard deviations; infinite where the statistics are not finite any more."""
    worst = max(module["shift"], module["spread"], key=lambda v: v if np.isfinite(v) else np.inf)
    return float(worst) if np.isfinite(worst) else float("inf")


def _waver(record: RunRecord, module: dict[str, Any]) -> float:
    """Standard deviation of the difference of two running means over batches alike, in deviations of the samples."""
    run, momentum = record.facts.get("run", {}), module["momentum"]
    loader = record.facts.get("loaders", {}).get("train", {})  # while the run goes on
    batch = run["samples"] / run["steps"] if run.get("steps") else loader.get("batch_size") or 1
    share = 1 / max(1, module["training"]) if momentum is None else momentum / (2 - momentum)
    return float(np.sqrt(2 * share / max(1.0, batch)))


def _evidence(record: RunRecord, found: list[dict[str, Any]], threshold: float) -> Iterator[Evidence]:
    for m in sorted(found, key=lambda m: -_drift(m))[:SHOWN]:
        yield Evidence("drift of the running statistics", _drift(m), threshold, unit="standard deviations",
                       where=m["name"], step=record.steps,
                       note=f"mean by {m['shift']:.2g}, deviation times or over {np.exp(m['spread']):.3g}; "
                       f"{_waver(record, m):.2g} by the chance of batches")  # fmt: skip
    yield Evidence("channels whose statistics are updated", sum(m["channels"] for m in found), step=record.steps,
                   note=f"{len(found)} modules; gain and shift are not trained, nor anything below")  # fmt: skip


def _names(names: tuple[str, ...]) -> str:
    """Code that lists the modules."""
    if len(names) <= LISTED:
        return f"frozen = {list(names)!r}"
    starts = tuple(sorted({name.split(".")[0] for name in names}))
    return (
        f"frozen = [name for name, m in model.named_modules() if name.startswith({starts!r})\n"
        "          and isinstance(m, torch.nn.modules.batchnorm._BatchNorm)\n"
        "          and not any(p.requires_grad for p in m.parameters())]"
    )
