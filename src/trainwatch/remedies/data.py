"""Remedies for data and classes (§1, §10)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="class-weights",
        title="Weight the loss per class",
        why="{rare} then counts as much in the loss as the frequent classes. The best weights want tuning: "
        "begin with the milder, effective-number vector.",
        how="{next_step}\n"
        "weight = torch.tensor({inverse})  # inverse frequency, {scale}\n"
        "weight = torch.tensor({effective})  # effective number of samples, beta {beta:g}\n"
        "criterion = torch.nn.CrossEntropyLoss(weight=weight)",
        strength="strong",
        section="§1",
    ),
    RemedyEntry(
        id="resample",
        title="Draw the rare classes more often",
        why="Each batch then holds all classes alike; at present {rare} is {share:.2%} of the training targets.",
        how="{next_step}\n"
        "per_class = torch.tensor({inverse})\n"
        "weights = per_class[train_targets]  # one weight a sample\n"
        "sampler = torch.utils.data.WeightedRandomSampler(weights, num_samples=len(weights))\n"
        "loader = torch.utils.data.DataLoader(train_set, batch_size=..., sampler=sampler)  # in place of shuffle=True",
        strength="strong",
        section="§1",
    ),
    RemedyEntry(
        id="augment-minority",
        title="Augment the rare classes",
        why="New variants of their samples teach more than copies. To match the largest class: {short}.",
        how="Apply transforms that keep the label to samples of {rare} alone until the counts match.",
        strength="moderate",
        section="§1",
    ),
    RemedyEntry(
        id="collect-minority",
        title="Collect more samples of {rare}",
        why="Only new samples bring new information about a class. "
        "To come within {ratio:g} : 1 of the largest: {short}.",
        how="Collect the scarcest first; until then hold back at least 30 samples of each for validation.",
        strength="strong",
        section="§1",
    ),
    RemedyEntry(
        id="better-metric",
        title="Judge by a metric that sees the rare classes",
        why="Accuracy is {accuracy:.3f}, and always naming the most frequent class gives {majority:.3f}; balanced "
        "accuracy is {balanced:.3f}, macro-F1 {macro_f1:.3f}, MCC {mcc:.3f}, PR-AUC {pr_auc}.",
        how="from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef\n"
        "balanced_accuracy_score(y, predicted)\n"
        "f1_score(y, predicted, average='macro')\n"
        "matthews_corrcoef(y, predicted)",
        strength="strong",
        section="§1",
    ),
    RemedyEntry(
        id="move-threshold",
        title="Name class {positive} from a score of {rate:.3g} on, in place of 0.5",
        why="{rate:.3g} is the share of {positive} in training. It is right for calibrated scores where both classes "
        "matter alike; the best threshold on this run: not measured.",
        how="predicted = probabilities > {rate:.3g}  # not beside class weights or resampling: that corrects twice",
        strength="moderate",
        section="§1",
    ),
    RemedyEntry(
        id="reframe-as-anomaly",
        title="Pose it as anomaly detection",
        why="{rare} is {share:.3%} of the training targets: too rare to learn its shape, yet it may stand out.",
        how="from sklearn.ensemble import IsolationForest\n"
        "detector = IsolationForest(random_state=0).fit(x_frequent)  # frequent samples only\n"
        "score = -detector.score_samples(x)  # high is unusual; compare PR-AUC with this network's",
        strength="moderate",
        section="§1",
    ),
    RemedyEntry(
        id="normalise-inputs",
        title="Bring every input feature to mean 0 and deviation 1",
        why="The inputs of this run have a root mean square of {rms} (mean {mean}, deviation {std}).",
        how="mean, std = x_train.mean(0), x_train.std(0).clamp(min=1e-8)  # of the training data alone\n"
        "x = (x - mean) / std  # in training, validation and use\n"
        "# images, as a whole: x = (x - {mean}) / {std}; or let the net begin with torch.nn.BatchNorm1d(features)",
        strength="strong",
        section="§10",
    ),
    RemedyEntry(
        id="same-preparation",
        title="Prepare validation inputs as training inputs are",
        why="{seen}: the net has not seen such inputs.",
        how="def prepare(x):\n"
        "    return (x - mean) / std  # one function, with the statistics of the training data, for both loaders",
        strength="strong",
        section="§10",
    ),
    RemedyEntry(
        id="split-anew",
        title="Draw training and validation from the same samples, class by class",
        why="What differs between them then is chance alone. A split by time or by source is right where the network "
        "will be used on later or other samples; it then needs training samples of that sort.",
        how="from sklearn.model_selection import train_test_split\n"
        "train, val = train_test_split(range(len(y)), test_size=0.2, stratify=y, random_state=0)\n"
        "# samples of one patient, speaker or scene on one side alone: GroupShuffleSplit",
        strength="strong",
        section="§10",
    ),
    RemedyEntry(
        id="normalise-targets",
        title="Train on targets of mean 0 and deviation 1",
        why="An untrained net puts out numbers of about one; the targets are {mean} +- {std}.",
        how="targets = (targets - {mean}) / {std}  # in training and validation\n"
        "predictions = outputs * {std} + {mean}  # in use",
        strength="strong",
        section="§10",
    ),
)
