"""Tuning finds the thresholds that do best, and does no harm where the published ones do."""

from dataclasses import dataclass, replace

import pytest

from benchmarks.rivals import RIVALS, tuning
from benchmarks.rivals.rival import Alarm, Rival, Thresholds
from benchmarks.zoo.scenario import scenarios

SOUND = next(s for s in scenarios("tuning", "healthy_digits") if s.form == "base")
FAULTY = replace(SOUND, planted=True, truth=("TW601",))


@dataclass(frozen=True)
class Limits(Thresholds):
    most: float = 1.0


def too_large(run, limits):
    if run > limits.most:
        yield Alarm("too large", frozenset({"TW601"}))


def always(run, _):
    yield Alarm("always", frozenset({"TW101"}))


def rival(*rules, tried=(2.0, 5.0, 9.0)):
    return Rival("a tool", "a paper", rules, Limits(), {"too_large": {"most": tried}})


RUNS = [(SOUND, 0.5), (SOUND, 3.0), (SOUND, 4.0), (FAULTY, 6.0), (FAULTY, 7.0)]


def j(rival, thresholds):
    said = [[alarm.codes for alarm in rival.judge(run, thresholds)] for _, run in RUNS]
    known = [s for s, _ in RUNS]
    return tuning.youden(known, tuning.effect(known, said))


def test_a_threshold_is_moved_and_a_rule_that_only_alarms_is_switched_off():
    judged = rival(too_large, always)
    found, reached = tuning.tune(judged, RUNS)
    assert (found.most, found.off, reached) == (5.0, ("always",), 1.0)
    assert j(judged, found) == reached > j(judged, judged.published) == 0.0


def test_published_thresholds_stay_where_nothing_is_better():
    found, _ = tuning.tune(rival(too_large, tried=(0.9, 1.1)), RUNS[:1] + RUNS[3:])
    assert found == Limits()


def test_all_faults_must_be_named_where_there_are_several():
    both = [replace(FAULTY, truth=("TW601", "TW101"), every=True), SOUND]
    one = [[frozenset({"TW601"})], []]
    two = [[frozenset({"TW601"}), frozenset({"TW101"})], []]
    assert tuning.youden(both, tuning.effect(both, one)) == 0.0
    assert tuning.youden(both, tuning.effect(both, two)) == 1.0


def test_an_installed_tool_is_heard_where_it_is_right():
    codes = {"spike": frozenset({"TW601"}), "plateau": frozenset({"TW601"}), "noise": frozenset({"TW603"})}
    said = [
        {"published": [("spike", "warning"), ("noise", "warning")], "quiet": [("plateau", "info")]},
        {"published": [("spike", "warning")], "quiet": []},
    ]
    found, reached = tuning.tune_installed([FAULTY, SOUND], said, codes)
    assert reached == 1.0
    assert found == {"setting": "quiet", "warnings": ["spike", "noise"], "remarks": ["plateau"]}


def test_what_is_kept_is_read_back(tmp_path):
    path = tmp_path / "tuned.toml"
    values = {"a tool": {"most": 1e-07, "off": ["always"], "setting": "x > 1", "remarks": []}}
    tuning.write(values, "where from", path)
    assert tuning.kept(path) == values


@pytest.mark.parametrize("name", RIVALS)
def test_what_is_tuned_is_of_the_rival(name):
    rival, rules = RIVALS[name], {rule.__name__ for rule in RIVALS[name].rules}
    assert set(rival.tried) <= rules
    assert all(hasattr(rival.published, field) for tried in rival.tried.values() for field in tried)
    tuned = tuning.tuned(name)
    assert tuned is not None
    assert set(tuned.off) <= rules
