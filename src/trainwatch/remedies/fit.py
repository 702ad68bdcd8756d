"""Remedies for fit: overfitting and underfitting (§2, §3, §15)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="early-stopping",
        title="Stop at step {best_step}, where the validation loss was lowest",
        why="{spent:.0%} of the steps came after the best pass (95 % interval: steps {low} to {high}).",
        how="{next_step}\n"
        "# after each validation pass (begin with best, since = float('inf'), 0):\n"
        "if val_loss < best:\n"
        "    best, best_weights, since = val_loss, copy.deepcopy(model.state_dict()), 0\n"
        "elif (since := since + 1) >= {patience}:\n"
        "    break  # then model.load_state_dict(best_weights)",
        lightning="{next_step}\n"
        "trainer = L.Trainer(callbacks=[\n"
        '    EarlyStopping("val_loss", patience={patience}),\n'
        '    ModelCheckpoint(monitor="val_loss"),  # its best_model_path is that of the lowest loss\n'
        "])",
        when="The validation loss rises while the training loss falls.",
        not_when="It rises and falls again, as under a schedule with restarts.",
        strength="strong",
        section="§2",
    ),
    RemedyEntry(
        id="more-data",
        title="Train on more samples",
        why="There are {ratio} for the network to memorise; more data is the most dependable cure of overfitting.",
        how="See what more would buy: train on 25, 50 and 100 % of it and extend the curve of validation losses.",
        when="The net learns its samples by heart.",
        not_when="The validation loss of a smaller share of the data is as low: then more of it buys nothing.",
        strength="strong",
        section="§2",
    ),
    RemedyEntry(
        id="augment",
        title="Augment the training inputs",
        why="Each epoch then shows new variants, so the {samples} training samples are harder to memorise.",
        how="Images: small shifts, crops and flips that keep the label. Tables and signals: noise well below the "
        "spread of each feature. Augment training alone, never validation. Accuracy under each now: not measured.",
        when="Changes are known that keep the label: shifts, crops, noise.",
        not_when="The change would alter the label, as flipping a 6, or the features have no such symmetry.",
        strength="strong",
        section="§2",
    ),
    RemedyEntry(
        id="stronger-regularisation",
        title="Raise the weight decay from {present:g} to {proposed:g}",
        why="A stronger pull towards small weights limits how closely the network can follow noise. {kind}",
        how="{next_step}\noptimizer = torch.optim.AdamW(model.parameters(), lr=..., weight_decay={proposed:g})"
        "{selection}",
        when="The gap between training and validation grows.",
        not_when="Training is poor as well: that is underfitting.",
        strength="moderate",
        section="§2",
    ),
    RemedyEntry(
        id="dropout",
        title="Use dropout with p = {proposed:g} (now: {present})",
        why="Units that drop out at random cannot rely on one another to memorise samples. {measured}",
        how="{next_step}\ntorch.nn.Dropout(p={proposed:g})  # {where}",
        when="Wide dense layers learn by heart.",
        not_when="Batch norm follows at once, the net is small, or training is poor.",
        strength="moderate",
        section="§2",
    ),
    RemedyEntry(
        id="smaller-model",
        title="Shrink the network",
        why="Its {parameters} trainable parameters make {ratio}.",
        how="Halve the widest layers and compare the lowest validation losses. How far each layer can shrink, by its "
        "effective rank: {ranks}. (Weights at random need nearly all of theirs.)",
        when="There are far more parameters than samples, and layers use few of their dimensions.",
        not_when="Validation is fine as it is: large nets can fit all and be right.",
        strength="moderate",
        section="§2",
    ),
    RemedyEntry(
        id="clean-data",
        title="Look for wrong labels",
        why="Wrong labels can be fitted only by heart. {suspects}",
        how="from sklearn.ensemble import ExtraTreesClassifier\n"
        "from sklearn.model_selection import cross_val_predict\n"
        "# x: one row a sample (of images and text: what a pretrained network makes of them); y: 0, 1 ...\n"
        'votes = cross_val_predict(ExtraTreesClassifier(300), x, y, cv=5, method="predict_proba")\n'
        "doubt = votes.max(1) - votes[range(len(y)), y]\n"
        "first = doubt.argsort()[::-1][:{count}]  # look at these samples first; the package cleanlab goes further",
        when="Some labels contradict what samples like theirs are labelled, and the network can learn them by heart.",
        not_when="Labels were checked by several people.",
        strength="moderate",
        section="§2",
    ),
    RemedyEntry(
        id="ensemble",
        title="Average the predictions of several models or epochs",
        why="What each one memorised differs and averages out. Gain over the last epoch alone: not measured.",
        how="averaged = torch.optim.swa_utils.AveragedModel(model)\n"
        "averaged.update_parameters(model)  # once an epoch up to step {best_step}; refresh batch norm with update_bn",
        lightning="trainer = L.Trainer(callbacks=[StochasticWeightAveraging(swa_lrs=1e-3)])  # up to step {best_step}",
        when="There is time to compute several predictions, and their errors differ.",
        not_when="The net underfits: all its copies err alike.",
        strength="moderate",
        section="§2",
    ),
    RemedyEntry(
        id="raise-learning-rate",
        title="Try a larger learning rate",
        why="Larger steps can favour flatter solutions; the evidence for this as a cure is weak.",
        how="Only where a larger step is stable (not measured here): double it and compare the validation minima.",
        when="A larger step is stable, and the net overfits.",
        not_when="The loss swings already.",
        strength="weak",
        section="§2",
    ),
    RemedyEntry(
        id="label-smoothing",
        title="Smooth the labels by {proposed:g} (now: {present:g})",
        why="The loss then stops rewarding ever larger logits once a sample is right.",
        how="{next_step}\ncriterion = torch.nn.CrossEntropyLoss(label_smoothing={proposed:g})  "
        "# two-class logits of width 1: soften the targets instead",
        when="Predictions are far surer than they are right.",
        not_when="Calibrated probabilities of rare events are wanted, or the loss is not over classes.",
        strength="strong",
        section="§2",
    ),
    RemedyEntry(
        id="temperature",
        title="Divide the logits by a temperature after training",
        why="It corrects confidence and leaves every arg-max, and so accuracy, as it is. "
        "Best value on this run: {measured}.",
        how="# fit it on validation logits, with the trained network left alone\n"
        "log_t = torch.zeros(1, requires_grad=True)\n"
        'fit = torch.optim.LBFGS([log_t], max_iter=50, line_search_fn="strong_wolfe")\n'
        "def closure():\n"
        "    fit.zero_grad()\n"
        "    loss = criterion(val_logits / log_t.exp(), val_targets)\n"
        "    loss.backward()\n"
        "    return loss\n"
        "fit.step(closure)  # then use logits / log_t.exp()",
        when="The net is trained, its ranking is right, and its confidence is not.",
        not_when="Validation data are too few to fit even one number.",
        strength="strong",
        section="§2",
    ),
    RemedyEntry(
        id="train-longer",
        title="Train for about {more} more",
        why="Half as many steps again would take about {gain:.3g} off the loss of {end:.3g}, going by how it fell and "
        "flattened out so far. {caution}",
        how="# go on from the weights and the state of the optimiser as they are now, for {more};\n"
        "# let validation end it: EarlyStopping('val_loss', patience={patience}) instead of a fixed number of epochs",
        lightning='trainer = L.Trainer(max_epochs=..., callbacks=[EarlyStopping("val_loss", patience={patience})])\n'
        'trainer.fit(model, train_loader, val_loader, ckpt_path="last")  # go on for {more}',
        when="Training and validation still fall at the end.",
        not_when="Validation has turned.",
        strength="strong",
        section="§3",
    ),
    RemedyEntry(
        id="tune-learning-rate",
        title="Try larger learning rates than {present:.3g}",
        why="A rate several times as large may get as far in the time there is.",
        how="for lr in ({present:.3g}, {twice:.3g}, {most:.3g}):\n    ...  # a few epochs each; keep the largest that "
        "falls smoothly",
        when="Nobody has tried other rates.",
        not_when="A sweep was made at this batch size and schedule.",
        strength="moderate",
        section="§3",
    ),
    RemedyEntry(
        id="overfit-one-batch",
        title="Try to learn one batch by heart",
        why="A network that is wired well brings the loss of one batch close to zero within some hundred steps; one "
        "that cannot has a fault in its wiring, its start or its step size, not in the data.",
        how="inputs, targets = next(iter(train_loader))\n"
        "for _ in range(300):\n"
        "    optimizer.zero_grad()\n"
        "    loss = criterion(model(inputs), targets)\n"
        "    loss.backward()\n"
        "    optimizer.step()\n"
        "print(loss.item())  # still at chance: look at learning rate, initialisation, dead units and detached tensors",
        lightning="trainer = L.Trainer(overfit_batches=1, max_epochs=300)\n"
        "trainer.fit(model, train_loader)  # still at chance: look at learning rate, initialisation and dead units",
        when="The training loss does not come down, and it is not known why.",
        not_when="One batch was fitted by the probe already.",
        strength="strong",
        section="§2",
    ),
    RemedyEntry(
        id="watch-activations",
        title="Look for the layer after which all samples are alike",
        why="Where the spread over a batch drops to zero, units are dead or saturated, or the input is not passed on.",
        how="for name, layer in model.named_modules():\n"
        "    if not list(layer.children()):\n"
        "        layer.register_forward_hook(\n"
        "            lambda m, i, out, name=name: print(name, out.std(0).mean().item()))\n"
        "model(inputs)  # one batch",
        when="Outputs are the same for all inputs.",
        not_when="The layer is known already.",
        strength="moderate",
        section="§9",
    ),
    RemedyEntry(
        id="weaker-regularisation",
        title="Lower the weight decay from {present:g} to {proposed:g}",
        why="It pulls the weights towards zero faster than the loss can build them up.",
        how="for group in optimizer.param_groups:  # {optimizer}\n"
        '    group["weight_decay"] = {proposed:g}  # was {present:g}',
        lightning="# in configure_optimizers: {optimizer}(..., weight_decay={proposed:g}), was {present:g}",
        when="A copy without weight decay learns better.",
        not_when="Validation gets worse without.",
        strength="strong",
        section="§3",
    ),
    RemedyEntry(
        id="weaker-penalty",
        title="Give the term that is added to the loss a tenth of its weight",
        why="It makes up as much as {share:.0%} of what is backpropagated.",
        how="loss = criterion(outputs, targets) + 0.1 * penalty  # the penalty as it is now, its coefficient included",
        when="A term beside the criterion makes up most of the loss.",
        not_when="It is the aim itself, as a constraint that must hold.",
        strength="strong",
        section="§3",
    ),
    RemedyEntry(
        id="weaker-proximal-step",
        title="Lower the L1 coefficient of the proximal steps from {present:g} to {proposed:g}",
        why="They pull all weights towards zero, those that are needed as well.",
        how="trainwatch.prox(optimizer, l1={proposed:g})  # in place of l1={present:g}",
        when="A copy without proximal steps learns better, in training and validation.",
        not_when="Only training gets better without.",
        strength="strong",
        section="§3",
    ),
    RemedyEntry(
        id="less-dropout",
        title="Lower dropout from p = {present:g} to p = {proposed:g}",
        why="Only {kept:.0%} of the units of {where} take part in a step: too few to learn the training set. "
        "{measured}",
        how="torch.nn.Dropout(p={proposed:g})  # {where}",
        when="A copy without dropout learns better, in training and validation.",
        not_when="Only training gets better without.",
        strength="strong",
        section="§3",
    ),
    RemedyEntry(
        id="larger-model",
        title="Enlarge the network",
        why="{reason}",
        how="Double the narrowest hidden layers, or add one, and compare the training losses at equal steps. What a "
        "wider copy gains: {measured}.",
        when="Other predictors do better on the same samples, training ones included, or a wider copy does.",
        not_when="One batch cannot be fitted: then capacity is not what lacks.",
        strength="strong",
        section="§3",
    ),
    RemedyEntry(
        id="boosting",
        title="Measure what can be reached with gradient boosting",
        why="If another kind of model does no better on the same data, the rest is noise and no underfitting.",
        how="from sklearn.ensemble import {estimator}\n"
        "print({estimator}().fit(inputs, targets).score(val_inputs, val_targets))  # tables; flatten other inputs",
        when="The data are rows of numbers or categories.",
        not_when="Inputs are images, sound or text: a poor score there says little.",
        strength="moderate",
        section="§3",
    ),
    RemedyEntry(
        id="lower-final-rate",
        title="Bring the learning rate down from step {best_step} on",
        why="Training got worse as well, so it is not memorising: steps that are short enough early on can be too long "
        "close to a minimum.",
        how="scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)  # step() once an epoch",
        lightning="# in configure_optimizers, behind the optimiser\n"
        "schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.trainer.max_epochs)\n"
        'return {{"optimizer": optimizer, "lr_scheduler": schedule}}  # it steps once an epoch',
        when="Training itself worsens late in the run.",
        not_when="The rate comes down already.",
        strength="moderate",
        section="§9",
    ),
)
