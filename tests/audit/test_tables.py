"""Tables: types of columns, the target, rows and cells that do not fit."""

import datetime
import gzip
import sys
import types

import numpy as np
import pytest

from trainwatch.auditing.sources import AuditError, Reading, read_parts

PEOPLE = """age,town,joined,height,label
31,Rome,2020-01-01,1.8,yes
40,Oslo,2020-01-03,,no
NA,Rome,2020-02-01,1.7,yes
28,Bonn,,1.6,no
"""


def only(source, **how):
    (part,) = read_parts(source, None, Reading(**how))
    return part


@pytest.fixture
def people(tmp_path):
    (tmp_path / "people.csv").write_text(PEOPLE, encoding="utf-8")
    return tmp_path / "people.csv"


def test_a_table_is_rows_of_named_features(people):
    part = only(people)
    assert part.feature_names == ("age", "town", "joined", "height")
    assert part.categorical == (False, True, False, False)
    expected = [[31, 2, 18262, 1.8], [40, 1, 18264, np.nan], [np.nan, 2, 18293, 1.7], [28, 0, np.nan, 1.6]]
    np.testing.assert_array_equal(part.inputs, expected)
    assert (part.layout, part.source, part.total) == ("rows", "people.csv", 4)


def test_a_target_is_known_by_its_name_and_that_is_said(people):
    part = only(people)
    assert part.targets.tolist() == [1, 0, 1, 0]
    assert part.class_names == ("no", "yes")
    assert "column 'label' was taken for the target, by its name" in part.inventory["notes"]


def test_a_target_that_is_named_wins(people):
    part = only(people, target="height", task="regression")
    assert part.feature_names == ("age", "town", "joined", "label")
    assert part.targets.tolist() == [1.8, 1.7, 1.6]
    assert part.places.tolist() == [0, 2, 3]  # the row without one is left out
    with pytest.raises(AuditError, match="no column 'weight'; it has 'age', 'town'"):
        only(people, target="weight")


@pytest.mark.parametrize(
    ("header", "words"), [("a,b", "no column is known as the target"), ("y,label", "several could")]
)
def test_a_target_is_never_guessed(tmp_path, header, words):
    (tmp_path / "t.csv").write_text(f"{header}\n1,2\n3,4\n")
    part = only(tmp_path / "t.csv")
    assert part.targets is None
    assert words in part.inventory["notes"][0]
    assert "--target" in part.inventory["notes"][0]


def test_both_parts_number_their_categories_alike(tmp_path, people):
    (tmp_path / "later.csv").write_text(
        "age,town,joined,height,label\n30,Turin,2020-01-01,1.8,no\n30,Oslo,2020-01-01,1,yes\n"
    )
    _, val = read_parts(people, tmp_path / "later.csv", Reading())
    assert val.inputs[:, 1].tolist() == [3, 1]
    assert val.targets.tolist() == [0, 1]


def test_a_missing_category_is_none_of_them(tmp_path):
    (tmp_path / "t.csv").write_text("a,town\n1,Rome\n2,\n3,NA\n4,Oslo\n")
    assert np.isnan(only(tmp_path / "t.csv").inputs[:, 1]).tolist() == [False, True, True, False]


def test_categories_of_training_stay_categories_where_they_look_like_numbers(tmp_path):
    for name, cells in (("train", ["7b", "8", "9"]), ("val", ["8", "9", "10"])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["size", *cells]))
    train, val = read_parts(tmp_path, None, Reading())
    assert train.inputs[:, 0].tolist() == [0, 1, 2]
    assert val.inputs[:, 0].tolist() == [1, 2, 3]
    assert val.categorical == (True,)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_quotes_and_compression(tmp_path, delimiter):
    text = delimiter.join(["a", "b", "label"]) + "\r\n" + f'1{delimiter}"x{delimiter}\n""y"""{delimiter}0\r\n' * 3
    with gzip.open(tmp_path / "t.csv.gz", "wt", newline="", encoding="utf-8-sig") as file:
        file.write(text)
    part = only(tmp_path / "t.csv.gz")
    assert part.feature_names == ("a", "b")
    assert (part.total, part.categorical) == (3, (False, True))


def test_columns_of_one_name_are_told_apart(tmp_path):
    (tmp_path / "t.csv").write_text("a,a,,label\n1,2,3,0\n4,5,6,1\n")
    part = only(tmp_path / "t.csv")
    assert part.feature_names == ("a", "column 1", "column 2")
    assert part.inputs.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_comma_is_a_decimal_point_where_semicolons_part_the_cells(tmp_path):
    (tmp_path / "t.csv").write_text("a;b;label\n1,5;x;0\n-2,25e1;1,y;1\n3;x;0\n")
    part = only(tmp_path / "t.csv")
    assert part.inputs[:, 0].tolist() == [1.5, -22.5, 3]
    assert part.categorical == (False, True)
    assert any("decimal points" in note for note in part.inventory["notes"])
    (tmp_path / "u.csv").write_text('a,b\n"1,500",2\n')  # thousands
    assert only(tmp_path / "u.csv").categorical == (True, False)


def test_a_table_without_a_header(tmp_path):
    np.savetxt(tmp_path / "t.csv", np.arange(12).reshape(4, 3), delimiter=",")
    part = only(tmp_path / "t.csv", target="column 2")
    assert part.inputs.tolist() == [[0, 1], [3, 4], [6, 7], [9, 10]]
    assert "no names" in part.problems[0].what


def test_rows_and_cells_that_do_not_fit_are_told(tmp_path):
    rows = [f"{i},{i}.5,1" for i in range(40)]
    rows[3], rows[20] = "3,3.5", "oops,20.5,1"
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c", *rows]))
    part = only(tmp_path / "t.csv")
    assert 3 not in part.places
    assert np.isnan(part.inputs[19, 0])
    assert np.isnan(part.inputs).sum() == 1
    told = {p.place: p.what for p in part.problems}
    assert told == {
        "row 3": "has 2 cells, the table 3 columns",
        "column 'a'": "holds 1 times no number, such as 'oops'",
    }


def test_what_cannot_be_parsed_further_keeps_the_rows_before(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n" * 5 + f'3,"{"x" * 200_000}"\n')
    part = only(tmp_path / "t.csv")
    assert part.inputs.tolist() == [[1, 2]] * 5
    assert (part.problems[0].place, "nor what follows: field larger" in part.problems[0].what) == ("row 5", True)


def test_a_table_whose_first_row_cannot_be_parsed_says_so(tmp_path):
    (tmp_path / "t.csv").write_text(f"a,b\n{'x' * 200_000},2\n")
    with pytest.raises(AuditError, match=r"no rows that can be used: row 0 cannot be read.*field larger"):
        only(tmp_path / "t.csv")


def test_a_large_table_gives_an_even_subset(tmp_path):
    np.savetxt(
        tmp_path / "t.csv", np.c_[np.arange(20_000), np.arange(20_000) % 2], "%d", ",", header="a,label", comments=""
    )
    part = only(tmp_path / "t.csv", limit=12_000)
    assert (len(part), part.total) == (12_000, 20_000)
    assert part.inventory["notes"][0] == "an even subset of 12,000 of 20,000 rows was looked at"
    assert (part.inputs[:, 0] == part.places).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"a,b\n", "has no rows"),
        ("a\nüß".encode("latin-1"), "UTF-8"),
        (b"label\n1\n2\n", "no column but"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(AuditError, match=words) as caught:
        only(tmp_path / "t.csv")
    assert "t.csv" in str(caught.value)


def test_something_else_under_the_name_of_a_table(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(b"PK no gzip")
    with pytest.raises(AuditError, match="cannot read"):
        only(tmp_path / "t.csv.gz")


def test_tables_side_by_side_are_both_parts(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text(PEOPLE)
    assert [part.source for part in read_parts(tmp_path, None, Reading())] == ["train.csv", "test.csv"]


def test_validation_has_the_columns_of_training_in_any_order(tmp_path, people):
    (tmp_path / "later.csv").write_text("height,note,joined,town,age\n1.5,x,2020-01-01,Oslo,30\n")
    _, val = read_parts(people, tmp_path / "later.csv", Reading())
    assert val.inputs.tolist() == [[30, 1, 18262, 1.5]]
    assert val.targets is None
    assert val.inventory["notes"][:2] == [
        "there is no column 'label': no targets",
        "left out 'note', which training lacks",
    ]
    (tmp_path / "later.csv").write_text("height,label\n1,yes\n")
    with pytest.raises(AuditError, match="lacks 'age', 'town', 'joined', which training has"):
        read_parts(people, tmp_path / "later.csv", Reading())


# ---------------------------------------------------------------- data frames and Parquet


def test_a_data_frame_is_read_like_its_csv(people):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(people, parse_dates=["joined"])
    frame["height"] = frame["height"].astype("Float64")  # with its own kind of missing
    part, table = only(frame), only(people)
    np.testing.assert_array_equal(part.inputs, table.inputs)
    assert part.targets.tolist() == table.targets.tolist()
    assert (part.feature_names, part.categorical) == (table.feature_names, table.categorical)
    apart = only((frame.drop(columns="label"), frame["label"]))
    assert apart.targets.tolist() == table.targets.tolist()


def test_columns_of_one_name_in_a_data_frame_are_told_apart():
    pandas = pytest.importorskip("pandas")
    part = only(pandas.DataFrame([[1, 2, 0], [3, 4, 1]], columns=["a", "a", "label"]))
    assert part.feature_names == ("a", "column 1")
    assert part.inputs.tolist() == [[1, 2], [3, 4]]


def test_dates_with_a_zone_or_as_objects_and_durations_become_days():
    pandas = pytest.importorskip("pandas")
    times = pandas.to_datetime(["1970-01-02 01:00", None]).tz_localize("Europe/Rome")
    dates, spans = [datetime.date(1970, 1, 3), None], pandas.to_timedelta(["36h", None])
    part = only(pandas.DataFrame({"time": times, "date": dates, "span": spans}))
    np.testing.assert_array_equal(part.inputs, [[1, 2, 1.5], [np.nan] * 3])
    with pytest.raises(AuditError, match="column 'a' holds values of type Period"):
        only(pandas.DataFrame({"a": pandas.period_range("2020", periods=2, freq="D")}))


def test_a_column_of_several_types_is_named():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(AuditError, match="column 'a' mixes int, str"):
        only(pandas.DataFrame({"a": [1, "x"], "b": [1, 2]}))


def test_parquet_without_a_library_says_what_to_install(tmp_path, monkeypatch):
    for name in ("pyarrow", "pyarrow.parquet", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "t.parquet").touch()
    with pytest.raises(AuditError, match="needs pyarrow or polars: pip install pyarrow"):
        only(tmp_path / "t.parquet")


def test_parquet_is_read_by_the_library_that_is_there(tmp_path, monkeypatch):
    class Table(dict):
        column_names = ("a", "label")
        column = dict.__getitem__

    class Cells(list):
        def to_numpy(self):
            return np.array(self)

    library = types.ModuleType("pyarrow.parquet")
    library.read_table = lambda path: Table(a=Cells([1.5, 2.5]), label=Cells(["x", "y"]))
    monkeypatch.setitem(sys.modules, "pyarrow", types.ModuleType("pyarrow"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", library)
    (tmp_path / "t.parquet").touch()
    part = only(tmp_path / "t.parquet")
    assert (part.inputs.tolist(), part.targets.tolist()) == ([[1.5], [2.5]], [0, 1])
    library.read_table = lambda path: 1 / 0
    with pytest.raises(AuditError, match=r"cannot read .*t\.parquet"):
        only(tmp_path / "t.parquet")


def test_a_first_cell_beyond_all_bounds_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "huge.csv").write_text("x" * 200_000 + ",label\n1,2\n", encoding="utf-8")
    with pytest.raises(AuditError, match=r"huge\.csv: field larger"):
        only(tmp_path / "huge.csv")
