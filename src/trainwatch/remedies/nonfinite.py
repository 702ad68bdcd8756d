"""What to paste against each source of a value that is not finite: by kind, (title, code)."""

from __future__ import annotations

ANY, OTHER = "any", "other"  # nothing is known of it; an operation without a remedy of its own
SOURCES: dict[str, tuple[str, str]] = {
    ANY: (
        "Find the operation that makes the first value that is not finite",
        "with torch.autograd.detect_anomaly():  # slow: only round step {step}\n"
        "    loss = criterion(model(inputs), targets)\n"
        "    loss.backward()\n"
        "# usual sources: log(0), sqrt at 0, division by a norm or count of 0, exp of a large number, NaN in the data\n"
        "assert torch.isfinite(inputs).all() and torch.isfinite(targets.float()).all()",
    ),
    OTHER: (
        "Bound what {place} gives to {operation}",
        "x = x.clamp(-limit, limit)  # {operand} went from {low} to {high}\n"
        "# or bring it to a sane scale before: torch.nn.functional.layer_norm(x, x.shape[-1:]); standardised targets",
    ),
    "input": (
        "Mend or drop the samples whose inputs are not finite",
        "# in the batch of step {step}: samples {samples}\n"
        "bad = [i for i, (x, *_) in enumerate(dataset) if not torch.isfinite(torch.as_tensor(x)).all()]\n"
        "dataset = torch.utils.data.Subset(dataset, sorted(set(range(len(dataset))) - set(bad)))\n"
        "# or, where NaN stands for a missing value: x = torch.nan_to_num(x, nan=0.0)",
    ),
    "target": (
        "Mend or drop the samples whose targets are not finite",
        "# in the batch of step {step}: samples {samples}\n"
        "bad = [i for i, (_, y) in enumerate(dataset) if not torch.isfinite(torch.as_tensor(y)).all()]\n"
        "dataset = torch.utils.data.Subset(dataset, sorted(set(range(len(dataset))) - set(bad)))",
    ),
    "parameter": (
        "Keep '{module}' finite: it was not when step {step} began",
        "for name, tensor in [*model.named_parameters(), *model.named_buffers()]:\n"
        "    assert torch.isfinite(tensor).all(), name  # after loading weights and after optimizer.step()",
    ),
    "log": (
        "Keep what {place} gives to {operation} above 0",
        "torch.{operation}(x.clamp_min({tiny}))  # x went from {low} to {high}\n"
        "# of a softmax: torch.nn.functional.log_softmax(z, dim=-1); of a sigmoid: torch.nn.functional.logsigmoid(z),\n"
        "# and as a loss cross_entropy or binary_cross_entropy_with_logits on z itself",
    ),
    "root": (
        "Keep what {place} gives to {operation} above 0",
        "torch.{operation}(x.clamp_min({tiny}))  # x went from {low} to {high}; at 0 the slope is infinite",
    ),
    "norm": (
        "Keep the norm in {place} away from 0",
        "norm = (x.square().sum(dim=-1) + {tiny}).sqrt()  # in place of {operation}: at 0 it has no slope\n"
        "# to divide by it: torch.nn.functional.normalize(x, dim=-1, eps=1e-6)",
    ),
    "division": (
        "Keep the divisor in {place} away from 0",
        "a / b.clamp_min({tiny})  # {operand} went from {low} to {high}\n"
        "# where b may be negative: a / torch.where(b.abs() < {tiny}, {tiny}, b)",
    ),
    "exp": (
        "Bound what {place} gives to {operation}",
        "torch.{operation}(x.clamp(max={limit}))  # x went up to {high}; {dtype} overflows beyond\n"
        "# of a sum of exponentials: torch.logsumexp(x, dim=-1); in place of log(1 + exp(x)): softplus(x)",
    ),
    "pow": (
        "Bound what {place} raises to a power",
        "x.clamp(min={tiny}, max=...) ** p  # x went from {low} to {high}: at 0 a power below 1 has no slope",
    ),
    "masked": (
        "Leave every row of {operation} in {place} something that is not masked",
        "empty = torch.isinf(scores).all(dim=-1, keepdim=True)  # rows of nothing but -inf give NaN\n"
        "weights = torch.softmax(scores.masked_fill(empty, 0.0), dim=-1).masked_fill(empty, 0.0)",
    ),
    "float16": (
        "Compute {place} in bfloat16 or float32: {operation} overflowed float16",
        "with torch.autocast(device_type, dtype=torch.bfloat16):  # reaches 3e38; float16 ends at 65,504\n"
        "    ...\n"
        "# or this part alone in float32: with torch.autocast(device_type, enabled=False): f(x.float())",
    ),
}
