"""TW306: gates that never open, never shut or have no slope, and attention that has run into one entry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.stuck import FLAT, HIGH, LOW, OPEN, SHARP, SHUT, Stuck
from trainwatch.symptoms.gates import Gate, attentions_of, gates_of
from trainwatch.symptoms.losses import LossCourse, loss_course

EFFECTS = ("TW204", "TW205", "TW208", "TW301", "TW305", "TW401", "TW402", "TW602")
SHOWN = 3


@dataclass(frozen=True)
class StuckGates(Rule):
    """Most gates of a layer are stuck, or its attention looks at one entry, and the net has not learned much.

    ## Symptom
    `many` of the units of a gate are stuck for all samples, positions and time steps that were looked at: input, forget
    or output gates of an LSTM near 0, update gates of a GRU near 1, factors of a product (squeeze-excite, GLU) near 0.
    Or the rows of an attention have their whole weight on one entry, `sharp` of them. And less than `learned` of the
    loss of a constant guess is gone. Or less than `little` is gone, and `flat` of the entries of a recurrent gate lie
    there, or of each gate of a recurrent layer near 0 or 1; `single` of those of a product that are not just open.

    ## Why it hurts
    A gate that is shut lets neither the signal nor its gradient through; a state that is only kept never takes in
    anything. On its flat ends a gate has no slope, so training cannot turn it. The same holds of a softmax that has run
    into one entry.

    ## How it is measured
    `gates` and `attention`, by a probe on held training batches in evaluation mode: gates of LSTM and GRU are computed
    again from what the module was given; factors of element-wise products are those that a sigmoid, hard sigmoid or
    tanh made; of fused attention the rows are computed again. Near 0 is below 0.02, and below 1 / T for sequences of T
    steps; a row is sharp above 0.99. Judged from `entries` samples times positions on. The source calls self-attention,
    depthwise convolution and graph convolution products of this kind, too; strictly they are sums over entries.

    ## Remedies
    `forget-gate-bias`, `initialisation`, `layer-norm`; for attention `qk-norm`.

    ## Not a fault when
    The net learns: forget gates near 1 are there to remember; sharp heads, open gates and gates at either end are
    common in trained nets. A gate of a product that is always open leaves a plain layer behind, which learns as one.

    ## Sources
    §12; Gers, Schmidhuber and Cummins, "Learning to forget" (2000); Jozefowicz, Zaremba and Sutskever, "An empirical
    exploration of recurrent network architectures" (2015); Zhai et al., "Stabilizing transformer training by preventing
    attention entropy collapse" (2023).
    """

    code: ClassVar[str] = "TW306"
    name: ClassVar[str] = "stuck-gates"
    section: ClassVar[str] = "§12"
    needs: ClassVar[tuple[str, ...]] = ("train_loss",)
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    many: float = 0.7
    flat: float = 0.7
    single: float = 0.9
    sharp: float = 0.95
    learned: float = 0.75
    little: float = 0.4
    entries: int = 50

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Look at gates and attention, the sooner the less the net has learned; not where there is none."""
        course = record.memo(loss_course)
        if course is not None and record.facts.get("gates") != {}:
            stuck = course.gained < self.learned
            reason = "the loss is not low: are gates stuck?" if stuck else "the health of gates and attention"
            yield ProbeRequest("gates", (), reason, 0.9 if stuck else 0.15)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare what is stuck in each gate and attention with the thresholds."""
        course, known = record.memo(loss_course), record.facts.get("gates")
        if course is None:
            raise NotChecked("no training loss was seen")
        if known is None:
            raise NotChecked(f"not measured: {record.facts.get('switched_off', {}).get('gates', 'no probe looked')}")
        gates, attentions = record.memo(gates_of), record.memo(attentions_of)
        judged = [g for g in gates if g.entries >= self.entries]
        rows = [a for a in attentions if a.rows >= self.entries * a.heads]
        if known and not judged and not rows:
            reasons = [
                f"{facts['reason']}: its gates were not computed" for facts in known.values() if "reason" in facts
            ]
            raise NotChecked([*reasons, f"too few samples were held; {self.entries} are needed"][0])
        if course.gained >= self.learned:
            return
        sharp = [Stuck(a, SHARP, a.sharp, self.sharp, a.first, a.rows) for a in rows if a.sharp >= self.sharp]
        stuck = [*self._stuck(judged)]
        if course.gained < self.little:
            stuck += [*self._mostly(judged), *self._flat(judged)]
        for found in (stuck, sharp):
            if found:
                yield self._found(record, course, found)

    def _stuck(self, gates: Iterable[Gate]) -> Iterator[Stuck]:
        """Gates most of whose units are stuck at an end that blocks."""
        for gate in gates:
            if gate.blocks_shut and gate.shut >= self.many:
                yield Stuck(gate, SHUT, gate.shut, self.many, gate.first[0], gate.units)
            elif gate.blocks_open and gate.open >= self.many:
                yield Stuck(gate, OPEN, gate.open, self.many, gate.first[1], gate.units)

    def _mostly(self, gates: Iterable[Gate]) -> Iterator[Stuck]:
        """Gates of a recurrent layer most of whose entries lie at an end that blocks, though of no unit all."""
        for gate in gates:
            if not gate.recurrent or [*self._stuck([gate])]:
                continue
            if gate.blocks_shut and gate.low >= self.flat:
                yield Stuck(gate, LOW, gate.low, self.flat, gate.first[2], gate.entries)
            elif gate.blocks_open and gate.high >= self.flat:
                yield Stuck(gate, HIGH, gate.high, self.flat, gate.first[2], gate.entries)

    def _flat(self, gates: Iterable[Gate]) -> Iterator[Stuck]:
        """Gates at their flat ends: of a recurrent layer where all are, of products where they are not just open."""
        for _, group in groupby(gates, key=lambda g: (g.module, g.place if g.recurrent else g.site)):
            together = list(group)
            if [*self._stuck(together), *self._mostly(together)]:
                continue
            least, limit = min(together, key=lambda g: g.extreme), self.flat if together[0].recurrent else self.single
            if least.extreme >= limit and (least.recurrent or least.open <= 1 - self.many):
                yield Stuck(least, FLAT, least.extreme, limit, least.first[2], least.entries)

    def _found(self, record: RunRecord, course: LossCourse, found: list[Stuck]) -> Diagnosis:
        worst = max(found, key=lambda s: s.share)
        named = ", ".join(f"{s.share:.0%} of {s.what} '{s.place.site}' {s.how}" for s in found[:SHOWN])
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        place, goal = worst.place, self.learned if worst.how in (SHUT, OPEN, SHARP) else self.little
        return self.diagnose(
            f"{named}{more}; the loss went {course.story}",
            margin=min(worst.margin, (goal - course.gained) / course.gained_error, 1e3),
            where=tuple(dict.fromkeys(s.place.module or s.place.site for s in found)),
            onset_step=place.first_step if worst.first >= worst.limit else place.step,
            evidence=(
                Evidence(f"share {worst.how}", worst.share, worst.limit, where=place.site, step=place.step,
                         note=place.note),
                Evidence("at the first probe", worst.first, where=place.site, step=place.first_step),
                Evidence("share of the loss that training removed", course.gained, goal, where=course.stream),
            ),
            remedies=tuple(worst.remedies(record, found)),
        )  # fmt: skip
