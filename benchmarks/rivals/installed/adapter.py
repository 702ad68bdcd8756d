"""What an adapter is, and the log that a user would keep."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:  # who only reads logs need not load torch
    from torch import Tensor, nn
    from torch.optim import Optimizer


Said = list[tuple[str, str]]
"""Alarms of a run, the first-ranked first: name and severity, ``info`` or ``warning`` (and all above)."""

PUBLISHED = "published"


@dataclass
class Log:
    """Numbers by step, as they are logged to TensorBoard or a file.

    Attributes:
        loss: Of the training batch, one value a step.
        grad_norm: Of all gradients as the optimiser meets them.
        lr: Of the first group.
        validation: Step -> mean validation loss.
    """

    loss: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    validation: dict[int, float] = field(default_factory=dict)

    def points(self, loss: str, lr: str, grad_norm: str, validation: str) -> Iterator[tuple[str, int, float]]:
        """Metric, step and value of all that was logged, in order, under the names that are given."""
        for step, values in enumerate(zip(self.loss, self.lr, self.grad_norm, strict=True)):
            yield from ((metric, step, value) for metric, value in zip((loss, lr, grad_norm), values, strict=True))
        yield from ((validation, step, value) for step, value in self.validation.items())


class Adapter:
    """One package on one run; whatever it need not know it leaves out.

    Attributes:
        codes: Name of an alarm -> diagnoses that it may be read as.
        settings: Name of a setting -> the thresholds that it moves; the first is the published one.
    """

    codes: ClassVar[Mapping[str, frozenset[str]]]
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {PUBLISHED: {}}

    def __init__(self, model: nn.Module | None = None, optimizer: Optimizer | None = None) -> None:
        """Attach; a reader of logs needs neither."""
        self.model, self.optimizer = model, optimizer

    def before_step(self, step: int, inputs: Any, targets: Tensor, loss: float) -> None:
        """The gradients are there, the step is not taken."""

    def after_step(self, step: int, loss: float) -> None:
        """The step is taken."""

    def finish(self, log: Log) -> None:
        """The training is over; `log` is all of it."""

    def judge(self, log: Log, **thresholds: Any) -> Said:
        """Alarms under some thresholds, after `finish`."""
        raise NotImplementedError


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Packages print, log and warn."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def once(said: Said) -> Said:
    """Each alarm once, where it stands first; as a warning if it ever was one."""
    worst = {name for name, severity in said if severity != "info"}
    return [(name, "warning" if name in worst else "info") for name in dict.fromkeys(name for name, _ in said)]


def read_as(by_name: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Codes of each alarm, told as the numbers behind TW."""
    return {name: frozenset(f"TW{number}" for number in text.split()) for name, text in by_name.items()}


UNSTABLE = "601 603 604 302 303 403 704 107 108"
STUCK = "107 108 204 208 301 304 305 309 401 402 601 602 703 704 705 706"
OVERFITTED = "201 202 203 207"
