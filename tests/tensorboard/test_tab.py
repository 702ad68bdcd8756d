"""The tab in a real browser on a real TensorBoard. Skipped, with the reason, where no Chromium can be driven."""

import browser
import pytest
import torch
from tabs import FIGURES, NASTY, diagnosis, report
from torch import nn

import trainwatch
from trainwatch.diagnosis import Severity
from trainwatch.figures import Bars
from trainwatch.report import Report
from trainwatch.tensorboard.writer import TensorBoardSink

pytestmark = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "-")
HOSTILE = "<img src=x onerror=document.title=1>"  # as good a name of a directory as any
ROWS = "section.cause"


@pytest.fixture(scope="module")
def chromium():
    with browser.driver() as made:
        yield made


def write(directory, *reports, **more):
    sink = TensorBoardSink.open(directory)
    for rank, each in enumerate(reports, 1):
        sink.findings(50 * rank, each, **more)
    sink.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """TensorBoard over three runs: one with everything that can be drawn, a healthy one, one that means harm."""
    logs = tmp_path_factory.mktemp("logs")
    gone = [(diagnosis("TW601", "learning-rate-too-high"), 30)]
    write(logs / "full", report(), resolved=gone, unconfirmed={"TW201"})
    write(logs / "healthy", Report("healthy", facts={"run": {"steps": 50, "finished": True}}))
    nasty = diagnosis(severity=Severity.ERROR, name=NASTY, summary=NASTY, where=(NASTY,))
    write(logs / HOSTILE, report(nasty, figures={"classes": Bars(NASTY, (NASTY,), {NASTY: (1.0,)})}))
    return browser.serve(logs, fast=False)


@pytest.fixture
def page(chromium, address):
    """The tab without TensorBoard's own page around it, which takes seconds to load."""
    made = browser.Tab.alone(chromium, address)
    made.until(lambda: len(made.texts("#run option")) == 4)
    return made


def shown(tab, run):
    """Choose a run and wait for it."""
    tab.choose(run)
    tab.until(lambda: tab.script("return document.querySelector('#content').dataset.run") == run)
    tab.scroll_through()


class Training:
    """A small training that goes wrong: steps as long as the weights."""

    def __init__(self, directory):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self.criterion = nn.CrossEntropyLoss()
        settings = trainwatch.Settings(probes="off", quiet=True, flush_every=10)
        self.watch = trainwatch.watch(
            self.model, self.optimizer, loss_fn=self.criterion, log_dir=directory, settings=settings
        )

    def steps(self, count):
        for _ in range(count):
            x = torch.randn(16, 8)
            self.optimizer.zero_grad()
            self.criterion(self.model(x), (x[:, 0] > 0).long()).backward()
            self.optimizer.step()

    def spoil(self):
        with torch.no_grad():
            self.model[0].weight.fill_(float("nan"))
        self.steps(20)


@pytest.mark.parametrize("fast", [False, True], ids=["slow loader", "fast loader"])
def test_a_run_is_followed_while_it_is_written(fast, chromium, tmp_path):
    training = Training(tmp_path / "live")
    training.steps(60)
    tab = browser.Tab(chromium, browser.serve(tmp_path, fast=fast))

    def reloaded(condition):
        tab.reload()
        return condition()

    tab.until(lambda: reloaded(lambda: tab.texts(".verdict")))
    (before,) = tab.texts(".verdict")
    training.spoil()
    training.watch.finish()
    tab.until(lambda: reloaded(lambda: any("TW303" in title for title in tab.texts(f"{ROWS} h2"))))
    assert tab.texts(".verdict") != [before]
    assert "80 steps" in tab.texts(".verdict")[0]
    assert tab.texts("figure figcaption")
    second = Training(tmp_path / "second")
    second.steps(30)
    second.watch.finish()
    tab.until(lambda: reloaded(lambda: len(tab.texts("#run option")) == 3))
    assert tab.texts("#run option") == ["All 2 runs", "live/trainwatch", "second/trainwatch"]
    assert any("TW303" in title for title in tab.texts(f"{ROWS} h2"))  # the chosen run stays
    assert tab.errors() == []


def test_the_dark_mode_of_tensorboard_is_followed(chromium, address):
    tab = browser.Tab(chromium, address, dark=True)
    colour = "return getComputedStyle(document.body).backgroundColor"
    assert tab.script(colour) == "rgb(15, 18, 22)"
    tab.choose("full")
    tab.until(lambda: tab.texts("figure"))
    tab.scroll_through()
    tab.script("document.querySelector('.lines').dataset.old = true")
    tab.outside("document.body.classList.remove('dark-mode')")
    tab.until(lambda: tab.script(colour) == "rgb(255, 255, 255)")
    tab.scroll_through()
    assert tab.texts(".lines")
    assert tab.texts(".lines[data-old]") == []  # what stands on a canvas is drawn anew


def test_all_runs_are_listed_and_lead_to_each(page):
    page.choose("")
    page.until(lambda: page.texts("button.link"))
    rows = page.texts("tbody tr")
    assert len(rows) == 3
    assert "TW201 overfitting (warning)" in " ".join(rows)
    assert "Healthy: nothing wrong was found" in " ".join(rows)
    page.script("[...document.querySelectorAll('button.link')].find((b) => b.textContent === 'healthy').click()")
    page.until(lambda: page.texts(".verdict.healthy"))
    assert page.script("return document.querySelector('#run').value") == "healthy"


def test_a_run_says_what_its_report_says_in_that_order(page):
    shown(page, "full")
    text = page.script("return document.querySelector('#content').innerText")
    parts = ["problem found", "TW201 overfitting (warning)", "It is fitted by heart", "Where", "began near step 25",
             "seen by one look so far", "rise of the validation loss", "What to do", "Stop at step 25",
             "max_steps = 25  # <here>", "Keep the dropout (already in use)", "Leads to", "TW203 trained-past-best",
             "Resolved", "TW601", "resolved at step 30", "Figures", "Not checked", "no classes: TW103",
             "trainwatch explain TW201"]  # fmt: skip
    places = [text.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert places == sorted(places)
    assert page.script("return document.querySelectorAll('.cause.warning.unconfirmed, li.in-use').length") == 2


def test_every_kind_of_figure_is_drawn(page):
    shown(page, "full")
    drawn = page.script("return [...document.querySelectorAll('figure')].map((f) => [f.dataset.name, f.innerText])")
    assert [name for name, _ in drawn] == list(FIGURES)
    texts = dict(drawn)
    assert "0.9" in texts["classes"]
    assert "3 ± 0.1" in texts["spectrum"]
    assert "0 to 2; 1 NaN" in texts["spreads"]
    assert page.script("return document.querySelectorAll('figure[data-name=spreads] path').length") == 2
    pictures = (
        "return [...document.querySelectorAll('figure[data-name=samples] img')].map((i) => [i.alt, i.naturalWidth])"
    )
    page.until(lambda: page.script(pictures) == [["cat: row 3", 1]])
    lines = page.script("return [...document.querySelectorAll('.lines')].map((n) => n.getAttribute('aria-label'))")
    assert "train mse from 2 to 0.5 at 50" in lines[0]
    assert "lowest; TW201 began at 25" in lines[0]
    inked = """return [...document.querySelectorAll('figure canvas')].map((c) =>
        new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size > 1)"""
    assert page.script(inked) == [True] * 4
    above = """const c = document.querySelector('figure[data-name=loss] canvas'), unit = devicePixelRatio;
        return c.getContext('2d').getImageData(100 * unit, 0, c.width - 100 * unit, 16 * unit).data.some(Boolean)"""
    assert page.script(above), "the text of a mark stands above the lines"
    assert page.errors() == []


def test_cells_are_read_out_by_mouse_and_by_keys(page):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    shown(page, "full")
    canvas = page.browser.find_element(By.CSS_SELECTOR, "figure[data-name=gradients] canvas")
    page.script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    quarter = canvas.size["width"] // 4, canvas.size["height"] // 4
    ActionChains(page.browser).move_to_element(canvas).move_by_offset(-quarter[0], quarter[1]).perform()
    readout = "figure[data-name=gradients] output"
    page.until(lambda: page.texts(readout) == ["2.weight, step 0: 0.1"])
    canvas.send_keys(Keys.ARROW_UP)
    assert page.texts(readout) == ["0.weight, step 0: 0.001"]
    canvas.send_keys(Keys.ARROW_RIGHT)
    canvas.send_keys(Keys.ARROW_RIGHT)
    assert page.texts(readout) == ["0.weight, step 50: none"]


def test_code_is_copied(page):
    from selenium.webdriver.common.by import By

    shown(page, "full")
    button = page.browser.find_element(By.CSS_SELECTOR, ".copy")
    page.script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    page.until(lambda: button.text == "Copied")


def test_names_from_disk_stay_text(page):
    shown(page, HOSTILE)
    assert page.script("return document.title") == "Diagnosis"
    assert page.script("return document.querySelectorAll('#content img, #content b, #run img').length") == 0
    assert NASTY in page.texts(f"{ROWS} strong")
    assert NASTY in page.texts("figcaption")
    page.choose("")
    page.until(lambda: HOSTILE in page.texts("button.link"))
    assert page.script("return document.querySelectorAll('img').length") == 0
    assert page.errors() == []


@pytest.mark.parametrize(("dark", "width"), [(False, 1200), (True, 480)], ids=["light and wide", "dark and narrow"])
def test_contrast_names_and_structure_pass_axe(dark, width, page):
    axe = pytest.importorskip("axe_core_python.selenium").Axe()
    page.browser.set_window_size(width, 900)
    page.script("document.body.classList.toggle('dark-mode', arguments[0])", dark)
    page.until(lambda: page.script("return document.documentElement.classList.contains('dark')") == dark)
    for run in ("", "full"):
        if run:
            shown(page, run)
        found = axe.run(page.browser)
        assert "color-contrast" in {rule["id"] for rule in found["passes"]}
        told = [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in found["violations"]]
        assert told == []
    assert page.script("return document.documentElement.scrollWidth <= innerWidth")
    page.browser.set_window_size(1200, 900)


def test_without_runs_the_page_says_what_to_do(chromium, tmp_path):
    tab = browser.Tab.alone(chromium, browser.serve(tmp_path, fast=False, path_prefix="/tb"))
    assert "No run has been watched yet" in tab.texts("h2")
    assert any("trainwatch.watch(model, optimizer" in code for code in tab.texts("code"))
    assert tab.errors() == []


def test_what_is_shown_stays_when_tensorboard_is_gone(page):
    shown(page, "full")
    page.script("window.fetch = () => Promise.reject(new TypeError('no answer'))")
    page.choose("healthy")
    page.until(lambda: "Is TensorBoard still running?" in page.texts(".status")[0])
    assert page.texts(f"{ROWS} h2") == ["TW201 overfitting (warning)"]
