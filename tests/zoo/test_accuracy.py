"""The document on accuracy, from the committed records."""

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from outcomes import outcome
from typer.testing import CliRunner

from benchmarks.zoo.__main__ import app
from benchmarks.zoo.accuracy import by_count, document, macro, upper_bound
from benchmarks.zoo.calibration import cases, fitted, write
from benchmarks.zoo.judges import judge_all
from benchmarks.zoo.measured.labels import of_run
from benchmarks.zoo.reasons import mistakes, outdated, reasons
from benchmarks.zoo.scenario import SEEDS, scenarios
from benchmarks.zoo.store import beside, path_of, save
from trainwatch.record import RunRecord

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def judged():
    return judge_all(FIXTURES, scenarios("tuning"), 1, rivals=False)["trainwatch"]


def some_of(records):
    """Copies of a few committed records in another folder."""
    for path in sorted(FIXTURES.rglob("*.npz"))[:6]:
        (records / path.relative_to(FIXTURES)).parent.mkdir(parents=True)
        (records / path.relative_to(FIXTURES)).write_bytes(path.read_bytes())
    return records


def test_the_document_is_written_by_one_command_and_names_no_held_out_case(tmp_path):
    records = some_of(tmp_path / "records")
    some_of(beside(records, "all"))
    held_out = scenarios("held_out")
    for s in held_out[:8]:
        save(path_of(records, s, 0), RunRecord(), {})
    options = ["--folder", str(records), "--output", str(tmp_path / "accuracy.md"), "--workers", "1"]
    result = CliRunner().invoke(app, ["accuracy", *options])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "accuracy.md").read_text()
    assert "14 runs, and 6 with all probes" in " ".join(result.output.split())
    assert "no reason yet" not in result.output
    assert "are not measured yet" in result.output
    assert "Not measured yet" not in text
    assert not any(s.family in text + result.output for s in held_out)


def test_the_document_says_what_was_measured(judged):
    text = document(judged, judged, [], mistakes(judged, {}))
    faulty = [o for o in judged if o.scenario.planted]
    assert f"| faulty runs, families | {len(faulty)}, {len({o.scenario.family for o in faulty})} | 0, 0 |" in text
    assert "| cause found | 1.000 [" in text
    assert "| TW703 loss-output-mismatch | 1, 1 | 1.000 [0.05, 1.00] | 1 | 1 | 1 | 50, " in text
    assert "Not measured yet" in text
    assert "nan | " not in text.split("## By rule")[1]


def test_what_was_measured_of_single_runs_has_totals_of_its_own(judged):
    planted = next(o for o in judged if "TW201" in o.scenario.truth and o.found)
    absent = [of_run(o, {"TW201": 0.0, "TW202": 0.0, "TW203": 0.0}) if o is planted else o for o in judged]
    text = document(judged, absent, [], []).split("## Labels of single runs")[1].split("## By number of causes")[0]
    faulty = [o for o in judged if o.scenario.planted]
    assert f"| faulty runs, families | {len(faulty) - 1}, " in text
    assert "| planted, but not there | 1 | 0 |" in text
    assert "| sound runs alarmed | 0.0" in text
    assert "| TW201 | planted or said | Validation ends" in text
    assert "| TW705 | said | A weight" in text


def test_the_table_of_confidence_is_what_the_fit_makes_of_the_records(judged, tmp_path):
    records = some_of(tmp_path / "records")
    options = ["--folder", str(records), "--output", str(tmp_path / "table.py"), "--workers", "1"]
    result = CliRunner().invoke(app, ["calibrate", *options])
    assert result.exit_code == 0, result.output
    known = cases([o for o in judged if path_of(records, o.scenario, o.seed).is_file()])
    curves = [fitted([c for c in known if c.remark == remark]).curve for remark in (False, True)]
    write(tmp_path / "ours.py", *curves)
    assert (tmp_path / "table.py").read_text() == (tmp_path / "ours.py").read_text()
    assert len(curves[0].codes) >= 5


def test_every_mistake_on_the_committed_records_has_a_reason(judged):
    assert [m for m in mistakes(judged, reasons()) if not m.why] == []


def test_every_reason_is_of_a_run_of_the_tuning_half():
    runs = [f"{s.family}/{s.form}-{seed}" for s in scenarios("tuning") for seed in SEEDS]
    assert [p for p in reasons() if not any(fnmatchcase(run, p) for run in runs)] == []


def test_mistakes_of_a_form_are_told_together_with_their_reason():
    runs = [outcome(*said, truth=("A",), seed=i) for i, said in enumerate([(), (), ("B", "A"), ("A",)])]
    known = {"f/x-0": "why one", "f/x-[12]": "why two", "f/y-*": "of old"}
    found = mistakes([*runs, outcome(form="base"), outcome("C", form="base")], known)
    assert [(m.form, m.seeds, m.wrong, m.why) for m in found] == [
        ("f/base", (0,), "false alarm: C", ""),
        ("f/x", (0,), "missed", "why one"),
        ("f/x", (1,), "missed", "why two"),
        ("f/x", (2,), "not first; untrue: B", "why two"),
    ]
    assert outdated(found, known) == ["f/y-*"]
    with pytest.raises(ValueError, match="held-out"):
        mistakes([outcome(truth=("A",), half="held_out")], known)


def test_codes_of_the_truth_count_alike():
    runs = [outcome("A", truth=("A",), family=f"a{i}") for i in range(9)]
    runs += [outcome("A", truth=("A", "B"), family="b"), outcome(truth=("B",), family="c")]
    assert macro(runs, lambda o, code: o.found).value == pytest.approx((1 + 1 / 2) / 2)
    assert macro(runs, lambda o, code: code in o.said.codes).value == pytest.approx((1 + 0) / 2)
    told = macro(runs, lambda o, code: o.found)
    assert told.low < told.value < told.high
    assert (told.runs, told.families) == (11, 11)


@pytest.mark.parametrize(("hits", "bound"), [(0, 1 - 0.05 ** (1 / 20)), (1, 0.216), (20, 1.0)])
def test_the_bound_is_exact_over_families(hits, bound):
    runs = [outcome(*(["A"] if i < hits else []), family=str(i), seed=k) for i in range(20) for k in range(3)]
    assert upper_bound(runs, lambda o: not o.silent) == pytest.approx(bound, abs=1e-3)


def test_reports_are_counted_by_how_many_causes_they_name():
    runs = [
        outcome("A", truth=("A",)),
        outcome("B", "A", truth=("A",)),
        outcome(truth=("A",)),
        outcome("A", "B", "C", "D", form="base"),
    ]
    assert by_count(runs) == [
        ("none", 0, 1, 0, 0, 0),
        ("one", 0, 1, 1, 1, 0),
        ("two", 0, 1, 1, 0, 1),
        ("three and more", 1, 0, 0, 0, 0),
    ]
