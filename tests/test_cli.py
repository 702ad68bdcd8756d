"""The command line: what it prints, where it writes, its exit codes, and its answers to mistakes."""

import json
import subprocess
import sys
from dataclasses import fields

import pytest
from typer.testing import CliRunner

import trainwatch
from trainwatch.cli import app
from trainwatch.demo import Fault
from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.record import RunRecord, SegmentWriter
from trainwatch.report import Report
from trainwatch.reports import render
from trainwatch.rules import all_rules


@pytest.fixture(autouse=True)
def settings_of_no_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def cli(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], terminal_width=200)


def refused(result, *words):
    """A mistake of the user's: exit code 2, one line that says what is wrong, no traceback."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("trainwatch: ")
    for word in words:
        assert str(word) in result.stderr


def report(verdict, *severities):
    found = [
        Diagnosis(code=f"TW90{i}", name="made-up", severity=s, summary="Made up.") for i, s in enumerate(severities)
    ]
    return Report(verdict, tuple(found))


def stored_run(directory, losses=(2.3, 2.2, 2.1)):
    """A short record, as a run would leave it behind."""
    with SegmentWriter(directory / "trainwatch") as journal:
        record = RunRecord(journal)
        record.set_fact("run", {"framework": "pytorch", "steps": len(losses), "epochs": 1, "finished": True})
        record.append("train_loss", "cross_entropy", range(len(losses)), losses)
        journal.flush()
    return directory


# ---------------------------------------------------------------- diagnose


def test_diagnose_reads_a_record_and_writes_a_report(tmp_path):
    result = cli("diagnose", stored_run(tmp_path / "run"), "--format", "json")
    assert result.stderr == ""
    read = Report.from_json(result.stdout)
    assert read.facts["run"]["steps"] == 3
    assert read.to_json() == trainwatch.diagnose(tmp_path / "run").to_json()


@pytest.mark.parametrize(
    ("verdict", "severities", "fail_on", "code"),
    [
        ("healthy", [], "warning", 0),
        ("healthy", [Severity.INFO], "warning", 0),
        ("findings", [Severity.WARNING], "warning", 1),
        ("findings", [Severity.ERROR], "warning", 1),
        ("findings", [Severity.WARNING], "error", 0),
        ("findings", [Severity.ERROR], "error", 1),
        ("findings", [Severity.ERROR], "not-judged", 0),
        ("not-judged", [], "warning", 2),
        ("not-judged", [Severity.INFO], "error", 2),
        ("not-judged", [], "not-judged", 2),
    ],
)
def test_the_exit_code_tells_what_was_found(monkeypatch, tmp_path, verdict, severities, fail_on, code):
    monkeypatch.setattr(trainwatch, "diagnose", lambda path: report(verdict, *severities))
    assert cli("diagnose", tmp_path, "--fail-on", fail_on).exit_code == code


def test_without_fail_on_a_warning_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(trainwatch, "diagnose", lambda path: report("findings", Severity.WARNING))
    assert cli("diagnose", tmp_path).exit_code == 1


@pytest.mark.parametrize("format", ["text", "md", "json", "html"])
def test_every_format_goes_to_the_screen_or_to_a_file(tmp_path, format):
    run = stored_run(tmp_path / "run")
    shown = cli("diagnose", run, "--format", format)
    written = cli("diagnose", run, "--format", format, "--output", tmp_path / "out")
    text = (tmp_path / "out").read_text(encoding="utf-8")
    assert written.stdout == ""
    assert text == render(trainwatch.diagnose(run), format)
    assert format == "text" or shown.stdout == text
    assert "\x1b" not in text


def test_the_suffix_of_the_file_chooses_the_format(tmp_path):
    cli("diagnose", stored_run(tmp_path / "run"), "--output", tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["schema"] == 1
    cli("diagnose", tmp_path / "run", "--output", tmp_path / "report.HTML")
    assert (tmp_path / "report.HTML").read_text(encoding="utf-8").startswith("<!")


def test_a_format_that_is_asked_for_wins_over_the_suffix(tmp_path):
    cli("diagnose", stored_run(tmp_path / "run"), "--output", tmp_path / "report.json", "--format", "md")
    with pytest.raises(ValueError, match="JSON"):
        Report.from_json((tmp_path / "report.json").read_text(encoding="utf-8"))


def test_settings_of_the_project_count(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.trainwatch.ignore]\nTW201 = "known"\n')
    assert "TW201" in cli("diagnose", stored_run(tmp_path / "run"), "--format", "md").stdout
    assert trainwatch.diagnose(tmp_path / "run").not_checked["TW201"] == "ignored: known"


def test_settings_may_be_given_as_some_of_their_fields(tmp_path):
    run = stored_run(tmp_path / "run")
    assert trainwatch.diagnose(run, {"ignore": {"TW201": "known"}}).not_checked["TW201"] == "ignored: known"
    with pytest.raises(TypeError, match=r"settings must be trainwatch.Settings or a dict of its fields, got 'quiet'"):
        trainwatch.diagnose(run, "quiet")


def test_a_missing_directory_is_named(tmp_path):
    refused(cli("diagnose", tmp_path / "nowhere"), tmp_path / "nowhere", "does not exist")


def test_a_directory_without_a_record_is_named(tmp_path):
    refused(cli("diagnose", tmp_path), tmp_path, "no record")


def test_a_foreign_file_is_no_record(tmp_path):
    (tmp_path / "segment-000001.seg").write_bytes(b"PK\x03\x04" * 100)
    refused(cli("diagnose", tmp_path), tmp_path)


def test_an_unknown_setting_names_the_file_and_the_nearest(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.trainwatch]\nflush_evry = 5\n")
    refused(cli("diagnose", stored_run(tmp_path / "run")), "pyproject.toml", "flush_evry", "flush_every")


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    output = tmp_path / "missing" / "report.md"
    refused(cli("diagnose", stored_run(tmp_path / "run"), "--output", output), output, "No such file")


@pytest.mark.parametrize("arguments", [["--format", "yaml"], ["--fail-on", "never"], ["--no-such"]])
def test_unknown_options_are_refused(tmp_path, arguments):
    result = cli("diagnose", tmp_path, *arguments)
    assert result.exit_code == 2
    assert arguments[-1] in result.stderr


# ---------------------------------------------------------------- audit


@pytest.fixture
def table(tmp_path, monkeypatch):
    import importlib

    import audit_stand_in

    home = importlib.import_module(trainwatch.audit.__module__).__package__
    monkeypatch.setitem(sys.modules, f"{home}.measures", audit_stand_in.module())
    rows = [f"{i},{i % 7},{i % 2}" for i in range(80)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,kind", *rows]))
    return tmp_path / "t.csv"


def test_audit_reads_a_path_and_writes_a_report(table):
    result = cli("audit", table, "--val", table, "--target", "kind", "--format", "json")
    assert result.stderr == ""
    read = Report.from_json(result.stdout)
    assert [part["samples"] for part in read.facts["data"].values()] == [80, 80]
    assert read.figures["classes"].groups["validation"] == (40, 40)
    assert read.to_json() == trainwatch.audit(table, table, target="kind").to_json()


def test_audit_writes_its_page(table, tmp_path):
    assert cli("audit", table, "--output", tmp_path / "page.html").stdout == ""
    assert "What was read" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("outcome", "fail_on", "code"),
    [
        (report("findings", Severity.WARNING), "warning", 1),
        (report("findings", Severity.WARNING), "error", 0),
        (report("healthy"), "warning", 0),
        (report("not-judged"), "warning", 2),
    ],
)
def test_the_exit_code_of_an_audit(monkeypatch, tmp_path, outcome, fail_on, code):
    asked = []
    monkeypatch.setattr(trainwatch, "audit", lambda *a, **k: asked.append((a, k)) or outcome)
    assert cli("audit", tmp_path, "--fail-on", fail_on, "--near-duplicates").exit_code == code
    assert asked == [((tmp_path, None), {"target": None, "near_duplicates": True})]


@pytest.mark.parametrize(("arguments", "words"), [(["nowhere"], "does not exist"), (["t.csv", "--target", "x"], "'x'")])
def test_data_that_cannot_be_read_are_named(table, arguments, words):
    refused(cli("audit", *arguments), arguments[0], words)


# ---------------------------------------------------------------- explain, rules, the rest


@pytest.mark.parametrize("code", list(all_rules()))
def test_explain_shows_the_page_of_every_rule(code):
    rule = all_rules()[code]
    by_code, by_name = cli("explain", code.lower()), cli("explain", rule.name)
    assert by_code.exit_code == 0
    assert by_code.stdout == by_name.stdout
    for heading in (f"{code} {rule.name}", "Symptom", "Remedies", "Not a fault when", "Sources"):
        assert heading in by_code.stdout
    assert all(f"{field.name} = " in by_code.stdout for field in fields(rule))


def test_explain_knows_faults_of_trainwatch_itself():
    assert "internal-fault" in cli("explain", "TW000").stdout


@pytest.mark.parametrize(("typed", "meant"), [("TW3O1", "TW301"), ("vanishing-gradient", "vanishing-gradients")])
def test_explain_names_the_nearest_rule(typed, meant):
    refused(cli("explain", typed), typed, f"did you mean '{meant}'?")


def test_rules_lists_every_rule_with_its_thresholds_on_one_line():
    lines = cli("rules").stdout.splitlines()
    assert lines[0].split() == ["code", "name", "severity", "section", "thresholds"]
    assert len(lines) == len(all_rules()) + 1
    for line, (code, rule) in zip(lines[1:], all_rules().items(), strict=True):
        assert line.split()[:3] == [code, rule.name, str(rule.severity)]
        assert all(f"{field.name}=" in line for field in fields(rule))


def test_the_version_is_printed():
    assert cli("--version").stdout == f"trainwatch {trainwatch.__version__}\n"


def test_it_runs_as_a_module_and_shows_help_without_a_command():
    done = subprocess.run([sys.executable, "-m", "trainwatch"], capture_output=True, text=True, check=False)
    assert all(command in done.stdout + done.stderr for command in ("demo", "diagnose", "audit", "explain", "rules"))


# ---------------------------------------------------------------- demo


OF_AN_EXAMPLE = (Fault.OVERFIT, Fault.VANISH, Fault.IMBALANCE)  # there is one of each: examples/


@pytest.mark.parametrize("fault", [pytest.param(f, marks=[pytest.mark.long] * (f in OF_AN_EXAMPLE)) for f in Fault])
def test_a_demo_finds_what_is_planted(tmp_path, fault):
    result = cli("demo", "--fault", fault.value, "--log-dir", tmp_path / "demo")
    assert result.exit_code == 0, result.stdout + result.stderr
    again = cli("diagnose", tmp_path / "demo", "--format", "json")
    found = Report.from_json(again.stdout)
    assert again.exit_code == (0 if fault is Fault.NONE else 1)
    assert found.verdict == ("healthy" if fault is Fault.NONE else "findings")
    assert fault.code in [d.code for first in found.findings()[:1] for d in first.walk()] or not fault.code
    assert str(tmp_path / "demo" / "trainwatch" / "report.html") in result.stdout.replace("\n", "")
    assert (tmp_path / "demo" / "trainwatch" / "report.html").is_file()


def test_a_demo_keeps_to_its_directory_by_default(tmp_path, monkeypatch):
    from trainwatch.demo import show as module

    seen = []
    monkeypatch.setattr(module, "show", lambda *arguments: seen.append(arguments) or report("healthy"))
    assert cli("demo", "--fault", "none", "--seed", 3).exit_code == 0
    ((fault, seed, directory),) = seen
    assert (fault, seed, directory.as_posix()) == (Fault.NONE, 3, "runs/demo-none")


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("overfit", report("healthy")),
        ("none", report("not-judged")),
        ("none", report("findings", Severity.WARNING)),
        ("overfit", report("findings", Severity.WARNING)),
    ],
)
def test_a_demo_that_misses_the_fault_fails(monkeypatch, fault, outcome):
    from trainwatch.demo import show as module

    monkeypatch.setattr(module, "show", lambda *arguments: outcome)
    result = cli("demo", "--fault", fault)
    assert result.exit_code == 1
    assert "not what was planted" in result.stderr


def test_a_demo_that_cannot_write_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    refused(cli("demo", "--log-dir", tmp_path / "file" / "run"), tmp_path / "file" / "run", "Not a directory")


def test_an_unknown_fault_is_refused_with_the_known_ones():
    result = cli("demo", "--fault", "overfitting")
    assert result.exit_code == 2
    assert "overfit" in result.stderr
    assert "imbalance" in result.stderr
