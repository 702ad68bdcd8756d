"""What copies of a run came to that began again from usual weights."""

CHANGES = {  # how a copy does not lead -> what is otherwise
    "than the other copy": {"as_begun": 0.48},
    "than the run": {"before": 0.48},
    "beyond noise": {"error": 0.5},
    "in training": {"training": 1.2},
}


def tried(made, quantity, *, before=1.1, usual=1.3, other=0.4, error=0.02, training=0.3, further=(), step=99):
    """A record of a run two copies of which learned from the start, one with something changed."""
    if not made.has("val_loss"):
        made.append("val_loss", "val", step, before)
        made.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "cross_entropy"}})
    row = [before, usual, training, 0.01, 0.01, before, usual, other, error, error, *further]
    made.append(quantity, "held", step, row)
    return made


def with_copies(made, *names, before=1.1, as_begun=1.3, other=0.4, error=0.02, training=0.3, step=99):
    """A record of a run that was tried again, and by which changes."""
    made.append("val_loss", "val", step, before)
    made.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "cross_entropy"}})
    for name in names:
        row = [before, as_begun, training, 0.01, 0.01, before, as_begun, other, error, error]
        made.append("usual_start", name, step, row)
    return made
