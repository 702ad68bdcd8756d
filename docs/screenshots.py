"""Makes the pictures in `docs/images/`: the tab, a report, the audit's page, as a browser shows them.

    python docs/screenshots.py

Trains the demo's overfitted net, audits the folder of `examples/audit_images.py`, and drives a headless Chromium; needs
the extra `test`, `chromium` and `chromedriver`.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path += [str(ROOT / "tests" / "tensorboard"), str(ROOT / "examples")]

import audit_images  # noqa: E402
import browser  # noqa: E402

import trainwatch  # noqa: E402
from trainwatch.demo import Fault  # noqa: E402
from trainwatch.demo.show import show  # noqa: E402

WIDE, NARROW = (1200, 1000), (420, 900)


def shoot(name: str, size: tuple[int, int], prepare: Callable[[Any], object]) -> None:
    """Save what a window of some size shows once it is prepared."""
    with browser.driver(width=size[0], height=size[1]) as window:
        prepare(window)
        window.switch_to.default_content()
        window.save_screenshot(str(IMAGES / f"{name}.png"))


def page(file: Path, *, dark: bool = False, at: str = "") -> Callable[[Any], object]:
    """Open a page that was saved, in light or dark, at the first element that a selector finds."""

    def prepare(window: Any) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        window.get(file.as_uri())
        if at:
            window.execute_script("document.querySelector(arguments[0]).scrollIntoView()", at)

    return prepare


def tab(address: str, *, dark: bool = False, figures: bool = False) -> Callable[[Any], object]:
    """Open the tab in TensorBoard, with the findings or the figures in sight."""

    def prepare(window: Any) -> None:
        shown = browser.Tab(window, address, dark=dark)
        shown.scroll_through()
        if figures:
            shown.script("document.querySelector('figure').scrollIntoView()")

    return prepare


def main() -> None:
    """Make all of them."""
    if why := browser.missing():
        sys.exit(f"no picture can be taken: {why}")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with contextlib.redirect_stdout(io.StringIO()):
            show(Fault.OVERFIT, 0, folder / "runs" / "overfitted")
            (folder / "images").mkdir()
            audit_images.write(folder / "images")
            trainwatch.audit(folder / "images").save(folder / "audit")
        address = browser.serve(folder / "runs", fast=False)
        shoot("tab", WIDE, tab(address))
        shoot("tab-figures-dark", WIDE, tab(address, dark=True, figures=True))
        report = next((folder / "runs").rglob("report.html"))
        shoot("report", WIDE, page(report))
        shoot("report-narrow-dark", NARROW, page(report, dark=True))
        shoot("audit", WIDE, page(folder / "audit" / "report.html"))
        shoot("audit-figures", WIDE, page(folder / "audit" / "report.html", at="figure"))


if __name__ == "__main__":
    main()
