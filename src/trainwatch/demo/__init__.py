"""Real training runs on real data, each with one planted fault: see it be found."""

from __future__ import annotations

import enum


class Fault(str, enum.Enum):
    """What is planted in a demo. The setup of each is in the module of its name."""

    OVERFIT = "overfit"
    VANISH = "vanish"
    EXPLODE = "explode"
    IMBALANCE = "imbalance"
    NONE = "none"

    @property
    def code(self) -> str | None:
        """Code that the first cause of the report must be or lead to: of gradients that explode, their cause."""
        codes = {"overfit": "TW201", "vanish": "TW301", "explode": "TW309", "imbalance": "TW101"}
        return codes.get(self.value)
