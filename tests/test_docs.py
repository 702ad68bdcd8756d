"""The documents say what the code does."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))

from write_rules import REMEDIES, pages, remedies  # noqa: E402


def test_the_pages_of_the_rules_are_as_the_rules_are():
    written = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "rules").glob("*.md")}
    assert written.keys() == pages().keys(), "python docs/write_rules.py"
    for name, text in pages().items():
        assert written[name] == text, f"{name}: python docs/write_rules.py"


def test_the_page_of_the_remedies_is_as_the_catalogue_is():
    assert REMEDIES.read_text(encoding="utf-8") == remedies(), "python docs/write_rules.py"


def test_the_tests_that_compatibility_names_are_there():
    named, file = [], ""
    for path, test in re.findall(
        r"`((?:\w+/)*test_\w+\.py)?(?:::(test_\w+))?`", (DOCS / "compatibility.md").read_text()
    ):
        file = path or file
        named += [(file, test)] if path or test else []
    assert len(named) > 50
    texts = {file: (DOCS.parent / "tests" / file).read_text(encoding="utf-8") for file, _ in named}
    missing = [f"{file}::{test}" for file, test in named if test and f"def {test}(" not in texts[file]]
    assert not missing
