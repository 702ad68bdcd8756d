"""The catalogue of remedies: whole, and with code for the framework that the run uses."""

import ast
import re

import pytest

from trainwatch.config import Settings
from trainwatch.engine import judge
from trainwatch.record import RunRecord
from trainwatch.remedies import CATALOGUE, remedy

every_entry = pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)


@every_entry
def test_each_says_when_it_fits_and_when_it_does_not(entry):
    assert entry.when.endswith(".")
    assert entry.not_when.endswith(".")
    assert entry.strength in ("strong", "moderate", "weak")
    assert re.fullmatch(r"§\d+", entry.section)


WITHOUT_NUMBER = {
    "split-anew": "it says how to divide the data, whatever they are",
    "raise-learning-rate": "weak advice, of which nothing was measured",
    "overfit-one-batch": "an experiment, whose number is its result",
    "watch-activations": "an experiment, whose numbers are its result",
    "prior-rules": "whether there are such rules the user alone knows",
    "distillation": "whether there is a teacher the user alone knows",
    "show-loss": "no loss was seen, so nothing was measured",
}


def test_remedies_carry_numbers_of_the_run_but_for_a_few_with_a_reason():
    assert {id for id, entry in CATALOGUE.items() if not entry.fields} == set(WITHOUT_NUMBER)


@every_entry
def test_a_page_shows_each_number_by_its_name(entry):
    page = entry.page()
    assert all(f"{{{field}}}" in page for field in entry.fields)
    assert entry.when in page
    assert entry.not_when in page
    assert ("Under Lightning:" in page) == bool(entry.lightning)


@pytest.mark.parametrize("id", [id for id, entry in CATALOGUE.items() if entry.lightning])
def test_lightning_code_needs_no_numbers_of_its_own_and_is_code(id):
    entry = CATALOGUE[id]
    plain = {f for text in (entry.title, entry.why, entry.how) for f in re.findall(r"\{(\w+)", text)}
    named = set(re.findall(r"(?<!\{)\{(\w+)[^{}]*\}(?!\})", entry.lightning))
    assert named <= plain
    numbers = dict.fromkeys(entry.fields, 0.5) | {
        "optimizer": "SGD",
        "next_step": "# next",
        "inverse": [1.0],
        "criterion": "torch.nn.CrossEntropyLoss(weight=weight)",
        "module": "BatchNorm1d",
    }
    ast.parse(remedy(id, **numbers).lightning)


@pytest.mark.parametrize(("framework", "line"), [("lightning", "L.Trainer(min_steps="), ("pytorch", "Keep the record")])
def test_a_report_has_code_for_the_framework_of_the_run(framework, line):
    record = RunRecord()
    record.set_fact("framework", framework)
    record.append("train_loss", "cross_entropy", 1, 1.0)
    report = judge(record, Settings(select=("TW709",), strict=True))
    codes = [r.how for d in report.diagnoses for r in d.remedies]
    assert any(line in code for code in codes)
