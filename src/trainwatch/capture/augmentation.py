"""Transforms of a dataset that change its samples at random, as far as their names say so."""

from __future__ import annotations

from typing import Any

TRANSFORMS = ("transform", "transforms", "augment", "augmentation", "augmentations")  # where datasets keep them
RANDOM = ("random", "augment", "jitter", "mixup", "cutmix", "cutout", "erasing", "noise", "flip", "dropout")
DEEP = 6  # datasets in datasets, transforms in transforms
MOST = 32


def augmentations(dataset: Any, deep: int = DEEP) -> list[str]:
    """Names of the random transforms of a dataset, each once; nothing is called.

    Args:
        dataset: With transforms under one of the usual names, or a subset of such a one.
        deep: Levels to look into.
    """
    found: list[str] = []
    for part in [getattr(dataset, name, None) for name in TRANSFORMS]:
        found += _named(part, deep)
    if deep and not found and (inner := getattr(dataset, "dataset", None)) is not None:
        found = augmentations(inner, deep - 1)
    return list(dict.fromkeys(found))[:MOST]


def _named(part: Any, deep: int) -> list[str]:
    """Names of a transform, or of those within it, that speak of chance."""
    if part is None or not deep:
        return []
    if isinstance(part, (list, tuple)):
        return [name for one in part[:MOST] for name in _named(one, deep - 1)]
    name = str(getattr(part, "__name__", type(part).__name__))
    within = [n for attribute in TRANSFORMS for n in _named(getattr(part, attribute, None), deep - 1)]
    return within or ([name] if any(word in name.lower() for word in RANDOM) else [])
