"""Remedies for saddle points and plateaus (§13)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="perturb",
        title="Move the weights by {length} along the direction of negative curvature",
        why="Tried on batches that the direction was not taken from, this lowers the loss by {drop}; the optimiser "
        "gained {gained} in its last {steps} steps.",
        how="# between two steps, while the watch is live; it measures anew and moves only where that is confirmed\n"
        "escaped = trainwatch.escape(watch)\n"
        "print(escaped)  # how far, by how much the loss falls, or the reason why nothing was done",
        lightning="class Escape(L.Callback):\n"
        "    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):\n"
        "        if trainer.global_step == ...:  # once, while the loss rests\n"
        "            print(trainwatch.escape(watch))  # your TrainWatch(); it moves only where that is confirmed",
        when="Other batches confirm a direction of negative curvature that leads down.",
        not_when="The gradient leads down as fast.",
        strength="strong",
        section="§13",
    ),
    RemedyEntry(
        id="add-noise",
        title="Shake the weights once with noise of {size}",
        why="{reason}",
        how="# between two steps\nwith torch.no_grad():\n    for weight in model.parameters():\n{lines}",
        when="The loss rests at a saddle.",
        not_when="It rests at a minimum, or on a plateau where noise leads nowhere.",
        strength="moderate",
        section="§13",
    ),
    RemedyEntry(
        id="momentum",
        title="Use momentum of {proposed} (now: {present})",
        why="{reason}",
        how='for group in optimizer.param_groups:\n    group["momentum"] = {proposed}  # {optimizer}; was {present}',
        when="Plain descent leaves a saddle or a long valley slowly.",
        not_when="The loss swings already.",
        strength="moderate",
        section="§13",
    ),
)
