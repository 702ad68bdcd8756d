"""A headless Chromium on a TensorBoard that runs in this process, for the tests of the tab and its benchmark."""

import contextlib
import shutil
import warnings

from tensorboard import default, program
from trainwatch.tensorboard.plugin import DiagnosisTab

PATIENCE = 60  # seconds until a page that does not come is a failure


def missing():
    """Why no browser can be driven here; empty where one can."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "needs selenium: pip install selenium"
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"needs {' and '.join(absent)}: apt-get install chromium chromium-driver" if absent else ""


@contextlib.contextmanager
def driver(*, width=1200, height=900):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--window-size={width},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
    made.set_script_timeout(PATIENCE)
    try:
        yield made
    finally:
        made.quit()


def serve(logdir, *, fast, path_prefix=""):
    """Start TensorBoard with the tab on a free port, in threads that end with this process.

    Returns:
        Its address, with a slash at the end.
    """
    plugins = default.get_static_plugins()
    board = program.TensorBoard(plugins=[*plugins, DiagnosisTab])
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # it lets go of the fast loader's process, which ends with ours
        board.configure(
            logdir=str(logdir),
            port=0,
            load_fast="true" if fast else "false",
            reload_interval=1,
            path_prefix=path_prefix,
        )
        return board.launch().rstrip("/") + "/"


class Tab:
    """The tab as a user sees it: one iframe inside TensorBoard's page."""

    def __init__(self, browser, address, *, dark=False):
        self.browser = browser
        self._open(f"{address}?darkMode={str(dark).lower()}#trainwatch")
        find = "return document.querySelector('iframe[src*=\"name=trainwatch\"]')"
        browser.switch_to.frame(self.until(lambda: self.script(find)))
        self._drawn()

    @classmethod
    def alone(cls, browser, address):
        """The same page without TensorBoard's own around it, which takes seconds to load."""
        made = cls.__new__(cls)
        made.browser = browser
        made._open(f"{address}data/plugin_entry.html?name=trainwatch")
        made._drawn()
        return made

    def _open(self, address):
        self.browser.switch_to.default_content()
        self.browser.get("about:blank")  # the same page with another hash would not be loaded again
        self.browser.get(address)
        self.browser.get_log("browser")  # what earlier pages said

    def _drawn(self):
        self.until(lambda: self.script("return document.querySelector('#content')?.childElementCount"))

    def script(self, code, *args):
        return self.browser.execute_script(code, *args)

    def until(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, PATIENCE, 0.05).until(lambda _: condition())

    def texts(self, selector):
        return self.script("return [...document.querySelectorAll(arguments[0])].map((n) => n.textContent)", selector)

    def choose(self, run):
        self.script(
            "const s = document.querySelector('#run'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))",
            run,
        )

    def outside(self, code):
        """Run a script in TensorBoard's own page."""
        return self.script(f"return (() => {{ const document = window.parent.document; {code} }})()")

    def reload(self):
        """Press TensorBoard's reload button."""
        self.outside(
            "document.querySelector('[aria-label*=\"Reload\"], .reload-button, app-header-reload button').click()"
        )

    def scroll_through(self):
        """Show each chart once, so that all are drawn."""
        for index in range(len(self.texts("figure"))):
            self.script("document.querySelectorAll('figure')[arguments[0]].scrollIntoView()", index)
            self.until(lambda i=index: self.script(
                "return !document.querySelectorAll('figure .chart')[arguments[0]].matches('.waiting')", i
            ))  # fmt: skip
        self.script("scrollTo(0, 0)")

    def errors(self):
        """What the console complained about on pages of the tab."""
        log = self.browser.get_log("browser")
        return [m["message"] for m in log if m["level"] == "SEVERE" and "favicon" not in m["message"]]
