"""The race with other packages is fair: the same question, the quickest setting that answers it, turns taken."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.hessian_peers import CannotAnswer, Task, Way, compare, ours

TASK = Task(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), torch.zeros(1, 6), torch.zeros(1).long())


class Watch:
    """A clock that a package moves on by what it takes."""

    def __init__(self):
        self.now, self.turns = 0.0, []

    def __call__(self):
        return self.now

    def way(self, name, seconds, settings, enough):
        """A package that takes longer the finer it is set, and ten times as long at first; `enough` gets there."""

        def answer(task, largest, smallest, setting):
            self.now += setting * seconds * (1 if name in self.turns else 10)
            self.turns.append(name)
            return [(0.0 if setting >= enough else 1.0, torch.zeros(1))] * (largest + smallest)

        return Way(answer, settings)


def race(ways, clock, rounds=3):
    return compare(TASK, ways, (2, 1), lambda value, _: value, rounds, clock)


def test_each_is_timed_at_the_quickest_setting_that_gets_there_and_again_in_every_round():
    clock = Watch()
    ways = {"a": clock.way("a", 1.0, (1, 2, 3), 2), "b": clock.way("b", 5.0, (1, 2), 1)}
    assert race(ways, clock) == {"a": (2.0, True), "b": (5.0, True)}
    assert clock.turns[:3] == ["a", "a", "b"]  # to find the setting
    assert all(sorted(clock.turns[i : i + 2]) == ["a", "b"] for i in range(3, 9, 2))


def test_who_does_not_get_there_is_said_to_and_timed_once():
    clock = Watch()
    ways = {"a": clock.way("a", 1.0, (1, 2), math.inf)}
    assert race(ways, clock) == {"a": (2.0, False)}
    assert clock.turns == ["a", "a"]


def test_one_that_gives_up_itself_is_not_asked_for_more():
    asked = []
    ways = {"a": Way(lambda *call: asked.append(call[-1]) or [], (1, 2, 3))}
    assert not race(ways, Watch())["a"][1]
    assert asked == [1]


def test_fewer_pairs_than_were_asked_for_are_no_answer():
    ways = {"a": Way(lambda *_: [(0.0, torch.zeros(1))], (1,))}
    assert not race(ways, Watch())["a"][1]


def test_who_has_no_way_to_ask_is_left_out():
    def answer(*_):
        raise CannotAnswer

    assert race({"a": Way(answer, (1,))}, Watch()) == {}


@pytest.mark.parametrize("wanted", [(1, 0), (4, 0), (0, 1), (4, 1)])
def test_ours_answers_every_question_with_pairs(wanted):
    torch.manual_seed(0)
    task = Task(TASK.model, torch.randn(40, 6), torch.randint(0, 3, (40,)))
    names = [name for name, _ in task.model.named_parameters()]

    def loss(*parameters):
        return task.criterion(
            torch.func.functional_call(task.model, dict(zip(names, parameters, strict=True)), task.inputs), task.targets
        )

    blocks = torch.autograd.functional.hessian(loss, tuple(p.detach() for p in task.model.parameters()))
    sizes = [p.numel() for p in task.model.parameters()]
    rows = [torch.cat([b.reshape(n, -1) for b in row], 1) for n, row in zip(sizes, blocks, strict=True)]
    whole = torch.cat(rows).double()
    values = torch.linalg.eigvalsh(whole)
    pairs = ours(task, *wanted, 0.0)
    expected = [*values.flip(0)[: wanted[0]].tolist(), *values[: wanted[1]].tolist()]
    assert [value for value, _ in pairs] == pytest.approx(expected, abs=1e-3 * float(values.abs().max()))
    for value, vector in pairs:
        assert float((whole @ vector.double() - value * vector.double()).norm()) <= 1e-3 * float(values.abs().max())


def test_peers_are_pinned_and_bring_no_torchvision():
    lines = (Path(__file__).parents[2] / "benchmarks" / "hessian-peers.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins
    assert all("==" in pin and not pin.startswith("torch") for pin in pins)
