import numpy as np
import pytest
import torch
from torch import nn

import trainwatch
from trained import split
from trainwatch.record import RunRecord
from trainwatch.rules.dropout_remedies import dropout, dropout_evidence
from trainwatch.rules.fit_remedies import loosened
from trainwatch.symptoms.votes import co_adaptation, told, vote


def record_of(vote=(0.5, 0.45, 0.01, 0.6, 8, 64), alike=None, p=0.5):
    record = RunRecord()
    record.set_fact("regularisation", {"dropout": [{"name": "drop", "p": p}] if p else []})
    if vote:
        record.append("votes", "val", 70, vote)
    for name, correlation in (alike or {}).items():
        record.append("co_adaptation", name, 70, [correlation, 16, 65])
    return record


def test_votes_and_likeness_by_name():
    made = record_of(alike={"a": 0.1, "b": 0.3})
    found = vote(made)
    assert (found.kind, found.step, found.passes, found.samples) == ("val", 70, 8, 64)
    assert found.gain == pytest.approx(0.05)
    first, second = co_adaptation(made)
    assert (first.name, second.name, first.units) == ("b", "a", 16)


def test_chance_is_what_independent_units_show():
    draws = np.random.default_rng(0).standard_normal((65, 200))
    seen = np.abs(np.corrcoef(draws.T)[np.triu_indices(200, 1)]).mean()
    made = record_of(alike={"a": 0.1})
    assert co_adaptation(made)[0].chance == pytest.approx(seen, rel=0.02)


def test_the_remedy_says_where_how_much_and_what_was_measured():
    used = dropout(record_of(alike={"drop": 0.31}, p=0.2))
    assert used.already_in_use
    assert used.title == "Use dropout with p = 0.4 (now: p = 0.2 in drop)"
    assert (
        "8 passes with dropout awake has a validation loss of 0.45, one pass without it 0.5 (gain 0.05 +-" in used.why
    )
    assert "0.31 before 'drop'; 0.10 by chance" in used.why
    assert "Dropout(p=0.4)  # drop" in used.how
    strong = dropout(record_of(p=0.6))
    assert "with p = 0.6 (now: p = 0.6" in strong.title
    assert "raise" not in strong.how
    fresh = dropout(record_of(vote=None, alike={"2": 0.4, "4": 0.1}, p=0.0))
    assert not fresh.already_in_use
    assert "there is no dropout yet that could vote" in fresh.why
    assert "# before '2', '4', whose inputs are most alike" in fresh.how
    assert "Vote gain: not measured." in dropout(record_of(vote=None)).why
    assert "Co-adaptation: not measured." in dropout(record_of()).why


def test_less_dropout_has_the_same_numbers():
    made = record_of(alike={"drop": 0.31})
    (less,) = loosened(made, "dropout")
    assert told(made) in less.why


def test_evidence_where_it_was_measured():
    gain, alike = dropout_evidence(record_of(alike={"drop": 0.31}))
    assert gain.value == pytest.approx(0.05)
    assert "on 64 validation samples" in gain.note
    assert (alike.value, alike.where) == (pytest.approx(0.31), "drop")
    assert list(dropout_evidence(record_of(vote=None))) == []
    assert vote(record_of(vote=(0.5, np.inf, 0.1, 0.6, 8, 64))) is None


def test_a_real_run_that_overfits_has_the_numbers():
    x, xv, y, yv = split("diabetes", 0)
    torch.manual_seed(0)
    first, last = nn.Linear(x.shape[1], 256), nn.Linear(256, 1)
    model = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.1), last)
    optimizer, criterion = torch.optim.Adam(model.parameters(), lr=1e-3), nn.MSELoss()
    settings = {"quiet": True, "strict": True, "select": ("TW201",)}
    with trainwatch.watch(model, optimizer, settings=settings) as watch:
        for _ in range(40):
            model.train()
            for rows in torch.randperm(200).split(20):
                optimizer.zero_grad()
                criterion(model(x[rows]).flatten(), y[rows]).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                for rows in torch.arange(len(xv)).split(64):
                    criterion(model(xv[rows]).flatten(), yv[rows])
    (found,) = watch.report.findings()
    why = {r.id: r.why for r in found.remedies}["dropout"]
    assert "A vote of 8 passes" in why
    assert "by chance" in why
    shown = {e.name: e for e in found.evidence}
    assert 0.05 < shown["co-adaptation of hidden units"].value < 0.9
    assert abs(shown["gain of a vote of sub-networks"].value) < 0.2
