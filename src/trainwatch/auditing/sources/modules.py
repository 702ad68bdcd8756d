"""Lightning's data modules, known by what they can do: Lightning itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainwatch.auditing.sources.reading import AuditError


def is_data_module(source: Any) -> bool:
    """Whether it makes loaders for training."""
    return callable(getattr(source, "train_dataloader", None)) and not isinstance(source, type)


def loaders_of(module: Any) -> tuple[Any, Any]:
    """The loader for training and the first one for validation, or None for that.

    Raises:
        AuditError: The module cannot make a loader for training, or several at once.
    """
    train, failed = _asked(module, "train_dataloader")
    if failed or train is None:  # what a Trainer calls first
        try:
            for step, arguments in (("prepare_data", ()), ("setup", ("fit",))):
                getattr(module, step, lambda *_: None)(*arguments)
        except Exception as error:
            raise AuditError(f"{type(module).__name__}.{step} fails: {type(error).__name__}: {error}") from error
        train, failed = _asked(module, "train_dataloader")
    if failed or train is None:
        why = f": {failed}" if failed else ""
        raise AuditError(
            f"{type(module).__name__} makes no loader for training{why}; pass a loader or a dataset instead"
        )
    if isinstance(train, (Mapping, list, tuple)) or hasattr(train, "flattened"):
        raise AuditError(f"{type(module).__name__} trains on several loaders at once: audit them one by one")
    val, _ = _asked(module, "val_dataloader")
    if isinstance(val, Mapping):
        val = list(val.values())
    return train, (val[0] if val else None) if isinstance(val, (list, tuple)) else val


def _asked(module: Any, name: str) -> tuple[Any, str]:
    try:
        return getattr(module, name)(), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
