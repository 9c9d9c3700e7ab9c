"""The peer: the article's CIFAR-10 network with the affinity head in PyTorch, as its users would write it.

    python torch_peer.py KIND BATCH STEPS THREADS

KIND is eager, compiled, bfloat16 or bfloat16-compiled. For each line on stdin, trains STEPS steps and
prints the seconds they took, by the clock and of the processor.
"""

from __future__ import annotations

import sys
import time

import torch
from torch import nn

WIDTHS, DEPTH, CLASSES, CENTERS = (64, 128, 256), 3, 10, 30
MARGIN, SIGMA = 0.43, 90.0


class Head(nn.Module):
    """Affinities (N, C) of features (N, h), and the diversity of the centres, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(CLASSES * CENTERS, width) * 0.1)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distances = torch.cdist(features, self.centers, compute_mode="use_mm_for_euclid_dist").square()
        nearest = distances.reshape(-1, CLASSES, CENTERS).amin(2)
        between = torch.pdist(self.centers).square()
        return torch.exp(-nearest / SIGMA), between.var(unbiased=False)


def network() -> nn.Module:
    layers: list[nn.Module] = []
    before = 3
    for block, width in enumerate(WIDTHS):
        layers += [nn.AvgPool2d(2)] if block else []
        for _ in range(DEPTH):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            before = width
    return nn.Sequential(*layers)


def loss_of(affinities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    own = affinities.gather(1, labels[:, None])
    others = torch.ones_like(affinities).scatter(1, labels[:, None], 0.0)
    return (others * torch.relu(MARGIN + affinities - own)).sum(1).mean()


def main() -> None:
    kind, batch, steps, threads = sys.argv[1], *map(int, sys.argv[2:5])
    torch.set_num_threads(threads)
    images = torch.randint(0, 256, (10 * batch, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(10 * batch) % CLASSES
    body = network().to(memory_format=torch.channels_last)
    norm, head = nn.BatchNorm1d(WIDTHS[-1]), Head(WIDTHS[-1])
    half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind.startswith("bfloat16"))

    def forward(chosen: torch.Tensor) -> torch.Tensor:
        scaled = (images[chosen].float() / 255).contiguous(memory_format=torch.channels_last)
        with half:
            pooled = body(scaled).mean((2, 3))
        affinities, diversity = head(norm(pooled.float()))
        return loss_of(affinities, labels[chosen]) + diversity

    parameters = [*body.parameters(), *norm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=5e-3, fused=True)
    step = torch.compile(forward) if kind.endswith("compiled") else forward

    def train(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            step(torch.randint(0, len(images), (batch,))).backward()
            optimizer.step()

    train(2)
    for _ in sys.stdin:  # a round when asked for: the peers take turns
        began, cpu = time.perf_counter(), time.process_time()
        train(steps)
        print(time.perf_counter() - began, time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    main()
