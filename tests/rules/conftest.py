"""In the tests of a rule its own experiments run alone: those that other rules ask for take most of the time."""

import re

import pytest

from trainwatch.rules import all_rules


def pytest_configure(config):
    config.addinivalue_line("markers", "every_probe: experiments that other rules ask for run, too")


@pytest.fixture(autouse=True)
def only_its_own_probes(request, monkeypatch):
    code = re.match(r"test_(tw\d+)_", request.path.name)
    if code is None or request.node.get_closest_marker("every_probe"):
        return
    for rule in all_rules().values():
        if rule.code != code[1].upper():
            monkeypatch.setattr(rule, "asks", lambda self, record: ())
