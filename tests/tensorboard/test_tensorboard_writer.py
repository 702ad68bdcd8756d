"""What is written is read back with TensorBoard's own readers; no server runs."""

import math
import subprocess
import sys

import pytest
from tabs import report
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.report import Report
from trainwatch.tensorboard import summaries
from trainwatch.tensorboard.snapshot import figures_json, findings_json
from trainwatch.tensorboard.tags import FIGURES, FINDINGS
from trainwatch.tensorboard.writer import GRADIENTS, REPORT, SNAPSHOTS, TensorBoardSink, open_sink

FOUND = Report("findings", (Diagnosis("TW201", "overfitting", Severity.WARNING, "Class a|b is fitted by heart."),))


def torch_writer(directory):
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(directory)


def tensorboardx_writer(directory):
    tensorboardx = pytest.importorskip("tensorboardX")
    return tensorboardx.SummaryWriter(str(directory))


@pytest.fixture(params=["own", "torch", "tensorboardX"])
def sink(request, tmp_path):
    """A sink of each kind into `tmp_path`; to close it closes what it writes through as well."""
    if request.param == "own":
        made = TensorBoardSink.open(tmp_path)
        yield made
    else:
        writer = {"torch": torch_writer, "tensorboardX": tensorboardx_writer}[request.param](tmp_path)
        made, close = TensorBoardSink(writer), TensorBoardSink.close
        made.close = lambda: (close(made), writer.close())
        yield made
    made.close()


def events(directory, tag):
    """All events of a tag as they stand in the files."""
    loaded = [e for file in sorted(directory.glob("**/*tfevents*")) for e in EventFileLoader(str(file)).Load()]
    return [(e.step, v) for e in loaded for v in e.summary.value if v.tag == tag]


def accumulated(directory):
    return EventAccumulator(str(directory), size_guidance={"tensors": 0}).Reload()


def test_scalars_are_curves(sink, tmp_path):
    sink.scalars(0, {"trainwatch/train_loss/root": 2.5, "trainwatch/lr": 0.1})
    sink.scalars(50, {"trainwatch/train_loss/root": 1.5})
    sink.close()
    curve = accumulated(tmp_path).Scalars("trainwatch/train_loss/root")
    assert [(e.step, e.value) for e in curve] == [(0, 2.5), (50, 1.5)]


def test_what_is_not_finite_is_left_out(sink, tmp_path):
    sink.scalars(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0})
    sink.scalars(2, {"a": math.nan})
    sink.scalars(3, {"a": 3.0})
    sink.close()
    assert [step for step, _ in events(tmp_path, "a")] == [3]
    assert [step for step, _ in events(tmp_path, "d")] == [1]
    assert accumulated(tmp_path).Tags()["scalars"] == ["d", "a"]


def test_points_that_do_not_rise_are_left_out(sink, tmp_path):
    for step in (10, 20, 20, 5, 30):
        sink.scalars(step, {"a": float(step)})
    sink.close()
    assert [step for step, _ in events(tmp_path, "a")] == [10, 20, 30]


def test_reports_stand_at_rising_steps_and_name_their_plugin_each_time(sink, tmp_path):
    for step in (7, 7, 3, 20):
        sink.findings(step, FOUND)
    sink.close()
    for tag, plugin in ((REPORT, "text"), (FINDINGS, "trainwatch"), (FIGURES, "trainwatch")):
        written = events(tmp_path, tag)
        assert [step for step, _ in written] == [7, 8, 9, 20]
        for _, value in written:
            assert value.metadata.plugin_data.plugin_name == plugin
            assert value.metadata.data_class == 2  # DATA_CLASS_TENSOR


def test_report_reads_back(sink, tmp_path):
    sink.findings(5, FOUND)
    sink.close()
    text, findings, figures = (events(tmp_path, tag)[0][1].tensor.string_val[0] for tag in (REPORT, FINDINGS, FIGURES))
    assert text.decode() == FOUND.to_markdown()
    assert findings.decode() == findings_json(FOUND)
    assert figures.decode() == figures_json(FOUND)


@pytest.mark.parametrize("made", [TensorBoardSink.open, lambda d: TensorBoardSink(torch_writer(d))])
def test_report_is_visible_before_the_writer_is_closed(made, tmp_path):
    sink = made(tmp_path)
    sink.findings(5, FOUND)
    assert len(events(tmp_path, REPORT)) == 1
    sink.close()
    sink.close()


def test_tensorboard_itself_lists_the_report(sink, tmp_path):
    sink.findings(5, FOUND)
    sink.close()
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    for plugin, tags in (("text", [REPORT]), ("trainwatch", [FINDINGS, FIGURES])):
        listed = provider.list_tensors(RequestContext(), experiment_id="", plugin_name=plugin)
        assert [list(found) for found in listed.values()] == [tags]


def test_gradients_are_a_picture_for_stock_tensorboard(sink, tmp_path):
    sink.picture(5, report())
    sink.picture(6, FOUND)
    sink.close()
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = RequestContext()
    (listed,) = provider.read_blob_sequences(context, experiment_id="", plugin_name="images", downsample=9).values()
    ((event,),) = listed.values()
    assert list(listed) == [GRADIENTS]
    assert event.step == 5
    width, height, png = (provider.read_blob(context, blob_key=v.blob_key) for v in event.values)
    assert png.startswith(b"\x89PNG")
    assert int(width) > int(height) > 100


def test_layout_has_training_and_validation_in_one_chart(sink, tmp_path):
    sink.layout(["train/a+b"], ["val"], ["norm"])
    sink.layout(["train/a+b"], ["val"], ["norm"])
    sink.layout(["train/a+b"], ["val", "val/1"])
    sink.layout([], [])
    sink.close()
    written = events(tmp_path, summaries.LAYOUT_TAG)
    assert [step for step, _ in written] == [0, 1]
    first, second = (Layout.FromString(value.tensor.string_val[0]) for _, value in written)
    assert [category.title for category in first.category] == ["trainwatch"]
    assert [chart.title for chart in first.category[0].chart] == ["training and validation loss", "gradient norm"]
    assert list(first.category[0].chart[0].multiline.tag) == [r"^train/a\+b$", "^val$"]
    assert [chart.title for chart in second.category[0].chart] == ["training and validation loss"]


def test_snapshots_are_wanted_at_changes_and_at_doubled_steps(tmp_path):
    sink = TensorBoardSink.open(tmp_path)
    written = []
    for step in range(0, 1000, 10):
        if sink.wants_snapshot(step, changed=step == 500):
            sink.findings(step, FOUND)
            written.append(step)
    sink.close()
    assert written == [10, 20, 40, 80, 160, 320, 500]


def test_snapshots_are_bounded_with_one_kept_for_the_end(tmp_path):
    sink = TensorBoardSink.open(tmp_path)
    for step in range(200):
        if sink.wants_snapshot(step, changed=True):
            sink.findings(step, FOUND)
    sink.findings(200, FOUND)
    sink.close()
    written = events(tmp_path, REPORT)
    assert len(written) == SNAPSHOTS
    assert written[-1][0] == 200


def test_the_writer_of_the_trainer_stays_open_and_gets_no_second_file(tmp_path):
    writer = torch_writer(tmp_path)
    sink = open_sink(tmp_path / "elsewhere", writer)
    sink.findings(5, FOUND)
    sink.close()
    writer.add_scalar("mine", 1.0, 6)
    writer.close()
    assert len(list(tmp_path.glob("**/*tfevents*"))) == 1
    tags = accumulated(tmp_path).Tags()
    assert (set(tags["tensors"]), tags["scalars"]) == ({REPORT, FINDINGS, FIGURES}, ["mine"])


def test_without_a_writer_the_file_goes_into_a_run_of_its_own(tmp_path):
    sink = open_sink(tmp_path)
    sink.findings(5, FOUND)
    sink.close()
    assert [file.parent for file in tmp_path.glob("**/*tfevents*")] == [tmp_path / "trainwatch"]
    assert open_sink(None) is None


def test_stand_in_of_other_processes_writes_nothing():
    class StandIn:
        def __getattr__(self, name):
            return lambda *args, **kwargs: None

    sink = TensorBoardSink(StandIn())
    sink.scalars(1, {"a": 1.0})
    sink.findings(1, FOUND)
    sink.close()


def test_other_loggers_are_refused_by_name():
    with pytest.raises(TypeError, match=r"SummaryWriter of torch or tensorboardX, got dict"):
        TensorBoardSink({})


def test_missing_tensorboard_is_said(monkeypatch, tmp_path):
    for name in [n for n in sys.modules if n.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        open_sink(tmp_path)


def test_neither_torch_nor_tensorboard_is_loaded_early(tmp_path):
    code = f"""
import sys
from trainwatch.tensorboard.writer import open_sink
assert not {{"torch", "tensorboard", "rich"}} & set(sys.modules)
from trainwatch.report import Report
sink = open_sink({str(tmp_path)!r})
sink.findings(1, Report("healthy"))
sink.close()
assert not {{"torch", "tensorflow"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
