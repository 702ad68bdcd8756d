"""Records of training batches made up to order."""

import numpy as np

from trainwatch.record import RunRecord


def recorded(targets, size, *, classes, epochs=1, samples=None, shuffle=None):
    """A record of batches over these targets, in order, or shuffled by a generator."""
    record = RunRecord()
    for epoch in range(epochs):
        y = targets if shuffle is None else shuffle.permutation(targets)
        counts = np.append(np.bincount(y, minlength=classes), 0)
        record.append("train_classes", "targets", epoch, counts)
        for batch in np.split(y, np.arange(size, len(y), size)):
            absent = np.append(np.bincount(batch, minlength=classes) == 0, 1)
            record.append("batches_without_class", str(len(batch)), epoch, absent.astype(float))
    record.set_fact("run", {"train_samples": samples})
    return record
