"""Remedies for gradients and activations (§9)."""

from trainwatch.remedies.entry import RemedyEntry

_SWAP = """\
for name in {modules}:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, """

NORMALISE = """\
# wraps each layer in place; better still, write it into the model
for name, width in {layers}:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Sequential(model.get_submodule(name), nn.{module}(width)))"""

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="relu-family",
        title="Replace {types} between the layers by ReLU or one of its family",
        why="{reason} A sigmoid's slope is at most 1/4, a saturated tanh's near 0; that of ReLU is 1 wherever the unit "
        "is on.",
        how=_SWAP + "nn.ReLU())  # or nn.LeakyReLU(0.1), nn.GELU()" + "{drawn}",
        when="Sigmoid or tanh units follow one another over many layers.",
        not_when="The activation is a gate or the output: there bounds are wanted.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="leaky-relu",
        title="Use a ReLU that leaks",
        why="A small slope below zero lets a gradient through, so a unit that is off for all samples can come back.",
        how=_SWAP + "nn.LeakyReLU(0.01))  # or nn.GELU(), nn.SiLU(); functional: torch.nn.functional.leaky_relu(x)",
        when="Many units are off for all samples.",
        not_when="Sparse activity is meant and the loss falls.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="batch-norm",
        title="Normalise after {count} layers with {module}",
        why="It brings each layer's inputs back to where the activation has a slope, whatever the depth; now a "
        "layer passes back {factor} of the gradient that it gets.",
        how=NORMALISE,
        when="Layers scale the signal or the gradient up or down with depth; batches hold some 16 samples or more.",
        not_when="Batches are small, sequences vary in length, or samples of a batch must not see one another.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="layer-norm",
        title="Normalise after {count} layers with {module}",
        why="{reason}",
        how=NORMALISE,
        when="As batch norm, for small batches, sequences and transformers.",
        not_when="The scale of a sample's features carries meaning.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="residual",
        title="Add skip connections from '{first}' to '{last}'",
        why="The identity carries the gradient past {count} layers without a factor; now they multiply it by {ratio}.",
        how="# for each layer (or pair) from '{first}' to '{last}' whose input and output are alike in shape\n"
        "h = h + block(h)  # instead of h = block(h)",
        when="Many layers of one width follow one another.",
        not_when="A layer changes the width at each step and no projection is wanted.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="initialisation",
        title="Initialise the weights {purpose}: gain {gain} by fan-in",
        why="{reason}",
        how="for name in {layers}:\n"
        "    for parameter in model.get_submodule(name).parameters(recurse=False):\n"
        "        if parameter.ndim > 1:\n"
        "            nn.init.normal_(parameter, std={gain} / parameter[0].numel() ** 0.5)\n"
        "        else:\n"
        "            nn.init.zeros_(parameter)",
        when="Weights begin at a scale at which the signal dies out or grows with depth.",
        not_when="They hold trained values.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="pretrain-finetune",
        title="Train the first {count} layers on their own, then fine-tune all",
        why="Layers that the loss does not reach can be trained one by one, each on the output of the one below it.",
        how="# for each of {layers}, in this order: an autoencoder on its input, then keep its weights\n"
        "decoder = nn.Linear(layer.out_features, layer.in_features)\n"
        "loss = nn.functional.mse_loss(decoder(layer(x)), x)",
        when="Depth starves the first layers, and the architecture must stay.",
        not_when="Normalisation or skip connections can be had: they cure more for less.",
        strength="moderate",
        section="§9",
    ),
    RemedyEntry(
        id="lstm-gating",
        title="Replace '{module}' by a gated cell",
        why="The cell state of an LSTM is carried on by addition, so the gradient through time is not multiplied "
        "by the recurrent matrix at each of the steps.",
        how="nn.LSTM({inputs}, {hidden}, batch_first=True)  # in place of {type} '{module}'; returns output, (h, c)",
        when="A plain recurrent net must carry something over many steps.",
        not_when="Sequences are short.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="gradient-clipping",
        title="Clip the gradient's norm at {max_norm}",
        why="{reason}",
        how="torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm={max_norm})  # between backward() and step()",
        lightning="trainer = L.Trainer(gradient_clip_val={max_norm})",
        when="Rare gradients are far larger than the others.",
        not_when="Gradients vanish, or all of them are large: then lower the rate.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="find-non-finite-source",
        title="{title}",  # by the kind of source, see trainwatch.remedies.nonfinite
        why="{reason}",
        how="{code}",
        when="A loss or gradient is NaN or infinite.",
        not_when="It comes from a gradient scaler's search for its scale.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="reinitialise",
        title="Begin from weights whose deviation fits their number of inputs",
        why="{layer} begins with a deviation of {present}; for {fan_in} inputs {proposed} keeps the signal's size.",
        how="for module in model.modules():\n"
        "    if isinstance(module, (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)):\n"
        "        {draw}\n"
        "        if module.bias is not None:\n"
        "            torch.nn.init.zeros_(module.bias)\n"
        "    elif isinstance(module, torch.nn.RNNBase):\n"
        "        module.reset_parameters()",
        when="Layers begin at a deviation that does not fit their inputs.",
        not_when="They hold trained values.",
        strength="strong",
        section="§9",
    ),
)
