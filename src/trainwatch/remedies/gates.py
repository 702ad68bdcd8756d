"""Remedies for gates and attention (§12)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = (
    RemedyEntry(
        id="forget-gate-bias",
        title="Begin with a bias of {value} in the {gate} gates of '{module}'",
        why="Their mean is {mean}: stuck gates have no slope to come back by. Begin where they have one: forget gates "
        "at 1, so that a cell remembers, all others at 0.",
        how="# chunks of a bias: {order}; the biases of a gate are added\n"
        "parameters = dict(model.named_parameters())\n"
        "with torch.no_grad():\n"
        "    for name in {names}:\n"
        "        parameters[name][{start}:{end}] = {each}",
        when="Gates stand at one end for nearly all samples and steps.",
        not_when="A gate is meant to be closed at the start, as a residual branch's.",
        strength="strong",
        section="§12",
    ),
    RemedyEntry(
        id="qk-norm",
        title="Normalise queries and keys in '{module}', and divide their product by the root of their width",
        why="{share} of the rows have their whole weight on one entry, where a softmax passes no gradient back. With "
        "queries and keys of unit scale the logits cannot run away.",
        how="# before queries and keys, shape (batch, heads, length, width), are multiplied\n"
        "query = nn.functional.layer_norm(query, query.shape[-1:])\n"
        "key = nn.functional.layer_norm(key, key.shape[-1:])\n"
        "out = nn.functional.scaled_dot_product_attention(query, key, value)  # which divides by the root",
        when="Attention rows have all their weight on one entry where more are wanted.",
        not_when="The task is to find one entry, and the loss is low.",
        strength="strong",
        section="§12",
    ),
)
