"""Other packages' ways to the ends of a Hessian's spectrum, for `python benchmarks/hessian.py --peers`.

They want versions of other packages that trainwatch must not depend on, so they have an environment of their own:

    python3 -m venv .peers
    .peers/bin/pip install -c constraints.txt torch numpy scipy
    .peers/bin/pip install --no-deps -r benchmarks/hessian-peers.txt
    OMP_NUM_THREADS=1 PYTHONPATH=src .peers/bin/python benchmarks/hessian.py --peers

Each has a knob between quick and exact. It is turned, untimed, to the quickest setting at which the residuals are small
enough: more than a user could know beforehand. Ours has to find out by itself. An answer without pairs means that the
package itself gave up.
"""

from __future__ import annotations

import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import torch
from torch import nn

MOST = 150  # products with the Hessian for a question

TOLERANCE = 1e-3  # of residuals, as a share of the largest absolute eigenvalue
Pairs = list[tuple[float, torch.Tensor]]  # eigenvalue and flat eigenvector
Residual = Callable[[float, torch.Tensor], float]
Clock = Callable[[], float]


class CannotAnswer(Exception):
    """The package has no way to ask that question."""


@dataclass(frozen=True)
class Task:
    """The Hessian of a criterion of a model in evaluation mode, on one batch."""

    model: nn.Module  # its outputs have the shape (samples, classes)
    inputs: torch.Tensor
    targets: torch.Tensor
    criterion: nn.Module = field(default_factory=nn.CrossEntropyLoss)

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return self.criterion(model(batch[0]), batch[1])


@dataclass(frozen=True)
class Way:
    """How a package answers, ``answer(task, largest, smallest, setting)``, and its settings, quick ones first."""

    answer: Callable[[Task, int, int, float], Pairs]
    settings: Sequence[float]


def ours(task: Task, largest: int, smallest: int, _: float) -> Pairs:
    from trainwatch.probes import hessian_extremes

    found = hessian_extremes(
        task.model,
        loss=task.loss,
        batches=[(task.inputs, task.targets)],
        largest=largest,
        smallest=smallest,
        memory=3 << 30,
        tolerance=TOLERANCE,
        max_products=MOST,
    )
    pairs = [*zip(found.largest, found.largest_vectors, strict=True)]
    pairs += [*zip(found.smallest, found.smallest_vectors, strict=True)]
    return [(value, torch.cat([part.reshape(-1) for part in vector.values()])) for value, vector in pairs]


def curvlinops(task: Task, largest: int, smallest: int, tolerance: float) -> Pairs:
    """By ARPACK, as its documentation does it. One end at a time: both at once take as many of each."""
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    if largest and smallest:
        raise CannotAnswer
    data = [(task.inputs, task.targets)]
    parameters = [p for p in task.model.parameters() if p.requires_grad]
    operator = HessianLinearOperator(task.model, task.criterion, parameters, data, check_deterministic=False).to_scipy()
    k = largest or smallest
    try:
        values, vectors = eigsh(operator, k, which="LA" if largest else "SA", tol=tolerance, maxiter=MOST // 10)
    except ArpackNoConvergence:
        return []
    return [(float(value), torch.from_numpy(vector)) for value, vector in zip(values, vectors.T, strict=True)]


def hessian_eigenthings(task: Task, largest: int, smallest: int, iterations: float) -> Pairs:
    """Both ends at once by asking for all Ritz values."""
    import hessian_eigenthings as package

    operator = package.HessianOperator(task.model, [(task.inputs, task.targets)], task.loss)
    m, both = int(iterations), largest and smallest
    found = package.lanczos(
        operator,
        k=m if both else largest or smallest,
        max_iter=m,
        which="LA" if largest else "SA",
        reorthogonalize=True,
        seed=0,
    )
    pairs = list(zip(found.eigenvalues.tolist(), found.eigenvectors, strict=True))
    return pairs[:largest] + pairs[len(pairs) - smallest :] if both else pairs


def pyhessian(task: Task, largest: int, smallest: int, tolerance: float) -> Pairs:
    """By power iteration, which finds the eigenvalues of largest size, whatever their sign."""
    import pyhessian as package

    if smallest:
        raise CannotAnswer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its graph refers to itself
        found = package.hessian(task.model, task.criterion, (task.inputs, task.targets), cuda=False)
        values, vectors = found.eigenvalues(MOST // largest, tolerance, largest)
    task.model.zero_grad()
    flat = [torch.cat([part.detach().reshape(-1) for part in vector]) for vector in vectors]
    return list(zip(values, flat, strict=True))


PEERS = {
    "curvlinops-for-pytorch": Way(curvlinops, (1e-1, 1e-2, 1e-3, 1e-4)),
    "hessian-eigenthings": Way(hessian_eigenthings, range(10, MOST + 1, 5)),
    "PyHessian": Way(pyhessian, (1e-3, 1e-6)),
}


def ways() -> dict[str, Way]:
    """Ours, and the peers under their names and versions."""
    return {"trainwatch": Way(ours, (0.0,))} | {f"{name} {version(name)}": way for name, way in PEERS.items()}


def settled(
    task: Task, way: Way, wanted: tuple[int, int], residual: Residual, clock: Clock
) -> tuple[float, float, bool] | None:
    """The quickest setting that gets there, its seconds, and whether it does; None where there is no way to ask."""
    for setting in way.settings:
        began = clock()
        try:
            pairs = way.answer(task, *wanted, setting)
        except CannotAnswer:
            return None
        took = clock() - began
        there = len(pairs) == sum(wanted) and max(residual(*pair) for pair in pairs) <= TOLERANCE
        if there or not pairs:
            break
    return setting, took, there


def compare(
    task: Task,
    ways: Mapping[str, Way],
    wanted: tuple[int, int],
    residual: Residual,
    rounds: int,
    clock: Clock = time.process_time,
) -> dict[str, tuple[float, bool]]:
    """Package -> median of the seconds, and whether it got there; those that do not are timed once.

    Args:
        task: What is asked about.
        ways: The packages; in each round they take turns in another order.
        wanted: Eigenvalues at the upper and at the lower end.
        residual: Of a pair, its residual norm as a share of the largest absolute eigenvalue.
        rounds: Repetitions.
        clock: Seconds; by default of the processor, which other programs on the machine disturb least.
    """
    settings = {name: settled(task, way, wanted, residual, clock) for name, way in ways.items()}
    seconds = {name: [] if found[2] else [found[1]] for name, found in settings.items() if found}
    racing, shuffled = [name for name, taken in seconds.items() if not taken], random.Random(0)
    for _ in range(rounds):
        for name in shuffled.sample(racing, len(racing)):
            began = clock()
            ways[name].answer(task, *wanted, settings[name][0])
            seconds[name].append(clock() - began)
    return {name: (statistics.median(taken), name in racing) for name, taken in seconds.items()}
