"""Runs in several processes over gloo, held against the gradients themselves and against the same run in one."""

import numpy as np
import pytest

from several import LIMIT, MATRIX, STEPS, processes, told, train

FEW = 4
NAMES = {case: "-".join(map(str, case)) for case in MATRIX}


def matrix(kind):
    return {
        f"{kind}-{name}": {"kind": kind, "precision": p, "accumulation": a, "clip": c, "steps": FEW}
        for (p, a, c), name in NAMES.items()
    }


def own_class(rank, rows):
    """Each process draws from classes of its own, as from files that were sorted by class."""
    from several import Y

    mine = [i for i in range(len(Y)) if (Y[i] == 0) == (rank == 0)]
    start = int(rows[0])
    return rows.new_tensor([mine[(start + k) % len(mine)] for k in range(len(rows) // 2)])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    cases = {
        **matrix("ddp"),
        **matrix("fsdp"),
        "whole": {"kind": "ddp"},
        "sharded": {"kind": "fsdp"},
        "everywhere": {"kind": "ddp", "validate": "all"},
        "in one": {"kind": "ddp", "validate": "first"},
        "spoiled": {"kind": "ddp", "spoil": 1},
        "skewed": {"kind": "ddp", "classes": own_class, "steps": 24},
        "unwatched": {"kind": "ddp", "watched": ()},
        "unwatched shards": {"kind": "fsdp", "watched": ()},
        "stopped": {
            "kind": "ddp",
            "spoil": 1,
            "steps": 24,
            "watch": {"stop_on": ("TW303",)},
            "settings": {"overhead": 0.99},
        },
        "one watches": {"kind": "ddp", "watched": (0,)},
        "one watches shards": {"kind": "fsdp", "watched": (0,)},
        "the other watches": {"kind": "ddp", "watched": (1,)},
    }
    return processes(2, tmp_path_factory.mktemp("two"), cases)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    cases = {kind: {"kind": kind, "steps": FEW} for kind in ("ddp", "fsdp", "hsdp")}
    return processes(4, tmp_path_factory.mktemp("four"), cases)


@pytest.fixture(scope="module")
def single():
    return {name: told(*train("single", *case, steps=FEW)) for case, name in NAMES.items()}


@pytest.fixture(scope="module")
def alone():
    return told(*train())


def series(case, quantity, key="default"):
    return case["series"][quantity, key]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", MATRIX, ids=NAMES.values())
def test_norms_are_those_of_the_whole_gradient(two, single, kind, case):
    first, other = two[f"{kind}-{NAMES[case]}"]
    steps, norms, provenance = series(first, "grad_norm")
    assert steps == list(range(FEW))
    np.testing.assert_allclose(norms, first["kept"], rtol=1e-5)
    near = 1e-5 if case[0] == "fp32" else 1e-2
    of_all = np.linalg.norm(norms, axis=1), np.linalg.norm(series(single[NAMES[case]], "grad_norm")[1], axis=1)
    np.testing.assert_allclose(*of_all, rtol=near)
    assert provenance == {"before_clipping": True, "unscaled": True, "scope": "global"}
    losses = [series(c, "train_loss", "cross_entropy")[1] for c in (first, single[NAMES[case]])]
    np.testing.assert_allclose(*losses, rtol=near)
    assert first["facts"]["regularisation"]["clipping"] == ({"max_norm": LIMIT} if case[2] else None)
    assert other["verdict"] == "not-judged"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ddp", "fsdp", "hsdp"])
def test_four_processes(four, single, kind):
    """Of three rows of a bias, one process of four holds none; under HSDP two processes hold the same part."""
    first = four[kind][0]
    np.testing.assert_allclose(series(first, "grad_norm")[1], first["kept"], rtol=1e-5)
    alone = single[NAMES["fp32", 1, False]]
    np.testing.assert_allclose(series(first, "grad_norm")[1], series(alone, "grad_norm")[1], rtol=1e-5)
    others, expected = series(first, "other_grad_norms")[1], series(alone, "other_grad_norms")[1]
    np.testing.assert_allclose(others[:, :, 1:], expected[: len(others), :, 1:], rtol=1e-4)
    np.testing.assert_allclose(others[0, :, 0], expected[0, :, 0], atol=2)  # an entry may cancel to zero by rounding
    assert first["facts"]["processes"]["joined"] == [1, 2, 3]
    for key in ("norm", "mean", "std"):
        values = [[p[key] for p in c["facts"]["parameters"]] for c in (first, alone)]
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["whole", "sharded"])
def test_all_else_is_that_of_a_single_process(two, alone, name):
    first, other = two[name]
    assert (first["verdict"], other["verdict"]) == (alone["verdict"], "not-judged")
    assert "process 1 of 2" in other["report"]["not_checked"]["TW201"]
    for facts in (first["facts"]["run"], alone["facts"]["run"]):
        assert (facts["steps"], facts["samples"]) == (STEPS, STEPS * 48)
    classes = [series(c, "train_classes", "targets")[1].sum(0).tolist() for c in (first, alone)]
    assert classes[0] == classes[1]
    assert series(first, "batches_without_class", "24")[1][:, -1].sum() == 2 * STEPS
    for quantity in ("val_loss", "val_confusion", "val_train_mode"):
        mine, theirs = series(first, quantity, "val"), series(alone, quantity, "val")
        assert mine[0] == theirs[0]
        np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-5)
    mine, theirs = (series(c, "val_sample_loss", "val")[1] for c in (first, alone))
    np.testing.assert_allclose(np.sort(mine), np.sort(theirs), rtol=1e-4)
    assert series(first, "val_group_size", "val")[1].sum() == 40
    assert first["facts"]["validation"]["val"]["samples"] == 40
    for key in ("norm", "mean", "std"):
        values = [[p[key] for p in c["facts"]["parameters"]] for c in (first, alone)]
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-7)
    assert [p["module_type"] for p in first["facts"]["parameters"]] == ["Linear"] * 4


def test_a_pass_that_all_make_over_the_same_samples_counts_once(two, alone):
    for name in ("everywhere", "in one"):
        first = two[name][0]
        assert series(first, "val_confusion", "val")[1].sum() == 2 * 40
        assert first["facts"]["validation"]["val"]["samples"] == 40
        np.testing.assert_allclose(series(first, "val_loss", "val")[1], series(alone, "val_loss", "val")[1], rtol=1e-5)


def test_the_process_with_the_nan_is_named(two):
    first = two["spoiled"][0]
    assert first["facts"]["processes"]["nonfinite"][0] == {"rank": 1, "step": 4, "stream": "cross_entropy"}
    summary, severity = first["found"]["TW303"]
    assert severity == "error"
    assert "At step 4" in summary
    assert "process 1 and 0 of 2" not in summary
    assert "that of process 1 of 2" in summary


def test_classes_of_a_process_of_its_own_are_told(two):
    (found,) = [d for d in two["skewed"][0]["report"]["diagnoses"] if d["code"] == "TW105"]
    (evidence,) = [e for e in found["evidence"] if "process" in str(e["where"])]
    assert evidence["value"] > 0.3


def test_where_the_first_process_alone_is_watched_nobody_waits(two):
    """Under DDP it knows the gradients; of shards it has only its own, and says so."""
    first = two["one watches"][0]
    np.testing.assert_allclose(series(first, "grad_norm")[1], first["kept"], rtol=1e-5)
    assert series(first, "grad_norm")[2]["scope"] == "process"
    assert first["facts"]["processes"]["apart"] == {"1": "it is not watched"}
    assert "process 1 of 2 was left out: it is not watched" in first["report"]["overhead"]["skipped"]
    sharded = two["one watches shards"][0]
    assert ("grad_norm", "default") not in sharded["series"]
    assert "sharded" in sharded["report"]["not_checked"]["TW301"]
    assert two["the other watches"][1]["verdict"] == "not-judged"


@pytest.mark.parametrize("name", ["whole", "sharded"])
def test_experiments_are_left_alone_and_that_is_said(two, name):
    off = two[name][0]["facts"]["switched_off"]
    assert "several processes" in off["activity"]


def test_shards_are_no_whole_weights_whose_motion_or_chains_could_be_told(two):
    whole, sharded = two["whole"][0], two["sharded"][0]
    assert ("motion", "default") in whole["series"]
    assert ("motion", "default") not in sharded["series"]
    assert whole["facts"]["linearity"]["layers"]
    assert not sharded["facts"]["linearity"]["layers"]
    orders = [[p["order"] for p in case["facts"]["parameters"]] for case in (whole, sharded)]
    assert orders[0] == orders[1]


def test_a_watch_changes_no_gradient_and_so_no_weight(two):
    for watched, unwatched in (("whole", "unwatched"), ("sharded", "unwatched shards")):
        for rank in range(2):
            np.testing.assert_array_equal(two[watched][rank]["kept"], two[unwatched][rank]["kept"])


def test_all_processes_stop_after_the_same_step(two):
    """One that stopped earlier would leave the other waiting for it."""
    steps = [len(case["kept"]) for case in two["stopped"]]
    assert steps[0] == steps[1]
    assert 5 < steps[0] < 24
