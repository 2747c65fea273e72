"""The features of a small classifier trained on the data's own labels: trained once per data set, then kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generama.data.shards import Data
from generama.errors import UsageError
from generama.metrics.cache import fetch, store
from generama.metrics.choice import choose
from generama.metrics.features import Features
from generama.nets.classifier import Classifier

VERSION = "classifier-1"  # a change of the net or of its training must change this: old numbers are not comparable
BATCH = 64
RATE = 1e-2


@dataclass(frozen=True)
class ClassifierFeatures:
    """Extractor: the penultimate layer (64 numbers), and the class probabilities."""

    net: Classifier
    note: str
    key: str  # SHA-256 of the weights
    accuracy: float  # share of held-out pictures it recognises
    name: str = "classifier"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Images (B, C, H, W) in [-1, 1] -> features (B, 64) and probabilities (B, K)."""
        device = next(self.net.parameters()).device
        values = torch.cat([self.net.features(some.to(device)) for some in images.split(256)])
        return Features(values, self.net.logits(values).softmax(1))


def classifier_features(data: Data, cache: Path) -> ClassifierFeatures:
    """The classifier of this data set from the cache, or trained now (seconds to a minute) and kept there."""
    spec = data.spec
    if spec.classes < 2:
        raise UsageError(f"'{data.meta.name}' has no labels to train a classifier on; use the extractor 'pixels'")
    if spec.size < 2:
        raise UsageError(f"'{data.meta.name}' holds points, not pictures; use the extractor 'pixels'")
    path = cache / "classifiers" / f"{data.meta.hash[:16]}-{VERSION}"
    kept = fetch(path)
    if kept is None:
        net, facts = train_classifier(data)
        facts = store(path, net.state_dict(), facts)
    else:
        weights, facts = kept
        net = Classifier(spec.channels, spec.size, spec.classes)
        net.load_state_dict(weights)
    accuracy = facts["accuracy"]
    note = f"classifier trained on {data.meta.name}, held-out accuracy {100 * accuracy:.1f} %"
    return ClassifierFeatures(net.eval(), note, facts["sha256"], accuracy)


def train_classifier(data: Data) -> tuple[Classifier, dict[str, Any]]:
    """Adam with weight decay, one-cycle rate, pictures shifted by up to a twelfth of their size; always seed 0."""
    spec, start = data.spec, time.perf_counter()
    budget = images_to_see(len(data.train), spec.size)
    steps = max(1, budget // BATCH)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        net = Classifier(spec.channels, spec.size, spec.classes).train()
        optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1)
        for _ in range(steps):
            batch = data.train.batch(torch.randint(len(data.train), (BATCH,)))
            assert batch.cond.label is not None
            logits = net(shifted(batch.images, max(1, spec.size // 12)))
            optimiser.zero_grad()
            nn.functional.cross_entropy(logits, batch.cond.label).backward()
            optimiser.step()
            schedule.step()
    accuracy = held_out_accuracy(net.eval(), data)
    seconds = round(time.perf_counter() - start, 2)
    facts = {"data": data.meta.name, "data_hash": data.meta.hash, "version": VERSION, "images_seen": steps * BATCH}
    return net, {**facts, "accuracy": accuracy, "held_out": len(data.held_out), "seconds": seconds}


def images_to_see(count: int, size: int) -> int:
    """Training images shown: six passes, at least 24,000 and at most 60,000; fewer above 32 pixels, as cost grows."""
    return int(min(max(6 * count, 24_000), 60_000) * min(1.0, (32 / size) ** 2))


def shifted(images: Tensor, reach: int) -> Tensor:
    """Each image (B, C, H, W) moved by its own random offset of up to `reach` pixels, edges repeated."""
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, (reach,) * 4, mode="replicate")
    rows = torch.randint(2 * reach + 1, (count, 1)) + torch.arange(height)  # (B, H)
    columns = torch.randint(2 * reach + 1, (count, 1)) + torch.arange(width)  # (B, W)
    every = torch.arange(count)[:, None, None]
    return padded[every, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # gathered as (B, H, W, C)


@torch.no_grad()
def held_out_accuracy(net: Classifier, data: Data, most: int = 10_000) -> float:
    """Share of (at most 10,000) held-out pictures recognised."""
    right, chosen = 0, choose(len(data.held_out), most)
    for some in chosen.split(500):
        batch = data.held_out.batch(some)
        right += int((net(batch.images).argmax(1) == batch.cond.label).sum())
    return right / len(chosen)
