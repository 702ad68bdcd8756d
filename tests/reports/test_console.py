import io
import random

import pytest
from rich.console import Console

from trainwatch.reports import console, render, wording


def shown(report, **options):
    file = io.StringIO()
    console.show(report, Console(file=file, **options))
    return file.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 100, 300])
def test_lines_fit_the_terminal_but_code_is_never_broken(small, large, width):
    for report in (small, large):
        lines = shown(report, width=width).splitlines()
        code = [c for d in report.diagnoses for r in d.remedies for c in wording.block(r.how).splitlines()]
        assert all(f"     {c}" in lines for c in code)
        assert all(len(each) <= min(width, 100) for each in lines if each.strip() not in code)


def test_names_are_not_markup(large):
    text = shown(large, width=100, force_terminal=True, color_system="truecolor")
    assert "[red]x[/red]" in text
    assert "[bold]luck[/bold]" in text


def test_terminal_gets_colour_and_the_same_words(small):
    plain = Console(file=io.StringIO(), width=100)
    coloured = shown(small, width=100, force_terminal=True, color_system="standard")
    assert "\x1b[1;31m" in coloured
    assert [each.rstrip() for each in shown(small, width=100).splitlines()] == render(small).splitlines()
    assert "\x1b" not in shown(small, width=100)
    assert not plain.is_terminal


def test_text_ignores_the_surroundings(small, monkeypatch):
    before = render(small)
    for name, value in {"COLUMNS": "40", "FORCE_COLOR": "1", "TERM": "dumb", "JUPYTER_COLUMNS": "30"}.items():
        monkeypatch.setenv(name, value)
    assert render(small) == before


def test_terminal_that_cannot_encode_a_name_gets_question_marks(others):
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    report = type(others["healthy"])("healthy", not_checked={"TW201": "stream 検証 was empty"})
    console.show(report, Console(file=file, width=80))
    file.flush()
    assert b"stream ?? was empty: TW201" in file.buffer.getvalue()


def test_default_console_is_standard_output(small, capsys):
    small.print()
    assert "TW302 exploding-gradients" in capsys.readouterr().out


def test_printing_draws_no_random_numbers_that_a_training_would_miss(large):
    before = random.getstate()
    large.print()
    assert random.getstate() == before
