"""Rows of attention: where the weights of a softmax go (§12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

SHARP = 0.99  # a row whose largest weight is above this looks at one entry
FLAT = 0.01  # a row whose weights are equal but for this share of them looks at nothing
FEWEST = 4  # entries that a row may look at, below which it is not counted
MASKED = -5e3  # a logit below this is one that a mask took out
QUERIES = 64  # rows of each head that are computed again
MOST = 1 << 22  # weights that are looked at in one call


@dataclass
class Rows:
    """The rows of one softmax, summed up over batches.

    Attributes:
        rows: Rows counted in each head, shape (heads,), as all that follows.
        sharp: Those that look at one entry.
        flat: Those that look at all alike.
        largest: Sum of their largest weights.
    """

    rows: torch.Tensor
    sharp: torch.Tensor
    flat: torch.Tensor
    largest: torch.Tensor

    def add(self, other: Rows) -> None:
        """Take in the rows of a further call, if it has as many heads."""
        if len(self.rows) == len(other.rows):
            for name in ("rows", "sharp", "flat", "largest"):
                setattr(self, name, getattr(self, name) + getattr(other, name))

    def row(self) -> torch.Tensor:
        """(share of sharp rows, that in the head with fewest, share of flat rows, mean largest weight, rows, heads)."""
        counted = self.rows.clamp(min=1)
        total = self.rows.sum().clamp(min=1)
        parts = [self.sharp.sum() / total, (self.sharp / counted).min(), self.flat.sum() / total,
                 self.largest.sum() / total, self.rows.sum(), torch.as_tensor(float(len(self.rows)))]  # fmt: skip
        return torch.stack([p.to(self.rows) for p in parts])


def rows_of(logits: torch.Tensor, heads: int) -> Rows:
    """The rows of softmaxes over the last dimension.

    Args:
        logits: Shape (..., rows, entries), or (samples, heads, rows, entries), masks included; a three-dimensional one
            is of all heads of a sample in turn.
        heads: How many heads there are.
    """
    logits = logits.detach().reshape(-1, heads, logits.shape[-2], logits.shape[-1])
    logits = logits[: max(1, MOST // logits[0].numel())].float()
    allowed = logits > MASKED
    entries = allowed.sum(-1)
    weights = logits.softmax(-1).nan_to_num(0.0)  # where a mask leaves nothing
    counted = entries >= FEWEST
    largest = weights.amax(-1)
    least = weights.masked_fill(~allowed, 1.0).amin(-1)
    flat = counted & (largest * entries <= 1 + FLAT) & (least * entries >= 1 - FLAT)
    return Rows(*(v.float().sum((0, 2)) for v in (counted, counted & (largest > SHARP), flat, counted * largest)))


def fused_logits(given: Mapping[str, Any]) -> torch.Tensor:
    """What a fused attention takes its softmax of, for a few samples and queries.

    Args:
        given: The arguments of the operator by name; queries and keys have shape (samples, heads, length, width).
    """
    query, key = given["query"], given["key"]
    samples, heads, queries, width = query.shape
    length = key.shape[-2]
    if key.shape[1] not in (1, heads):  # several heads of queries share one of keys
        key = key.repeat_interleave(heads // key.shape[1], 1)
    rows = min(QUERIES, queries, max(1, MOST // (heads * length)))
    some = max(1, min(samples, MOST // (heads * rows * length)))
    at = torch.linspace(0, queries - 1, rows, device=query.device).round().long()
    scale = given.get("scale") or width**-0.5
    logits = (query[:some, :, at].float() @ key[:some].float().transpose(-2, -1)) * scale
    mask = given.get("attn_mask", given.get("attn_bias"))
    if mask is not None:
        mask = mask.expand(samples, heads, queries, length)[:some, :, at]
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    if given.get("is_causal"):
        later = torch.arange(length, device=at.device) > at[:, None]
        logits = logits.masked_fill(later, -torch.inf)
    found: torch.Tensor = logits
    return found
