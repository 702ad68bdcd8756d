"""Copies of which a part of the change is taken back."""

import numpy as np
import pytest
import torch

from benches import bench, blobs, in_batches, net
from trainwatch.capture.wiring import parameter_facts
from trainwatch.probes import frozen_part, tuning
from trainwatch.probes.isolation import CannotIsolate

X, Y, XV, YV = blobs()


def given(change=None, *, start=None, val=True, steps=100, **facts):
    """A bench whose model moved from a start by a change to its weights."""
    torch.manual_seed(0)
    model = net(6, 16, 16, 3, norm=True)
    starts = {n: t.detach().clone() for n, t in model.state_dict().items() if t.is_floating_point()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    made = bench(model, in_batches(X, Y), in_batches(XV, YV) if val else (), optimizer, steps, **facts)
    made.record.set_fact("parameters", parameter_facts({"default": model}))
    made.starts = starts if start is None else start
    with torch.no_grad():
        for name, p in model.named_parameters():
            if change is not None and p.ndim > 1:
                p.add_(change(name, p))
    return model, made


def rows(made, quantity, key="held"):
    return made.record.series(quantity, key).values[-1]


def one_direction(name, weight):
    return torch.outer(torch.linspace(-1, 1, len(weight)), torch.linspace(1, 2, weight.shape[1]))


def test_an_update_of_one_direction_is_found_to_be_one():
    model, made = given(one_direction)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    tuning.measure(made)
    found = rows(made, "update_rank", "end")
    names = [p["name"] for p in made.record.facts["parameters"]]
    assert found[names.index("0.weight")].tolist() == [1, 1, 1, 1, 6]
    assert np.isnan(found[names.index("0.bias")]).all()
    directions = rows(made, "kept_directions")
    assert directions[1:, 1] == pytest.approx(np.full(4, directions[0, 1]), rel=1e-4)  # nothing is lost by the cut
    whole = 6 * 16 + 16 * 16 + 16 * 3
    assert directions[1:, 0] == pytest.approx(np.full(4, (22 + 32 + 19) / whole))
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_entries_that_moved_furthest_are_those_that_are_kept():
    def few(_, weight):
        change = torch.zeros_like(weight)
        change[0] = 3.0
        return change + 1e-4

    _, made = given(few)
    tuning.measure(made)
    found = rows(made, "kept_entries")
    assert found[:, 0] == pytest.approx([1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01])
    assert found[1:3, 1] == pytest.approx(found[0, 1], rel=1e-2)  # 38 of 400 entries carry the change
    assert abs(found[-1, 1] - found[0, 1]) > 0.05
    assert found[0, 2] == 0


@pytest.mark.parametrize("probe", [tuning, frozen_part])
def test_without_a_start_or_validation_there_is_nothing_to_compare(probe):
    with pytest.raises(CannotIsolate, match="drawn at random"):
        probe.measure(given(start={})[1])
    with pytest.raises(CannotIsolate, match="no validation batch"):
        probe.measure(given(one_direction, val=False)[1])


def test_a_start_that_was_not_kept_as_a_whole_cannot_be_begun_from():
    with pytest.raises(CannotIsolate, match="too large"):
        frozen_part.measure(given(start_weights={"left_out": 1})[1])


def test_copies_begin_at_the_start_and_what_is_frozen_stays_there(monkeypatch):
    model, made = given(one_direction)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    seen = []
    losses_of = frozen_part.losses_of

    def look(copied, batches):
        seen.append({n: t.clone() for n, t in copied.state_dict().items()})
        return losses_of(copied, batches)

    monkeypatch.setattr(frozen_part, "losses_of", look)
    frozen_part.measure(made)
    modules = ["0", "1", "4", "5", "8"]
    assert made.record.facts["freezable"] == modules
    counts = [0, 1, 2, 4]
    found = rows(made, "learned_frozen")
    assert found[:, 0].tolist() == counts
    assert found[0, 2] == 0
    assert found[0, 1] < 0.7  # it learned from the start, whatever the model is now
    for count, state in zip(counts, seen[3::4], strict=True):
        for name, was in made.starts.items():
            assert torch.equal(state[name], was) == (name.split(".")[0] in modules[:count]), (count, name)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_steps_are_those_of_the_run_and_what_there_is_time_for(monkeypatch):
    taken = []
    _, made = given(one_direction, steps=170)
    step = made.train_step
    monkeypatch.setattr(made, "train_step", lambda *args: taken.append(1) or step(*args))
    frozen_part.measure(made)
    assert len(taken) == 4 * 170
    made.affords = 4 * (120 + frozen_part.LOOKS)
    taken.clear()
    frozen_part.measure(made)
    assert len(taken) == 4 * 120


def test_fewer_parts_are_tried_where_there_is_no_time_for_all():
    least = frozen_part.FEWEST + frozen_part.LOOKS
    for affords, counts in ((4 * least, [0, 1, 2, 4]), (4 * least - 1, [0, 2, 4]), (frozen_part.STEPS, [0, 2, 4])):
        _, made = given(one_direction)
        made.affords = affords
        frozen_part.measure(made)
        assert rows(made, "learned_frozen")[:, 0].tolist() == counts


def test_copies_begin_without_the_state_of_the_optimiser(monkeypatch):
    model, made = given(one_direction)
    (optimizer,) = made._optimizers
    model(X).sum().backward()
    optimizer.step()
    states, step = [], made.train_step
    monkeypatch.setattr(made, "train_step", lambda *args: states.append(len(args[2].state)) or step(*args))
    frozen_part.measure(made)
    assert states[::100] == [0] * 4
    assert len(optimizer.state) == 8 + 2


def test_the_lowest_look_counts(monkeypatch):
    looks = iter(np.array([3.0, 1.0, 2.0, 4.0] * 4)[:, None] + np.zeros((16, 3)))
    monkeypatch.setattr(frozen_part, "losses_of", lambda *_: next(looks))
    _, made = given(one_direction)
    frozen_part.measure(made)
    assert rows(made, "learned_frozen")[:, 1].tolist() == [1.0] * 4
