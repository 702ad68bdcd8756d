"""Reference rules: the published thresholds of other tools, written afresh over trainwatch's record.

They are a yardstick, not a copy: each condition is taken from its tool's documentation or default parameters, and
evaluated on what the record holds at full resolution, which is more than the tools themselves look at by default.
What a tool's alarm means is mapped to codes generously: wherever an alarm could be read as naming the cause, it does.
"""

from benchmarks.rivals import autotrainer, deepdiagnosis, sagemaker
from benchmarks.rivals.rival import Alarm, Rival

RIVALS: dict[str, Rival] = {r.name: r for r in (sagemaker.RIVAL, autotrainer.RIVAL, deepdiagnosis.RIVAL)}

__all__ = ["RIVALS", "Alarm", "Rival"]
