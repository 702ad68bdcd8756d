"""The page of topics: whole, and every name in it exists."""

import re
from pathlib import Path

import pytest

from trainwatch.demo import Fault
from trainwatch.remedies import CATALOGUE
from trainwatch.rules import all_rules

ROOT = Path(__file__).parents[1]
ROWS = ["measured", "rules", "remedies", "watch it"]
OWN = {code: rule for code, rule in all_rules().items() if rule.__module__.startswith("trainwatch.rules.")}
QUANTITIES = set(re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.M))


def topics():
    """Number of each section -> its rows by name."""
    text = (ROOT / "docs" / "knowledge.md").read_text("utf-8")
    parts = re.split(r"^## §(\d+) [A-Z].*$", text, flags=re.M)[1:]
    table = re.compile(r"^\| ([a-z ]+) \| (.+) \|$", re.M)
    return {int(number): dict(table.findall(body)) for number, body in zip(parts[::2], parts[1::2], strict=True)}


TOPICS = topics()
every_topic = pytest.mark.parametrize("rows", TOPICS.values(), ids=[f"section-{number}" for number in TOPICS])


def quoted(text):
    return re.findall(r"`([^`]+)`", text)


def named(row, pattern):
    return {name for rows in TOPICS.values() for name in re.findall(pattern, rows[row])}


def test_all_seventeen_are_there_in_order():
    assert list(TOPICS) == list(range(1, 18))


@every_topic
def test_each_says_what_is_measured_who_judges_what_to_do_and_how_to_see_it(rows):
    assert list(rows) == ROWS
    assert re.fullmatch(r"TW\d{3}(, TW\d{3})*", rows["rules"])
    assert quoted(rows["measured"])
    assert quoted(rows["remedies"])
    assert quoted(rows["watch it"])


def test_every_rule_in_it_exists_and_every_rule_is_in_it():
    assert named("rules", r"TW\d{3}") == set(OWN)


@pytest.mark.parametrize("code", OWN)
def test_a_rule_stands_in_the_sections_that_it_stems_from(code):
    missed = [s for s in re.findall(r"\d+", OWN[code].section) if code not in TOPICS[int(s)]["rules"]]
    assert missed == [], "docs/knowledge.md"


def test_every_remedy_in_it_exists_and_every_remedy_is_in_it():
    assert {id for rows in TOPICS.values() for id in quoted(rows["remedies"])} == set(CATALOGUE)


@pytest.mark.parametrize("id", CATALOGUE)
def test_a_remedy_stands_in_the_section_that_it_stems_from(id):
    assert id in quoted(TOPICS[int(CATALOGUE[id].section[1:])]["remedies"]), "docs/knowledge.md"


@every_topic
def test_every_quantity_in_it_exists(rows):
    assert set(quoted(rows["measured"])) <= QUANTITIES


def test_every_command_in_it_can_be_run():
    """What the examples find is tested with them."""
    commands = {command for rows in TOPICS.values() for command in quoted(rows["watch it"])}
    demos = {Fault(command.split()[-1]) for command in commands if command.startswith("trainwatch demo --fault ")}
    assert demos == set(Fault) - {Fault.NONE}
    others = [command.split() for command in commands if not command.startswith("trainwatch demo")]
    for python, file, *names in others:
        assert python == "python"
        text = (ROOT / file).read_text("utf-8")
        assert all(f'"{name}"' in text for name in names), (file, names)
    shown = {Path(file).stem for _, file, *_ in others}
    assert shown == {path.stem for path in (ROOT / "examples").glob("*.py")} - {"digits_lightning"}  # a sound run
