from __future__ import annotations

import numpy as np
import pytest

from trainwatch.record import Series
from trainwatch.record.series import ROWS, WINDOWS


def rows_of(rng: np.random.Generator, n: int, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.normal(size=(n, *shape)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[rng.random(values.shape) < 0.001] = np.inf
    values[rng.random(values.shape) < 0.001] = -np.inf
    return values


def filled(values: np.ndarray, chunk: int, steps: np.ndarray | None = None) -> Series:
    series = Series(values.shape[1:])
    steps = np.arange(len(values)) if steps is None else steps
    for at in range(0, len(values), chunk):
        series.append(steps[at : at + chunk], values[at : at + chunk])
    return series


def arrays_of(series: Series) -> list[bytes]:
    return [str(series.state()[0]).encode(), *(a.tobytes() for a in series.state()[1])]


@pytest.mark.parametrize(("shape", "n"), [((), 20_001), ((256,), 9_001), ((5, 300), 2_001)])
def test_what_is_held_does_not_depend_on_how_many_rows_came_at_a_time(shape: tuple[int, ...], n: int) -> None:
    values = rows_of(np.random.default_rng(0), n, shape)
    one, many, all_at_once = (filled(values, chunk) for chunk in (7, 97, len(values)))
    assert len(one.windows["first"]) > 1
    assert arrays_of(one) == arrays_of(many) == arrays_of(all_at_once)


@pytest.mark.parametrize(("shape", "n"), [((), 150_000), ((256,), 9_000)])
def test_windows_say_what_the_rows_in_them_were(shape: tuple[int, ...], n: int) -> None:
    values = rows_of(np.random.default_rng(1), n, shape)
    steps = np.cumsum(np.random.default_rng(2).integers(0, 3, n))
    series = filled(values, 50, steps)
    width, windows = series.state()[0]["width"], series.windows
    assert width > 1
    folded = n - len(series)
    starts = np.arange(0, folded, width)
    assert len(windows["first"]) == len(starts)
    for i, start in enumerate(starts):
        inside = slice(start, min(start + width, folded))
        rows, present = values[inside].astype(np.float64), ~np.isnan(values[inside])
        assert windows["first"][i] == steps[inside][0]
        assert windows["last"][i] == steps[inside][-1]
        assert np.array_equal(windows["count"][i], present.sum(0))
        assert np.array_equal(windows["min"][i], np.fmin.reduce(rows), equal_nan=True)
        assert np.array_equal(windows["max"][i], np.fmax.reduce(rows), equal_nan=True)
        finite = np.isfinite(rows) | np.isnan(rows)
        expected = np.where(present, rows, 0).sum(0, where=finite) / np.maximum(present.sum(0), 1)
        expected = np.where(finite.all(0), np.where(present.any(0), expected, np.nan), np.inf)
        assert np.allclose(np.abs(windows["mean"][i]), np.abs(expected), rtol=1e-4, atol=1e-5, equal_nan=True)
    assert np.array_equal(series.values, values[folded:], equal_nan=True)
    assert np.array_equal(series.steps, steps[folded:])


def test_an_absent_column_stays_absent_and_a_non_finite_one_non_finite() -> None:
    values = np.ones((20_000, 4), np.float32)
    values[:, 1] = np.nan
    values[::2, 2], values[1::2, 2] = np.inf, -np.inf
    values[:, 3] = np.finfo(np.float32).max  # sums overflow float32, yet all is finite
    series = filled(values, 1000)
    mean = series.windows["mean"]
    assert (mean[:, 0] == 1).all()
    assert np.isnan(mean[:, 1]).all()
    assert np.isinf(mean[:, 2]).all()
    assert (mean[:, 3] == np.finfo(np.float32).max).all()
    assert (series.windows["count"][:, 1] == 0).all()


def test_a_rare_value_weighs_as_often_as_it_was_present() -> None:
    values = np.full((40_000, 1), np.nan, np.float32)
    values[0], values[1000:2000] = 100.0, 1.0
    series = filled(values, 512)
    first = slice(0, 4000 // series.state()[0]["width"])
    count, mean = series.windows["count"][first], series.windows["mean"][first]
    assert np.nansum(count * np.nan_to_num(mean)) == pytest.approx(1100, rel=1e-5)


@pytest.mark.parametrize("shape", [(), (62,), (256,), (64, 64)])
def test_memory_is_bounded_whatever_the_width(shape: tuple[int, ...]) -> None:
    series = Series(shape)
    block = np.zeros((256, *shape), np.float32)
    for i in range(2 * series.capacity // 256 + 6):
        series.append(np.arange(i * 256, (i + 1) * 256), block)
    assert ROWS[0] <= series.capacity <= ROWS[1]
    assert 0 < len(series) <= series.capacity
    assert 0 < len(series.windows["first"]) <= WINDOWS[1]
    assert sum(a.nbytes for a in series.state()[1]) < 10e6


def test_memory_is_bounded_when_a_window_is_longer_than_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainwatch.record.series.ROWS", (16, 16))
    monkeypatch.setattr("trainwatch.record.series.WINDOWS", (4, 4))
    values = np.arange(10_000, dtype=np.float32)
    series = filled(values, 10)
    width = series.state()[0]["width"]
    assert width > series.capacity
    assert len(series) <= 16
    assert len(series.windows["first"]) <= 4
    assert series.windows["first"].tolist() == list(range(0, 10_000 - len(series), width))
    assert series.windows["mean"][0] == pytest.approx((width - 1) / 2)


def test_history_is_ordered_and_covers_the_run() -> None:
    rng = np.random.default_rng(3)
    steps = np.cumsum(rng.integers(0, 4, 50_000))
    series = filled(rng.normal(size=50_000).astype(np.float32), 33, steps)
    at, values = series.history()
    assert len(at) == len(values) == len(series) + len(series.windows["first"])
    assert (np.diff(at) >= 0).all()
    assert at[0] < steps[series.state()[0]["width"]]
    assert at[-1] == steps[-1] == series.last_step


def test_history_grows_with_the_series() -> None:
    series = filled(np.arange(20_000, dtype=np.float32), 100)
    before = len(series.history()[0])
    series.append([20_000], [1.0])
    assert series.history()[0][-1] == 20_000
    assert len(series.history()[0]) == before + 1


def test_arrays_handed_out_do_not_change_with_later_rows() -> None:
    series = Series((2,))
    kept = []
    for i in range(300):
        series.append(np.arange(100) + 100 * i, np.full((100, 2), i, np.float32))
        kept.append((series.steps, series.values, series.steps.copy(), series.values.copy()))
    assert all(np.array_equal(s, s0) and np.array_equal(v, v0) for s, v, s0, v0 in kept)
    with pytest.raises(ValueError, match="read-only"):
        series.values[0] = 1


def test_the_callers_arrays_are_copied() -> None:
    series, steps, values = Series((2,)), np.arange(3), np.ones((3, 2), np.float32)
    series.append(steps, values)
    steps[:], values[:] = 9, 9
    assert series.steps.tolist() == [0, 1, 2]
    assert (series.values == 1).all()


def test_a_series_without_rows_has_no_last_step() -> None:
    series = Series((3,))
    assert (len(series), series.last_step) == (0, -1)
    assert series.history()[1].shape == (0, 3)
    series.append(np.zeros(0, np.int64), np.zeros((0, 3), np.float32))
    assert len(series) == 0


def test_the_same_step_may_come_again() -> None:
    series = Series(())
    series.append([4, 4], [1.0, 2.0])
    series.append([4], [3.0])
    assert series.values.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("steps", "values", "message"),
    [
        ([6, 7], np.zeros((2, 4)), "do not fit"),
        ([6, 7], np.zeros((3, 3)), "do not fit"),
        ([[6, 7]], np.zeros((1, 3)), "do not fit"),
        ([4], np.zeros((1, 3)), "must not fall"),
        ([8, 7], np.zeros((2, 3)), "must not fall"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_change_nothing(
    steps: list[int], values: np.ndarray, message: str
) -> None:
    series = Series((3,))
    series.append([5], np.ones((1, 3)))
    with pytest.raises(ValueError, match=message):
        series.append(steps, values)
    assert series.steps.tolist() == [5]


def test_a_number_too_large_for_float32_is_not_finite() -> None:
    series = Series(())
    series.append([0, 1], [1e300, 1.0])
    assert np.isinf(series.values[0])


@pytest.mark.parametrize("n", [0, 10, 20_000])
def test_the_state_is_all_there_is(n: int) -> None:
    values = rows_of(np.random.default_rng(4), n + 5_000, (3,))
    series = filled(values[:n], 99)
    series.provenance["unscaled"] = True
    again = Series.from_state(*series.state())
    assert arrays_of(again) == arrays_of(series)
    for s in (series, again):
        s.append(np.arange(n, n + 5_000), values[n:])
    assert arrays_of(again) == arrays_of(series)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"width": 3.0},
        {"width": 1 << 80},
        {"folded": -1},
        {"folded": 1 << 70},
        {"folded": 0},
        {"shape": [4]},
        {"shape": [-1]},
    ],
)
def test_a_state_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    meta, arrays = filled(np.zeros((20_000, 3), np.float32), 100).state()
    with pytest.raises(ValueError, match=r"contradicts|negative"):
        Series.from_state({**meta, **change}, arrays)
