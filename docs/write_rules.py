"""Writes `docs/rules` and `docs/remedies.md` anew from the code: run it after a rule or a remedy has changed.

python docs/write_rules.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from trainwatch.remedies import CATALOGUE
from trainwatch.rules import all_rules
from trainwatch.rules.page import page

FOLDER = Path(__file__).parent / "rules"
REMEDIES = Path(__file__).parent / "remedies.md"
INTRODUCTION = """\
# The diagnoses

What each code means, how it is measured, what to do about it, and when it is no fault. `trainwatch explain CODE` prints
the same pages. Written by `docs/write_rules.py` from the rules themselves.

| code | name | severity | in one sentence |
|---|---|---|---|
"""
ABOUT_REMEDIES = """\
# The remedies

By id. A report shows those that fit its findings, with numbers of that very run where names stand in braces here, and
marks what is in use already. `trainwatch explain ID` prints the same. Written by `docs/write_rules.py`.
"""


def pages() -> dict[str, str]:
    """File name -> text, of every rule that this project holds, and of their table of contents."""
    own = {code: rule for code, rule in all_rules().items() if rule.__module__.startswith("trainwatch.rules.")}
    names = {code: f"{rule.__module__.rpartition('.')[2]}.md" for code, rule in own.items()}
    found = {names[code]: page(rule) + "\n" for code, rule in own.items()}
    rows = [
        f"| [{code}]({names[code]}) | {rule.name} | {rule.severity} | {(rule.__doc__ or '').splitlines()[0]} |\n"
        for code, rule in own.items()
    ]
    return {"README.md": INTRODUCTION + "".join(rows)} | found


def remedies() -> str:
    """The text of `docs/remedies.md`."""
    pages = [CATALOGUE[id].page() for id in sorted(CATALOGUE)]
    return ABOUT_REMEDIES + "".join(f"\n{text}\n" for text in pages)


def main() -> None:
    """Write the pages, and take away those of rules that are gone."""
    REMEDIES.write_text(remedies(), encoding="utf-8")
    FOLDER.mkdir(exist_ok=True)
    written = pages()
    for name, text in written.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for old in FOLDER.glob("*.md"):
        if old.name not in written:
            old.unlink()
    sys.stdout.write(f"{len(written)} pages in {FOLDER}\n")


if __name__ == "__main__":
    main()
