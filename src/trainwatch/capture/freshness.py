"""Whether a weight looks as it did when it was initialised."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from trainwatch.capture import wiring
from trainwatch.capture.shards import is_shard

SIDE = 1000  # rows and columns of one that are looked at
JUDGED = 32  # parameters whose randomness is judged, so that the start does not take long
LARGEST = 1_000_000  # entries of such a parameter
SMALLEST = 32
UNIFORM_EDGE = 1.06  # largest entry over that of a uniform distribution of the same deviation
UNIFORM_SPREAD = 0.15  # of few entries: how far their deviation may be from that of a uniform distribution
SIDES = 16  # rows and columns without which the largest singular value tells nothing
STANDS_OUT = 1.15  # times that of noise: at random up to 1.1, after a few epochs from 1.4 on (measured)
ALIKE = 1e-5  # deviation over the largest entry: less is rounding
BIASES = 8  # entries of a bias without which it tells nothing: those of a few outputs may be set by hand
BIAS_EDGE = 1.02  # largest entry of a bias over the largest that torch draws
NORMAL_EDGE = 1.6  # largest entry over that of a uniform distribution of the same deviation: normal noise is beyond
ABOVE_NOISE = 1.06  # times that of noise, where a bias shows training as well
PRACTISED = 8  # batches that a batch norm has seen
NORMAL_SURE = 4.0  # standard errors that the deviation of a fresh embedding may be from 1


def can_be_judged(module: nn.Module | None, parameter: torch.Tensor) -> bool:
    """Whether `is_fresh` can tell: a weight of a layer, neither tiny nor huge."""
    layer = isinstance(module, wiring.MATRIX_OWNERS) and parameter.ndim > 1 and parameter.is_floating_point()
    return layer and not is_shard(parameter) and SMALLEST <= parameter.numel() <= LARGEST


def is_fresh(module: nn.Module, parameter: torch.Tensor) -> bool:
    """Whether a weight looks as it did when it was initialised: noise without structure.

    Either it has the hard edges of a uniform distribution, which the first epoch of training blurs, or just fills the
    range of torch's default one. Or its largest singular value is that of a random matrix (Marchenko and Pastur, 1967:
    sd (sqrt(rows) + sqrt(columns))) and its bias is still at zero or fills the range of torch's default initialisation.
    Of a large one a block is looked at. An embedding is drawn with deviation 1 by default.
    """
    weight = parameter.detach()
    fan_in = weight.numel() // len(weight)
    matrix = weight.reshape(len(weight), -1)[:SIDE, :SIDE].float()
    if isinstance(module, nn.Embedding):
        error = NORMAL_SURE / math.sqrt(matrix.numel())
        return abs(float(matrix.std()) - 1) < error / math.sqrt(2) and abs(float(matrix.mean())) < error
    deviation = float(matrix.std())
    largest = float(matrix.abs().max())
    if deviation == 0 or largest / deviation < UNIFORM_EDGE * 3**0.5:
        return deviation > 0
    filled_by_default = 0.9 < largest * math.sqrt(fan_in) < 1.0001
    if filled_by_default and abs(deviation / largest * 3**0.5 - 1) < UNIFORM_SPREAD:
        return True
    bias = getattr(module, "bias", None)
    if min(matrix.shape) < SIDES or not isinstance(bias, torch.Tensor):
        return False
    filled = _filled_by(bias, fan_in)
    if filled != 0 and not 0.7 < filled < 1.0001:
        return False
    largest, noise = _largest_beside_noise(matrix)
    return largest < 1.02 * noise


def practised(module: nn.Module) -> bool:
    """Whether a normalisation layer has been trained, and with it the network it stands in.

    Its gains begin all alike, at one as a rule, and its statistics at no batch: a few may only have told shapes.
    """
    gain, seen = getattr(module, "weight", None), getattr(module, "num_batches_tracked", None)
    if isinstance(seen, torch.Tensor) and not seen.is_meta and int(seen) >= PRACTISED:
        return True
    if isinstance(gain, torch.Tensor) and is_shard(gain):
        return False
    if "Norm" not in type(module).__name__ or not isinstance(gain, torch.Tensor) or gain.is_meta or gain.ndim != 1:
        return False
    return len(gain) > 1 and bool((gain != gain[0]).any())


def trained_shows(module: nn.Module, parameter: torch.Tensor) -> bool:
    """Whether `carries_training` can tell: a weight of a layer with enough rows and columns."""
    layer = isinstance(module, wiring.MATRIX_OWNERS) and parameter.ndim > 1 and parameter.is_floating_point()
    return (
        layer
        and not is_shard(parameter)
        and parameter.numel() > 0
        and min(len(parameter), parameter.numel() // len(parameter)) >= SIDES
    )


def carries_training(parameter: torch.Tensor) -> bool:
    """Whether directions stand out in a weight that no way of drawing it at random gives.

    Its largest singular value is well above that of noise of the same deviation (see `is_fresh`). Of a large one a
    block is looked at.
    """
    matrix = parameter.detach().reshape(len(parameter), -1)[:SIDE, :SIDE].float()
    largest, noise = _largest_beside_noise(matrix)
    return largest > STANDS_OUT * noise


def bias_shows_training(module: nn.Module, parameter: torch.Tensor) -> bool:
    """Whether the bias of a layer has left the range of torch's default initialisation, as a trained one does.

    A bias of equal entries is set by hand, and beside a weight that looks like uniform or normal noise it may have been
    drawn from a wider range.

    Args:
        module: Any module.
        parameter: Its weight.
    """
    bias = getattr(module, "bias", None)
    if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd) or bias is None or is_shard(parameter):
        return False
    if len(bias) < BIASES or (bias == bias[0]).all():
        return False
    if _filled_by(bias, parameter.numel() // len(parameter)) < BIAS_EDGE:
        return False
    matrix = parameter.detach().reshape(len(parameter), -1).float()
    largest, noise = _largest_beside_noise(matrix[:SIDE, :SIDE])
    blurred = UNIFORM_EDGE < float(matrix.abs().max() / matrix.std()) / 3**0.5 < NORMAL_EDGE
    return largest > ABOVE_NOISE * noise or (noise > 0 and blurred)


def _filled_by(bias: torch.Tensor, fan_in: int) -> float:
    """The largest entry of a bias over the largest that torch draws, 1 / sqrt(inputs)."""
    return float(bias.detach().abs().max()) * math.sqrt(fan_in)


def _largest_beside_noise(matrix: torch.Tensor) -> tuple[float, float]:
    """The largest singular value of a matrix without its mean, and that of noise of the same deviation.

    Both are zero where all entries are alike but for rounding.
    """
    centred, deviation = matrix - matrix.mean(), float(matrix.std())
    if not deviation > ALIKE * float(matrix.abs().max()):
        return 0.0, 0.0
    return largest_singular_value(centred), deviation * (math.sqrt(matrix.shape[0]) + math.sqrt(matrix.shape[1]))


def still_fresh(models: wiring.Models, names: Sequence[str]) -> dict[str, bool]:
    """For some weights that ended where they began, whether they began fresh, as far as that can be told.

    Args:
        models: The models watched.
        names: Of their parameters; the first `JUDGED` are looked at.
    """
    owners, known = wiring.named_modules(models), wiring.parameters_of(models)
    kinds = (*wiring.MATRIX_OWNERS, nn.Embedding)
    judged = [(owners.get(name.rpartition(".")[0]), name) for name in names if name in known][:JUDGED]
    return {
        name: is_fresh(owner, known[name])
        for owner, name in judged
        if isinstance(owner, kinds) and known[name].ndim > 1 and known[name].numel() >= SMALLEST
    }


def largest_singular_value(matrix: torch.Tensor, rounds: int = 12) -> float:
    """Of a matrix (rows, columns), by power iteration: a lower bound, close where one value stands out."""
    vector = torch.linspace(-1, 1, matrix.shape[1], device=matrix.device).cos()  # no draw from anyone's generator
    for _ in range(rounds):
        vector = matrix.T @ (matrix @ vector)
        vector = vector / vector.norm().clamp(min=1e-30)
    return float((matrix @ vector).norm())
