"""Remedies for step size and schedule."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="lower-learning-rate",
        title="Lower the learning rate from {present} to about {proposed}",
        why="{reason}",
        how="optimizer = torch.optim.{optimizer}(model.parameters(), lr={proposed})  # was lr={present}",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="warm-up",
        title="Warm the learning rate up over the first {steps} steps",
        why="The first updates are the least reliable ones: gradients are largest and an adaptive optimiser's averages "
        "are still empty.",
        how="warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters={steps})\n"
        "# after each optimizer.step():\n"
        "warm_up.step()",
        strength="moderate",
        section="§9",
    ),
    RemedyEntry(
        id="higher-learning-rate",
        title="Raise the learning rate from {present} to {proposed}",
        why="All updates of this run sum up to {path} of the weights' length, in sound runs to about {usual} times it.",
        how="optimizer = torch.optim.{optimizer}(model.parameters(), lr={proposed})  # {factor} times the present rate",
        strength="strong",
        section="§9",
    ),
)
