"""Reports and servers for the tests of the tab: real event files, read by either of TensorBoard's loaders."""

import contextlib
import warnings

from tensorboard.backend import application
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.data import server_ingester
from tensorboard.plugins import base_plugin
from tensorboard.util import grpc_util
from werkzeug import wrappers
from werkzeug.test import Client

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.figures import Bars, Curve, Gallery, Heatmap, Histogram, Intervals, Plane, Profile
from trainwatch.report import Report
from trainwatch.tensorboard.plugin import DiagnosisTab

NASTY = "<img src=x onerror=\"document.title='broken in'\"></script><b>"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
LINES = {"train mse": ((0, 2.0), (50, 0.5)), "val": ((0, 2.1), (50, 0.9))}
POINTS = {"precision": ((0.0, 1.0, 0.0), (1.0, 0.4, 0.1)), "best": ((0.5, 0.8, 0.0),)}
CELLS = ((1e-3, float("nan")), (0.1, 0.2))
SHARES = {"share": (0.9, 0.1), "validation recall": (1.0, float("nan"))}
SPREAD = {"x": {"train": (0.25, 0.75), "val": (1.0, 0.0)}}
FIGURES = {
    "loss": Curve("Loss", "loss", LINES, {25: "lowest"}, bands={"val": ((0, 2.0, 2.2), (50, 0.8, 1.0))}),
    "gradients": Heatmap("Gradient", ("0.weight", "2.weight"), (0, 50), CELLS, "RMS gradient"),
    "classes": Bars("Classes", ("cat", "dog"), SHARES),
    "spectrum": Intervals("Curvature", ("largest", "smallest"), (3.0, -0.5), (0.1, 0.2), "curvature of the loss"),
    "precision_recall": Profile("Precision and recall", "recall", "precision", POINTS, {}),
    "spreads": Histogram("Spreads", {"x": (0.0, 1.0, 2.0)}, SPREAD, {"x": "1 NaN"}),
    "samples": Gallery("Samples", {"cat": ((PNG, "row 3"), ("no picture", "row 4"))}),
    "loss_plane": Plane("Loss around", "x", "y", "loss", (-1.0, 0.0), (0.0, 1.0), ((3.0, 2.0), (2.0, 1.0))),
}


def diagnosis(code="TW201", name="overfitting", severity=Severity.WARNING, summary="It is fitted by heart.", **more):
    return Diagnosis(code, name, severity, summary, **more)


def report(*diagnoses, **more):
    """A report with one cause, its consequence, evidence and remedies, unless others are given."""
    effect = diagnosis("TW203", "trained-past-best", Severity.INFO, "Best was at step 25.", onset_step=25)
    cause = diagnosis(
        onset_step=25,
        reported_step=40,
        confidence=0.93,
        where=("0", "2"),
        evidence=(Evidence("rise of the validation loss", 0.4, 0.1, step=50, where="val"),),
        remedies=(
            Remedy("in-use", "Keep the dropout", "It helps.", "", already_in_use=True),
            Remedy("stop", "Stop at step 25", "It was best there.", "max_steps = 25  # <here>"),
        ),
        consequences=(effect,),
    )
    facts = {"run": {"steps": 50, "finished": True}}
    filled = {"not_checked": {"TW103": "no classes"}, "facts": facts, "figures": FIGURES, **more}
    return Report("findings", diagnoses or (cause,), **filled)


@contextlib.contextmanager
def client(loader, logdir, *, runs=1, path_prefix=""):
    """A client of TensorBoard's own application with the tab, once a loader has seen so many runs."""
    with PROVIDERS[loader](str(logdir)) as data_provider:
        tab = DiagnosisTab(base_plugin.TBContext(data_provider=data_provider, logdir=str(logdir)))
        app = application.TensorBoardWSGI([tab], data_provider=data_provider, path_prefix=path_prefix)
        made = Client(app, wrappers.Response)
        for _ in range(5_000):  # the fast loader answers before it has read all
            if len(made.get(f"{path_prefix}/data/plugin/trainwatch/runs").json["runs"]) >= runs:
                break
        yield made


@contextlib.contextmanager
def slow(logdir):
    multiplexer = EventMultiplexer().AddRunsFromDirectory(logdir).Reload()
    yield MultiplexerDataProvider(multiplexer, logdir)


@contextlib.contextmanager
def fast(logdir):
    ingester = server_ingester.SubprocessServerDataIngester(
        server_binary=server_ingester.get_server_binary(),
        logdir=logdir,
        reload_interval=1,
        channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it lets go of its process, which ends with its input
        ingester.start()
    yield ingester.data_provider
    ingester._stdin_handle.close()


PROVIDERS = {"slow": slow, "fast": fast}
