"""The tab "Diagnosis", which TensorBoard finds by its entry point. Imports neither torch nor the rest of trainwatch.

An error raised while this module is imported stops every TensorBoard of the environment, and what it imports is paid at
each start: hence only the standard library and what TensorBoard has loaded itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.backend import http_util
from tensorboard.data.provider import RunTagFilter
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from tensorboard import plugin_util
from trainwatch.tensorboard.tags import FIGURES, FINDINGS, PLUGIN_NAME

STATIC = Path(__file__).parent / "static"
TYPES = {".js": "text/javascript", ".css": "text/css"}
SUMMARY = 300  # characters of a finding's summary in the list of all runs


class DiagnosisTab(base_plugin.TBPlugin):  # type: ignore[misc]
    """Serves the last findings and figures of each run, and the page that shows them.

    | route | what |
    |---|---|
    | ``/runs`` | each run with the titles of its findings, and the step and time of its last snapshot |
    | ``/findings?run=NAME`` | all that is said of a run |
    | ``/figures?run=NAME`` | its charts |
    """

    plugin_name = PLUGIN_NAME

    def __init__(self, context: Any) -> None:
        self._provider = context.data_provider

    def is_active(self) -> bool:
        return False  # TensorBoard asks the data provider by itself which plugins have data

    def frontend_metadata(self) -> Any:
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Diagnosis")

    def get_plugin_apps(self) -> dict[str, Any]:
        files = {f"/{p.relative_to(STATIC).as_posix()}": p for p in STATIC.rglob("*") if p.suffix in TYPES}
        return {
            **{route: _app(_asset(path)) for route, path in files.items()},
            "/runs": _app(self._runs),
            "/findings": _app(lambda request: self._last(request, FINDINGS)),
            "/figures": _app(lambda request: self._last(request, FIGURES)),
        }

    def _runs(self, request: Any) -> Any:
        runs = [{"run": run, **_brief(datum)} for run, datum in sorted(self._read(request, FINDINGS).items())]
        return http_util.Respond(request, {"runs": runs}, "application/json")

    def _last(self, request: Any, tag: str) -> Any:
        run = request.args.get("run", "")
        datum = self._read(request, tag, [run]).get(run)
        if datum is None:
            return http_util.Respond(request, {"error": f"no run named {run!r}"}, "application/json", code=404)
        return http_util.Respond(request, _text(datum), "application/json")

    def _read(self, request: Any, tag: str, runs: list[str] | None = None) -> dict[str, Any]:
        """The last datum of each run."""
        read = self._provider.read_tensors(
            plugin_util.context(request.environ),
            experiment_id=plugin_util.experiment_id(request.environ),
            plugin_name=PLUGIN_NAME,
            downsample=1,  # which keeps the last one
            run_tag_filter=RunTagFilter(runs=runs, tags=[tag]),
        )
        return {run: series[-1] for run, tags in read.items() for series in tags.values() if series}


def _app(respond: Callable[[Any], Any]) -> Any:
    return wrappers.Request.application(respond)


def _asset(path: Path) -> Callable[[Any], Any]:
    return lambda request: http_util.Respond(request, path.read_bytes(), TYPES[path.suffix])


def _text(datum: Any) -> str:
    value = datum.numpy.item()
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _brief(datum: Any) -> dict[str, Any]:
    """What the list of all runs shows; a snapshot that cannot be read says so instead of taking the others along."""
    stamp = {"step": int(datum.step), "wall_time": float(datum.wall_time)}
    try:
        told = json.loads(_text(datum))
        causes = [{k: str(c[k])[:SUMMARY] for k in ("severity", "title", "summary", "when")} for c in told["causes"]]
        return {**stamp, "verdict": str(told["verdict"]), "headline": str(told["headline"]), "causes": causes}
    except (ValueError, KeyError, TypeError) as error:
        unread = f"What this run wrote for the tab could not be read ({type(error).__name__})."
        return {**stamp, "verdict": "unreadable", "headline": unread, "causes": []}
