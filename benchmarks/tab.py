"""What the TensorBoard tab takes on a long run of a deep net: size, time to be usable, hovering, TensorBoard's start.

    python benchmarks/tab.py [--steps 100000] [--layers 200] [--rounds 3]

The record is made up: so many steps, layers and validation passes as a long run has. All else is as users have it: the
engine's report, the event file, TensorBoard's two loaders and, where Chromium and selenium are installed, a real page.
Times are the least of some rounds, since machines are noisy; a task of the page that blocks it is counted above 50 ms,
below which browsers do not tell. Needs the repository: the browser is that of its tests.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainwatch.config import Settings
from trainwatch.engine import judge
from trainwatch.record import RunRecord
from trainwatch.report import Report
from trainwatch.reports.wording import settled
from trainwatch.tensorboard import snapshot
from trainwatch.tensorboard.writer import TensorBoardSink

CHUNK = 1_000
MOVES = 300  # of the mouse over the heatmap
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "tensorboard"))

START = """
import time
from tensorboard import default, program
began = time.perf_counter()
from trainwatch.tensorboard.plugin import DiagnosisTab
tab = DiagnosisTab(type("Context", (), {"data_provider": None}))
tab.get_plugin_apps()
print(time.perf_counter() - began)
"""
LOADED = """
return performance.getEntriesByType('resource').filter((e) => /(runs|findings|figures)([?]|$)/.test(e.name))
  .map((e) => [e.decodedBodySize, e.transferSize])
"""
NUMBERS = (
    "usable after, ms",
    "longest task while drawing, ms",
    "longest task while hovering, ms",
    "processor a move, ms",
    "loaded, bytes",
    "sent, bytes",
)
LONGEST = "return Math.max(0, ...window.long.filter((e) => e.startTime >= arguments[0]).map((e) => e.duration))"
BUSY = "setTimeout(() => { const began = performance.now(); while (performance.now() - began < 80); })"
LONG_TASKS = """
window.long = [];
new PerformanceObserver((list) => window.long.push(...list.getEntries()))
  .observe({type: 'longtask', buffered: true});
"""


def record(steps: int, layers: int) -> RunRecord:
    """A run of a chain of layers that overfits."""
    made, draw = RunRecord(), np.random.default_rng(0)
    parameters = [
        {"name": f"layers.{i}.weight", "shape": [64, 64], "numel": 4096, "kind": "weight", "module": f"layers.{i}",
         "module_type": "Linear", "trainable": True, "order": i, "norm": 8.0, "mean": 0.0, "std": 0.1, "tied": []}
        for i in range(layers)
    ]  # fmt: skip
    made.set_fact("parameters", parameters)
    made.set_fact("modules", [{"name": p["module"], "type": "Linear", "order": p["order"]} for p in parameters])
    group = {"lr": 1e-3, "initial_lr": 1e-3, "weight_decay": 0.0, "momentum": 0.0, "parameters": list(range(layers))}
    made.set_fact("optimizers", {"default": {"type": "SGD", "parameters": list(range(layers)), "groups": [group]}})
    made.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "cross_entropy", "paired": True}})
    made.set_fact("run", {"framework": "pytorch", "steps": steps, "epochs": 100, "finished": True})
    made.append("lr", "default/0", 0, 1e-3)
    depth = np.geomspace(1e-4, 1e-2, layers)
    for first in range(0, steps, CHUNK):
        at = np.arange(first, min(first + CHUNK, steps))
        made.append("train_loss", "cross_entropy", at, 2.3 * np.exp(-3 * at / steps) + draw.normal(0, 0.02, len(at)))
        made.append("grad_norm", "default", at, 64 * depth * np.exp(draw.normal(0, 0.3, (len(at), layers))))
        risen = 1 + max(0.0, at[-1] / steps - 0.3)
        losses = draw.gamma(2.0, 0.5, 256) * risen
        made.append("val_loss", "val", int(at[-1]) + 1, float(losses.mean()))
        made.append("val_sample_loss", "val", int(at[-1]) + 1, losses)
    return made


def timed(work: Any, rounds: int) -> tuple[float, Any]:
    """The least processor time of some rounds in seconds, and the last result."""
    least, result = float("inf"), None
    for _ in range(rounds):
        began = time.process_time()
        result = work()
        least = min(least, time.process_time() - began)
    return least, result


def start(rounds: int) -> float:
    """Seconds that the tab adds to TensorBoard's start: import, construction, routes."""
    ran = [
        subprocess.run([sys.executable, "-c", START], check=True, capture_output=True, text=True) for _ in range(rounds)
    ]
    return min(float(each.stdout) for each in ran)


def thread_seconds(driver: Any) -> float:
    """Processor time of the page's main thread so far."""
    told = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(float(each["value"]) for each in told if each["name"] == "ThreadTime")


def browse(logs: Path, rounds: int, *, fast: bool) -> dict[str, float]:
    """What a user of the page waits for, in milliseconds, and what it loads, in bytes."""
    import browser
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    address, found = browser.serve(logs, fast=fast), []
    with browser.driver() as driver:
        driver.execute_cdp_cmd("Performance.enable", {})
        for _ in range(rounds):
            tab = browser.Tab.alone(driver, address)
            tab.until(lambda tab=tab: tab.texts(".verdict"))
            shown = tab.script("return performance.getEntriesByName('trainwatch shown')[0].startTime")
            loaded = tab.script(LOADED)
            tab.script(LONG_TASKS)
            tab.scroll_through()
            drawing = tab.script(LONGEST, 0)
            canvas = driver.find_element(By.CSS_SELECTOR, "figure[data-name=gradients] canvas")
            tab.script("arguments[0].scrollIntoView({block: 'center'})", canvas)
            wide, high = canvas.size["width"] - 4, canvas.size["height"] - 4
            mouse = ActionChains(driver, duration=0)
            for move in range(MOVES):
                place = int((move * 37) % wide - wide / 2), int((move * 23) % high - high / 2)
                mouse.move_to_element_with_offset(canvas, *place)
            began, spent = tab.script("return performance.now()"), thread_seconds(driver)
            mouse.perform()
            spent = thread_seconds(driver) - spent
            readout = tab.texts("figure[data-name=gradients] output")[0]
            assert "step" in readout, readout
            hovering = tab.script(LONGEST, began)
            tab.script(BUSY)
            tab.until(lambda tab=tab: tab.script(LONGEST, 0) >= 80)  # else it measures nothing
            decoded, sent = (sum(column) for column in zip(*loaded, strict=True))
            numbers = (shown, drawing, hovering, 1e3 * spent / MOVES, decoded, sent)
            found.append(dict(zip(NUMBERS, numbers, strict=True)))
    return {name: min(each[name] for each in found) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    made = record(args.steps, args.layers)
    report: Report = judge(made, Settings())
    print(
        f"{args.steps:,} steps x {args.layers} layers: {', '.join(d.code for d in report.findings()) or report.verdict}"
    )
    took, figures = timed(lambda: snapshot.figures_json(report), args.rounds)
    print(f"figures: {len(figures):,} bytes, {1e3 * took:.1f} ms to write")
    words = replace(report, figures={})
    took, findings = timed(lambda: snapshot.findings_json(settled(words)), args.rounds)
    print(f"findings: {len(findings):,} bytes, {1e3 * took:.1f} ms to write")
    print(f"TensorBoard's start: {1e3 * start(args.rounds):.1f} ms more")

    import browser

    if why := browser.missing():
        print(f"no page was looked at: {why}")
        return
    with tempfile.TemporaryDirectory() as directory:
        sink = TensorBoardSink.open(Path(directory) / "run")
        for step in np.geomspace(10, args.steps, 20).astype(int).tolist():
            sink.findings(step, report)
        sink.close()
        for fast in (False, True):
            told = browse(Path(directory), args.rounds, fast=fast)
            print(
                f"{'fast' if fast else 'slow'} loader: "
                + "; ".join(
                    f"{name} {value:,.3g}" if value < 10 else f"{name} {value:,.0f}" for name, value in told.items()
                )
            )


if __name__ == "__main__":
    main()
