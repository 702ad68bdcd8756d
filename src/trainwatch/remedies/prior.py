"""Remedies that bring in prior knowledge where samples are short (§17)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="prior-features",
        title="Give the network features that carry what is known of the problem",
        why="A feature that says outright what matters need not be learned from samples. {measured}",
        how="x = torch.cat([x, (x[:, a] * x[:, b])[:, None], (x[:, a] / x[:, c])[:, None]], 1)  # ratios, products,\n"
        "# differences and moving averages that an expert would look at, in training and validation alike; leave out\n"
        "# features that should not matter",
        when="Someone knows which quantities decide: ratios, distances, rates of change.",
        not_when="Inputs are raw images, sound or text, whose features networks learn better than people write.",
        strength="strong",
        section="§17",
    ),
    RemedyEntry(
        id="prior-loss",
        title="Let the loss say which errors matter",
        why="Weights per sample, or a term for what every solution must fulfil, count as knowledge. {measured}",
        how='each = torch.nn.functional.{function}(outputs, targets, reduction="none")\n'
        "loss = (weight * each).mean()  # weight: 1 for most samples, more for those whose errors are costly\n"
        "# a rule that must hold: loss = loss + 0.1 * torch.relu(violation).mean()",
        when="Some errors cost more than others, or every solution must fulfil an equation.",
        not_when="The worst samples are wrong ones: weighting them teaches the errors.",
        strength="moderate",
        section="§17",
    ),
    RemedyEntry(
        id="prior-rules",
        title="Build rules that always hold into the model",
        why="What is certain need not be learned: bounds, symmetries, answers that are impossible. Whether there are "
        "such rules only you know: not measured.",
        how="outputs = low + (high - low) * torch.sigmoid(outputs)  # known bounds of a number\n"
        'logits = logits.masked_fill(impossible, float("-inf"))  # classes that a rule excludes for a sample',
        when="A rule holds without exception: a bound, a symmetry, an impossible answer.",
        not_when="The rule is a rule of thumb: what it excludes can no longer be learned.",
        strength="moderate",
        section="§17",
    ),
    RemedyEntry(
        id="pretrained",
        title="Begin from a network that was trained on a related task",
        why="It brings features that {samples} samples cannot teach. {measured}",
        how="model.load_state_dict(torch.load('pretrained.pt', weights_only=True), strict=False)\n"
        "for parameter in model.parameters():\n"
        "    parameter.requires_grad_(False)\n"
        "for parameter in head.parameters():  # the new last layer; later, all layers at a tenth of the rate\n"
        "    parameter.requires_grad_(True)",
        when="A network for the same kind of input can be had: images, sound, text.",
        not_when="Rows of measurements of one's own: nothing was trained on their like.",
        strength="strong",
        section="§17",
    ),
    RemedyEntry(
        id="prior-augmentation",
        title="Show the network what does not change the answer",
        why="Each change that leaves the label as it is tells something that samples need not teach. {measured}",
        how="{code}  # in training alone, drawn anew for each batch; only changes under which the label holds",
        when="A change is known that leaves the answer as it is, and the network does not know it yet.",
        not_when="The change alters the answer: a flipped 2 is none, a turned 6 is a 9.",
        strength="strong",
        section="§17",
    ),
    RemedyEntry(
        id="distillation",
        title="Learn from a teacher, or from rules of thumb, on samples without labels",
        why="A large model or a heuristic can label what nobody has labelled. Whether there is one: not measured.",
        how="soft = torch.softmax(teacher(x) / 4, 1)\n"
        "loss = criterion(model(x), y) + 16 * torch.nn.functional.kl_div(\n"
        '    torch.log_softmax(model(x) / 4, 1), soft, reduction="batchmean")  # without labels: the second term alone',
        when="Samples without labels are at hand, and a model or a rule that does better than the network.",
        not_when="The teacher is no better than the network.",
        strength="moderate",
        section="§17",
    ),
    RemedyEntry(
        id="bayesian-prior",
        title="State how large weights should be: weight decay as a Gaussian prior",
        why="On a mean loss over n samples, a decay of d is a prior of deviation 1 / sqrt(n d) on every weight. "
        "{measured}",
        how="decay = 1 / ({samples} * deviation**2)  # deviation: how large you hold a weight to be; {spread} gives "
        "{decay:.3g}\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=..., weight_decay=decay)  # AdamW scales it by its rate:\n"
        "# there it is a prior in name only",
        when="It is known how large weights or effects may be.",
        not_when="Weights before a normalising layer: their size has no effect.",
        strength="moderate",
        section="§17",
    ),
)
