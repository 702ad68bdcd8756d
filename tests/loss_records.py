"""Records of a training loss and of its criterion."""

import numpy as np

from trainwatch.record import RunRecord


def record(values, stream="mse_loss", facts=None):
    made = RunRecord()
    made.append("train_loss", stream, np.arange(len(values)), np.asarray(values, float))
    if facts is not None:
        made.set_fact("loss", {stream: {"function": stream, "reduction": "mean", "arguments": {}, **facts}})
    return made
