"""Three trainings of different step length, on random data: a small MLP, a ResNet-shaped CNN, a small GPT."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

Step = Callable[[], None]


class Training:
    """A model, its optimiser and one fixed batch; calling it takes one optimiser step."""

    def __init__(self, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.model, self.inputs, self.targets = model, inputs, targets
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self.after_backward: Step = lambda: None

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        logits = self.model(self.inputs)
        F.cross_entropy(logits.flatten(0, -2), self.targets.flatten()).backward()
        self.after_backward()
        self.optimizer.step()


class Block(nn.Module):
    """Two convolutions with batch norm round a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        same = stride == 1 and before == after
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class Attention(nn.Module):
    """A pre-norm transformer layer with causal attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    """Token and position embeddings, transformer layers, a linear head."""

    def __init__(self, vocabulary: int = 2000, width: int = 256, layers: int = 6, length: int = 128) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Attention(width, 8) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = torch.arange(x.shape[1], device=x.device)
        return self.head(self.norm(self.layers(self.tokens(x) + self.places(places))))


def mlp(device: str) -> Training:
    """269 thousand parameters in 6 tensors, batches of 64."""
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    return Training(model.to(device), torch.randn(64, 784, device=device), torch.randint(0, 10, (64,), device=device))


def cnn(device: str) -> Training:
    """A ResNet-18 at a quarter of its width: 62 tensors, batches of 64 images of 3 x 32 x 32."""
    widths = (16, 16, 32, 64, 128)
    blocks: list[nn.Module] = []
    for before, after, stride in zip(widths, widths[1:], (1, 2, 2, 2), strict=False):
        blocks += [Block(before, after, stride), Block(after, after, 1)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    return Training(
        model.to(device), torch.randn(64, 3, 32, 32, device=device), torch.randint(0, 10, (64,), device=device)
    )


def gpt(device: str) -> Training:
    """6 layers, width 256, batches of 16 x 128 tokens."""
    tokens = torch.randint(0, 2000, (16, 129), device=device)
    return Training(Gpt().to(device), tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


WORKLOADS: dict[str, Callable[[str], Training]] = {"MLP": mlp, "CNN": cnn, "GPT": gpt}
