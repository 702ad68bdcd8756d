"""Remedies for wiring mistakes (§6)."""

from trainwatch.remedies.entry import RemedyEntry

_WITHOUT = (
    'name = [n for n, m in model.named_modules() if type(m).__name__.lower() == "{activation}"][-1]\n'
    'owner, _, last = name.rpartition(".")\n'
    "setattr(model.get_submodule(owner), last, torch.nn.Identity())"
)

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="eval-mode",
        title="Switch to evaluation mode for validation",
        why="{modules} then behave as they will in use: no unit is dropped and batch norm uses its running statistics.",
        how="model.eval()\nwith torch.no_grad():\n    ...  # validation\nmodel.train()  # before training goes on",
        lightning="# Lightning does so by itself: take out any train() of validation_step\n# and on_validation_start",
        when="Dropout or batch norm is in training mode while validation runs.",
        not_when="Dropout at inference is meant, to sample predictions.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="restore-running-statistics",
        title="Train again, or recompute the statistics of batch norm from training data",
        why="Its running mean and variance in {modules} have been updated with validation data.",
        how="torch.optim.swa_utils.update_bn(train_loader, model)  # one pass over training data, no labels used",
        when="Batch norm saw validation data in training mode.",
        not_when="There is no batch norm, or its statistics were frozen all along.",
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
        "        criterion(model(x), y)  # a module, or torch's; of a function of your own: watch.observe_val(loss)\n"
        "model.train()",
        lightning="def validation_step(self, batch, batch_idx):\n"
        "    x, y = batch\n"
        "    loss = self.criterion(self(x), y)\n"
        '    self.log("val_loss", loss)\n'
        "\n"
        "trainer.fit(model, train_loader, val_loader)  # at least {passes} epochs",
        when="Nothing but the training data was evaluated.",
        not_when="There is no data to spare: then cross-validate.",
        strength="strong",
        section="§2",
    ),
    RemedyEntry(
        id="show-loss",
        title="Show trainwatch the training loss",
        why="No loss was seen on its way to backward(), so nothing can be said about the fit.",
        how="watch = trainwatch.watch(model, optimizer, loss_fn=criterion)  # or, before optimizer.step():\n"
        "watch.observe_train(loss, outputs=outputs, targets=targets)",
        lightning="def training_step(self, batch, batch_idx):\n"
        "    ...\n"
        '    return loss  # or {{"loss": loss}}: what is returned is seen',
        when="The loss is computed where it cannot be seen: compiled, imported by name, or written by hand.",
        not_when="It is seen already.",
        strength="strong",
        section="§2",
    ),
    RemedyEntry(
        id="run-longer",
        title="Let it run for at least {steps} optimiser steps",
        why="{seen} optimiser steps are too few to tell a trend from noise.",
        how="Keep the record and watch a longer run.",
        lightning="trainer = L.Trainer(min_steps={steps})",
        when="The run ended after a few steps.",
        not_when="It was a trial of the wiring alone.",
        strength="strong",
        section="§2",
    ),
    RemedyEntry(
        id="train-mode",
        title="Switch back to training mode before each epoch",
        why="{wrong} of {seen} steps ran in evaluation mode, which switches off {modules}.",
        how="for epoch in range(epochs):\n"
        "    model.train()  # validation's model.eval() stays in force until this\n"
        "    for x, y in train_loader:\n"
        "        ...",
        lightning="# layers that were in evaluation mode when fit() began stay in it: before trainer.fit(model)\n"
        "model.train()\n"
        "# and take out any self.eval() of training_step and of hooks",
        when="Training steps ran in evaluation mode.",
        not_when="Batch norm or dropout is frozen on purpose, as in fine-tuning.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="zero-gradients",
        title="Zero the gradients before each backward pass",
        why="At {steps} of {of} steps the gradients of earlier batches were still in the sum.",
        how="{optimizer}.zero_grad()\nloss.backward()\n{optimizer}.step()",
        lightning="# automatic optimisation does it; in manual optimisation, in training_step:\n"
        "optimizer = self.optimizers()\n"
        "optimizer.zero_grad()\n"
        "self.manual_backward(loss)\n"
        "optimizer.step()",
        when="Gradients of earlier batches are still in the sum at each step.",
        not_when="They are accumulated on purpose, and the loss is divided by how many.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="step-before-zeroing",
        title="Zero the gradients after the step, not before it",
        why="At {steps} steps the optimiser found no gradient.",
        how="loss.backward()\n{optimizer}.step()\n{optimizer}.zero_grad()",
        lightning="# automatic optimisation does it; in manual optimisation, in training_step:\n"
        "optimizer = self.optimizers()\n"
        "self.manual_backward(loss)\n"
        "optimizer.step()\n"
        "optimizer.zero_grad()",
        when="The optimiser steps right after the gradients were cleared.",
        not_when="Steps are skipped by a gradient scaler.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="add-nonlinearity",
        title="Put an activation between {below} and {above}",
        why="Without one the two are a single linear layer.",
        how='hidden = model.get_submodule("{below}")\n'
        "hidden.register_forward_hook(lambda module, inputs, output: torch.relu(output))  # to try it at once\n"
        "# for good: torch.relu(...) in forward(), or torch.nn.ReLU() in the Sequential, after each hidden layer",
        when="Two linear layers follow one another with nothing between.",
        not_when="The bottleneck is meant, as in a low-rank factor.",
        strength="strong",
        section="§3",
    ),
    RemedyEntry(
        id="optimise-all-parameters",
        title="Build the optimiser from all parameters of the finished model",
        why="{count} parameters of {layers} never change.",
        how="model = ...  # every layer in place, on its device\n"
        "optimizer = torch.optim.{optimizer}(model.parameters(), lr={rate})\n"
        "# or, for the optimiser in use:\n"
        'optimizer.add_param_group({{"params": model.get_submodule("{first}").parameters()}})',
        when="Parameters that require gradients are in no optimiser.",
        not_when="They are trained by another optimiser, or left out on purpose: then freeze them.",
        strength="strong",
        section="§11",
    ),
    RemedyEntry(
        id="unfreeze-layers",
        title="Load trained weights into the frozen layers, or let them train",
        why="{count} parameters of {layers} are frozen at random values.",
        how='model.get_submodule("{first}").requires_grad_(True)  # before this:\n'
        "optimizer = torch.optim.{optimizer}(model.parameters(), lr={rate})",
        when="Frozen layers hold weights that look drawn at random.",
        not_when="They are meant to be random features.",
        strength="strong",
        section="§11",
    ),
    RemedyEntry(
        id="let-gradients-through",
        title="Let gradients through to {layers}",
        why="{count} parameters take part in the loss and stay as they are: something between them and the loss ends "
        "the graph, such as detach(), .data, torch.no_grad(), item(), numpy() or argmax.",
        how="# take it out of forward(); then, after loss.backward():\n"
        "without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]\n"
        "assert not without, without",
        when="Layers are to be trained, and their outputs are cut from the graph.",
        not_when="They are trained already and serve as they are: freeze them and leave them out of the optimiser.",
        strength="strong",
        section="§11",
    ),
    RemedyEntry(
        id="step-every-optimizer",
        title="Let {optimizer} take its steps",
        why="It holds {count} parameters of {layers}, and step() was never called on it.",
        how="# after loss.backward(), wherever another optimizer steps:\n{optimizer}.step()\n{optimizer}.zero_grad()",
        when="A model is trained by several optimizers.",
        not_when="Its part is meant to stay as it is: freeze it, and leave it out.",
        strength="strong",
        section="§11",
    ),
    RemedyEntry(
        id="register-layers",
        title="Hold layers in a ModuleList or ModuleDict",
        why="{count} parameters of {layers} are not found by parameters(), to() and state_dict().",
        how="self.layers = torch.nn.ModuleList([...])  # in place of a plain list\n"
        "optimizer = torch.optim.{optimizer}(model.parameters(), lr={rate})",
        when="Layers are held in a plain list or dict.",
        not_when="They belong to another model that is trained elsewhere.",
        strength="strong",
        section="§11",
    ),
    RemedyEntry(
        id="drop-last-activation",
        title="Give {loss} the raw outputs of the last layer, without the {activation}",
        why="The loss turns logits into probabilities itself; behind a {activation} they cannot get large.",
        how="# remove the {activation} at the end of forward(); where it is a module:\n" + _WITHOUT + "\n"
        "criterion = torch.nn.{loss}()\n"
        "probabilities = {probabilities}  # where they are wanted, outside the loss",
        when="The loss takes logits, and the net ends in a softmax or sigmoid.",
        not_when="The loss takes probabilities, as NLLLoss their logarithms and BCELoss themselves.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="softmax-over-classes",
        title="Let the softmax run over the classes: dim=1",
        why="Over dim=0 the {samples} samples of a batch compete for each class: one is judged by the others.",
        how="outputs = torch.nn.functional.log_softmax(outputs, dim=1)  # each row by itself\n"
        "# or leave it out, and use CrossEntropyLoss on raw outputs",
        when="The last log-softmax runs over the first dimension, that of the samples.",
        not_when="There are no samples: the first dimension counts classes.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="log-probabilities",
        title="Use CrossEntropyLoss on raw outputs, or take log_softmax before NLLLoss",
        why="NLLLoss takes the logarithm of probabilities; it was given {given}.",
        how="criterion = torch.nn.CrossEntropyLoss()  # raw outputs, no activation at the end\n"
        "# or keep NLLLoss and end forward() with\n"
        "return torch.nn.functional.log_softmax(outputs, dim=1)",
        when="NLLLoss is given probabilities or logits.",
        not_when="The net ends in log_softmax.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="one-unit-per-class",
        title="One output for each of the {classes} classes, and cross-entropy",
        why="A single output cannot stand for {classes} classes: neither a softmax over it nor its distance from a "
        "class number says which class is meant.",
        how="head = torch.nn.Linear(in_features, {classes})  # as the last layer, no activation behind it\n"
        "criterion = torch.nn.CrossEntropyLoss()\n"
        "loss = criterion(outputs, targets.long().flatten())  # two classes: one unit and BCEWithLogitsLoss also do",
        when="One output stands for several classes.",
        not_when="The target is a number with an order, and distance is what counts.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="same-shape",
        title="Give outputs and targets the same shape",
        why="{outputs} against {targets} compares every output with every target: the best answer is their mean.",
        how="{longer} = {longer}.squeeze(-1)  # before criterion(outputs, targets)\n"
        "assert outputs.shape == targets.shape",
        when="Outputs and targets differ in shape and are broadcast.",
        not_when="The broadcast is meant, as with one target for all positions.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="unbounded-output",
        title="Drop the {activation} at the end of the net",
        why="Its outputs cannot reach all the targets of this run.",
        how="# remove the {activation} at the end of forward(); where it is a module:\n" + _WITHOUT,
        when="Targets lie beyond what the last activation can put out.",
        not_when="They can be scaled into its range, and its bounds mean something.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="targets-within-reach",
        title="Scale the targets into the range of the outputs",
        why="They begin at {least} and span {span}.",
        how="targets = (targets - {least}) / {span}  # to 0..1, in training and validation\n"
        "predictions = outputs * {span} + {least}  # back again",
        when="The bounds of the last activation mean something, such as a share or a pixel.",
        not_when="Targets have no natural bounds: drop the activation instead.",
        strength="moderate",
        section="§6",
    ),
)
