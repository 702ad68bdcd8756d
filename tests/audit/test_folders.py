"""Folders of images: classes, sizes, broken files, and labels that do not match the files."""

import gzip

import numpy as np
import pytest
from PIL import Image

from trainwatch.auditing.sources import AuditError, Reading, read_parts

RNG = np.random.default_rng(0)


def save(path, size=(8, 8), mode="L", value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = RNG.integers(0, 256, (size[1], size[0], *channels), np.uint8) if value is None else value
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return pixels


@pytest.fixture
def animals(tmp_path):
    for name, count in (("cat", 4), ("dog", 3)):
        for i in range(count):
            save(tmp_path / name / f"{i}.png")
    return tmp_path


def only(source, **how):
    (part,) = read_parts(source, None, Reading(**how))
    return part


def test_a_class_is_a_sub_folder(animals):
    pixels = save(animals / "dog" / "1.png")
    part = only(animals)
    assert part.inputs.shape == (7, 8, 8, 1)
    assert part.inputs.dtype == np.uint8
    assert (part.inputs[5, ..., 0] == pixels).all()
    assert part.files[5] == "dog/1.png"
    assert part.targets.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert part.class_names == ("cat", "dog")
    assert (part.layout, part.total) == ("images", 7)
    assert part.inventory["kinds"] == {".png": 7}
    assert part.inventory["sizes"] == {"8 x 8": 7}


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "test"])
def test_parts_side_by_side_are_found(tmp_path, name):
    for part in ("train", name):
        for kind in ("cat", "dog"):
            save(tmp_path / part / kind / "0.png")
    train, val = read_parts(tmp_path, None, Reading())
    assert (train.split, val.split) == ("train", "val")
    assert val.source.endswith(name)
    assert train.class_names == val.class_names == ("cat", "dog")


def test_broken_and_foreign_files_are_counted_and_the_rest_is_read(animals):
    (animals / "cat" / "9.png").write_bytes(b"no image at all")
    good = (animals / "cat" / "1.png").read_bytes()
    (animals / "cat" / "8.png").write_bytes(good[:60])  # its header is fine
    (animals / "cat" / "notes.txt").write_text("x")
    (animals / ".cache").mkdir()
    (animals / ".cache" / "0.png").write_bytes(good)
    part = only(animals)
    assert len(part) == 7
    assert part.total == 9
    assert sorted(p.place for p in part.problems) == ["cat/8.png", "cat/9.png"]
    assert all("cannot be read" in p.what for p in part.problems)
    assert str(animals) not in str(part.problems)
    assert part.inventory["unreadable"] == 2
    assert part.inventory["kinds"] == {".png": 9, ".txt": 1}
    assert "beside images there are 1 .txt" in part.inventory["notes"]


def test_empty_classes_and_loose_files_are_told(animals):
    (animals / "emu").mkdir()
    save(animals / "stray.png")
    part = only(animals)
    assert len(part) == 7
    assert part.inventory["empty_classes"] == ["emu"]
    assert part.inventory["files_without_label"] == ["stray.png"]
    assert any("'emu'" in note for note in part.inventory["notes"])
    assert ("7", "has no target") in [(p.place, p.what) for p in part.problems]


def test_sizes_and_modes_become_one(animals):
    save(animals / "cat" / "wide.png", (16, 8))
    save(animals / "cat" / "colour.png", (8, 8), "RGB")
    part = only(animals)
    assert part.inputs.shape == (9, 8, 8, 3)
    assert any("sizes differ" in note and "8 x 8" in note for note in part.inventory["notes"])
    assert part.inventory["modes"] == {"L": 8, "RGB": 1}


def test_a_lone_class_of_training_is_one_in_validation(tmp_path):
    for path in ("train/a", "train/b", "val/b", "other/c"):
        save(tmp_path / path / "0.png")
    _, val = read_parts(tmp_path, None, Reading())
    assert val.targets.tolist() == [1]
    assert only(tmp_path / "other").targets is None


def test_images_of_validation_become_like_those_of_training(tmp_path):
    for part, size in (("train", (8, 8)), ("val", (16, 12))):
        for kind in "ab":
            save(tmp_path / part / kind / "0.png", size)
    train, val = read_parts(tmp_path, None, Reading())
    assert train.inputs.shape == val.inputs.shape == (2, 8, 8, 1)
    assert "sizes differ" in str(val.inventory["notes"])


def test_large_images_become_small(tmp_path):
    save(tmp_path / "a" / "0.png", (400, 200), "RGB")
    save(tmp_path / "b" / "0.jpg", (400, 200), "RGB", np.full((200, 400, 3), 90))
    part = only(tmp_path)
    assert part.inputs.shape == (2, 48, 96, 3)
    assert abs(part.inputs[1].astype(int) - 90).max() <= 2
    assert any("96 x 48" in note for note in part.inventory["notes"])


@pytest.mark.parametrize(("dtype", "most"), [("uint8", 255), ("uint16", 40_000), ("int32", 70_000), ("float32", 3.5)])
def test_grey_of_any_depth_keeps_its_numbers(tmp_path, dtype, most):
    for i, side in enumerate((200, 200, 100)):
        Image.fromarray(np.full((side, side), most, dtype)).save(tmp_path / f"{i}.tiff")
    part = only(tmp_path)
    assert part.problems == ()
    assert part.inputs.shape == (3, 96, 96, 1)
    assert (part.inputs == most).all()


@pytest.mark.parametrize("mode", ["P", "1", "LA", "CMYK"])
def test_other_modes_become_grey_or_colour(tmp_path, mode):
    for i in range(2):
        Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(tmp_path / f"{i}.tiff")
    assert (only(tmp_path).inputs == 255).all()


def test_labels_in_a_table_are_matched_with_the_files(tmp_path):
    for i in range(4):
        save(tmp_path / "images" / f"{i}.png")
    rows = ["file,size,label", "images/0.png,1,cat", "1.png,1,dog", "images/2.png,1,cat", "images/9.png,1,dog"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    part = only(tmp_path)
    assert part.files == ("images/0.png", "images/1.png", "images/2.png")
    assert part.targets.tolist() == [0, 1, 0]
    assert part.inventory["labels_without_file"] == ["images/9.png"]
    assert part.inventory["files_without_label"] == ["images/3.png"]
    assert "1 labels without a file in labels.csv" in part.inventory["notes"]


@pytest.mark.parametrize(("name", "sign"), [("labels.tsv", "\t"), ("labels.csv", ";"), ("labels.csv.gz", ",")])
def test_labels_may_stand_in_any_table_that_is_read(tmp_path, name, sign):
    rows = "\n".join(sign.join(row) for row in (("file", "label"), ("0.png", "cat"), ("1.png", "dog")))
    for i in range(2):
        save(tmp_path / f"{i}.png")
    (tmp_path / name).write_bytes(gzip.compress(rows.encode()) if name.endswith(".gz") else rows.encode())
    assert only(tmp_path).class_names == ("cat", "dog")


def test_a_table_of_labels_that_fits_nothing_is_refused(tmp_path):
    save(tmp_path / "0.png")
    (tmp_path / "labels.csv").write_text("file,label\nother.png,cat\n")
    with pytest.raises(AuditError, match=r"names none of the 1 images beside it, but 'other.png'"):
        only(tmp_path)
    (tmp_path / "labels.csv").write_text("file,kind\n0.png,cat\n")
    with pytest.raises(AuditError, match=r"no column with labels .*; it has 'file', 'kind'"):
        only(tmp_path)
    assert only(tmp_path, target="kind").class_names == ("cat",)


def test_images_without_classes_are_read_without_targets(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png")
    part = only(tmp_path)
    assert part.targets is None
    assert "no labels.csv" in part.inventory["notes"][0]


def test_a_large_folder_gives_an_even_subset(tmp_path):
    for i in range(30):
        save(tmp_path / "ab"[i % 2] / f"{i:02}.png")
    part = only(tmp_path, limit=10)
    assert (len(part), part.total) == (10, 30)
    assert "an even subset of 10 of 30 images was looked at" in part.inventory["notes"]
    assert set(part.targets.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no images .*empty"),
        ({"a.wav": b"x"}, "1 .wav"),
        ({"c/a.png": b"x", "d/b.png": b""}, "none of the 2 images"),
    ],
)
def test_a_folder_without_a_readable_image_is_refused(tmp_path, files, words):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AuditError, match=words):
        only(tmp_path)


def test_a_single_image_is_no_data_set(animals):
    with pytest.raises(AuditError, match="pass the folder that holds it"):
        only(animals / "cat" / "0.png")
