"""Datasets, loaders, data modules and streams: indexed where they can be, and as they were afterwards."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

from trainwatch.auditing.sources import AuditError, Reading, read_parts

ROWS = TensorDataset(torch.arange(40.0)[:, None], torch.arange(40) % 4)


def only(source, **how):
    (part,) = read_parts(source, None, Reading(**how))
    return part


class Counted(Dataset):
    """Notes which samples it is asked for; some of them raise."""

    def __init__(self, broken=(), size=40):
        self.asked, self.broken, self.size = [], broken, size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.asked.append(index)
        if index in self.broken:
            raise OSError(f"no file for {index}")
        return torch.full((3,), float(index)), index % 4


class Noisy(Counted):
    """Draws from every generator, one of its own among them."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(5)

    def __getitem__(self, index):
        noise = torch.rand(()) + random.random() + np.random.rand() + self.rng.random()
        return torch.full((3,), float(noise)), index % 4


class Stream(IterableDataset):
    def __init__(self, stop=None):
        self.stop = stop

    def __iter__(self):
        for index in range(40):
            if index == self.stop:
                raise OSError("the line is dead")
            yield torch.full((3,), float(index)), index % 4


def states(*generators):
    own = [g.get_state() if isinstance(g, torch.Generator) else g.bit_generator.state for g in generators]
    return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(), *map(str, own)]


@pytest.mark.parametrize("dataset", [ROWS, Subset(ROWS, range(40)), [ROWS[i] for i in range(40)]])
def test_a_data_set_is_indexed(dataset):
    part = only(dataset)
    assert part.inputs[:, 0].tolist() == list(range(40))
    assert part.targets.tolist() == [i % 4 for i in range(40)]
    assert (part.total, part.batches, part.shuffled) == (40, None, None)


def test_only_the_samples_of_the_subset_are_asked_for():
    dataset = Counted(size=10_000)
    part = only(dataset, limit=10)
    assert len(dataset.asked) <= 11
    assert part.total == 10_000
    assert part.inputs[:, 0].tolist() == part.places.tolist() == sorted(dataset.asked)


def test_samples_in_mappings_are_known_by_their_keys():
    part = only(
        [{"image": torch.ones(8, 8), "label": 3, "id": "x"}, {"image": torch.zeros(8, 8), "label": 0, "id": "y"}]
    )
    assert part.layout == "images"
    assert part.targets.tolist() == [3, 0]
    assert only([{"image": torch.ones(2), "fruit": 1}] * 2, target="fruit").targets.tolist() == [1, 1]
    with pytest.raises(AuditError, match="keys 'a', 'b', 'c'"):
        only([{"a": 1, "b": 2, "c": 3}])


# ---------------------------------------------------------------- loaders


def test_a_loader_tells_batches_and_order():
    plain = only(DataLoader(ROWS, 8))
    assert plain.batches.tolist() == [i // 8 for i in range(40)]
    assert plain.shuffled is False
    shuffled = only(DataLoader(ROWS, 8, shuffle=True))
    assert shuffled.shuffled is True
    assert shuffled.inputs[:, 0].tolist() == list(range(40))  # in the order of the data set
    assert np.bincount(shuffled.batches).tolist() == [8] * 5
    assert (np.diff(shuffled.batches) < 0).any()


def test_no_worker_starts(monkeypatch):
    def refuse(self):
        raise AssertionError("the loader was iterated")

    loaders = [DataLoader(Counted(), 8, num_workers=2, shuffle=True), DataLoader(Stream(), 8, num_workers=2)]
    monkeypatch.setattr(DataLoader, "_get_iterator", lambda self: refuse(self) if self.num_workers else original(self))
    assert [len(only(loader)) for loader in loaders] == [40, 40]


original = DataLoader._get_iterator


def test_samples_drawn_again_are_no_duplicates():
    loader = DataLoader(ROWS, 8, sampler=WeightedRandomSampler([1.0] * 40, 400))
    part = only(loader)
    assert len(set(part.inputs[:, 0].tolist())) == len(part) > 30
    assert part.batches is None
    assert part.shuffled is None


def test_the_collation_of_the_loader_counts():
    loader = DataLoader(
        Counted(), 8, collate_fn=lambda samples: {"x": [s[0][:2] for s in samples], "y": [s[1] for s in samples]}
    )
    part = only(loader)
    assert part.inputs.shape == (40, 2)
    assert part.targets.tolist() == [i % 4 for i in range(40)]


def test_a_loader_without_batches():
    assert only(DataLoader(Counted(), batch_size=None)).inputs.shape == (40, 3)
    of_batches = DataLoader(ROWS, batch_size=None, sampler=[[0, 1, 2], [3, 4]])
    assert only(of_batches).inputs[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_samples_that_no_batch_holds_are_told():
    part = only(DataLoader(ROWS, 16, drop_last=True))
    assert (len(part), part.total) == (32, 40)
    assert part.inventory["notes"] == ["8 samples of the data set are in no batch of this pass"]


def test_a_large_loader_gives_an_even_subset_of_whole_batches():
    dataset = Counted(size=8000)
    part = only(DataLoader(dataset, 8), limit=80)
    assert len(part) == 80
    assert (np.bincount(part.batches)[np.unique(part.batches)] == 8).all()
    assert part.places.max() > 7000
    assert len(dataset.asked) == 80
    assert part.inventory["notes"] == ["an even subset of 10 of 1,000 batches was looked at"]


# ---------------------------------------------------------------- nothing is left behind


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: DataLoader(d, 8, shuffle=True, generator=G)])
def test_random_numbers_are_as_they_were(wrap):
    dataset = Noisy()
    source = wrap(dataset)
    before = states(G, dataset.rng)
    only(source)
    assert states(G, dataset.rng) == before
    G.manual_seed(1)  # the comparison would notice
    torch.rand(1)
    assert states(G, dataset.rng) != before


G = torch.Generator().manual_seed(0)


def test_a_one_shot_iterable_is_not_used_up_unasked():
    stream = ((torch.ones(2), 1) for _ in range(5))
    with pytest.raises(AuditError, match=r"only once.*consume=True"):
        only(stream)
    assert len(list(stream)) == 5
    assert len(only(iter([(torch.ones(2), 1)] * 5), consume=True)) == 5


def test_a_stream_is_followed_as_far_as_the_limit():
    whole, part = only(Stream()), only(Stream(), limit=10)
    assert (len(whole), whole.total) == (40, 40)
    assert (len(part), part.total) == (10, None)
    assert "the first 10 samples" in part.inventory["notes"][0]
    loader = only(DataLoader(Stream(), 8))
    assert loader.batches.tolist() == [i // 8 for i in range(40)]


def test_any_iterable_of_batches_can_be_followed():
    class Batches:
        def __iter__(self):
            return iter(DataLoader(ROWS, 16))

    assert only(Batches()).inputs[:, 0].tolist() == list(range(40))


# ---------------------------------------------------------------- faults on the way


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: DataLoader(d, 8)])
def test_what_cannot_be_read_is_told_and_the_rest_is_kept(wrap):
    part = only(wrap(Counted(broken={0, 17})))
    assert part.places.tolist() == [i for i in range(40) if i not in (0, 17)]
    assert part.inputs[:, 0].tolist() == part.places.tolist()
    assert [(p.place, p.what) for p in part.problems] == [
        (str(i), f"cannot be read: OSError: no file for {i}") for i in (0, 17)
    ]


def test_a_stream_that_breaks_keeps_what_came_before():
    part = only(Stream(stop=25))
    assert len(part) == 25
    assert part.total is None
    assert (part.problems[0].place, "the line is dead" in part.problems[0].what) == ("sample 25", True)
    batched = only(DataLoader(Stream(stop=25), 8))
    assert (len(batched), batched.problems[0].place) == (24, "batch 3")


def test_a_data_set_that_never_works_says_why_and_is_given_up():
    dataset = Counted(broken=range(10_000), size=10_000)
    with pytest.raises(AuditError, match=r"no train sample could be read from Counted: sample 0 .*no file for 0"):
        only(dataset)
    assert len(dataset.asked) < 30


def test_samples_of_other_shapes_are_told_or_refused():
    few = [(torch.ones(3), 1)] * 9 + [(torch.ones(4), 0)]
    part = only(few)
    assert len(part) == 9
    assert part.problems[0].place == "9"
    assert "shape (4,), most have (3,)" in part.problems[0].what
    with pytest.raises(AuditError, match=r"differ in shape.*pad"):
        only([(torch.ones(i), 1) for i in range(1, 9)])


def test_a_sample_of_another_kind_is_told():
    part = only([(torch.ones(3), i % 2) for i in range(9)] + [{"a": 1, "b": 2, "c": 3}])
    assert len(part) == 9
    assert (part.problems[0].place, "the keys 'a', 'b', 'c'" in part.problems[0].what) == ("9", True)


def test_samples_of_other_types_are_told():
    part = only([(np.ones(2, "float32"), 0), (np.ones(2, "int64"), 1)])
    assert "mix float32, int64" in part.inventory["notes"][0]


def test_targets_that_are_no_numbers_leave_an_audit_without():
    part = only([(torch.ones(3), torch.ones(i + 1)) for i in range(4)])
    assert part.targets is None
    assert "ragged" in part.inventory["notes"][0]


def test_a_data_set_that_returns_nothing_is_named():
    with pytest.raises(AuditError, match="list gives None where a sample should be"):
        only([None, None])


def test_texts_are_refused_with_the_remedy():
    with pytest.raises(AuditError, match=r"texts such as 'good'.*encode"):
        only([("good", 1), ("bad", 0)])


# ---------------------------------------------------------------- data modules


class Module:
    def __init__(self, prepared=False, val=None):
        self.calls, self.prepared, self.val = [], prepared, val

    def prepare_data(self):
        self.calls.append("prepare_data")

    def setup(self, stage):
        self.calls.append(f"setup {stage}")
        self.prepared = True

    def train_dataloader(self):
        if not self.prepared:
            raise AttributeError("no data yet")
        return DataLoader(ROWS, 8, shuffle=True)

    def val_dataloader(self):
        return self.val


def test_a_data_module_gives_both_parts_and_is_set_up_only_if_need_be():
    module = Module(val=[DataLoader(Subset(ROWS, range(10)), 5), DataLoader(ROWS, 5)])
    train, val = read_parts(module, None, Reading())
    assert (len(train), len(val), val.split) == (40, 10, "val")
    assert module.calls == ["prepare_data", "setup fit"]
    ready = Module(prepared=True)
    assert len(read_parts(ready, None, Reading())) == 1
    assert ready.calls == []


def test_a_module_of_lightning_is_one():
    from lightning import LightningDataModule

    class Real(LightningDataModule):
        def setup(self, stage):
            self.rows = ROWS

        def train_dataloader(self):
            return DataLoader(self.rows, 8)

        def val_dataloader(self):
            return DataLoader(self.rows, 8)

    assert [len(part) for part in read_parts(Real(), None, Reading())] == [40, 40]


@pytest.mark.parametrize(("train", "words"), [({"a": 1}, "several loaders"), (None, "makes no loader")])
def test_a_module_without_one_loader_is_refused(train, words):
    module = Module(prepared=True)
    module.train_dataloader = lambda: train
    with pytest.raises(AuditError, match=words):
        only(module)
