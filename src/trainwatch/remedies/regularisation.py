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
        when="An L1 term is in the loss and exact zeros are wanted.",
        not_when="Small weights will do, or every feature matters a little: then L2.",
        strength="strong",
        section="§8",
    ),
    RemedyEntry(
        id="decoupled-weight-decay",
        title="Decay the weights apart from the gradient: AdamW with weight_decay = {proposed:.2g}",
        why="AdamW shrinks all weights by the same share of themselves. The present penalty of {present:.3g} acts as "
        "{least:.2g} to {most:.2g} of that, depending on the layer; {proposed:.2g} is in the middle.",
        how="optimizer = torch.optim.AdamW(model.parameters(), lr={rate:.3g}, weight_decay={proposed:.2g})\n"
        "# a group for biases and gains of norms with weight_decay=0.0 is usual; then tune it on validation loss",
        when="Weight decay runs through an adaptive optimiser's gradient.",
        not_when="The decay was tuned as it is, and validation is content: the best value differs.",
        strength="moderate",
        section="§16",
    ),
    RemedyEntry(
        id="max-norm",
        title="Bound the norm of each unit's weights in '{name}' by {limit:.3g}",
        why="Its rows now have a norm of {present:.3g} in the root mean square. A bound ends the growth and leaves all "
        "that is smaller alone.",
        how="with torch.no_grad():  # after each optimizer.step()\n"
        "    w = model.get_parameter('{name}')\n"
        "    w.copy_(torch.renorm(w, p=2, dim=0, maxnorm={limit:.3g}))",
        when="Weights grow without end, and the scale of a layer matters: nothing normalises behind it.",
        not_when="A normalisation follows, or large weights are what the task needs.",
        strength="moderate",
        section="§15",
    ),
)
