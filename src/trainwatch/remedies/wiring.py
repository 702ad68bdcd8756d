"""Remedies for wiring mistakes (§6)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="eval-mode",
        title="Switch to evaluation mode for validation",
        why="{modules} then behave as they will in use: no unit is dropped and batch norm uses its running statistics.",
        how="model.eval()\nwith torch.no_grad():\n    ...  # validation\nmodel.train()  # before training goes on",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="restore-running-statistics",
        title="Train again, or recompute the statistics of batch norm from training data",
        why="Its running mean and variance in {modules} have been updated with validation data.",
        how="torch.optim.swa_utils.update_bn(train_loader, model)  # one pass over training data, no labels used",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="add-validation",
        title="Evaluate a held-out set during training",
        why="Overfitting, over-confidence and neglected classes show on data alone that were not trained on; {seen}.",
        how="watch = trainwatch.watch(model, optimizer, loss_fn=criterion)\n"
        "model.eval()\n"
        "with torch.no_grad():\n"
        "    for x, y in val_loader:  # once an epoch, at least {passes} times\n"
        "        criterion(model(x), y)\n"
        "model.train()",
        strength="strong",
        section="§2",
    ),
    RemedyEntry(
        id="show-loss",
        title="Show trainwatch the training loss",
        why="No loss was seen on its way to backward(), so nothing can be said about the fit.",
        how="watch = trainwatch.watch(model, optimizer, loss_fn=criterion)  # or, before optimizer.step():\n"
        "watch.observe_train(loss, outputs=outputs, targets=targets)",
        strength="strong",
        section="§2",
    ),
    RemedyEntry(
        id="run-longer",
        title="Let it run for at least {steps} optimiser steps",
        why="{seen} optimiser steps are too few to tell a trend from noise.",
        how="Keep the record and watch a longer run, or trainer = L.Trainer(min_steps={steps})",
        strength="strong",
        section="§2",
    ),
)
