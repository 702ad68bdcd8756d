"""The state of a watch for a checkpoint, and going on from it in another process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from trainwatch.capture.run_capture import RunCapture
from trainwatch.record import RunRecord, packed, unpack

VERSION = 1
OF_THIS_PROCESS = ("run", "overhead", "loaders", "switched_off", "put_off")  # facts that are not carried over


def state_of(record: RunRecord, capture: RunCapture) -> dict[str, Any]:
    """Plain numbers and one tensor of bytes, which `torch.save` keeps and ``weights_only=True`` reads."""
    data = np.frombuffer(packed(record), np.uint8)
    return {"version": VERSION, **capture.progress(), "record": torch.from_numpy(data.copy())}


def resume(state: Mapping[str, Any], record: RunRecord, capture: RunCapture) -> None:
    """Put a state in place, before the first step.

    Args:
        state: Of `state_of`.
        record: Where the run goes on; what it holds of its own process stays.
        capture: Of the run.

    Raises:
        ValueError: It is no such state, or steps were taken already.
    """
    if not isinstance(state, Mapping) or not {"version", "step", "record"} <= set(state):
        raise ValueError("this is no state of a watch: pass what `state_dict` returned")
    if state["version"] != VERSION:
        raise ValueError(f"this state has version {state['version']!r}; this trainwatch reads {VERSION}: upgrade it")
    if capture.step:
        raise ValueError(f"{capture.step} steps were taken already: load the state before the first one")
    own = {topic: record.facts[topic] for topic in OF_THIS_PROCESS if topic in record.facts}
    unpack(state["record"].cpu().numpy().tobytes(), record)
    for topic in OF_THIS_PROCESS:
        record.set_fact(topic, own[topic]) if topic in own else record.facts.pop(topic, None)
    capture.resume(state)
