"""Several processes as one run: whose rows are whose, what all must agree on, who writes.

The processes are those that torchrun started, joined by PyTorch's own DDP (every process holds all weights) or FSDP2
(each holds a share of them). Alone, every function here answers for one process and costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_reduce as differentiable_sum
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from generama.core import Batch, Family, Noise, Player
from generama.errors import GeneramaError, ResourceError, UsageError

PATIENCE = timedelta(minutes=30)  # that a process waits for another before it gives up
T = TypeVar("T")


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Be one of the processes that torchrun started, to the end of the block; alone, do nothing."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Numbers to agree on travel by gloo on the CPU, so that no GPU has to wait for them.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, number, count = next(dist.rendezvous("env://", timeout=PATIENCE))
    # Addresses of processes that died are still in torchrun's store after a restart, so each start has its own keys.
    store = dist.PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def restarted() -> bool:
    """Whether torchrun started the processes again after one of them died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rows(count: int) -> slice:
    """The rows of a batch of `count` images that are this process's."""
    if count % size():
        near = max(1, round(count / size())) * size()
        raise UsageError(f"a batch of {count} cannot be shared by {size()} processes alike; try --train.batch {near}")
    share = count // size()
    return slice(rank() * share, (rank() + 1) * share)


def agree(*values: float) -> list[float]:
    """The largest of each value over all processes, so that all take the same turn."""
    if size() == 1:
        return list(values)
    known = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(known, dist.ReduceOp.MAX)
    return known.tolist()


def mean(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars averaged over all processes."""
    if size() == 1 or not values:
        return values
    known = torch.stack([value.float() for value in values.values()])
    dist.all_reduce(known)
    return dict(zip(values, known / size(), strict=True))


def by_first(what: str, action: Callable[[], T]) -> T:
    """Let the first process act while the others wait, and tell all what it returned; its failure is everyone's."""
    if size() == 1:
        return action()
    said: list[Any] = [None, None]
    if rank() == 0:
        try:
            said[0] = action()
        except GeneramaError as error:
            said[1] = error
    try:
        dist.broadcast_object_list(said)
    except RuntimeError as error:
        raise ResourceError(f"process 0 did not answer within {PATIENCE} while {what}; look at its log") from error
    if said[1] is not None:
        raise said[1]
    return said[0]


@contextmanager
def held_by_first(enter: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """What the first process alone holds (a lock); where it cannot be had, all learn why."""
    with ExitStack() as stack:

        def hold() -> None:
            stack.enter_context(enter())

        by_first("locking the run", hold)
        yield


def first_then_all(action: Callable[[], T]) -> T:
    """Let the first process act, then the others, who find what it left (a prepared data set, a cached file)."""
    if size() == 1:
        return action()
    kept: list[T] = []

    def act() -> None:
        kept.append(action())

    by_first("preparing what all need", act)
    return kept[0] if kept else action()


def gathered(parts: dict[int, Tensor], count: int) -> Tensor:
    """Pieces of one long tensor by their places, 0 to count - 1, put together on the first process; empty elsewhere."""
    if size() == 1:
        return torch.cat([parts[i] for i in range(count)])
    received: list[dict[int, Tensor] | None] = [None] * size()
    dist.gather_object(parts, received if rank() == 0 else None)
    known = {i: part for held in received if held for i, part in held.items()}
    return torch.cat([known[i] for i in range(count)]) if rank() == 0 else torch.empty(0)


class Turn(nn.Module):
    """A player's loss as a forward pass, which is what DDP and FSDP2 know how to share out."""

    def __init__(self, player: Player) -> None:
        super().__init__()
        self.module = player.module
        self.loss = player.loss

    def forward(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """The player's loss on this process's rows."""
        return self.loss(batch, noise)


def shared(player: Player, shard: bool) -> nn.Module:
    """The player's turn, its gradients averaged over all processes; with `shard`, each holds a share of the weights."""
    turn = Turn(player)
    if size() == 1:
        return turn
    if shard:
        for parameter in turn.parameters():
            parameter.data = parameter.data.contiguous()  # FSDP2 knows no other layout
        fully_shard(turn)
        return turn
    return DistributedDataParallel(turn)


def unshared(turn: nn.Module) -> AbstractContextManager[None]:
    """Where gradients are not averaged yet: all parts of a batch but the last."""
    return turn.no_sync() if isinstance(turn, DistributedDataParallel) else nullcontext()


@contextmanager
def lent(turns: list[nn.Module]) -> Iterator[None]:
    """Whole weights of players that do not learn in this turn, where they are sharded: an opponent's."""
    sharded = [turn for turn in turns if isinstance(turn, FSDPModule)]
    for turn in sharded:
        turn.unshard()
    try:
        yield
    finally:
        for turn in sharded:
            turn.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor where each process holds a share; all processes must ask alike."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_share(tensor: Tensor) -> bool:
    """Whether this process holds only its share of the tensor."""
    return isinstance(tensor, DTensor)


def here(tensor: Tensor) -> Tensor:
    """What this process holds of the tensor, which is all of it where nothing is shared out."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def all_whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The full tensors of the same names."""
    return {name: whole(value) for name, value in tensors.items()}


def like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A full tensor laid out and shared out as `pattern` is."""
    if isinstance(pattern, DTensor):
        return distribute_tensor(tensor, pattern.device_mesh, pattern.placements)
    return torch.empty_like(pattern, requires_grad=False).copy_(tensor)


def every_process() -> dist.ProcessGroup:
    """The group of all processes."""
    assert dist.group.WORLD is not None
    return dist.group.WORLD


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows of all processes, as if they were one batch (PyTorch's own knows GPUs alone)."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...)."""
        x = input
        if not self.training or size() == 1:
            return super().forward(x)
        over = [0, *range(2, x.dim())]
        count = size() * x.numel() // x.shape[1]
        sums = differentiable_sum(torch.stack([x.sum(over), x.square().sum(over)]), "sum", every_process())
        average = sums[0] / count
        variance = (sums[1] / count - average.square()).clamp(min=0)
        self._follow(average.detach(), variance.detach(), count)
        shape = [1, -1, *[1] * (x.dim() - 2)]
        scale = (variance + self.eps).rsqrt() * self.weight
        return x * scale.view(shape) + (self.bias - average * scale).view(shape)

    @torch.no_grad()
    def _follow(self, average: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        self.running_mean.lerp_(average, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def share_batch_norms(family: Family) -> None:
    """Let every batch norm below see the rows of all processes; names, weights and buffers stay the same objects."""
    if size() == 1:
        return
    for part in family.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.__class__ = SharedBatchNorm
