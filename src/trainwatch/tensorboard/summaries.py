"""TensorBoard's protocol buffers for a report, built without torch. A tensor names its plugin and class in every event.

The first event of a tag fixes its metadata in TensorBoard's fast loader, and a tensor without a class is hidden.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from trainwatch.tensorboard.tags import PLUGIN_NAME

LAYOUT_TAG = "custom_scalars__config__"


def scalars(values: Mapping[str, float]) -> Any:
    """One point a tag."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def markdown(tag: str, text: str) -> Any:
    """Markdown, as the text panel renders it."""
    from tensorboard.plugins.text import metadata

    made = metadata.create_summary_metadata(display_name="", description="")
    return _strings(tag, "text", made.plugin_data.content, text.encode())


def snapshot(tag: str, text: str) -> Any:
    """JSON for the tab, which is the plugin named `PLUGIN_NAME`."""
    return _strings(tag, PLUGIN_NAME, b"1", text.encode())


def picture(tag: str, png: bytes) -> Any:
    """A picture, as the panel of images shows it."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = struct.unpack(">II", png[16:24])  # where any PNG has them
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def layout(charts: Mapping[str, Sequence[str]]) -> Any:
    """Charts with several curves each: title -> tags. They stand under one heading among the custom scalars."""
    from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent

    made = [
        Chart(title=title, multiline=MultilineChartContent(tag=[f"^{re.escape(tag)}$" for tag in tags]))
        for title, tags in charts.items()
        if tags
    ]
    content = Layout(category=[Category(title=PLUGIN_NAME, chart=made)]).SerializeToString()
    return _strings(LAYOUT_TAG, "custom_scalars", b"", content)


def _strings(tag: str, plugin: str, content: bytes, value: bytes) -> Any:
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto

    data = SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    metadata = SummaryMetadata(plugin_data=data, data_class=DATA_CLASS_TENSOR)
    tensor = TensorProto(dtype="DT_STRING", string_val=[value])
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
