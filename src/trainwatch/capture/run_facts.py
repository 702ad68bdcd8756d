"""Facts of a run that no step measures: its parameters, modules, optimisers, loaders, losses and task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainwatch.capture import wiring
from trainwatch.capture.augmentation import augmentations
from trainwatch.capture.broadcast import broadcast_difference
from trainwatch.capture.interception import LossCall
from trainwatch.capture.linearity import is_shifted, last_operation, normalised_over
from trainwatch.capture.tasks import task_of
from trainwatch.record import RunRecord


class RunFacts:
    """Writes what is known of a run into the record's facts."""

    def __init__(self, record: RunRecord, models: wiring.Models) -> None:
        self.record, self._models = record, models
        self._losses: dict[str, Any] = {}
        self._uses: dict[int, int] = {}

    def start(self, optimizers: Mapping[str, torch.optim.Optimizer], index: Mapping[int, int]) -> None:
        """Note parameters, modules and optimisers.

        Args:
            optimizers: The optimisers by name.
            index: ``id(parameter)`` -> place among all parameters.
        """
        put = self.record.set_fact
        put("parameters", wiring.parameter_facts(self._models))
        put("modules", wiring.module_facts(self._models, {}))
        put("regularisation", wiring.regularisation_facts(self._models, optimizers))
        put("optimizers", {key: wiring.optimizer_facts(o, index) for key, o in optimizers.items()})

    def succeeded(self, key: str, optimizer: torch.optim.Optimizer, index: Mapping[int, int]) -> None:
        """An optimiser took over from the one of this name. Its columns in the record are those of the first."""
        known = self.record.facts["optimizers"]
        columns = known[key]["parameters"]
        there = {i: place for i, place in index.items() if place in columns}
        facts = {**wiring.optimizer_facts(optimizer, there), "parameters": columns}
        self.record.set_fact("optimizers", {**known, key: facts})

    def note_order(self, uses: Mapping[int, int]) -> None:
        """Put parameters and modules in order of execution, as far as the graph behind a loss tells it.

        Args:
            uses: See `wiring.first_uses`.
        """
        self._uses = {**uses, **self._uses}
        rank = wiring.execution_rank(self._models, self._uses)
        parameters = self.record.facts["parameters"]
        owners = sorted({p["module"] for p in parameters}, key=lambda name: rank.get(name, (-1, 0)))
        place = {name: i for i, name in enumerate(owners)}
        self.record.set_fact("parameters", [{**p, "order": place[p["module"]]} for p in parameters])
        self.record.set_fact("modules", wiring.module_facts(self._models, self._uses))

    def add_regularisation(self, **facts: Any) -> None:
        """Add to the inventory of what regularises the run."""
        known = self.record.facts.get("regularisation", {})
        if any(known.get(name) != value for name, value in facts.items()):
            self.record.set_fact("regularisation", {**known, **facts})

    def note_loading(self, step: int) -> None:
        """Note that weights were loaded into a model after so many steps."""
        known = self.record.facts.get("weights_loaded", {"times": 0})
        self.record.set_fact("weights_loaded", {"times": known["times"] + 1, "last_step": step})

    def note_loader(self, loader: Any) -> int | None:
        """Note size and order of the training data.

        Returns:
            Its samples; None where the dataset has no length.
        """
        try:
            samples: int | None = len(loader.dataset)
        except TypeError:
            samples = None
        sampler = type(getattr(loader, "sampler", None)).__name__
        facts = {
            "samples": samples,
            "batch_size": getattr(loader, "batch_size", None),
            "sampler": sampler,
            "shuffled": "Random" in sampler,
            "drop_last": bool(getattr(loader, "drop_last", False)),
            "augmentation": augmentations(getattr(loader, "dataset", None)),
        }
        self.record.set_fact("loaders", {"train": facts})
        return samples

    def note_loss(self, call: LossCall, classes: int | None) -> None:
        """Note what a training loss is, when it is first seen.

        Args:
            call: The loss.
            classes: Width of its logits, where it has any.
        """
        if call.name in self._losses:
            return
        arguments = {name: _plain(value) for name, value in call.arguments.items()}
        self._losses[call.name] = {
            "function": call.name,
            "reduction": arguments.get("reduction", "mean" if call.output.ndim == 0 else "none"),
            "arguments": {name: value for name, value in arguments.items() if value is not None},
            "classes": classes,
            "last_operation": last_operation(call.input) if call.input is not None else None,
            "normalised": normalised_over(call.input) if call.input is not None else None,
            "shifted": call.input is not None and is_shifted(call.input),
            "input_shape": _shape(call.input),
            "target_shape": _shape(call.target),
        }
        self.record.set_fact("loss", self._losses)
        if arguments.get("label_smoothing"):
            self.add_regularisation(label_smoothing=arguments["label_smoothing"])

    def note_broadcast(self, root: torch.Tensor) -> None:
        """Note that a loss written by hand compares each output with all targets."""
        if (found := broadcast_difference(root)) is not None:
            self.record.set_fact("broadcast", found)

    def note_task(self, call: LossCall, inputs: torch.Tensor | None) -> None:
        """Note the task that a loss speaks of, unless it is known."""
        if "task" not in self.record.facts and (task := task_of(call, inputs)) is not None:
            self.record.set_fact("task", task)


def _shape(tensor: torch.Tensor | None) -> list[int] | None:
    return None if tensor is None else list(tensor.shape)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist() if value.numel() <= 64 and value.device.type == "cpu" else "a tensor"
    return value if isinstance(value, (bool, int, float, str)) else None
