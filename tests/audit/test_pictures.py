"""What an audit draws: bars of classes, the features that tell most, samples, doubtful labels, copies."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_wine

from audit_stand_in import measured
from trainwatch.auditing.pictures import OF_A_CLASS, SHOWN_CLASSES, SUSPECTS, pictures_of
from trainwatch.auditing.sources import Reading, read_parts
from trainwatch.auditing.spreads import SHOWN, features_figure
from trainwatch.auditing.thumbnails import SIDE, Thumbnails
from trainwatch.diagnosis import Diagnosis, Severity, to_plain
from trainwatch.figures import figure_from_plain

IMAGES, CLASSES = load_digits(return_X_y=True)
IMAGES = IMAGES.reshape(-1, 8, 8)


def drawn(train, val=None, found=(), **how):
    reading = Reading(**how)
    parts = read_parts(train, val, reading)
    record = measured(parts, task=reading.task)
    record.set_fact("class_names", list(how.get("class_names", ())))
    return pictures_of(parts, record, found)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_bars_count_the_samples_of_each_class():
    train, val = np.repeat([0, 1, 2], [30, 20, 10]), np.repeat([0, 1], [4, 6])
    bars = drawn((np.ones((60, 2)), train), (np.ones((10, 2)), val), class_names=("a", "b", "c"))["classes"]
    assert bars.labels == ("a", "b", "c")
    assert bars.groups == {"training": (30, 20, 10), "validation": (4, 6, 0)}


def test_no_bars_without_classes():
    assert "classes" not in drawn((np.ones((60, 2)), np.linspace(0, 1, 60)))
    assert "classes" not in drawn(np.ones((60, 2)))


# ---------------------------------------------------------------- histograms


def test_the_features_that_tell_most_are_shown():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 400, 30))[0], np.arange(400) % 2
    x[:, 20] += 3 * y  # goes with the target
    x[:300, 25] = np.nan
    later = rng.standard_normal((200, 30))
    later[:, 10] += 2  # moved
    figure = drawn((x, y), (later, np.arange(200) % 2))["features"]
    assert set(list(figure.edges)[:3]) == {"feature 10", "feature 20", "feature 25"}
    assert len(figure.edges) == SHOWN
    assert "12 of 30" in figure.title
    assert figure.notes == {"feature 25": "75.0% of training missing or infinite"}


def test_features_that_were_found_wanting_come_first():
    x = np.random.default_rng(0).standard_normal((60, 20))
    found = Diagnosis("TW111", "broken-features", Severity.WARNING, "made up", where=("feature 13",))
    assert next(iter(drawn((x, np.arange(60) % 2), found=[found])["features"].edges)) == "feature 13"


def test_shares_of_a_histogram_are_of_each_part_over_the_same_bins():
    figure = drawn((np.arange(100.0), np.arange(100) % 2), (np.full(7, 99.0), np.arange(7) % 2))["features"]
    (edges,), (shares,) = figure.edges.values(), figure.shares.values()
    assert (edges[0], edges[-1]) == (0, 99)
    assert sum(shares["training"]) == pytest.approx(1)
    assert shares["validation"][-1] == 1


def test_few_whole_numbers_have_a_bin_each():
    figure = drawn((np.arange(60) % 3, np.arange(60) % 2))["features"]
    assert figure.edges["feature 0"] == (-0.5, 0.5, 1.5, 2.5)
    assert figure.shares["feature 0"]["training"] == pytest.approx([1 / 3] * 3)


def test_numbers_to_predict_come_first():
    figure = drawn((np.random.default_rng(0).standard_normal((50, 3)), np.linspace(0, 1, 50)))["features"]
    assert next(iter(figure.edges)) == "the target"


def test_features_without_a_number_are_left_out():
    x = np.full((40, 2), np.nan)
    x[:, 1] = 5.0
    figure = drawn((x, np.arange(40) % 2))["features"]
    assert list(figure.edges) == ["feature 1"]
    assert sum(figure.shares["feature 1"]["training"]) == 1
    assert "features" not in drawn((x[:, :1], np.arange(40) % 2))


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_numbers_of_any_size_are_drawn(scale):
    x, y = np.random.default_rng(0).standard_normal((60, 14)), np.arange(60) % 2
    x[:, 7] += 3 * y
    (part,) = read_parts((x * scale, y), None, Reading())
    assert next(iter(features_figure({"train": part}, classes=True).edges)) == "feature 7"


def test_names_of_features_are_kept():
    assert set(drawn(load_wine())["features"].edges) < set(load_wine().feature_names)


# ---------------------------------------------------------------- galleries


def test_every_class_shows_some_of_its_samples():
    gallery = drawn((IMAGES[:300], CLASSES[:300]))["samples"]
    assert len(gallery.groups) == 10
    for label, (name, tiles) in enumerate(gallery.groups.items()):
        count = int((CLASSES[:300] == label).sum())
        assert name == f"{label}: {count} samples"
        assert len(tiles) == OF_A_CLASS
        for png, caption in tiles:
            row = int(caption.removeprefix("sample "))
            assert CLASSES[row] == label
            seen, shown = pixels(png).astype(float), IMAGES[row] / 16 * 255
            assert np.abs(seen - shown).max() <= 1


def test_many_classes_are_shown_in_part():
    x, y = np.zeros((120, 8, 8), np.uint8), np.arange(120) % 30
    gallery = drawn((x, y))["samples"]
    assert len(gallery.groups) == SHOWN_CLASSES
    assert "20 of 30 classes" in gallery.title


def test_images_without_classes_are_shown_all_the_same():
    assert list(drawn(IMAGES[:50])["samples"].groups) == ["all"]


def test_doubtful_labels_are_shown_with_both_readings():
    x, y = IMAGES[:300].copy(), CLASSES[:300].copy()
    x[60], y[60] = x[27], (y[27] + 1) % 10
    gallery = drawn((x, y), class_names=tuple("abcdefghij"))["suspects"]
    assert gallery.title == "Samples that look most like another class"  # TW106 found nothing
    tiles = gallery.groups["Training labels"]
    assert len(tiles) <= SUSPECTS
    given, seen = "abcdefghij"[y[60]], "abcdefghij"[y[27]]
    (png,) = [png for png, caption in tiles if caption.endswith(": sample 60")]
    (caption,) = [caption for _, caption in tiles if caption.endswith(": sample 60")]
    assert re.fullmatch(rf"labelled {given}, looks like {seen} \(98% of the votes\): sample 60", caption)
    assert np.abs(pixels(png) - x[60] / 16 * 255).max() <= 1


def test_copies_are_shown_side_by_side():
    x, y = IMAGES[:100].copy(), CLASSES[:100]
    x[60] = x[20]
    gallery = drawn((x, y))["copies"]
    first, second = gallery.groups["Twice in training"]
    assert first[0] == second[0]
    assert (first[1], second[1]) == (f"training: 20, labelled {y[20]}", f"training: 60, labelled {y[60]}")
    assert "copies" not in drawn((IMAGES[:100], y))


def test_rows_have_no_gallery():
    assert set(drawn(load_wine())) == {"classes", "features"}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_thumbnails_of_any_image(channels):
    images = np.random.default_rng(0).normal(0, 3, (5, 200, 100, channels))
    images[0, 0, 0] = np.nan
    seen = pixels(Thumbnails(images).png(0))
    assert seen.shape[:2] == (SIDE, SIDE // 2)
    assert seen.ndim == (2 if channels < 3 else 3)


def test_bytes_are_shown_as_they_are_and_constant_images_are_shown():
    dark = np.full((3, 8, 8, 1), 7, np.uint8)
    assert (pixels(Thumbnails(dark).png(0)) == 7).all()
    assert pixels(Thumbnails(np.full((3, 8, 8, 1), 0.5)).png(0)).shape == (8, 8)
    assert pixels(Thumbnails(np.full((3, 8, 8, 1), np.nan)).png(0)).max() == 0


def test_pictures_come_back_from_json():
    for figure in drawn((IMAGES[:60], CLASSES[:60])).values():
        plain = json.loads(json.dumps({"kind": figure.kind, **to_plain(figure)}))
        again = figure_from_plain(plain)
        assert type(again) is type(figure)
        assert to_plain(again) == to_plain(figure)
