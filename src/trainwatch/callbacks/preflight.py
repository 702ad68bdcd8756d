"""`preflight`: a few seconds before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader

from trainwatch.callbacks.arguments import as_named, check_arguments
from trainwatch.capture.interception import heard_by
from trainwatch.checks.batch import OneBatch, one_batch
from trainwatch.checks.preflight import SECONDS, Preflight
from trainwatch.config import Settings, settings_from
from trainwatch.probes.isolation import Source, state_of, untouched
from trainwatch.report import Report


def preflight(
    model: nn.Module,
    loss_fn: Callable[..., Any] | None,
    batch: Any,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    validation: DataLoader[Any] | Literal[False] | None = None,
    seconds: float = SECONDS,
    settings: Settings | Mapping[str, Any] | None = None,
) -> Report:
    """Try a model on one batch before it is trained, within five seconds, and print what was found.

    Everything happens on copies: model, optimiser, gradients, modes and random numbers are afterwards as they were.
    What the model itself raises is a finding, not an exception.

    Args:
        model: The model, on its device.
        loss_fn: From (outputs, targets) to the loss; None where the model returns its loss.
        batch: (inputs, targets) or (input, input, ..., targets), a mapping that holds targets under a usual name
            (``target``, ``label``, ``y`` ...), all on the model's device; or a `DataLoader`, whose first batch is taken
            and put there.
        optimizer: The optimiser; without one it is not known what is trained, and Adam stands in.
        validation: The validation loader, whose first batch is taken; False says that there is none.
        seconds: Time that it may take, more or less; what was not reached by then is listed as not checked.
        settings: `Settings`, or some of their fields.

    Returns:
        The report; its verdict is ``findings``, ``healthy`` or ``not-judged``.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The model has no parameters, the optimiser holds none of them, or the batch has no sample.
        SettingsError: A setting or rule is unknown or cannot be used.
    """
    optimizers = {} if optimizer is None else as_named(optimizer, torch.optim.Optimizer, "optimizer")
    models = as_named(model, nn.Module, "model")
    for what, given in (("model", models), ("optimizer", optimizers)):
        if len(given) > 1:
            raise TypeError(f"preflight tries one {what} at a time, got {len(given)}: call it for each")
    check_arguments(models, optimizers, loss_fn, None, (), None)
    (model,), optimizer = models.values(), next(iter(optimizers.values()), None)
    chosen = settings_from(settings)
    loaded = isinstance(batch, DataLoader)
    tried = one_batch(first_batch(batch, model) if isinstance(batch, DataLoader) else batch, loss_fn, model)
    report = Preflight(chosen, seconds=seconds).judge(
        model,
        optimizer,
        tried,
        validation=_validation(validation, loss_fn, model),
        validated=None if validation is None else validation is not False,
        first_is_batch=loaded,
    )
    if not chosen.quiet:
        report.print()
    return report


def _validation(loader: Any, loss_fn: Callable[..., Any] | None, model: nn.Module) -> OneBatch | None:
    if loader is None or loader is False:
        return None
    if not isinstance(loader, DataLoader):
        raise TypeError(f"validation must be a DataLoader, or False where there is none, got {type(loader).__name__}")
    return one_batch(first_batch(loader, model), loss_fn, model)


def first_batch(loader: DataLoader[Any], model: nn.Module) -> Any:
    """The first batch of a loader, on the model's device. Its generators and those of the process stay as they are.

    A stream that cannot be started anew loses it.

    Raises:
        ValueError: The loader is empty.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with _draws_undone(loader, device):
        for batch in loader:
            return _moved(batch, device)
    raise ValueError("batch is a DataLoader that yields nothing: its dataset is empty, or smaller than a dropped batch")


@contextmanager
def _draws_undone(loader: DataLoader[Any], device: torch.device) -> Iterator[None]:
    """Within, random numbers may be drawn that nobody will miss afterwards, and no watch hears of the loader."""
    owners = (loader, loader.sampler, loader.batch_sampler, loader.dataset)
    sources = {id(v): v for o in owners for v in vars(o).values() if isinstance(v, Source)}  # one may be shared
    kept = [state_of(source) for source in sources.values()]
    with untouched(device), heard_by():
        try:
            yield
        finally:
            for restore in kept:
                restore()


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(each, device) for key, each in value.items()}
    return type(value)(_moved(each, device) for each in value) if type(value) in (tuple, list) else value
