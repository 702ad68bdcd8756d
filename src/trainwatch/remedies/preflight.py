"""Remedies for what shows before the first step (§6)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="keep-samples-apart",
        title="Find the operation that mixes samples, and keep them apart",
        why="In a batch of {samples} each output should follow from its own sample alone; look at {suspects} first.",
        how="model.eval()\n"
        "x = inputs.clone().requires_grad_()\n"
        "model(x)[0].sum().backward()\n"
        "print(x.grad.flatten(1).abs().sum(1))  # what the first output depends on: 0 everywhere but at [0]\n"
        "# usual causes: view or reshape over the batch (use permute, flatten(1)), softmax or mean over dim 0,\n"
        "# attention and recurrent layers without batch_first=True, batch norm with track_running_stats=False",
        when="Outputs change with the other samples of the batch.",
        not_when="The batch is one graph or one set whose members are compared with one another.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="hide-the-future",
        title="Let each position see itself and what came before it",
        why="What is said at a position follows {input} behind it, which holds the answer; look at {suspects} first.",
        how="mask = torch.nn.Transformer.generate_square_subsequent_mask(positions, device=x.device)\n"
        "x = encoder(x, mask=mask, is_causal=True)  # TransformerEncoder; of a layer: src_mask\n"
        "x = decoder(x, memory, tgt_mask=mask, tgt_is_causal=True)  # TransformerDecoder\n"
        "x, _ = attention(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)  # MultiheadAttention\n"
        "x = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)\n"
        "# cells: bidirectional=False, and half as wide a layer behind them\n"
        "# convolutions: padding=0, and before them all of it on the left\n"
        "x = torch.nn.functional.pad(x, ((kernel_size - 1) * dilation, 0))",
        when="Targets are the inputs one position further, and outputs change with inputs that come later.",
        not_when="The later positions will be known as well, or a summary of all, as in an autoencoder.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="classes-from-zero",
        title="Number the classes from 0 to {last}, or give the net {needed} outputs",
        why="Targets hold classes {least} to {most}; the outputs have {width} columns, for classes 0 to {last}.",
        how="classes = torch.unique(all_targets)  # of training and validation together\n"
        "targets = torch.searchsorted(classes, targets)  # 0, 1, 2 ... in place of the labels as they are\n"
        "head = torch.nn.Linear(in_features, len(classes))  # as the last layer",
        when="A label lies outside of what the outputs have columns for.",
        not_when="The label marks what is to be left out: pass it as ignore_index.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="rows-for-all-indices",
        title="Give the table of {module} a row for each index",
        why="It is given indices up to {most} and has {rows} rows.",
        how="embedding = torch.nn.Embedding({needed}, embedding_dim)  # largest index + 1\n"
        "# or map rare and unknown entries to one index: inputs = inputs.clamp(max={rows} - 1)",
        when="An index lies outside of its table.",
        not_when="The index is an error of the data: then repair those.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="same-device",
        title="Put model and batch on one device",
        why="{found}.",
        how="device = next(model.parameters()).device\n"
        "inputs, targets = inputs.to(device), targets.to(device)\n"
        "# layers in a plain list and tensors that are no buffers do not move with model.to(device):\n"
        "# use ModuleList and self.register_buffer",
        lightning="# Lightning moves model and batch: make tensors in forward() on the device of an input, as in\n"
        "mask = torch.ones(n, device=x.device)\n"
        "# and hold layers in a ModuleList, constants in self.register_buffer",
        when="Parts of the step lie on different devices.",
        not_when="The model is spread over devices on purpose: then move what is handed on.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="same-type",
        title="Give the batch the types that model and loss take",
        why="{found}.",
        how="inputs = inputs.to(next(model.parameters()).dtype)  # NumPy's float64, images as uint8\n"
        "targets = targets.long()  # class numbers for cross-entropy; targets.float() for BCE and squared error",
        when="A layer or the loss is given another type than it computes with.",
        not_when="The inputs are indices: those stay whole numbers, for an embedding.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="fitting-shapes",
        title="Make the shapes fit",
        why="{found}.",
        how="print(inputs.shape, targets.shape)  # the first dimension of both counts the samples\n"
        "# images: (samples, channels, height, width); before a linear layer: x.flatten(1), of length in_features\n"
        "# cross-entropy: outputs (samples, classes), targets (samples,)",
        when="A layer or the loss cannot take what it is given.",
        not_when="It is the batch that is broken: then repair the data.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="keep-the-graph",
        title="Let the loss depend on the parameters",
        why="{found}.",
        how="# between forward() and the loss: no detach(), .data, .item(), .numpy(), argmax or torch.no_grad()\n"
        "assert model(inputs).requires_grad, 'something cuts the graph, or every parameter is frozen'\n"
        "model.requires_grad_(True)  # where all were frozen",
        when="The loss cannot be differentiated with respect to any parameter.",
        not_when="Nothing is to be trained.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="one-number-loss",
        title="Reduce the loss to one number",
        why="{found}.",
        how="loss = loss_fn(outputs, targets).mean()  # or reduction='mean' in the criterion",
        when="The loss has several entries.",
        not_when="Weights are applied to the entries first: then take the mean behind that.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="loss-of-logits",
        title="Use BCEWithLogitsLoss on raw outputs",
        why="{found}.",
        how="criterion = torch.nn.BCEWithLogitsLoss()  # in place of BCELoss: it applies the sigmoid itself\n"
        "probabilities = outputs.sigmoid()  # where they are wanted, outside the loss",
        when="A loss of probabilities is given numbers outside 0 to 1.",
        not_when="The net ends in a sigmoid, and the targets lie outside 0 to 1: then repair those.",
        strength="strong",
        section="§6",
    ),
    RemedyEntry(
        id="repeat-the-step",
        title="Repeat the step alone, with a debugger",
        why="{found}.",
        how="outputs = model(inputs)\nloss = loss_fn(outputs, targets)\nloss.backward()\noptimizer.step()",
        lightning="trainer = L.Trainer(fast_dev_run=True)  # one batch of each loader",
        when="The step raises for a reason of its own.",
        not_when="The cause is told.",
        strength="moderate",
        section="§6",
    ),
    RemedyEntry(
        id="what-blocks-the-fit",
        title="Find what keeps one batch from being learned, before training on all of them",
        why="{steps} steps on one batch take its loss from {before} to {after}.",
        how="loss = loss_fn(model(inputs), targets)\n"
        "loss.backward()\n"
        "for name, p in model.named_parameters():  # None: cut off; 0: dead or constant; uneven: out of scale\n"
        "    print(name, None if p.grad is None else (p.grad.norm() / p.norm()).item())\n"
        "print(model(inputs).std(0))  # 0: the outputs do not depend on the inputs\n"
        "# then the targets: do they belong to these very inputs, after shuffling and slicing?",
        when="Neither the run's optimiser nor a reference learns a single batch.",
        not_when="Equal inputs have different targets in it.",
        strength="strong",
        section="§3",
    ),
    RemedyEntry(
        id="rate-that-fits-a-batch",
        title="Try a learning rate that learns one batch",
        why="At {rate} it stays at {own}; Adam at 0.003 brings it to {reference}.",
        how="for group in optimizer.param_groups:\n"
        '    group["lr"] = 10 * {rate}  # or torch.optim.Adam(model.parameters(), lr=3e-3), as the reference',
        when="One batch is learned by the reference, and not by the run's optimiser.",
        not_when="The rate is that of the start of a warm-up.",
        strength="moderate",
        section="§3",
    ),
    RemedyEntry(
        id="smaller-first-outputs",
        title="Let the net begin undecided: scale {layer} by {factor}",
        why="Its first answers cost {ratio} times what saying nothing would.",
        how="with torch.no_grad():\n"
        '    last = model.get_submodule("{layer}")\n'
        "    last.weight.mul_({factor})\n"
        "    if getattr(last, 'bias', None) is not None:\n"
        "        last.bias.zero_()  # regression: last.bias.copy_(targets.mean(0))",
        when="An untrained net begins far above the loss of a constant guess.",
        not_when="Its inputs or hidden layers are out of scale: then mend those.",
        strength="moderate",
        section="§9",
    ),
)
