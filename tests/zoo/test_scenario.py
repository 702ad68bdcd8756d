import pytest

from benchmarks.zoo.scenario import HALVES, Data, Loop, Model, ScenarioError, read_family, scenarios, told
from catalogue import NAMES
from trainwatch.auditing.measures import AUDITED
from trainwatch.checks.preflight import PREFLIGHT
from trainwatch.diagnosis import Severity
from trainwatch.rules import all_rules

FAULTY = """
summary = "Softmax twice."
truth = ["TW703"]
also = ["TW204"]
[base.model]
hidden = [8]
[base.optimizer]
lr = 1
[variants.wide.model]
hidden = [16, 16]
[faults.blatant.model]
last = "softmax"
[faults.both]
truth = ["TW703", "TW704"]
every = true
[faults.both.loop]
zero_grad = "never"
"""


def read(tmp_path, text):
    folder = tmp_path / "tuning"
    folder.mkdir(exist_ok=True)
    path = folder / "twice.toml"
    path.write_text(text)
    return read_family(path)


def test_a_family_is_its_base_its_variants_and_its_faults(tmp_path):
    base, wide, blatant, both = read(tmp_path, FAULTY)
    assert (base.half, base.family) == ("tuning", "twice")
    assert [s.form for s in (base, wide, blatant, both)] == ["base", "wide", "blatant", "both"]
    assert [s.planted for s in (base, wide, blatant, both)] == [False, False, True, True]
    assert base.repaired
    assert (base.truth, wide.truth, blatant.truth) == ((), (), ("TW703",))
    assert (blatant.also, blatant.every, both.truth, both.every) == (("TW204",), False, ("TW703", "TW704"), True)
    assert base.optimizer.lr == 1.0
    assert (wide.model.hidden, blatant.model.hidden) == ((16, 16), (8,))
    assert (base.model.last, blatant.model.last, both.model.last) == ("none", "softmax", "none")


def test_what_changes_the_training_changes_the_fingerprint(tmp_path):
    marks = {s.fingerprint for s in read(tmp_path, FAULTY)}
    assert len(marks) == 4
    assert marks == {s.fingerprint for s in read(tmp_path, FAULTY.replace('"Softmax twice."', '"In other words."'))}


def test_words_that_came_later_count_where_they_are_said_alone():
    assert {"hidden", "kind"} <= set(told(Model()))  # words of the first day count at their defaults too
    assert not {"branch", "gate_bias", "gate_gain", "pretrained_on", "body_frozen"} & set(told(Model()))
    assert not {"classes", "modulo"} & set(told(Data()))
    assert not {"keep_frozen", "freeze_after", "keep_zeros"} & set(told(Loop()))
    assert told(Model(branch=0.5))["branch"] == 0.5
    assert told(Model(gate_bias={"forget": 1.0}))["gate_bias"] == {"forget": 1.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing = 1", "unknown key 'nothing'"),
        ('truth = ["TW703"]', "summary"),
        ('summary = "s"\ntruth = ["TW703"]', "faults"),
        ('summary = "s"\n[faults.a.model]\nlast = "relu"', "truth"),
        ('summary = "s"\n[base.model]\nhiden = [8]', "did you mean 'hidden'"),
        ('summary = "s"\n[base.modell]\nhidden = [8]', "did you mean 'model'"),
        ('summary = "s"\n[base.loop]\nepochs = "many"', "loop.epochs must be of type int"),
        ('summary = "s"\n[variants.a]\ntruth = ["TW703"]', "has no 'truth'"),
        (FAULTY.replace("variants.wide", "variants.both"), "two forms have the same name: both"),
        ("summary = ", "twice.toml"),
    ],
)
def test_errors_name_the_file_and_the_remedy(tmp_path, text, expected):
    with pytest.raises(ScenarioError, match=r"twice\.toml") as error:
        read(tmp_path, text)
    assert expected in str(error.value)


def test_unknown_families_are_told_with_the_nearest_name():
    with pytest.raises(ScenarioError, match="did you mean 'healthy_digits'"):
        scenarios("tuning", "helthy_digits")


# These judge data, or a model before its training; the zoo's runs are trainings.
BEFORE_TRAINING = {"TW110", "TW111", "TW707", "TW708", "TW710", "TW711"}


@pytest.mark.parametrize("half", HALVES)
def test_each_half_has_a_faulty_family_for_every_rule_that_finds_faults(half):
    named = {code for s in scenarios(half) for code in s.truth}
    judges = {code for code, rule in all_rules().items() if code != "TW709" and rule.severity > Severity.INFO}
    assert {*AUDITED, *PREFLIGHT} >= BEFORE_TRAINING
    assert not judges - named - BEFORE_TRAINING, "rules without a family"
    assert not named - set(NAMES), "families whose code is not in the catalogue"


def test_the_zoo_is_large_and_balanced():
    for half in HALVES:
        some = scenarios(half)
        faulty = {s.family for s in some if s.planted}
        assert len(faulty) >= 20
        assert len({s.family for s in some} - faulty) >= 20


def test_of_a_sound_form_something_may_be_true_as_well(tmp_path):
    text = FAULTY.replace("[base.model]", '[base]\nalso = ["TW106"]\n[base.model]')
    base, wide, blatant, _ = read(
        tmp_path, text.replace("[variants.wide.model]", "[variants.wide]\nalso = []\n[variants.wide.model]")
    )
    assert (base.also, wide.also, blatant.also) == (("TW106",), (), ("TW204",))
    assert base.fingerprint == read(tmp_path, FAULTY)[0].fingerprint
