"""Anything that holds numbers as an array, or a clear word on why it does not."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainwatch.auditing.samples import Layout
from trainwatch.auditing.sources.reading import AuditError

CHANNELS = (1, 3, 4)
SIDE = 4  # pixels that a picture has at least


def as_array(value: Any, what: str) -> NDArray[Any]:
    """An array of a tensor, a picture, a column of a table, a number or nested lists of these; durations in days.

    Raises:
        AuditError: Its parts differ in shape, or it holds something else than numbers, yes / no and texts.
    """
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided:
            raise AuditError(f"{what} is a sparse tensor: pass it as .to_dense(), or some columns of it")
        value = value.detach().cpu()
        return np.asarray((value.float() if value.dtype is torch.bfloat16 else value).numpy())
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
        value = [as_array(v, what) for v in value]
    try:
        array = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
    except ValueError:
        raise AuditError(f"{what} is ragged{_lengths(value)}: pad or cut its samples to one shape") from None
    if array.dtype == object and array.size:
        array = _of_objects(array, what)
    if array.dtype.kind == "m":
        array = array / np.timedelta64(1, "D")
    if array.dtype.kind not in "buifUM":
        raise AuditError(f"{what} holds {_kind(array)}: turn it into numbers first")
    return array


def as_inputs(array: NDArray[Any], what: str) -> tuple[NDArray[Any], Layout]:
    """Inputs as numbers, pictures with the channels last, and what they are taken for.

    Pictures are bytes of three dimensions or more, or have 1, 3 or 4 channels before or behind two sides, or two equal
    sides without channels.

    Raises:
        AuditError: They are no numbers.
    """
    if array.dtype.kind == "U":
        raise AuditError(f"{what} holds texts such as {str(array.flat[0])[:40]!r}: encode them as numbers first")
    if array.dtype.kind == "M":
        array = days(array)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.ndim < 3:
        return (array[:, None] if array.ndim == 1 else array), "rows"
    if array.ndim == 4 and min(array.shape[2:]) >= SIDE and array.shape[1] in CHANNELS:
        return np.moveaxis(array, 1, -1), "images"
    if array.ndim == 4 and min(array.shape[1:3]) >= SIDE and array.shape[3] in CHANNELS:
        return array, "images"
    square = array.shape[1] == array.shape[2] or array.dtype == np.uint8
    if array.ndim == 3 and square and min(array.shape[1:]) >= SIDE:
        return array[..., None], "images"
    return array, "other"


def days(dates: NDArray[Any]) -> NDArray[np.float64]:
    """Dates as days since 1970; NaN where there is none."""
    seconds = dates.astype("datetime64[s]")
    return np.where(np.isnat(seconds), np.nan, seconds.astype(np.int64) / 86_400)


def _of_objects(array: NDArray[Any], what: str) -> NDArray[Any]:
    """Numbers, texts or dates that only happen to be kept as objects."""
    there = [v for v in array.flat if not _is_missing(v)]
    kinds = {type(v).__name__ for v in there}
    if kinds <= {"str"}:
        return np.array(["" if _is_missing(v) else v for v in array.flat], dtype=str).reshape(array.shape)
    if there and all(isinstance(v, datetime.date) for v in there):
        moments = [np.datetime64("NaT") if _is_missing(v) else _moment(v) for v in array.flat]
        return np.array(moments, "datetime64[s]").reshape(array.shape)
    try:
        return np.array([np.nan if _is_missing(v) else v for v in array.flat], np.float64).reshape(array.shape)
    except (TypeError, ValueError):
        if any(isinstance(v, (Sequence, np.ndarray)) and not isinstance(v, str) for v in array.flat):
            told = f"{what} is ragged{_lengths(array)}: pad or cut its samples to one shape"
        elif len(kinds) == 1:
            told = f"{what} holds values of type {kinds.pop()}: turn it into numbers first"
        else:
            told = f"{what} mixes {', '.join(sorted(kinds))}: make each column one type, and texts numbers"
        raise AuditError(told) from None


def _moment(value: datetime.date) -> np.datetime64:
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return np.datetime64(value, "s")


def _is_missing(value: Any) -> bool:
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def _lengths(value: Any) -> str:
    lengths = {len(v) for v in value if hasattr(v, "__len__")} if hasattr(value, "__iter__") else set()
    return f" (lengths from {min(lengths)} to {max(lengths)})" if len(lengths) > 1 else ""


def _kind(array: NDArray[Any]) -> str:
    return "complex numbers" if array.dtype.kind == "c" else f"values of type {array.dtype}"
