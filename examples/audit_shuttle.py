"""A table before any training: readings of a space shuttle's radiators, with faults that happen.

A sensor writes -9999 where it has no reading, and rows of validation were left in training. The readings come with the
package river (`pip install river`); without it the table of breast cancers in scikit-learn takes their place.

Run it: `python examples/audit_shuttle.py`.
"""

import importlib.util

import numpy as np
from sklearn.datasets import load_breast_cancer

import trainwatch


def readings():
    """Rows of numbers, and whether each is unusual."""
    if importlib.util.find_spec("river") is None:
        print("without river (pip install river): the breast cancers of scikit-learn instead")
        return load_breast_cancer(return_X_y=True)
    from river import datasets

    x, y = zip(*((list(row.values()), bool(unusual)) for row, unusual in datasets.Shuttle()), strict=True)
    return np.array(x, float), np.array(y, int)


def with_faults(x, y):
    """Training and validation parts, as pairs of inputs and targets."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    val, train = order[: len(x) // 5], order[len(x) // 5 :]
    train = np.concatenate([train, val[: len(val) // 20]])
    seen = x[train].copy()
    seen[rng.random(len(seen)) < 0.02, 3] = -9999
    return (seen, y[train]), (x[val], y[val])


def main():
    report = trainwatch.audit(*with_faults(*readings()))
    report.print()
    return report


if __name__ == "__main__":
    main()
