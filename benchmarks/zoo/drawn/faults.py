"""Faults that are planted into drawn recipes, and the codes any of which names one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.zoo.scenario import Scenario, changed

MEASURED = ("breast_cancer", "wine", "diabetes", "segments", "cars", "shuttle")  # features in units of their own


@dataclass(frozen=True)
class Fault:
    """A change that may do harm; whether it does is measured.

    Attributes:
        codes: Any of these names it.
        planted: The recipe with the change.
        fits: Recipes that it can be planted into.
    """

    codes: tuple[str, ...]
    planted: Callable[[Scenario], Scenario]
    fits: Callable[[Scenario], bool] = lambda _: True

    def plant(self, scenario: Scenario, name: str) -> Scenario:
        """The recipe as a faulty form of that name."""
        return replace(self.planted(scenario), form=name, planted=True, truth=self.codes)


def _with(**parts: dict[str, Any]) -> Callable[[Scenario], Scenario]:
    return lambda s: changed(s, **parts)


def _rate(factor: float) -> Callable[[Scenario], Scenario]:
    return lambda s: _with(optimizer={"lr": factor * s.optimizer.lr})(s)


def _passes(factor: float) -> Callable[[Scenario], Scenario]:
    return lambda s: _with(loop={"epochs": min(250, max(2, round(factor * s.loop.epochs)))})(s)


def _held_back_by_nothing(s: Scenario) -> Scenario:
    free = _with(data={"noise": 0.0}, model={"dropout": 0.0}, loss={"smoothing": 0.0})(s)
    return _with(optimizer={"weight_decay": 0.0, "schedule": "none"})(free)


def _fewer(s: Scenario, samples: int) -> Scenario:
    """About as many steps on fewer samples."""
    passes = min(200, round(s.loop.epochs * min(4, s.data.train / samples)))
    return _with(data={"train": samples}, loop={"epochs": passes, "batch": min(16, s.loop.batch)})(s)


def _classes(s: Scenario) -> bool:
    return s.loss.name in ("cross_entropy", "bce_logits") and s.data.name != "text"


def _uneven(s: Scenario) -> bool:
    return _classes(s) and s.data.name != "coins"


def _layered(s: Scenario) -> bool:
    return s.model.kind in ("mlp", "cnn")


def _deep(s: Scenario) -> bool:
    return s.model.kind == "mlp"


def _many(s: Scenario) -> bool:
    return s.data.train >= 300 and s.data.name != "text"


FALLEN = ("TW201", "TW202", "TW203")
FIRST = ("0", "body.0", "net.0", "layers.0")  # how names of the first layer begin
FAULTS: dict[str, Fault] = {
    "four_times_as_long": Fault(FALLEN, lambda s: _passes(4)(_held_back_by_nothing(s))),
    "eight_times_as_long": Fault(FALLEN, lambda s: _passes(8)(_held_back_by_nothing(s)), lambda s: s.loop.epochs < 40),
    "long_at_twice_the_rate": Fault(FALLEN, lambda s: _rate(2)(_passes(3)(_held_back_by_nothing(s)))),
    "a_fifth_of_the_samples": Fault(("TW207",), lambda s: _fewer(s, s.data.train // 5), _many),
    "sixty_samples": Fault(("TW207",), lambda s: _fewer(s, 60), _many),
    "a_rare_class": Fault(("TW101", "TW102", "TW103"), _with(data={"keep": {"0": 0.06}}), _uneven),
    "a_class_rare_in_training": Fault(("TW101", "TW102", "TW103"),
                                      _with(data={"keep": {"1": 0.1}, "val_keep": {"1": 0.3}}), _uneven),
    "wrong_training_labels": Fault(("TW106",), _with(data={"flips": 0.15}), _classes),
    "wrong_labels": Fault(("TW106",), _with(data={"flips": 0.3, "val_flips": 0.3}), _classes),
    "a_sixth_of_the_passes": Fault(("TW205", "TW602"), _passes(1 / 6), lambda s: s.loop.epochs >= 8),
    "a_thirtieth_of_the_rate": Fault(("TW602", "TW205"), _rate(1 / 30)),
    "thirty_times_the_rate": Fault(("TW601", "TW603", "TW403", "TW302", "TW303", "TW304"), _rate(30)),
    "two_units": Fault(("TW204",), lambda s: _with(model={"hidden": (2,) * len(s.model.hidden)})(s),
                       lambda s: s.model.kind in ("mlp", "cnn", "gru", "lstm")),
    "an_l1_term": Fault(("TW206", "TW501"), _with(loss={"l1": 0.02})),
    "strong_decay": Fault(("TW206",), lambda s: _with(
        optimizer={"weight_decay": 3.0 if s.optimizer.name == "AdamW" else 0.1})(s)),
    "strong_dropout": Fault(("TW206",), _with(model={"dropout": 0.85}),
                            lambda s: s.model.kind in ("mlp", "cnn", "glu")),
    "deep_sigmoids": Fault(("TW301", "TW309", "TW402"), _with(
        model={"hidden": (32,) * 7, "activation": "Sigmoid", "norm": "none", "residual": False}), _deep),
    "large_weights_of_tanh": Fault(("TW305", "TW309"), _with(
        model={"activation": "Tanh", "norm": "none", "init": "normal", "gain": 1.0}), _layered),
    "units_below_zero": Fault(("TW304", "TW309"), _with(
        model={"activation": "ReLU", "norm": "none", "shift": -2.5}), _layered),
    "inputs_as_measured": Fault(("TW107", "TW309", "TW601"), _with(data={"scale": "raw"}),
                                lambda s: s.data.name in MEASURED),
    "targets_as_measured": Fault(("TW108",), _with(data={"target": "raw"}),
                                 lambda s: s.data.name in ("diabetes", "friedman", "cars")),
    "a_slow_first_layer": Fault(("TW307",), _with(optimizer={"rates": dict.fromkeys(FIRST, 1e-3)}),
                                lambda s: _layered(s) and len(s.model.hidden) > 1),
    "clipped_to_a_hundredth": Fault(("TW308",), _with(loop={"clip": 0.01}), lambda s: s.optimizer.name == "SGD"),
    "weights_four_times_too_large": Fault(("TW309", "TW302"), _with(
        model={"init": "kaiming", "gain": 4.0, "norm": "none"}), _layered),
    "weights_of_a_thousandth": Fault(("TW309", "TW401", "TW402"), _with(
        model={"init": "normal", "gain": 1e-3, "norm": "none", "residual": False}), _deep),
}  # fmt: skip
