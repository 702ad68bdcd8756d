"""TW401 to TW403: each landscape is told by the rule on it and by no other. One training, three verdicts."""

import pytest
from saddles import HEALTHY, PLATEAUS, SADDLES, VALLEYS, run, silent

from trainwatch.rules import all_rules

CODES = ("TW401", "TW402", "TW403")
KINDS = {"saddle": (SADDLES, ["TW401"]), "plateau": (PLATEAUS, ["TW402"]), "valley": (VALLEYS, ["TW403"]),
         "healthy": (HEALTHY, [])}  # fmt: skip
LANDSCAPES = {f"{kind}, {name}": (*how, told) for kind, (some, told) in KINDS.items() for name, how in some.items()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("data", "model", "how", "told"), LANDSCAPES.values(), ids=LANDSCAPES)
def test_a_landscape_is_told_by_its_own_rule_alone(data, model, how, told, seed):
    record = run(data, model, seed, **how).record
    assert [code for code in CODES if not silent(all_rules()[code](), record)] == told
