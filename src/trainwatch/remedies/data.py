"""Remedies for data and classes (§1, §10)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="class-weights",
        title="Weight the loss per class",
        why="{rare} then counts as much in the loss as the frequent classes. The best weights want tuning: "
        "begin with the milder, effective-number vector.",
        how="{next_step}\n"
        "weight = torch.tensor({inverse})  # inverse frequency{scale}\n"
        "weight = torch.tensor({effective})  # effective number of samples, beta {beta:g}\n"
        "criterion = {criterion}",
        when="A class is rare, and its recall matters as much as that of others.",
        not_when="Probabilities must be calibrated, or samples are drawn by class already: that corrects twice.",
        strength="strong",
        section="§1",
    ),
    RemedyEntry(
        id="logit-adjustment",
        title="Add the logarithm of the classes' shares to the logits in training",
        why="What the network learns then tells {rare} from the others as if all were equally frequent. That works "
        "where the training loss is next to nothing, too, unlike class weights.",
        how="# not together with class weights or resampling\n"
        "counts = torch.tensor({counts})  # training samples of each class\n"
        "prior = (counts.clamp(min=1) / counts.sum()).log()\n"
        "class AdjustedLoss(torch.nn.CrossEntropyLoss):\n"
        "    def forward(self, logits, targets):  # logits (N, classes, ...)\n"
        "        if torch.is_grad_enabled():  # validation has the plain logits, which predict as before\n"
        "            logits = logits + prior.to(logits).view(-1, *[1] * (logits.ndim - 2))\n"
        "        return super().forward(logits, targets)\n"
        "criterion = AdjustedLoss({options})",
        when="Of several classes some are rare, and their recall matters as much as that of others.",
        not_when="Probabilities must be calibrated to the shares in training, or weights or a sampler correct them.",
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
        lightning="{next_step}\n"
        "def train_dataloader(self):\n"
        "    per_class = torch.tensor({inverse})\n"
        "    weights = per_class[train_targets]  # one weight a sample\n"
        "    sampler = torch.utils.data.WeightedRandomSampler(weights, num_samples=len(weights))\n"
        "    return torch.utils.data.DataLoader(train_set, batch_size=..., sampler=sampler)  # in place of "
        "shuffle=True",
        when="A class is rare, and batches often hold none of it.",
        not_when="The rare class has a handful of samples, which would be learned by heart, or weights are in use.",
        strength="strong",
        section="§1",
    ),
    RemedyEntry(
        id="augment-minority",
        title="Augment the rare classes",
        why="New variants of their samples teach more than copies. To match the largest class: {short}.",
        how="Apply transforms that keep the label to samples of {rare} alone until the counts match.",
        when="Label-keeping changes of the rare class's samples are known.",
        not_when="They would move its samples into another class.",
        strength="moderate",
        section="§1",
    ),
    RemedyEntry(
        id="collect-minority",
        title="Collect more samples of {rare}",
        why="Only new samples bring new information about a class. "
        "To come within {ratio:g} : 1 of the largest: {short}.",
        how="Collect the scarcest first; until then hold back at least 30 samples of each for validation.",
        when="A class is too rare to learn from or to judge on.",
        not_when="No more of it can be had: pose the task otherwise.",
        strength="strong",
        section="§1",
    ),
    RemedyEntry(
        id="better-metric",
        title="Judge by a metric that sees what is rare",
        why="Accuracy is {accuracy:.3f}, and always giving the most frequent answer {majority:.3f}; balanced "
        "accuracy is {balanced:.3f}, macro-F1 {macro_f1:.3f}, MCC {mcc:.3f}, PR-AUC {pr_auc}.",
        how="from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef\n"
        "balanced_accuracy_score(y, predicted)\n"
        "f1_score(y, predicted, average='macro')\n"
        "matthews_corrcoef(y, predicted)",
        lightning="# torchmetrics comes with Lightning. In __init__:\n"
        "self.f1 = torchmetrics.classification.MulticlassF1Score(num_classes, average='macro')\n"
        "# In validation_step; then monitor it in EarlyStopping and ModelCheckpoint:\n"
        "self.f1(outputs, y)\n"
        "self.log('val_f1', self.f1)",
        when="Classes are unequal, and accuracy is what is looked at.",
        not_when="All classes are alike in number.",
        strength="strong",
        section="§1",
    ),
    RemedyEntry(
        id="move-threshold",
        title="Name {positive} from a score of {threshold} on, in place of 0.5",
        why="{measured} {rate} is the right threshold for calibrated scores where both answers matter alike "
        "(balanced accuracy); for F1 it is half of the F1 that can be reached.",
        how="threshold = {value}  # not beside class weights or resampling: that corrects twice\n"
        "predicted = {score} > threshold",
        lightning="def predict_step(self, batch, batch_idx):  # in the module\n"
        "    x, model = batch[0], self\n"
        "    return {score} > {value}  # not beside class weights or resampling: that corrects twice",
        when="The scores rank well, the task is yes or no, or several of these, and 0.5 is not where F1 is best.",
        not_when="Weights or resampling are in use: that corrects twice. Several classes take the arg-max.",
        strength="strong",
        section="§7",
    ),
    RemedyEntry(
        id="retune-weights",
        title="Let positives ({positive}) weigh {factor} times what they do now",
        why="The scores are moved by {present}, and by too much or too little: they are cut best at {best}. "
        "With the new weights that comes to about 0.5; moving the threshold as well would correct twice.",
        how="{code}",
        when="Class weights or a weighted sampler are in use, and the best threshold is far from 0.5.",
        not_when="The net is not to be trained again: then keep the weights, and cut at the threshold measured.",
        strength="moderate",
        section="§7",
    ),
    RemedyEntry(
        id="pair-labels",
        title="Look at a few inputs beside their labels, where they leave the loader",
        why="Nothing learned from {samples} samples tells the label of another.",
        how="inputs, labels = next(iter(loader))\n"
        "for one, label in zip(inputs[:10], labels[:10]):\n"
        "    print(label, one)  # or a picture of it: does it belong to this label?\n"
        "# Then the same in the file. What mispairs them: rows sorted, filtered or shuffled without their labels,\n"
        "# a column that slipped by a row, a join by the wrong key, file names sorted as text (10 before 2).",
        when="Training learns by heart, and neither validation nor another model learns anything.",
        not_when="The inputs are known to say next to nothing of the label, such as tomorrow's price.",
        strength="strong",
        section="§10",
    ),
    RemedyEntry(
        id="shuffle",
        title="Shuffle the training samples anew in each epoch",
        why="{gain}",
        how="loader = torch.utils.data.DataLoader(train_set, batch_size={size}, shuffle=True)\n"
        "# Data that come as a stream: mix the classes in the files, or shuffle within a buffer of many batches.",
        lightning="def train_dataloader(self):\n"
        "    return torch.utils.data.DataLoader(train_set, batch_size={size}, shuffle=True)",
        when="Samples come in the order in which they were collected or filed.",
        not_when="Batches are composed on purpose, as for losses over pairs, or samples are one time series.",
        strength="strong",
        section="§1",
    ),
    RemedyEntry(
        id="stratified-batches",
        title="Deal out every class to every batch",
        why="Shuffled batches are still without {rare} in {absent:.0%} of all cases; dealt out evenly each holds "
        "{each:.2g} of them on average.",
        how="def batches(targets, size):  # anew in each epoch\n"
        "    order = torch.randperm(len(targets))\n"
        "    order = order[targets[order].argsort(stable=True)]\n"
        "    count = -(-len(targets) // size)\n"
        "    return [order[i::count].tolist() for i in range(count)]\n"
        "\n"
        "loader = torch.utils.data.DataLoader(train_set, batch_sampler=batches(train_targets, {size}))",
        when="Even shuffled batches lack a class that has about one sample a batch.",
        not_when="Shuffled batches hold all classes already; a class far rarer than one sample a batch stays rare.",
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
        when="A class is rarer than one in a hundred, and what is usual can be learned without it.",
        not_when="Its samples look like usual ones.",
        strength="moderate",
        section="§1",
    ),
    RemedyEntry(
        id="normalise-inputs",
        title="Bring every input feature to mean 0 and deviation 1",
        why="The inputs of this run have a root mean square of {rms} (mean {mean}, deviation {std}).",
        how="mean, std = x_train.mean(0), x_train.std(0)  # of the training data alone\n"
        "std[std <= 1e-6 * x_train.abs().amax(0)] = 1.0  # features that never change there may do so later\n"
        "x = (x - mean) / std  # in training, validation and use\n"
        "# images, as a whole: x = (x - {mean}) / {std}; or let the net begin with torch.nn.BatchNorm1d(features)",
        when="Inputs are far from mean 0 and deviation 1, or differ widely in scale.",
        not_when="The first layer normalises them, or they are sparse counts or indices.",
        strength="strong",
        section="§10",
    ),
    RemedyEntry(
        id="same-class-numbers",
        title="Number the classes of validation as those of training",
        why="By the names of training, accuracy is {then:.1%}, not {now:.1%}: the network is better than it seems.",
        how="# make what numbers them (class_to_idx, an encoder, a vocabulary) once, from training data; until then:\n"
        "number = {renamed}  # of validation: that of training; others stay as they are\n"
        "targets = torch.tensor([number.get(int(y), int(y)) for y in targets])  # of the validation set",
        when="Classes have been numbered for training and for validation apart.",
        not_when="Classes have no fixed names, as clusters have not, or a low score means yes: turn the score.",
        strength="strong",
        section="§10",
    ),
    RemedyEntry(
        id="same-preparation",
        title="Prepare validation inputs as training inputs are",
        why="{seen}: the net has not seen such inputs.",
        how="def prepare(x):\n"
        "    return (x - mean) / std  # one function, with the statistics of the training data, for both loaders",
        when="Training and validation inputs differ in scale.",
        not_when="The validation data are meant to come from elsewhere: that is a shift to be reported.",
        strength="strong",
        section="§10",
    ),
    RemedyEntry(
        id="split-anew",
        title="Draw training and validation from the same samples, class by class",
        why="What differs between them then is chance alone. A split by time or by source is right where the network "
        "will be used on later or other samples; it then needs training samples of that sort.",
        how="# several samples of one patient, speaker or scene: GroupShuffleSplit instead, or both parts have them\n"
        "from sklearn.model_selection import train_test_split\n"
        "train, val = train_test_split(range(len(y)), test_size=0.2, stratify=y, random_state=0)",
        when="Nothing but the way of splitting makes validation differ.",
        not_when="Later, other or farther samples are what the network is for: then validation shows the truth.",
        strength="strong",
        section="§10",
    ),
    RemedyEntry(
        id="normalise-targets",
        title="Train on targets of mean 0 and deviation 1",
        why="An untrained net puts out numbers of about one; the targets are {mean} +- {std}.",
        how="targets = (targets - {mean}) / {std}  # in training and validation\n"
        "predictions = outputs * {std} + {mean}  # in use",
        when="Targets are large, or far from 0, in a regression.",
        not_when="Their unit is part of the loss, as in a likelihood with a learned scale.",
        strength="strong",
        section="§10",
    ),
    RemedyEntry(
        id="remove-leaked",
        title="Take validation samples out of training",
        why="{count} of them were trained on, so they show what was learned by heart.",
        how="rows = lambda x: [row.tobytes() for row in numpy.asarray(x, dtype=numpy.float32)]\n"
        "seen = set(rows(x_val))\n"
        "kept = [i for i, row in enumerate(rows(x_train)) if row not in seen]  # {count} of x_val are in it\n"
        "x_train, y_train = x_train[kept], y_train[kept]",
        when="Validation samples are in training, too.",
        not_when="Rows are of a few categories and recur by themselves.",
        strength="strong",
        section="§10",
    ),
    RemedyEntry(
        id="drop-duplicates",
        title="Keep one of each sample",
        why="{count} {part} samples are copies of others, and count that much more in loss and metrics.",
        how="flat = numpy.asarray(x, dtype=numpy.float32).reshape(len(x), -1)\n"
        "_, kept = numpy.unique(flat, axis=0, return_index=True)  # without {count} copies\n"
        "x, y = x[numpy.sort(kept)], y[numpy.sort(kept)]  # before the data are split",
        when="Samples were collected or joined twice.",
        not_when="They recur in use as well, or rare classes were repeated on purpose after the split.",
        strength="strong",
        section="§10",
    ),
    RemedyEntry(
        id="fill-missing",
        title="Fill what is not known, and tell the network where",
        why="{names}: no arithmetic can be done with a NaN, and a code is taken for a measurement.",
        how="x = numpy.asarray(x, dtype=float)\n"
        "columns = {columns}\n"
        "x[:, columns] = numpy.where(numpy.isfinite(x[:, columns]), x[:, columns], numpy.nan)\n"
        "for code in {codes}:  # values that stand for what is not known\n"
        "    x[:, columns] = numpy.where(x[:, columns] == code, numpy.nan, x[:, columns])\n"
        "from sklearn.impute import SimpleImputer\n"
        "imputer = SimpleImputer(strategy='median', add_indicator=True, keep_empty_features=True).fit(x_train)\n"
        "x = imputer.transform(x)  # the same one in training, validation and use",
        when="Entries are missing, or coded as a number such as -999.",
        not_when="Whole samples are damaged: then leave these out.",
        strength="strong",
        section="§10",
    ),
    RemedyEntry(
        id="drop-features",
        title="Leave out features that cannot teach anything for use",
        why="{names}: what never changes, numbers the samples, or is known only with the answer.",
        how="columns = {columns}\nx = numpy.delete(x, columns, axis=1)  # in training, validation and use",
        when="A feature is constant, a running number, or made from the target.",
        not_when="It changes in use, or it is known there before the target is.",
        strength="strong",
        section="§10",
    ),
)
