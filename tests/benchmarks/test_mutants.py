"""The instrument of the mutation tests: what it changes, how it is undone, and who notices."""

import ast
import json
import os
import shutil
from pathlib import Path

import pytest

import trainwatch.rules
from benchmarks.mutants.by_tests import with_tests
from benchmarks.mutants.by_zoo import Zoo
from benchmarks.mutants.making import mutants_of
from benchmarks.mutants.planting import plant
from trainwatch.record import RunRecord
from trainwatch.rules.tw704_gradients_not_zeroed import GradientsNotZeroed

TW704 = Path(trainwatch.rules.__file__).parent / "tw704_gradients_not_zeroed.py"
FIXTURES = Path(__file__).parents[1] / "zoo" / "fixtures"
SOURCE = """
FEW = 3
SHOWN = 5
class Rule:
    code: ClassVar[str] = "TW1"
    share: float = 0.5
    lasting: bool = False
    def __post_init__(self):
        if self.share < 0:
            raise ValueError
    def check(self, record):
        if not record or record.n < FEW:
            return
        known = [r for r in record if r is not None]
        level = max(known) if known else 0.0
        listed = "all" if len(known) > SHOWN else "some"
        if 0 < level <= self.share:
            yield self.diagnose(f"{'a' if level > 1 else 'b'}", margin=min(level, 2), evidence=shown(known > level))
        if level == 3:
            shown = Evidence("level", level if level > 2 else 1)
def told(level) -> str:
    return "high" if level > 2 else "low" if level > 1 or not level else ""
def alike(a, b):
    return (a > 0) & (b > 0)
"""
EXPECTED = """
FEW = 3 -> FEW = 2
FEW = 3 -> FEW = 4
share: float = 0.5 -> share: float = 0.25
share: float = 0.5 -> share: float = 1.0
lasting: bool = False -> lasting: bool = True
if not record or record.n < FEW -> if False
if not record or record.n < FEW -> if True
not record or record.n < FEW -> record.n < FEW
not record or record.n < FEW -> not record
for r in record if r is not None -> for r in record
max(known) if known else 0.0 -> max(known) if not known else 0.0
max(known) -> min(known)
if 0 < level <= self.share -> if False
if 0 < level <= self.share -> if True
0 < level <= self.share -> 0 >= level <= self.share
0 < level <= self.share -> 0 < level > self.share
min(level, 2) -> max(level, 2)
(a > 0) & (b > 0) -> (b > 0) & (b > 0)
(a > 0) & (b > 0) -> (a > 0) & (a > 0)
a > 0 -> a <= 0
b > 0 -> b <= 0
"""


def changed(part):
    """The first mutant of TW704 whose change holds some text."""
    return next(m for m in mutants_of(TW704) if part in m.change)


def undone():
    plant(TW704, ast.parse(TW704.read_text(encoding="utf-8")))


@pytest.fixture
def planted():
    yield lambda part: plant(TW704, changed(part).tree)
    undone()


def piled_up(kept=40):
    record = RunRecord()
    known = {"cycles": 40, "kept": kept, "emptied": 0, "first": 1, "looked": 4, "nonzero": 4}
    record.set_fact("zeroing", {"default": known})
    return record


def test_each_condition_is_changed_and_what_words_a_finding_is_not(tmp_path):
    path = tmp_path / "rule.py"
    path.write_text(SOURCE, encoding="utf-8")
    made = mutants_of(path)
    assert sorted(m.change.strip() for m in made) == sorted(EXPECTED.strip().splitlines())
    sources = {ast.unparse(m.tree) for m in made}
    assert len(sources) == len(made)
    assert ast.unparse(ast.parse(SOURCE)) not in sources


def test_a_mutant_is_planted_in_place_and_undone(planted):
    assert GradientsNotZeroed().fires(piled_up(21))
    planted("share: float = 1.0")
    assert GradientsNotZeroed().share == GradientsNotZeroed.share == 1.0
    assert not GradientsNotZeroed().fires(piled_up(21))
    planted("known['kept'] > self.share * cycles and known['nonzero'] > self.share * known['looked'] -> if False")
    assert not GradientsNotZeroed().fires(piled_up())
    undone()
    assert GradientsNotZeroed().fires(piled_up(21))
    assert not GradientsNotZeroed().fires(piled_up(20))


def test_the_zoo_notices_what_its_tables_would_show_and_nothing_else(planted, tmp_path):
    for family, form in (("gradients_pile_up", "sgd"), ("converged_to_tiny_gradients", "base")):
        (tmp_path / "tuning" / family).mkdir(parents=True)
        shutil.copy(FIXTURES / "tuning" / family / f"{form}-0.npz", tmp_path / "tuning" / family)
    zoo = Zoo(tmp_path)
    assert len(zoo) == 2
    assert not zoo.notices(["TW704"])
    planted("steps: int = 5")
    assert not zoo.notices(["TW704"])
    planted("known['kept'] > self.share * cycles and known['nonzero'] > self.share * known['looked'] -> if False")
    assert zoo.notices(["TW704"])
    planted("known['kept'] > self.share * cycles and known['nonzero'] > self.share * known['looked'] -> if True")
    assert zoo.notices(["TW704"])


def test_quick_tests_that_pass_as_things_are_notice_what_has_changed(tmp_path, monkeypatch):
    file, kept, heard = tmp_path / "test_some.py", tmp_path / "times.json", []
    file.write_text(
        "import os, time\nimport pytest\n"
        "def test_quick():\n    assert os.environ['STATE'] == 'sound'\n"
        "def test_that_fails():\n    assert False\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_slow(n):\n    end = time.process_time() + 9\n    while time.process_time() < end: pass\n",
        encoding="utf-8",
    )

    def work(notice):
        for state in ("sound", "changed", "sound"):
            monkeypatch.setenv("STATE", state)
            heard.append(notice())

    monkeypatch.setenv("STATE", "sound")
    with_tests([file, tmp_path / "missing.py"], [], kept, work)
    assert heard == [False, True, False]
    times = {name.partition("::")[2]: seconds for name, seconds in json.loads(kept.read_text()).items()}
    assert times["test_quick"] < 9
    assert times["test_that_fails"] == times["test_slow"] == float("inf")
    assert "test_slow[2]" not in times
    assert os.environ["STATE"] == "sound"


@pytest.mark.parametrize(
    ("source", "error"), [("def test_quick(): pass", ZeroDivisionError), ("import nowhere", RuntimeError)]
)
def test_what_the_work_raises_is_raised_and_tests_must_be_there(source, error, tmp_path):
    file = tmp_path / f"test_{error.__name__}.py"
    file.write_text(source, encoding="utf-8")
    with pytest.raises(error):
        with_tests([file], [], tmp_path / "times.json", lambda notice: 1 / 0)
