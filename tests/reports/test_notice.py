from trainwatch.diagnosis import Diagnosis, Remedy, Severity
from trainwatch.reports.notice import notice

USED = Remedy("dropout", "Add dropout", "", "", already_in_use=True)
STOP = Remedy("early-stopping", "Stop at step 300", "", "")
FOUND = Diagnosis("TW201", "overfitting", Severity.WARNING, "The loss rose\nby 0.3.", remedies=(USED, STOP))


def test_finding_and_first_thing_to_do():
    assert notice(FOUND, 1400) == "step 1,400  TW201 overfitting: The loss rose by 0.3. -> Stop at step 300"


def test_nothing_new_to_do():
    assert notice(FOUND.with_(remedies=(USED,)), 4) == "step 4  TW201 overfitting: The loss rose by 0.3."


def test_resolved():
    assert notice(FOUND, 900, resolved=True) == "step 900  TW201 overfitting: no longer found"
