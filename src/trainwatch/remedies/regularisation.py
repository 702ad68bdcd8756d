"""Remedies for regularisers that do not do what they are for (§8, §16)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="proximal-step",
        title="Take the L1 term out of the loss and shrink the weights by proximal steps of C = {coefficient:.3g}",
        why="A proximal step moves each weight towards zero by C times its step size and stops there: weights that the "
        "loss does not hold become exactly zero. {planned}",
        how="# leave the L1 term out of the loss; once, after the optimiser is made (SGD, Adam, AdamW, RMSprop, "
        "Adagrad):\n"
        "trainwatch.prox(optimizer, l1={coefficient:.3g})\n"
        "# with another optimiser, after each of its steps:\n"
        "with torch.no_grad():\n"
        "    for w in weights:\n"
        "        w.copy_(w.sign() * (w.abs() - lr * {coefficient:.3g}).clamp(min=0))",
        strength="strong",
        section="§8",
    ),
)
