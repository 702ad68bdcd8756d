"""Remedies for regularisers that do not do what they are for (§8, §16)."""

from trainwatch.remedies.entry import RemedyEntry
from trainwatch.remedies.gradients import NORMALISE

_STEP = """\
(gradient,) = torch.autograd.grad({criterion}({model}(inputs), targets), inputs)
spread = inputs.detach().std([d for d in range(inputs.ndim) if d != 1], keepdim=True)
moved = (inputs + {{size:g}} * spread * gradient.sign()).detach()
loss = ({criterion}({model}(inputs.detach()), targets) + {criterion}({model}(moved), targets)) / 2"""

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
    RemedyEntry(
        id="normalisation",
        title="Normalise after {count} layers with {module}",
        why="Nothing normalises here, and {drift}. A normalisation keeps the scale of what layers pass on, whatever "
        "the size of their weights; batch norm regularises mildly besides, since each sample is seen among others. Why "
        "it works is contested: a smoother loss is better supported than less covariate shift.",
        how=NORMALISE,
        lightning="# at the end of the LightningModule's __init__\n"
        + NORMALISE.partition("\n")[2].replace("model.", "self."),
        when="No layer normalises, and gradients or activations change their scale over depth or over the run.",
        not_when="Batches are small or samples of a batch must not see one another: then layer norm; or the scale "
        "carries meaning.",
        strength="moderate",
        section="§4",
    ),
    RemedyEntry(
        id="adversarial-training",
        title="Train on inputs moved by {size:g} of their spread against the loss, too",
        why="One such step takes the loss of held batches from {before:.3g} to {after:.3g}; noise of the same size "
        "takes it to {noise:.3g}. Training on such inputs makes the output steadier; on clean ones it may cost "
        "accuracy.",
        how="# in each step, in the place of the loss; it takes about three times as long\n"
        "inputs = inputs.clone().requires_grad_(True)\n" + _STEP.format(model="model", criterion="criterion"),
        lightning="def training_step(self, batch, index):  # it takes about three times as long\n"
        "    inputs, targets = batch\n"
        "    inputs = inputs.clone().requires_grad_(True)\n    "
        + _STEP.format(model="self", criterion="self.criterion").replace("\n", "\n    ")
        + "\n    return loss",
        when="Inputs are numbers, and a small step against the loss raises it far more than noise does.",
        not_when="Accuracy on clean inputs is all that counts, or inputs are words or categories.",
        strength="weak",
        section="§4",
    ),
)
