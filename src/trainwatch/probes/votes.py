"""Whether the sub-networks of dropout vote better than the whole net, and how alike its hidden units are (§6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from trainwatch.probes.bench import Bench
from trainwatch.probes.co_adaptation import correlations
from trainwatch.probes.evaluated import mean_and_error
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.listening import step_by_step

KIND = "votes"
QUANTITIES = ("votes", "co_adaptation")
AT_END = True
BATCHES = 8
PASSES = 8  # with dropout awake
STEPS = BATCHES * (PASSES + 2) // 3  # so many forward passes; a training step is worth about three

Change = Callable[[torch.Tensor], torch.Tensor]


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _logit(p: torch.Tensor) -> torch.Tensor:
    return p.logit(torch.finfo(p.dtype).eps)


# Criterion -> what predictions become before they are averaged, and what their mean becomes to be scored.
BALLOTS: dict[str, tuple[Change, Change]] = {
    "cross_entropy": (lambda x: x.softmax(1 if x.ndim > 1 else 0), torch.log),
    "nll_loss": (torch.exp, torch.log),
    "binary_cross_entropy_with_logits": (torch.sigmoid, _logit),
    **dict.fromkeys(("binary_cross_entropy", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"), (_same, _same)),
}


def measure(bench: Bench) -> None:
    """On a copy in evaluation mode, correlate hidden units; then wake dropout alone, and let 8 passes vote.

    On validation batches, failing these on training batches. A row of `co_adaptation`, see `correlations`, has the name
    of a dropout or, in a net without dropout, of a layer. A row of `votes`, under ``val`` or ``train``, is (loss of
    one pass in evaluation mode, of the mean prediction of `PASSES` passes, standard error of the difference of these
    two, mean loss of a single one of the passes, passes, samples). Probabilities are averaged, or the outputs of a
    regression (Srivastava et al. 2014, "Dropout", section 7.5: the vote against the pass that stands for it).

    Raises:
        CannotIsolate: There is dropout, but predictions cannot be averaged.
    """
    kind = "val" if bench.held("val", BATCHES) else "train"
    batches: Sequence[Any] = bench.batches(kind, BATCHES)
    names = [str(d["name"]) for d in (bench.record.facts.get("regularisation") or {}).get("dropout") or ()]
    with bench.model() as model, torch.no_grad(), step_by_step():
        modules = dict(model.named_modules())
        names = [name for name in names if name in modules]  # one may have been taken out since
        for name, found in correlations(model, names, batches).items():
            bench.record.append("co_adaptation", name, bench.step, found)
        if not names:
            return
        function = getattr(batches[0], "function", "a loss of the trainer's own")
        if function not in BALLOTS:
            raise CannotIsolate(f"predictions that are scored by {function} cannot be averaged")
        whole = [batch.predict(model) for batch in batches]
        for name in names:
            modules[name].training = True  # what lies within it stays as it is
        losses = torch.cat([_tried(model, batch, alone) for batch, alone in zip(batches, whole, strict=True)], 1)
    one, vote, single = losses.float().cpu().numpy().astype(np.float64)
    levels = [mean_and_error(each)[0] for each in (one, vote, single)]
    row = [*levels[:2], mean_and_error(vote - one)[1], levels[2], PASSES, sum(batch.samples for batch in batches)]
    bench.record.append("votes", kind, bench.step, row)


def _tried(model: torch.nn.Module, batch: Any, alone: torch.Tensor) -> torch.Tensor:
    """Losses of one pass without dropout, of the vote, and of single passes with dropout, shape (3, samples)."""
    to_ballot, to_prediction = BALLOTS[batch.function]
    total, singles = torch.zeros_like(alone, dtype=torch.float32), []
    for _ in range(PASSES):
        given = batch.predict(model)
        singles.append(_losses(batch, given))
        total += to_ballot(given.float())
    vote = to_prediction(total / PASSES).to(alone.dtype)
    return torch.stack([_losses(batch, alone), _losses(batch, vote), torch.stack(singles).mean(0)])


def _losses(batch: Any, predictions: torch.Tensor) -> torch.Tensor:
    """Loss of each sample, of the batch where it has no such parts; shape (n,)."""
    whole, each = batch.losses_of(predictions)
    found: torch.Tensor = whole.reshape(-1) if each is None else each
    return found
