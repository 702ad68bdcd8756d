"""A folder of images before any training: some lie in the wrong folder, some in training and validation both.

`report.save(directory)` writes the page with the images. From the shell: `trainwatch audit FOLDER --output page.html`.

Run it: `python examples/audit_images.py`.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import trainwatch


def write(folder):
    """Digits as PNGs in `train/0` ... `val/9`, with faults that happen."""
    images, classes = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    parts = {"train": order[:900], "val": order[900:1250]}
    parts["val"] = np.concatenate([parts["val"], parts["train"][:60]])  # 60 of training lie in validation, too
    for part, rows in parts.items():
        labels = classes[rows].copy()
        if part == "train":
            wrong = rng.choice(len(rows), 60, replace=False)
            labels[wrong] = (labels[wrong] + rng.integers(1, 10, 60)) % 10
        for row, label in zip(rows, labels, strict=True):
            path = folder / part / str(label) / f"{row:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((images[row].reshape(8, 8) * 15.9).astype(np.uint8)).save(path)
    broken = folder / "train" / "3" / "broken.png"
    broken.write_bytes(path.read_bytes()[:50])
    (folder / "train" / "3" / "notes.txt").write_text("look at these again")


def main():
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        report = trainwatch.audit(folder)
    report.print()
    return report


if __name__ == "__main__":
    main()
