"""What holds for every rule: a new one is held to it without an edit here."""

import inspect
import pkgutil
import re
import sys
from dataclasses import fields
from pathlib import Path
from types import FunctionType

import pytest

import trainwatch.rules
from catalogue import NAMES
from trainwatch.config import Settings
from trainwatch.diagnosis import Severity
from trainwatch.engine import MISSING, judge
from trainwatch.record import RunRecord
from trainwatch.remedies import CATALOGUE
from trainwatch.rules import NotChecked, all_rules

HEADINGS = ["Symptom", "Why it hurts", "How it is measured", "Remedies", "Not a fault when", "Sources"]
MOST_LINES = 150
STATUS = ("stable", "preview", "deprecated")
FOLDER = Path(trainwatch.rules.__file__).parent
MODULES = sorted(m.name for m in pkgutil.iter_modules([str(FOLDER)]) if m.name.startswith("tw"))
RULES = [rule for rule in all_rules().values() if rule.__module__.startswith("trainwatch.rules.")]
ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"
QUANTITIES = set(re.findall(r"^\| `([a-z_]+)` \|", ARCHITECTURE.read_text(encoding="utf-8"), re.M))
every_rule = pytest.mark.parametrize("rule", RULES, ids=[rule.code for rule in RULES])


def source(rule):
    return Path(inspect.getfile(rule)).read_text(encoding="utf-8")


def page(rule):
    return inspect.getdoc(rule)


def section(rule, heading):
    _, _, after = page(rule).partition(f"## {heading}\n")
    return after.partition("\n## ")[0]


def acts_in(function, record):
    """Diagnoses of a rule, none where it abstains."""
    try:
        return list(function(record))
    except NotChecked:
        return []


def test_what_is_missing_is_said_in_words():
    assert {quantity for rule in RULES for quantity in rule.needs} == set(MISSING)


def test_there_is_one_rule_in_every_file():
    assert sorted(rule.__module__.rpartition(".")[2] for rule in RULES) == MODULES != []


@every_rule
def test_file_and_class_are_named_after_the_rule(rule):
    assert rule.__module__.rpartition(".")[2] == f"{rule.code.lower()}_{rule.name.replace('-', '_')}"
    assert rule.__name__ == "".join(word.capitalize() for word in rule.name.split("-"))
    assert NAMES[rule.code] == rule.name


@every_rule
def test_the_file_is_short(rule):
    assert len(source(rule).splitlines()) <= MOST_LINES


@every_rule
def test_the_page_has_its_headings_in_order_and_none_is_empty(rule):
    assert re.findall(r"^#+ (.+)$", page(rule), re.M) == HEADINGS
    assert all(re.findall(r"^## .+$", page(rule), re.M)[i] == f"## {h}" for i, h in enumerate(HEADINGS))
    assert page(rule).splitlines()[0].endswith("."), "the first line is the rule in one sentence"
    assert all(section(rule, heading).strip() for heading in HEADINGS)


@every_rule
def test_the_page_names_each_threshold_and_no_other(rule):
    thresholds = {f.name for f in fields(rule)}
    unnamed = [name for name in thresholds if f"`{name}`" not in page(rule)]
    assert not unnamed, "the page must say what each threshold does"
    named = set(re.findall(r"`([a-z][a-z0-9_]*)`", section(rule, "Symptom") + section(rule, "How it is measured")))
    unknown = named - thresholds - QUANTITIES
    assert not unknown, "in backticks, but neither a threshold nor a quantity"


@every_rule
def test_thresholds_are_plain_and_can_be_set_by_name(rule):
    values = {f.name: getattr(rule(), f.name) for f in fields(rule)}
    assert all(isinstance(value, (bool, int, float, str, tuple)) for value in values.values())
    (configured,) = Settings(rules={rule.name: values}, select=(rule.code,)).active_rules()
    assert configured == rule()


@every_rule
def test_what_it_declares_is_valid(rule):
    assert rule.status in STATUS
    assert isinstance(rule.severity, Severity)
    assert re.fullmatch(r"§\d+( §\d+)*|", rule.section), rule.section
    assert isinstance(rule.needs, tuple)
    assert set(rule.needs) <= QUANTITIES, "docs/architecture.md lists what is recorded"


@every_rule
def test_an_empty_record_is_no_fault(rule):
    record = RunRecord()
    assert [d for d in acts_in(rule().check, record) if d.severity > Severity.INFO] == []
    assert list(rule().asks(record)) == []


@every_rule
def test_remedies_come_from_the_catalogue(rule):
    named = set(re.findall(r"\bremedy\(\s*[\"']([a-z0-9-]+)[\"']", source(rule)))
    assert named <= set(CATALOGUE), f"not in the catalogue: {sorted(named - set(CATALOGUE))}"
    listed = set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", section(rule, "Remedies")))
    assert listed <= set(CATALOGUE), f"the page names remedies that do not exist: {sorted(listed - set(CATALOGUE))}"


@every_rule
def test_it_has_tests_of_its_own(rule):
    tests = Path(__file__).parent / "rules" / f"test_{rule.__module__.rpartition('.')[2]}.py"
    assert "def test_" in tests.read_text(encoding="utf-8")


@every_rule
def test_what_it_explains_is_in_the_catalogue_of_codes(rule):
    for told in (rule.explains, rule.explained_by):
        assert set(told) <= set(NAMES) - {rule.code}
        assert all(isinstance(predicate, FunctionType) for predicate in told.values())


def test_a_rule_explains_all_that_its_module_lists_as_effects():
    listed = {rule.code: getattr(sys.modules[rule.__module__], "EFFECTS", ()) for rule in RULES}
    assert sum(map(bool, listed.values())) > 10
    for rule in RULES:
        assert set(listed[rule.code]) <= {*rule.explains, *rule.explained_by}, rule.code


def test_no_rule_explains_its_own_cause():
    graph = {rule.code: set(rule.explains) for rule in RULES}
    for rule in RULES:
        for cause in rule.explained_by:
            graph.setdefault(cause, set()).add(rule.code)

    def reach(code, path):
        assert code not in path, f"circle: {' -> '.join([*path, code])}"
        for effect in graph.get(code, ()):
            reach(effect, [*path, code])

    for code in graph:
        reach(code, [])


def test_an_empty_run_is_not_judged_and_every_rule_says_why():
    report = judge(RunRecord(), Settings())
    assert report.verdict == "not-judged"
    spoken = {*report.not_checked, *(d.code for d in report.diagnoses)}
    assert {rule.code for rule in RULES if rule.needs} <= spoken
