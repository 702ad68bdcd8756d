"""Remedies for fine-tuning (§11)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="freeze-batch-norm",
        title="Keep batch norm in the frozen part in evaluation mode",
        why="requires_grad_(False) stops the optimiser alone: in training mode {count} go on averaging the statistics "
        "of every batch, and {furthest} is {shift:.2g} standard deviations from where it was.",
        how="{lines}\n"
        "def keep_statistics(model):  # after every model.train()\n"
        "    for name in frozen:\n"
        "        model.get_submodule(name).eval()\n"
        "# Lightning, in the module: def on_train_epoch_start(self): keep_statistics(self)\n"
        "# The statistics have changed by now: load the pretrained weights again before the next run.",
        when="Batch norm in a frozen part is in training mode.",
        not_when="Its statistics are to follow the new data: then train its gain and shift, too.",
        strength="strong",
        section="§11",
    ),
    RemedyEntry(
        id="prepare-as-pretrained",
        title="Prepare the inputs as they were for pretraining",
        why="Under the inputs of this run{now} the mean in '{first}' is {shift:.2g} standard deviations from the "
        "pretrained one, and the deviation {factor:.3g} times as large or as small.",
        how="# mean and deviation that the pretrained weights were made for, say those of ImageNet:\n"
        "mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])\n"
        "inputs = (inputs - mean[:, None, None]) / std[:, None, None]  # images in 0..1; training and validation alike",
        when="Pretrained weights meet inputs on another scale than the one they were made for.",
        not_when="The new data differ by nature, such as X-rays from photographs, and are prepared the same way.",
        strength="strong",
        section="§11",
    ),
    RemedyEntry(
        id="drop-frozen-parameters",
        title="Give the optimiser only what is trained",
        why="{count} that it holds are frozen. It leaves alone what has no gradient, not what requires none.",
        how="{lines}\n"
        "for name in frozen:\n"
        "    model.get_parameter(name).grad = None  # once, right after they were frozen\n"
        "optimizer = torch.optim.{optimizer}([p for p in model.parameters() if p.requires_grad], lr={rate})",
        when="The optimiser holds parameters that were frozen, and still have a gradient.",
        not_when="They are to be thawed later on: then set their gradients to None, and leave them in.",
        strength="strong",
        section="§11",
    ),
    RemedyEntry(
        id="freeze-layers",
        title="Freeze {count} modules: {freed:.0%} of the numbers that are trained",
        why="A copy that learned with them frozen came to a validation loss of {loss:.3g}, one with nothing frozen to "
        "{before:.3g}.",
        how="frozen = {modules}\n"
        "for name in frozen:  # in the pretrained model, before it is trained\n"
        "    for p in model.get_submodule(name).parameters(recurse=False):\n"
        "        p.requires_grad_(False)\n"
        "    # batch norm among them: model.get_submodule(name).eval() after each model.train()\n"
        "optimizer = torch.optim.{optimizer}([p for p in model.parameters() if p.requires_grad], lr={rate})",
        when="Few samples, a pretrained model, and a copy that learns as well with these modules frozen.",
        not_when="The new data look other than those of pretraining: then the first layers have to move.",
        strength="strong",
        section="§11",
    ),
    RemedyEntry(
        id="low-rank-update",
        title="Train updates of low rank: {share:.0%} of the numbers",
        why="With the directions {kept} alone, the validation loss is {loss:.3g}; it is {before:.3g} now. "
        "Updates of this run: {told}.",
        how="class LowRank(torch.nn.Module):\n"
        "    def __init__(self, weight, rank):\n"
        "        super().__init__()\n"
        "        rows, columns = weight.flatten(1).shape\n"
        "        self.down = torch.nn.Parameter(torch.randn(rank, columns) / columns**0.5)\n"
        "        self.up = torch.nn.Parameter(torch.zeros(rows, rank))\n"
        "    def forward(self, weight):\n"
        "        return weight + (self.up @ self.down).view_as(weight)\n"
        "ranks = {ranks}\n"
        "for name, rank in ranks.items():  # in the pretrained model, before it is trained\n"
        "    layer = model.get_submodule(name)\n"
        "    layer.weight.requires_grad_(False)\n"
        '    torch.nn.utils.parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))\n'
        "# of transformers: peft.LoraConfig(target_modules=list(ranks), rank_pattern=ranks)",
        when="The updates of this run are well described by a few directions each.",
        not_when="The model is small enough to train and store as a whole for each task.",
        strength="moderate",
        section="§11",
    ),
    RemedyEntry(
        id="subnetwork-mask",
        title="Train {share:.0%} of the entries, those that moved furthest in this run",
        why="With the change of the others taken back, the validation loss is {loss:.3g}; it is {before:.3g} now.",
        how="# start: state_dict() of the pretrained model; model: as this run has left it\n"
        "named = [(n, p) for n, p in model.named_parameters() if p.ndim > 1]\n"
        "moved = {{n: (p.detach() - start[n]).abs() for n, p in named}}\n"
        "every = torch.cat([m.flatten() for m in moved.values()])\n"
        "limit = every.kthvalue(max(1, int((1 - {share:g}) * len(every)))).values\n"
        "model.load_state_dict(start)\n"
        "for n, p in named:  # without weight decay, which moves what has no gradient, too\n"
        "    p.register_hook(lambda grad, kept=moved[n] > limit: grad * kept)",
        when="One run has shown which entries move, and there are others to come from the same start.",
        not_when="Time or memory is short: the gradients of all entries are computed all the same.",
        strength="moderate",
        section="§11",
    ),
    RemedyEntry(
        id="share-weights",
        title="Let {second} and {first} be one",
        why="They have the same shape, and what is shared is learned from both uses.",
        how='model.get_submodule("{other}").weight = model.get_submodule("{owner}").weight',
        when="Both map between the same tokens and features, as an embedding and the layer that gives tokens back.",
        not_when="Equal shapes are all that they have in common.",
        strength="weak",
        section="§11",
    ),
)
