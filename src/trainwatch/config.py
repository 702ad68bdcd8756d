"""Settings: from keywords and from ``[tool.trainwatch]`` in ``pyproject.toml``."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from trainwatch.rules import Rule, all_rules

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ALL = ("TW",)
PROBE_MODES = ("auto", "off", "all")
NONFINITE_MODES = ("auto", "immediate", "off")
PROBE_KINDS = (
    "activations",
    "step_line",
    "train_eval",
    "one_batch",
    "without_regulariser",
    "lower_rate",
    "reference",
    "labels",
    "cut_off",
    "row_sizes",
    "learning_curve",
    "own_curve",
    "going_on",
    "higher_rate",
    "lower_start",
    "usual_start",
    "standard_targets",
    "standard_inputs",
    "wider",
    "prior",
    "shift",
    "backward_gain",
    "future",
    "gates",
    "gradient_noise",
    "rank",
    "saddle",
    "shaken",
    "sharpness",
    "tuning",
    "frozen_part",
    "sparsity",
    "small_changes",
    "input_importance",
    "votes",
)


class SettingsError(ValueError):
    """A setting that cannot be used; the text names it and the remedy."""


@dataclass(frozen=True)
class Settings:
    """How a run is watched and judged.

    Attributes:
        overhead: Share of the run's time that trainwatch may take, in (0, 1); there is a floor of 100 us a step.
            After 2,000 steps or 20 s, short steps are watched in stretches, as many as that allows.
        probes: ``"auto"`` (what the rules ask for, within the budget), ``"off"``, kind -> every how many steps (these
            alone, and once more at the end), or ``"all"``: every one at each flush, which may take many times as long
            as the training.
        probe_memory: Bytes that a probe's copy of the model and the held batches may take, on the model's device.
        nonfinite: When losses and gradients are looked at to run the first batch that makes one NaN or infinite again
            and name the operation: ``"auto"`` at every step on the CPU, on other devices after steps that a gradient
            scaler skips in a row; ``"immediate"`` at every step, which waits for the device; ``"off"`` never.
        flush_every: Optimiser steps between two reads of the device and writes of the record.
        strict: Raise trainwatch's own faults instead of containing them. For tests.
        select: Codes or prefixes of codes of the rules to run, such as ``"TW3"``.
        ignore: Code or name of a rule -> the reason why it is not run, which the report prints.
        rules: Code or name of a rule -> threshold -> value.
        quiet: Print nothing: neither live notices nor the report at the end.

    Raises:
        SettingsError: A value cannot be used, or a rule or threshold is unknown (the nearest match is named).
    """

    overhead: float = 0.02
    probes: str | Mapping[str, int] = "auto"
    probe_memory: int = 256 << 20
    nonfinite: str = "auto"
    flush_every: int = 50
    strict: bool = False
    select: tuple[str, ...] = ALL
    ignore: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quiet: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.overhead, bool) or not isinstance(self.overhead, (int, float)) or not 0 < self.overhead < 1:
            raise SettingsError(f"overhead must be a share of the run's time between 0 and 1, got {self.overhead!r}")
        if isinstance(self.flush_every, bool) or not isinstance(self.flush_every, int) or self.flush_every < 1:
            raise SettingsError(f"flush_every must be a whole number of steps, at least 1, got {self.flush_every!r}")
        if isinstance(self.probe_memory, bool) or not isinstance(self.probe_memory, int) or self.probe_memory < 0:
            raise SettingsError(f"probe_memory must be a number of bytes, got {self.probe_memory!r}")
        if not isinstance(self.probes, Mapping) and self.probes not in PROBE_MODES:
            modes = ", ".join(PROBE_MODES)
            raise SettingsError(f"probes must be one of {modes} or a mapping of kind -> steps, got {self.probes!r}")
        for kind, every in () if isinstance(self.probes, str) else dict(self.probes).items():
            if kind not in PROBE_KINDS:
                raise SettingsError(f"there is no probe {kind!r}{_nearest(str(kind), PROBE_KINDS)}")
            if isinstance(every, bool) or not isinstance(every, int) or every < 1:
                raise SettingsError(f"probe {kind!r} must run every so many steps, at least 1, got {every!r}")
        if self.nonfinite not in NONFINITE_MODES:
            raise SettingsError(f"nonfinite must be one of {', '.join(NONFINITE_MODES)}, got {self.nonfinite!r}")
        for name in ("strict", "quiet"):
            if not isinstance(getattr(self, name), bool):
                raise SettingsError(f"{name} must be True or False, got {getattr(self, name)!r}")
        several = isinstance(self.select, Iterable) and not isinstance(self.select, str)
        if not several or not all(isinstance(s, str) for s in self.select):
            raise SettingsError(f"select must be a sequence of codes or prefixes such as ('TW3',), got {self.select!r}")
        object.__setattr__(self, "select", tuple(self.select))
        for prefix in self.select:
            if prefix not in ALL and not any(code.startswith(prefix) for code in all_rules()):
                raise SettingsError(f"select: no rule's code starts with {prefix!r}{_nearest(prefix, all_rules())}")
        if not isinstance(self.ignore, Mapping):
            raise SettingsError(f"ignore must map rules to reasons, such as {{'TW101': 'known'}}, got {self.ignore!r}")
        if not isinstance(self.rules, Mapping) or not all(isinstance(v, Mapping) for v in self.rules.values()):
            raise SettingsError(f"rules must map a rule to its thresholds, got {self.rules!r}")
        object.__setattr__(self, "ignore", {rule_named(k).code: str(v) for k, v in self.ignore.items()})
        object.__setattr__(self, "rules", {rule_named(k).code: dict(v) for k, v in self.rules.items()})
        self.active_rules()

    def active_rules(self) -> list[Rule]:
        """The selected rules with their thresholds set, in order of code."""
        return [
            configured(cls, self.rules.get(code, {}))
            for code, cls in all_rules().items()
            if code not in self.ignore
            and any(code.startswith(s) for s in self.select)
            and (cls.status == "stable" or code in self.select)
        ]


def rule_named(name: str) -> type[Rule]:
    """The rule of this code or name.

    Raises:
        SettingsError: There is none; the nearest match is named.
    """
    for code, cls in all_rules().items():
        if str(name).lower() in (code.lower(), cls.name):
            return cls
    known = [n for code, cls in all_rules().items() for n in (code, cls.name)]
    raise SettingsError(f"there is no rule {name!r}{_nearest(str(name), known)}; `trainwatch rules` lists them")


def configured(cls: type[Rule], thresholds: Mapping[str, Any]) -> Rule:
    """A rule with some thresholds changed.

    Raises:
        SettingsError: A threshold is unknown or of the wrong type.
    """
    default = cls()
    known = {f.name: getattr(default, f.name) for f in fields(default)}
    for name, value in thresholds.items():
        if name not in known:
            raise SettingsError(f"rule {cls.code} {cls.name} has no threshold {name!r}{_nearest(name, known)}")
        wanted = type(known[name])
        number = wanted in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number and not isinstance(value, wanted):
            raise SettingsError(
                f"threshold {name!r} of rule {cls.code} {cls.name} must be of type {wanted.__name__}, got {value!r}"
            )
        if number and not math.isfinite(value):
            raise SettingsError(f"threshold {name!r} of rule {cls.code} {cls.name} must be finite, got {value!r}")
        if number and wanted is int and value != int(value):
            raise SettingsError(f"threshold {name!r} of rule {cls.code} {cls.name} must be whole, got {value!r}")
    return replace(default, **{n: int(v) if type(known[n]) is int else v for n, v in thresholds.items()})


def load_settings(start: Path | None = None, **overrides: Any) -> Settings:
    """Settings from the nearest ``pyproject.toml`` at or above a directory, overridden by keywords.

    Args:
        start: Where to begin; the working directory by default.
        overrides: Fields of `Settings`.

    Raises:
        SettingsError: The file cannot be read, or a setting cannot be used; the text names the file.
    """
    start = (start or Path.cwd()).resolve()
    file = next((p for d in (start, *start.parents) if (p := d / "pyproject.toml").is_file()), None)
    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("trainwatch", {})
        except (OSError, ValueError) as error:
            raise SettingsError(f"cannot read {file}: {error}") from None
    try:
        return make_settings({**found, **overrides})
    except SettingsError as error:
        raise SettingsError(f"{error} (in [tool.trainwatch] of {file})" if found else str(error)) from None


def settings_from(settings: Settings | Mapping[str, Any] | None) -> Settings:
    """`Settings` as they are, or some of their fields over those of ``pyproject.toml``.

    Raises:
        TypeError: `settings` is neither.
        SettingsError: A field is unknown or cannot be used.
    """
    if isinstance(settings, Settings):
        return settings
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(f"settings must be trainwatch.Settings or a dict of its fields, got {settings!r}")
    return load_settings(**(settings or {}))


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Settings from a mapping.

    Raises:
        SettingsError: A key is no setting (the nearest match is named), or a value cannot be used.
    """
    known = [f.name for f in fields(Settings)]
    for name in values:
        if name not in known:
            raise SettingsError(f"there is no setting {name!r}{_nearest(name, known)}")
    return Settings(**values)


def _nearest(name: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
