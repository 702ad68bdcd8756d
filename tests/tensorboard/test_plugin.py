"""Real event files through TensorBoard's own application, without a browser; both of its loaders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tabs import NASTY, client, diagnosis, report
from tensorboard.backend import application
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from trainwatch.report import Report
from trainwatch.tensorboard import plugin, summaries, tags
from trainwatch.tensorboard.writer import TensorBoardSink

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROUTE = "/data/plugin/trainwatch"
LOADERS = pytest.mark.parametrize("loader", ["slow", "fast"])


def write(directory, *reports, step=10):
    sink = TensorBoardSink.open(directory)
    for rank, each in enumerate(reports, 1):
        sink.findings(step * rank, each)
    sink.close()


@LOADERS
def test_the_last_snapshot_of_each_run_is_served(loader, tmp_path):
    write(tmp_path / "a", report(), Report("healthy"))
    write(tmp_path / "b" / "trainwatch", Report("not-judged"), report())
    with client(loader, tmp_path, runs=2) as tab:
        a, b = tab.get(f"{ROUTE}/runs").json["runs"]
        assert (a["run"], a["step"], a["verdict"], a["causes"]) == ("a", 20, "healthy", [])
        assert (b["run"], b["step"], b["verdict"]) == ("b/trainwatch", 20, "findings")
        assert [c["title"] for c in b["causes"]] == ["TW201 overfitting (warning)"]
        said = tab.get(f"{ROUTE}/findings", query_string={"run": "b/trainwatch"}).json
        assert said["headline"] == b["headline"]
        drawn = tab.get(f"{ROUTE}/figures", query_string={"run": "b/trainwatch"}).json
        assert [f["name"] for f in drawn["figures"]] == list(report().figures)
        assert tab.get("/data/plugins_listing").json["trainwatch"]["enabled"]


@LOADERS
def test_without_any_run_there_is_an_empty_list(loader, tmp_path):
    with client(loader, tmp_path, runs=0) as tab:
        assert tab.get(f"{ROUTE}/runs").json == {"runs": []}
        listed = tab.get("/data/plugins_listing").json["trainwatch"]
        assert (listed["enabled"], listed["tab_name"]) == (False, "Diagnosis")
        assert listed["loading_mechanism"] == {"type": "IFRAME", "module_path": f"{ROUTE}/index.js"}


def test_it_works_behind_a_path_prefix(tmp_path):
    write(tmp_path / "a", report())
    with client("slow", tmp_path, path_prefix="/tb") as tab:
        assert tab.get(f"/tb{ROUTE}/runs").json["runs"]
        assert tab.get(f"/tb{ROUTE}/index.js").status_code == 200
        assert tab.get(f"{ROUTE}/index.js").status_code == 404


def test_an_unknown_run_is_told(tmp_path):
    write(tmp_path / "a", report())
    with client("slow", tmp_path) as tab:
        for route in ("findings", "figures"):
            answer = tab.get(f"{ROUTE}/{route}", query_string={"run": "b"})
            assert (answer.status_code, answer.json) == (404, {"error": "no run named 'b'"})


@pytest.mark.parametrize("text", ["{", "[]", '"text"', '{"verdict": "healthy"}', '{"causes": [{}]}'])
def test_a_run_that_cannot_be_read_leaves_the_others(text, tmp_path):
    write(tmp_path / "b", Report("healthy"))
    events = EventFileWriter(str(tmp_path / "a"))
    events.add_event(Event(step=1, wall_time=1.0, summary=summaries.snapshot(tags.FINDINGS, text)))
    events.close()
    with client("slow", tmp_path, runs=2) as tab:
        a, b = tab.get(f"{ROUTE}/runs").json["runs"]
        assert (a["verdict"], a["causes"]) == ("unreadable", [])
        assert "could not be read" in a["headline"]
        assert b["verdict"] == "healthy"


def test_names_arrive_as_they_are_and_as_json(tmp_path):
    write(tmp_path / "a", report(diagnosis(summary=NASTY)))
    with client("slow", tmp_path) as tab:
        for route in ("runs", "findings?run=a", "figures?run=a"):
            answer = tab.get(f"{ROUTE}/{route}")
            assert answer.mimetype == "application/json"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert tab.get(f"{ROUTE}/runs").json["runs"][0]["causes"][0]["summary"] == NASTY


def test_every_part_of_the_page_is_served_and_nothing_else(tmp_path):
    with client("slow", tmp_path, runs=0) as tab:
        files = [
            p.relative_to(plugin.STATIC).as_posix() for p in plugin.STATIC.rglob("*.*") if p.suffix in plugin.TYPES
        ]
        assert {"index.js", "style.css", "charts/lines.js", "third_party/uplot/uPlot.esm.js"} <= set(files)
        for name in files:
            answer = tab.get(f"{ROUTE}/{name}")
            assert (answer.status_code, answer.mimetype) == (200, plugin.TYPES[Path(name).suffix])
        for path in ("../plugin.py", "%2e%2e/plugin.py", "third_party/uplot/LICENSE", "", "/etc/passwd"):
            assert tab.get(f"{ROUTE}/{path}").status_code == 404


def test_the_page_asks_no_other_host():
    for path in plugin.STATIC.rglob("*.*"):
        if path.suffix in plugin.TYPES and "third_party" not in path.parts:
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")  # the name of a namespace
            assert "//" not in "\n".join(line.partition("// ")[0] for line in text.splitlines()), path


def test_own_scripts_never_parse_text_as_markup():
    for path in plugin.STATIC.rglob("*.js"):
        if "third_party" not in path.parts:
            for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
                assert word not in path.read_text(), path


def test_the_entry_point_names_the_tab():
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared["tensorboard_plugins"] == {
        "trainwatch": f"{plugin.DiagnosisTab.__module__}:{plugin.DiagnosisTab.__name__}"
    }
    assert plugin.DiagnosisTab.plugin_name == tags.PLUGIN_NAME


def test_it_starts_with_nothing_that_tensorboard_has_not_loaded():
    code = """
import sys
from tensorboard import default, program
before = set(sys.modules)
import trainwatch.tensorboard.plugin
print(*sorted(set(sys.modules) - before))
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ)
    assert ran.stdout.split() == [
        "trainwatch", "trainwatch.tensorboard", "trainwatch.tensorboard.plugin", "trainwatch.tensorboard.tags"
    ]  # fmt: skip


def test_an_answer_has_no_bare_nan(tmp_path):
    write(tmp_path / "a", report())
    with client("slow", tmp_path) as tab:
        text = tab.get(f"{ROUTE}/figures?run=a").get_data(as_text=True)
        assert json.loads(text, parse_constant=lambda name: pytest.fail(name))


def test_tensorboard_takes_the_tab_for_its_own():
    plugins = application.make_plugin_loader(plugin.DiagnosisTab)
    assert plugins is not None
