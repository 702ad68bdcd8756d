"""Arrays, tensors, pairs and mappings: what they are taken for, and clear words where they cannot be used."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits, load_wine

from trainwatch.auditing.sources import AuditError, Reading, read, read_parts
from trainwatch.auditing.sources import reading as limits
from trainwatch.auditing.sources.reading import spread

DIGITS, CLASSES = load_digits(return_X_y=True)


def only(source, **how):
    (part,) = read_parts(source, None, Reading(**how))
    return part


def test_a_pair_of_arrays_is_rows_with_targets():
    part = only((DIGITS, CLASSES))
    assert (part.inputs == DIGITS).all()
    assert (part.targets == CLASSES).all()
    assert part.targets.dtype == np.int64
    assert (part.layout, part.total, len(part)) == ("rows", 1797, 1797)
    assert (part.places == np.arange(1797)).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "layout", "read_as"),
    [
        ((9, 8, 8), "float32", "images", (9, 8, 8, 1)),
        ((9, 8, 12), "uint8", "images", (9, 8, 12, 1)),
        ((9, 3, 8, 12), "float32", "images", (9, 8, 12, 3)),
        ((9, 8, 12, 3), "float32", "images", (9, 8, 12, 3)),
        ((9, 50, 6), "float32", "other", (9, 50, 6)),
        ((9, 7, 8, 12), "float32", "other", (9, 7, 8, 12)),
        ((9,), "float32", "rows", (9, 1)),
        ((9, 5), "bool", "rows", (9, 5)),
    ],
)
def test_the_shape_tells_what_inputs_are(shape, dtype, layout, read_as):
    part = only(np.ones(shape, dtype))
    assert (part.layout, part.inputs.shape) == (layout, read_as)
    assert part.targets is None


def test_channels_first_become_channels_last_without_mixing_pixels():
    first = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    assert only(first).inputs[1, 2, 3].tolist() == first[1, :, 2, 3].tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int16, torch.bool])
def test_tensors_of_every_type_on_a_graph_are_read(dtype):
    inputs = torch.ones(6, 2).to(dtype)
    if dtype.is_floating_point:
        inputs.requires_grad_()
    assert only((inputs, torch.arange(6) % 2)).inputs.sum() == 12


def test_mappings_of_scikit_learn_bring_their_names():
    part = only(load_wine())
    assert part.feature_names[0] == "alcohol"
    assert part.class_names == ("class_0", "class_1", "class_2")


def test_frames_of_scikit_learn_are_read_like_its_arrays():
    pytest.importorskip("pandas")
    part, framed = only(load_wine()), only(load_wine(as_frame=True))
    assert (framed.inputs == part.inputs).all()
    assert framed.class_names == part.class_names


def test_a_mapping_without_a_known_input_names_its_keys():
    with pytest.raises(AuditError, match=r"keys 'left', 'right', 'label'.*pass pairs"):
        only({"left": DIGITS, "right": DIGITS, "label": CLASSES})


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("targets", "task", "values"),
    [
        (np.arange(40) % 4, "multiclass", list(range(4))),
        (np.arange(40) % 2 == 1, "binary", [0, 1]),
        (np.arange(40) % 2 * 2 - 1, "binary", [0, 1]),  # -1 and 1
        (np.where(np.arange(40) % 2, "cat", "dog"), "binary", [0, 1]),
        (np.eye(5)[np.arange(40) % 5], "multiclass", list(range(5))),
        ((np.arange(40) % 3)[:, None], "multiclass", list(range(3))),
        (np.arange(40) % 5 / 2, "regression", [0, 0.5, 1, 1.5, 2]),
        (1950 + 2 * np.arange(40), "regression", (1950 + 2 * np.arange(40)).tolist()),
        (np.stack([np.arange(40) % 2, np.ones(40)], 1), "multilabel", [0, 1]),
        (np.linspace(0, 1, 80).reshape(40, 2), "regression", None),
    ],
)
def test_targets_tell_the_task(targets, task, values):
    reading = Reading()
    part = read((np.ones((40, 3)), targets), "train", reading)
    assert reading.task == task
    assert values is None or np.unique(part.targets).tolist() == values


def test_what_could_be_either_is_said_and_can_be_told():
    ages = (np.ones((30, 2)), np.repeat([20.0, 30.0, 40.0], 10))
    guessed = only(ages)
    assert "taken for classes" in guessed.inventory["notes"][0]
    told = only(ages, task="regression")
    assert told.targets.tolist() == ages[1].tolist()
    assert told.inventory is None
    assert only((DIGITS, CLASSES)).inventory is None  # 0 to 9 leave no doubt
    assert "numbers to predict" in only(load_diabetes(return_X_y=True)).inventory["notes"][0]


def test_both_parts_number_their_classes_alike():
    train, val = read_parts(
        (np.ones((4, 1)), ["dog", "cat", "dog", "cat"]), (np.ones((3, 1)), ["ape", "dog", "cat"]), Reading()
    )
    assert train.targets.tolist() == [1, 0, 1, 0]
    assert val.targets.tolist() == [2, 1, 0]
    assert val.class_names == ("cat", "dog", "ape")


def test_samples_without_a_target_are_left_out_and_told():
    part = only((np.arange(5.0)[:, None], np.array([0, 1, -100, 1, 0])))
    assert part.inputs[:, 0].tolist() == [0, 1, 3, 4]
    assert part.places.tolist() == [0, 1, 3, 4]
    assert [(p.place, p.what) for p in part.problems] == [("2", "has no target")]
    assert part.class_names == ()
    assert only((np.ones((3, 1)), [1.5, np.nan, 2.0])).targets.tolist() == [1.5, 2.0]


def test_names_of_classes_must_be_enough():
    with pytest.raises(AuditError, match="class_names has 3 names, but class 9 occurs"):
        only((DIGITS, CLASSES), class_names=("a", "b", "c"))
    with pytest.raises(AuditError, match="class_names lacks 'cat'"):
        only((np.ones((2, 1)), ["dog", "cat"]), class_names=("dog",))


def test_tokens_are_no_features():
    tokens = torch.randint(0, 99, (8, 16), generator=torch.Generator().manual_seed(0))
    assert only((tokens, tokens.roll(-1, 1))).layout == "other"
    assert only(tokens).layout == "rows"


def test_ids_of_tokens_are_no_features_and_keep_their_labels():
    ids = np.arange(8).reshape(4, 2)
    for source in ({"input_ids": ids, "labels": [0, 1, 0, 1]}, [{"input_ids": row, "label": 1} for row in ids]):
        part = only(source)
        assert (part.layout, part.categorical, len(part.targets)) == ("other", (True,), 4)
    assert only({"x": ids, "labels": [0, 1, 0, 1]}).layout == "rows"


# ---------------------------------------------------------------- limits


def test_beyond_the_limit_an_even_subset_is_read():
    part = only((np.arange(1000.0), np.arange(1000) % 10), limit=100)
    assert (len(part), part.total) == (100, 1000)
    assert (part.inputs[:, 0] == part.places).all()
    assert (part.targets == part.places % 10).all()
    assert np.unique(part.places // 10).size == 100  # one of each stretch
    assert len(np.unique(part.targets)) == 10  # though the order repeats at the distance of a grid


def test_large_samples_count_by_their_bytes(monkeypatch):
    monkeypatch.setattr(limits, "BYTES", 800)
    assert len(only(np.ones((50, 10)))) == 10
    assert len(only([np.ones(10)] * 50)) == 10 + 1  # the first is read to know its size
    assert len(only(np.ones((3, 1000)))) == 1


def test_a_subset_is_the_same_each_time_and_never_twice_the_same_place():
    for total, most in ((10, 10), (11, 10), (1_000_003, 1000), (5, 1)):
        places = spread(total, most)
        assert (places == spread(total, most)).all()
        assert len(set(places.tolist())) == most
        assert 0 <= places.min() <= places.max() < total
        assert (np.diff(places) > 0).all()


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((0, 3)), "is empty"),
        ([], "is empty"),
        (np.zeros((3, 0)), r"shape is \(0,\)"),
        ((DIGITS, CLASSES[:5]), "1,797 inputs but 5 targets"),
        ([[1, 2], [3]], r"ragged \(lengths from 1 to 2\)"),
        (np.array([[1, "a"], [2, None]], object), "mixes int, str"),
        (np.array([np.ones(2), np.ones(3)], object), "ragged"),
        (np.array([["a", "b"]]), "texts such as 'a'"),
        (np.ones(3, complex), "complex"),
        (torch.ones(3, 3).to_sparse(), "sparse"),
        ((np.ones((2, 2)), np.ones(2), np.ones(2)), "a tuple"),
        (None, "must be a path"),
        (3, "got int"),
        (torch.utils.data.Dataset, "class"),
        ((np.ones((2, 1)), np.array([np.nan, np.nan])), "no sample of .* has a target"),
    ],
)
def test_a_mistake_is_named_with_its_input(source, words):
    with pytest.raises(AuditError, match=words):
        only(source)


def test_numbers_kept_as_objects_are_numbers():
    assert only(np.array([[1, 2.5], [None, 3]], object)).inputs[0].tolist() == [1, 2.5]


def test_validation_of_another_shape_is_told():
    _, val = read_parts(DIGITS, DIGITS[:, :8], Reading())
    assert [p.what for p in val.problems] == ["have shape (8,), those of training (64,)"]


def test_arrays_in_files(tmp_path):
    np.save(tmp_path / "x.npy", DIGITS)
    np.savez(tmp_path / "both.npz", x=DIGITS, y=CLASSES)
    assert (only(tmp_path / "x.npy").inputs == DIGITS).all()
    assert (only(str(tmp_path / "both.npz")).targets == CLASSES).all()
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "both.npz").read_bytes()[:100])
    for name in ("objects.npy", "cut.npz"):
        with pytest.raises(AuditError, match=f"cannot read .*{name}"):
            only(tmp_path / name)
    with pytest.raises(AuditError, match="does not exist"):
        only(tmp_path / "nowhere")
    (tmp_path / "model.pt").touch()
    with pytest.raises(AuditError, match="of no kind that is known"):
        only(tmp_path / "model.pt")
