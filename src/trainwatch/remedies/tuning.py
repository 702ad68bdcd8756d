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
        strength="strong",
        section="§11",
    ),
)
