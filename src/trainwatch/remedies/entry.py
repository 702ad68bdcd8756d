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
        lightning: The same for a run under Lightning, where it differs; may hold ``{fields}`` of the others.
        when: Where it fits.
        not_when: Where it does not.
        strength: ``"strong"``, ``"moderate"`` or ``"weak"``.
        section: Section of the knowledge base.
    """

    id: str
    title: str
    why: str
    how: str
    strength: str
    section: str
    when: str = ""
    not_when: str = ""
    lightning: str = ""

    @property
    def fields(self) -> set[str]:
        """Names of the numbers that this remedy must be given."""
        texts = (self.title, self.why, self.how, self.lightning)
        return {name for text in texts for _, name, _, _ in Formatter().parse(text) if name}

    def page(self) -> str:
        """The entry as markdown, with its fields in braces where a report has numbers."""
        code = f"```python\n{self.how.format_map(_Named())}\n```"
        if self.lightning:
            code += f"\n\nUnder Lightning:\n\n```python\n{self.lightning.format_map(_Named())}\n```"
        return (
            f"## {self.id}\n\n**{self.title.format_map(_Named())}** ({self.strength}, {self.section})\n\n"
            f"{self.why.format_map(_Named())}\n\nFits where: {self.when}\n\nDoes not where: {self.not_when}\n\n{code}"
        )


class _Named(dict[str, "_Named"]):
    """Stands for each number by its name in braces, whatever its format."""

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self._name = name

    def __missing__(self, name: str) -> _Named:
        return _Named(name)

    def __format__(self, how: str) -> str:
        return f"{{{self._name}}}"
