"""Remedies for step size and schedule."""

from trainwatch.remedies.entry import RemedyEntry

_WARM_UP = "warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters={steps})\n"
_STEPPED = _WARM_UP + "# after each optimizer.step():\nwarm_up.step()"
_CONFIGURED = _WARM_UP + (
    'return {{"optimizer": optimizer, "lr_scheduler": {{"scheduler": warm_up, "interval": "step"}}}}'
)
_FALLING = "schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, {steps})\n"

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="lower-learning-rate",
        title="Lower the learning rate from {present} to about {proposed}",
        why="{reason}",
        how='for group in optimizer.param_groups:  # {optimizer}\n    group["lr"] = {proposed}  # was {present}',
        lightning="def configure_optimizers(self):\n"
        "    # {optimizer}: lr={proposed} in place of {present}\n"
        "    return torch.optim.{optimizer}(self.parameters(), lr={proposed})",
        when="The loss rises, leaps or stands above where shorter steps lead.",
        not_when="The loss falls steadily and merely slowly: shorter steps would make it slower.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="warm-up",
        title="Warm the learning rate up over the first {steps} steps",
        why="The first updates are the least reliable ones: gradients are largest and an adaptive optimiser's averages "
        "are still empty.",
        how=_STEPPED,
        lightning="# in configure_optimizers, behind the optimiser\n" + _CONFIGURED,
        when="The loss leaps in the first steps and the rate is right later on.",
        not_when="It leaps late in the run, or the rate is too high all along.",
        strength="moderate",
        section="§9",
    ),
    RemedyEntry(
        id="shorter-warm-up",
        title="End the warm-up after {steps} steps",
        why="The rate was still rising when the run ended after {taken} steps, at {present}: the one that it was to "
        "reach was never used.",
        how="# in place of the schedule that there is\n" + _STEPPED,
        lightning="# in configure_optimizers, in place of the schedule that there is\n" + _CONFIGURED,
        when="A schedule was made for more steps than the run takes, or for epochs and is stepped by them.",
        not_when="The run was cut short and is to go on.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="slower-schedule",
        title="Let the learning rate last for all {steps} steps",
        why="It began at {present} and was below a hundredth of that from step {until} on: the rest of the run hardly "
        "moved a weight. A schedule for epochs that is stepped after each batch ends as early.",
        how="# in place of the schedule that there is\n" + _FALLING + "# after each optimizer.step():\nschedule.step()",
        lightning="# in configure_optimizers, in place of the schedule that there is\n"
        + _FALLING
        + 'return {{"optimizer": optimizer, "lr_scheduler": {{"scheduler": schedule, "interval": "step"}}}}',
        when="A schedule was made for epochs and is stepped by batches, or for a shorter run.",
        not_when="The loss had come to rest before the rate fell.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="higher-learning-rate",
        title="Raise the learning rate from {present} to {proposed}",
        why="All updates of this run sum up to {path} of the weights' length, in sound runs to about {usual} times it.",
        how="for group in optimizer.param_groups:  # before the loop and before a schedule is made; all else as it is\n"
        '    group["lr"] = {proposed}  # was {present}',
        when="The loss falls evenly by little, and the weights hardly leave where they began.",
        not_when="The loss jumps or swings already, or only the last layers move.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="smaller-epsilon",
        title="Lower the optimiser's epsilon from {present} to 1e-8",
        why="Gradients are divided by their size and epsilon: beside {gradient} a weight, that leaves {kept} of the "
        "steps that a learning rate of {rate} stands for.",
        how='for group in optimizer.param_groups:  # before the loop\n    group["eps"] = 1e-8  # was {present}',
        when="An adaptive optimiser has an epsilon far above its gradients, and steps are too short.",
        not_when="A large epsilon was chosen together with a rate as much higher.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="group-learning-rate",
        title="Raise the learning rate of {layers} from {present} to {proposed}",
        why="That is the rate at which '{fast}' moved; at theirs, they end where they were drawn.",
        how="for i in {groups}:  # parameter groups; before the loop and before a schedule is made\n"
        '    optimizer.param_groups[i]["lr"] = {proposed}  # was {present}',
        when="Parameter groups have rates of their own, and one of them hardly moves.",
        not_when="Those layers hold pretrained weights that are meant to stay near where they are.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="adaptive-steps",
        title="Use an optimiser whose steps do not shrink with the gradient",
        why="An entry of {layers} gets {ratio} of the gradient of the other layers, and a plain step is as short; one "
        "of Adam moves each weight by about the rate. At {rate} it is as long as that of the other layers now, as far "
        "as that is usual.",
        how="optimizer = torch.optim.Adam(model.parameters(), lr={rate})\n"
        "# or find what makes '{first}' count so little: a factor on its output, a nearly closed gate",
        when="Some layers get far smaller gradients than others for good reason, such as a factor on their output.",
        not_when="Gradients vanish with depth: that is to be cured at its source.",
        strength="moderate",
        section="§9",
    ),
    RemedyEntry(
        id="decay-learning-rate",
        title="Let the learning rate decay to zero by the end",
        why="Shorter and shorter steps come to rest in the minimum that steps of one length leap over.",
        how="schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max={steps})\n"
        "# after each optimizer.step():\n"
        "schedule.step()",
        lightning="# in configure_optimizers, behind the optimiser\n"
        "schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max={steps})\n"
        'return {{"optimizer": optimizer, "lr_scheduler": {{"scheduler": schedule, "interval": "step"}}}}',
        when="The loss hovers at a level that shorter steps would fall below.",
        not_when="A schedule brings the rate down already, or the run is still falling at this rate.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="lower-momentum",
        title="Lower the momentum from {present} to about {proposed}",
        why="Momentum carries the weights past the minimum and back again; with less of it they swing less long.",
        how='for group in optimizer.param_groups:\n    group["momentum"] = {proposed}  # was {present}',
        when="The loss swings with a period of several steps.",
        not_when="It swings from one step to the next: then the rate is too high, with any momentum.",
        strength="moderate",
        section="§9",
    ),
    RemedyEntry(
        id="look-at-spikes",
        title="Look at the batches of steps {steps}",
        why="Values out of range, wrong units or wrong labels of single samples make such losses. What is broken is "
        "better removed than clipped.",
        how="# in the training loop, after the loss is computed:\n"
        "if loss.item() > {most:.3g}:\n"
        "    worst = inputs.flatten(1).abs().amax(1)  # largest entry of each sample\n"
        "    print(worst.topk(min(3, len(worst))), targets)",
        when="Single batches have a loss far above their neighbours.",
        not_when="Every batch of an epoch's end or of a schedule's restart does: that is the loop, not the data.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="repair-samples",
        title="Repair or leave out the samples whose inputs are up to {times:.2g} times as large as usual",
        why="{far} of {samples} training samples that were looked at are so. Wrong units, a lost decimal point or a "
        "failed sensor make such inputs. Clipping bounds what they do to the weights; their steps teach nothing.",
        how="size = x_train.flatten(1).square().mean(1).sqrt()\n"
        "broken = size > {limit:.3g}  # {far_times:.0f} times the median of this run's samples\n"
        "print(broken.nonzero().flatten())  # look at them; then\n"
        "x_train, y_train = x_train[~broken], y_train[~broken]",
        when="A few inputs dwarf all others, and the loss shoots up where they are drawn.",
        not_when="Large inputs are what is to be learned, as of a rare event: take logarithms or ranks instead.",
        strength="strong",
        section="§9",
    ),
    RemedyEntry(
        id="robust-loss",
        title="Use a loss that grows only linearly with a large error",
        why="A squared error weighs one error of 100 like 10,000 of 1. {errors}",
        how="criterion = torch.nn.HuberLoss(delta={delta:.3g})  # in place of {present}; {unit}",
        when="A few targets lie far from the others, and are what they are.",
        not_when="They are broken: drop or mend them instead.",
        strength="moderate",
        section="§5",
    ),
)
