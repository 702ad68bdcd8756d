"""Why runs of the tuning half are not judged as they should be, as told in `reasons.toml`."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.zoo.score import Outcome

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REASONS = Path(__file__).with_name("reasons.toml")


@dataclass(frozen=True)
class Mistake:
    """Runs of one form of the tuning half that are not judged as they should be.

    Attributes:
        form: FAMILY/FORM.
        seeds: Of which runs.
        truth: Codes of the truth; empty for a sound run.
        wrong: What is wrong about what was said.
        why: The reason, empty where none is told.
    """

    form: str
    seeds: tuple[int, ...]
    truth: str
    wrong: str
    why: str


def reasons(path: Path = REASONS) -> dict[str, str]:
    """Pattern of runs -> reason."""
    return dict(tomllib.loads(path.read_text(encoding="utf-8")))


def mistakes(outcomes: Sequence[Outcome], known: Mapping[str, str]) -> list[Mistake]:
    """All mistakes with their reasons; what is alike in runs of one form is told once.

    Raises:
        ValueError: An outcome is one of the held-out half, whose cases are not to be looked at.
    """
    if any(o.scenario.half != "tuning" for o in outcomes):
        raise ValueError("cases of the held-out half are not to be looked at")
    told: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for o in outcomes:
        if o.wrong:
            form = f"{o.scenario.family}/{o.scenario.form}"
            why = _why(f"{form}-{o.seed}", known)
            told[form, "/".join(o.scenario.truth), "; ".join(o.wrong), why].append(o.seed)
    return [Mistake(form, tuple(seeds), truth, wrong, why) for (form, truth, wrong, why), seeds in sorted(told.items())]


def outdated(found: Sequence[Mistake], known: Mapping[str, str]) -> list[str]:
    """Patterns that fit no mistake any more."""
    runs = [f"{m.form}-{seed}" for m in found for seed in m.seeds]
    return [pattern for pattern in known if not any(fnmatchcase(run, pattern) for run in runs)]


def _why(run: str, known: Mapping[str, str]) -> str:
    return next((why for pattern, why in known.items() if fnmatchcase(run, pattern)), "")
