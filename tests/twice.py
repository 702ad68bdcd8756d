"""Small nets of all kinds for second derivatives, each with inputs of 32 features and 3 outputs."""

import torch
import torch.nn.functional as F
from torch import nn


class Fused(nn.Module):
    """Attention by the fused function, whose kernels have no second derivative."""

    def __init__(self):
        super().__init__()
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x):
        q, k, v = self.qkv(x.unflatten(1, (4, 8))).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2).mean(1))


class Convolutions(nn.Module):
    """Convolutions of one and two dimensions, with and without bias, strides, groups and batch norm, one frozen."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 3, stride=2, padding=1, dilation=1, groups=2)
        self.frozen = nn.Conv2d(4, 4, 1).requires_grad_(False)
        self.long, self.plain = nn.Conv1d(4, 5, 2, dilation=2), nn.BatchNorm1d(5, affine=False)
        self.round, self.head = nn.Conv1d(5, 4, 3, padding="same"), nn.Linear(4, 3)

    def forward(self, x):
        x = torch.tanh(self.norm(self.wide(x.unflatten(1, (2, 4, 4)))))
        x = torch.tanh(self.frozen(self.grouped(x))).flatten(2)
        return self.head(torch.tanh(self.round(self.plain(self.long(x)))).mean(2))


class Multihead(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        x = x.unflatten(1, (4, 8))
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.body, self.head = kind(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.body(x.unflatten(1, (4, 8)))[0][:, -1])


class Tied(nn.Module):
    """One weight used twice, one that nothing uses, and one that is frozen."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(32, 8), nn.Linear(8, 32)
        self.again = self.encoder
        self.unused, self.frozen = nn.Linear(3, 3), nn.Linear(32, 32).requires_grad_(False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.decoder(torch.tanh(self.encoder(x)))
        return self.head(torch.tanh(self.again(torch.tanh(self.frozen(x)))))


class Square(torch.autograd.Function):
    """x^2 with a first derivative only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


class Detached(torch.autograd.Function):
    """The same, unmarked and computed outside autograd: its derivative is taken for a constant."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0].detach() * grad.detach()


class Squares(nn.Module):
    def __init__(self, square, width=32):
        super().__init__()
        self.first, self.head = nn.Linear(width, 8), nn.Linear(8, 3)
        self.square = square

    def forward(self, x):
        return self.head(self.square(self.first(x)))


def dense(activation):
    return nn.Sequential(nn.Linear(32, 12), activation(), nn.Dropout(0.5), nn.Linear(12, 3))


NETS = {
    "relu": lambda: dense(nn.ReLU),
    "tanh": lambda: dense(nn.Tanh),
    "gelu": lambda: dense(nn.GELU),
    "batch-norm": lambda: nn.Sequential(nn.Linear(32, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
    "convolutions": Convolutions,
    "fused": Fused,
    "multihead": Multihead,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "tied": Tied,
}
LOSSES = {
    "cross-entropy": (F.cross_entropy, lambda n: torch.randint(0, 3, (n,))),
    "mse": (F.mse_loss, lambda n: torch.randn(n, 3)),
    "bce": (F.binary_cross_entropy_with_logits, lambda n: torch.rand(n, 3).round()),
}


def case(net, loss, batches=2, seed=0):
    """A net as it comes out of training mode, a loss of it and a batch, and batches."""
    torch.manual_seed(seed)
    model, (criterion, targets) = NETS[net]() if isinstance(net, str) else net, LOSSES[loss]
    given = [(torch.randn(12, 32), targets(12)) for _ in range(batches)]
    if net in ("batch-norm", "convolutions"):
        model(given[0][0])  # statistics other than those it began with
    return model, lambda model, batch: criterion(model(batch[0]), batch[1]), given
