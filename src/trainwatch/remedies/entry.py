"""What an entry of the catalogue is."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter


@dataclass(frozen=True)
class RemedyEntry:
    """One remedy of the catalogue.

    Attributes:
        id: Stable identifier.
        title: Imperative headline; may hold ``{fields}``.
        why: Why it helps; may hold ``{fields}``.
        how: Code or steps; may hold ``{fields}``. Literal braces are doubled.
        strength: ``"strong"``, ``"moderate"`` or ``"weak"``.
        section: Section of the knowledge base.
    """

    id: str
    title: str
    why: str
    how: str
    strength: str
    section: str

    @property
    def fields(self) -> set[str]:
        """Names of the numbers that this remedy must be given."""
        texts = (self.title, self.why, self.how)
        return {name for text in texts for _, name, _, _ in Formatter().parse(text) if name}
