"""Outcomes of runs that were never trained."""

from benchmarks.zoo.scenario import Data, Loop, Loss, Model, Optimizer, Scenario
from benchmarks.zoo.score import Outcome, Said


def outcome(*causes, truth=(), also=(), every=False, family="f", form="x", seed=0, nested=(), half="tuning"):
    scenario = Scenario(half, family, form, bool(truth), not truth, truth, also, every, Data(), Model(), Loss(),
                        Optimizer(), Loop())  # fmt: skip
    return Outcome(scenario, seed, Said(tuple(frozenset(c.split("/")) for c in causes), frozenset(nested)))
