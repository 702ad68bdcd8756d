"""TW705: parameters that no optimiser trains, though they were never trained before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.symptoms.cut_off import cut_off, without_gradient

SHOWN = 5
EFFECTS = ("TW204", "TW205", "TW208", "TW301", "TW401", "TW402", "TW602", "TW102", "TW101")


@dataclass(frozen=True)
class ParametersLeftOut(Rule):
    """Layers take part in the net as they were initialised, at random, and stay so.

    ## Symptom
    After at least `steps` steps: weights that receive gradients are in no optimiser; weights are frozen and look
    untrained; layers are held in a plain list, where `model.parameters()` does not find them; the optimiser holds
    parameters that are not the model's and get no gradient, as when layers were replaced after it was built; layers in
    an optimiser never get a gradient, though the loss changes by more than `change` where their weights are changed; or
    one of several optimisers took no step by the end of the run.

    ## Why it hurts
    A random layer passes on some of what it is given, so the loss does fall, to a level that only this layer explains.
    What is not registered is neither moved to the device nor saved in a checkpoint.

    ## How it is measured
    The parameters of model, optimiser and autograd graph are compared by identity. A weight looks untrained where its
    entries are still noise: they have the hard edges of a uniform distribution, or the largest singular value of a
    random matrix beside an untouched bias. Its first entries are compared again as the run goes on. Where a
    normalisation layer of the model has gains that differ, or statistics of some batches, the model was trained before.
    Layers of an optimiser that never had a gradient are changed in a copy, by a probe (`cut_off`).

    ## Remedies
    `optimise-all-parameters`, `register-layers`, `unfreeze-layers`, `let-gradients-through`, `step-every-optimizer`.

    ## Not a fault when
    The weights carry training: a pretrained body that is frozen, or not given to the optimiser, on purpose (info, where
    gradients are computed for nothing). They change by other means, as an average over another network does.

    ## Sources
    §11; documentation of `torch.nn.ModuleList`; Marchenko and Pastur, "Distribution of eigenvalues for some sets of
    random matrices" (1967).
    """

    code = "TW705"
    name = "parameters-left-out"
    section = "§11"
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    steps: int = 8
    change: float = 1e-3

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Change layers of the optimiser that no gradient reaches, and see whether the loss minds."""
        if record.steps >= self.steps and record.memo(without_gradient):
            yield ProbeRequest("cut_off", (), "does the loss depend on layers without a gradient?", 0.9)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if "parameters" not in record.facts:
            raise NotChecked("the parameters could not be read (see TW000)")
        known = record.facts.get("left_out")
        if record.steps < self.steps:
            return
        yield from self._cut_off(record)
        yield from self._idle(record)
        if known is None:
            return
        outside = [p for p in known["parameters"] if not p["moved"]]
        owners = {_module(p) for p in outside if p["fresh"]}
        forgotten = [p for p in outside if not p["frozen"] and p["used"]]
        foreign = {k: f for k, f in known["foreign"].items() if not f["with_gradient"]}
        if fresh := [p for p in forgotten if _module(p) in owners]:
            yield self._found(
                record,
                fresh,
                "in no optimiser, though gradients reach it"
                + ("; the optimiser holds parameters that are not the model's" if foreign else ""),
                "optimise-all-parameters",
                Severity.ERROR if foreign else Severity.WARNING,
            )
        elif forgotten:
            yield self._found(record, forgotten, "in no optimiser; gradients are computed for nothing",
                              "optimise-all-parameters", Severity.INFO)  # fmt: skip
        if frozen := [p for p in outside if p["frozen"] and p["fresh"]]:
            yield self._found(record, frozen, "frozen, yet as it was initialised", "unfreeze-layers", Severity.WARNING)
        if hidden := [p for p in known["unregistered"] if p["used"]]:
            yield self._found(record, hidden, "unknown to model.parameters(), so in no optimiser", "register-layers",
                              Severity.ERROR)  # fmt: skip

    def _cut_off(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Layers that the loss depends on and no gradient reaches; in a net that was trained before it may be meant."""
        cut = [one for one in record.memo(cut_off) if one.change > self.change]
        if cut:
            trained = record.facts.get("start_weights", {}).get("trained")
            some = [{"name": f"{one.module}.weight", "numel": one.numel} for one in cut]
            how = "in the optimiser, and the loss depends on it, but no gradient ever reached it"
            severity = Severity.INFO if trained else Severity.ERROR
            yield self._found(record, some, how, "let-gradients-through", severity)

    def _idle(self, record: RunRecord) -> Iterator[Diagnosis]:
        """What is held by an optimiser that never stepped, and by no other."""
        run = record.facts.get("run", {})
        if not run.get("finished"):
            return
        idle = [key for key, steps in run.get("steps_of", {}).items() if not steps]
        held = {key: set(known["parameters"]) for key, known in record.facts.get("optimizers", {}).items()}
        trained = set().union(*(some for key, some in held.items() if key not in idle))
        for key in idle:
            if some := [p for i in sorted(held[key] - trained) if (p := record.facts["parameters"][i])["trainable"]]:
                how = f"held by the optimizer {key!r}, which never took a step in {record.steps}"
                yield self._found(record, some, how, "step-every-optimizer", Severity.ERROR, key)

    def _found(
        self, record: RunRecord, found: list[dict[str, Any]], how: str, advice: str, severity: Severity,
        optimizer: str = "",
    ) -> Diagnosis:  # fmt: skip
        modules = list(dict.fromkeys(_module(p) or p["name"] for p in found))
        named = ", ".join(modules[:SHOWN]) + (f" and {len(modules) - SHOWN} more" if len(modules) > SHOWN else "")
        count = sum(p["numel"] for p in found)
        registered = {p["name"]: p["numel"] for p in record.facts["parameters"]}
        everything = sum(({p["name"]: p["numel"] for p in found} | registered).values())
        held = record.facts.get("optimizers", {}).values()
        kind, rate = next(((o["type"], o["groups"][0].get("lr")) for o in held if o["groups"]), ("Adam", None))
        return self.diagnose(
            f"{named}: {how}",
            margin=float("inf"),
            severity=severity,
            where=tuple(modules),
            onset_step=0,
            evidence=(
                Evidence("share of the parameters that is not trained", 100 * count / max(everything, 1), unit="%",
                         where=named, step=record.steps, note=f"{count:,} of {everything:,}"),
            ),
            remedies=(
                remedy(advice, layers=named, count=f"{count:,}", optimizer=optimizer or kind,
                       rate=f"{rate or 1e-3:.3g}", first=modules[0]),
            ),
        )  # fmt: skip


def _module(parameter: dict[str, Any]) -> str:
    return str(parameter["name"]).rpartition(".")[0]
