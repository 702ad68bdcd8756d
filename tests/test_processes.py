"""How processes exchange what they measured: nobody waits, and nobody hangs for another."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from trainwatch.capture.ranks import UNREAD, Ranks, signature
from trainwatch.processes import SILENT, Processes

MODEL = nn.Linear(3, 2)
OPTIMIZER = torch.optim.SGD(MODEL.parameters(), lr=0.1)


def capture(step=0, model=MODEL):
    return SimpleNamespace(models={"default": model}, optimizers={"default": OPTIMIZER}, delivered=step, samples=step)


def several(world, models=None):
    store = torch.distributed.HashStore()
    made = [Processes(Ranks(store, rank, world, 1), None) for rank in range(world)]
    for rank, one in enumerate(made):
        one.begin(capture(model=(models or {}).get(rank, MODEL)))
    return made


def fact(first):
    return first.record.facts["processes"]


def test_one_process_alone_is_none():
    assert Ranks.here() is None


def test_each_step_is_recorded_once_all_have_told_of_it():
    first, other = several(2)
    for step in (3, 6):
        for one, value in ((other, 3.0), (first, 1.0)):
            one.record.append("train_loss", "s", step - 1, value)
            one.exchange(capture(step))
    assert first.record.series("train_loss", "s").values.tolist() == [2.0, 2.0]
    assert first.record.samples_elsewhere == 6


def test_who_is_not_watched_or_trains_something_else_is_not_awaited():
    store = torch.distributed.HashStore()
    first, stranger = (Processes(Ranks(store, rank, 3, 1), None) for rank in (0, 2))
    first.begin(capture())
    stranger.begin(capture(model=nn.Linear(3, 4)))
    first.record.append("train_loss", "s", 0, 1.0)
    first.exchange(capture(1), last=True, wait=60.0)  # would be waited for
    assert fact(first)["apart"] == {"1": "it is not watched", "2": "it trains other parameters"}
    assert first.record.series("train_loss", "s").values.tolist() == [1.0]


def test_a_process_that_falls_silent_is_given_up():
    first, _ = several(2)
    for step in range(SILENT + 2):
        first.record.append("train_loss", "s", step, 1.0)
        first.exchange(capture(step + 1))
        assert first.record.has("train_loss") is (step >= SILENT)
    assert fact(first)["apart"] == {"1": "it fell silent"}


def test_one_that_does_not_come_to_the_end_is_told():
    first, other = several(2)
    other.exchange(capture(1))
    first.record.append("train_loss", "s", 3, 1.0)
    first.exchange(capture(4), last=True, wait=0.01)
    assert fact(first)["apart"] == {"1": "it had not told everything when the run ended"}
    assert first.record.series("train_loss", "s").values.tolist() == [1.0]


def test_without_a_store_what_this_process_measured_is_recorded():
    first, other = several(2)
    other.exchange(capture(1))
    first.exchange(capture(1))

    def gone(*_):
        raise torch.distributed.DistNetworkError("Connection reset by peer")

    first.ranks._store = SimpleNamespace(check=gone, get=gone)
    first.record.append("train_loss", "s", 3, 1.0)
    first.exchange(capture(4), last=True, wait=60.0)
    assert first.record.series("train_loss", "s").values.tolist() == [1.0]


def test_last_words_are_heard():
    first, other = several(2)
    other.record.append("train_loss", "s", 3, 3.0)
    other.exchange(capture(4), last=True)
    first.record.append("train_loss", "s", 3, 1.0)
    first.exchange(capture(4), last=True, wait=60.0)
    assert fact(first)["joined"] == [1]
    assert first.record.series("train_loss", "s").values.tolist() == [2.0]


def test_where_nobody_reads_the_store_does_not_grow():
    store = torch.distributed.HashStore()
    sender = Ranks(store, 1, 2, 1)
    sent = [sender.send(b"x") for _ in range(3 * UNREAD)]
    assert sum(sent) == UNREAD
    reader = Ranks(store, 0, 2, 1)
    assert list(reader.receive(1)) == [b"x"] * UNREAD
    assert store.num_keys() == 0
    assert sender.send(b"y")
    assert list(reader.receive(1)) == [b"y"]


def test_all_stop_after_the_same_step():
    """Whoever stopped earlier would leave the others waiting in their next collective."""
    first, other = several(2)
    flush_every = 5
    stopped = {}
    for step in range(1, 40):
        for name, one in (("other", other), ("first", first)):
            if step % flush_every == 0:
                one.exchange(capture(step))
            if one.stops(step, name == "first" and step >= 12, flush_every):
                stopped.setdefault(name, step)
    assert stopped == {"other": 19, "first": 19}


def test_signatures_tell_what_is_trained():
    model = nn.Linear(3, 2)
    mine = signature({"default": model}, {"default": OPTIMIZER})
    assert mine == signature({"default": nn.Linear(3, 2)}, {"default": OPTIMIZER})
    assert mine != signature({"default": nn.Linear(2, 3)}, {"default": OPTIMIZER})
    assert mine != signature({"default": model}, {"other": OPTIMIZER})


@pytest.mark.parametrize("rank", [1, 2])
def test_the_report_of_another_process_says_where_to_look(rank):
    other = several(3)[rank]
    other.record.set_fact("run", {"steps": 3})
    report = other.other_report()
    assert (report.verdict, report.ok, bool(report)) == ("not-judged", False, False)
    assert set(report.not_checked.values()) == {f"the run is judged in process 0; this is process {rank} of 3"}
