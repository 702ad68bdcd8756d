import pytest
from outcomes import outcome

from benchmarks.zoo.score import confusion, share, totals
from benchmarks.zoo.tables import mistakes


@pytest.mark.parametrize(
    ("said", "options", "found", "first", "beside"),
    [
        ((), {"truth": ("A",)}, False, False, ()),
        (("A",), {"truth": ("A",)}, True, True, ()),
        (("B", "A"), {"truth": ("A",)}, True, False, ("B",)),
        (("B", "A"), {"truth": ("A",), "also": ("B",)}, True, False, ()),
        (("B",), {"truth": ("A", "B")}, True, True, ()),
        (("B",), {"truth": ("A", "B"), "every": True}, False, False, ()),
        (("B", "A"), {"truth": ("A", "B"), "every": True}, True, True, ()),
        (("B",), {"truth": ("A",), "nested": ("A",)}, True, False, ("B",)),
        (("A",), {"truth": ("A",), "nested": ("C",)}, True, True, ()),
        (("A/B/C",), {"truth": ("A",)}, True, True, ()),
    ],
)
def test_what_counts_as_found_and_as_untrue(said, options, found, first, beside):
    o = outcome(*said, **options)
    assert (o.found, o.first, o.beside) == (found, first, beside)


@pytest.mark.parametrize(
    ("said", "options", "led"),
    [
        (("A",), {"truth": ("A",)}, True),
        (("B", "A"), {"truth": ("A",)}, False),
        (("B", "A"), {"truth": ("A",), "also": ("B",)}, True),
        (("B",), {"truth": ("A",), "also": ("B",)}, False),
        (("B",), {"truth": ("A",), "also": ("B",), "nested": ("A",)}, True),
        ((), {"truth": ("A",), "also": ("B",)}, False),
    ],
)
def test_what_is_named_first_is_true_of_the_run(said, options, led):
    assert outcome(*said, **options).led is led


def test_a_pair_is_a_named_cause_and_a_silent_repaired_form_of_the_same_seed():
    runs = [
        outcome("A", truth=("A",), seed=0),
        outcome("A", truth=("A",), seed=1),
        outcome(truth=("A",), seed=2),
        outcome(form="base", seed=0),
        outcome("B", form="base", seed=1),
        outcome(form="base", seed=2),
    ]
    t = totals(runs)
    assert (t.found.value, t.pairs.value, t.alarmed.value) == pytest.approx((2 / 3, 1 / 3, 1 / 3))
    assert totals(runs[:2]).pairs.value == 0, "without a repaired form there is no pair"


def test_intervals_are_over_families():
    one = share([outcome("A", truth=("A",), family="a", seed=i) for i in range(30)], lambda o: o.found)
    many = share([outcome("A", truth=("A",), family=str(i)) for i in range(30)], lambda o: o.found)
    assert (one.value, many.value) == (1, 1)
    assert one.low == pytest.approx(0.05)
    assert many.low == pytest.approx(0.9, abs=0.01), "the rule of three"
    mixed = share([outcome(truth=("A",), family="a"), outcome("A", truth=("A",), family="b")], lambda o: o.found)
    assert (mixed.low, mixed.high) == (0, 1)
    assert str(share([], lambda o: o.found)) == "-"


def test_the_confusion_table_counts_the_first_diagnosis():
    runs = [outcome("B", "A", truth=("A",)), outcome(truth=("A",)), outcome("C", form="base"), outcome(form="base")]
    assert confusion(runs) == {"A": {"B": 1, "silent": 1}, "healthy": {"C": 1, "silent": 1}}


def test_single_cases_of_the_held_out_half_are_refused():
    with pytest.raises(ValueError, match="held-out"):
        mistakes([outcome(truth=("A",), half="held_out")])
