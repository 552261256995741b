"""The processes that train one model together: what `torchrun` started, or this process alone.

Every process takes its share of each global batch. Losses are sums over the share divided by a count over the
whole batch, so the *sum* of all gradients is the gradient of the whole batch, however it was shared out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Item = TypeVar("Item")


class World:
    """`rank` of `size` processes. Alone, every method gives back what it was given."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        """Only the leading process writes, speaks and listens to commands."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes; not differentiated."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(summed.view_as(gradient))

    def gather(self, item: Item) -> list[Item]:
        """Every process's `item`, in order of rank, in every process."""
        if self.size == 1:
            return [item]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, item)
        return gathered

    def from_leader(self, item: Item) -> Item:
        """The leader's `item`, in every process."""
        if self.size == 1:
            return item
        box: list[Any] = [item]
        dist.broadcast_object_list(box, src=0)
        answer: Item = box[0]
        return answer

    def any(self, flag: bool) -> bool:
        """Whether it is true in at least one process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(int(flag))))


def started_by_torchrun() -> bool:
    """Whether this process is one of several that `torchrun` started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined_world() -> Iterator[World]:
    """The world that `torchrun` describes in the environment (gloo on CPUs, nccl on GPUs), else this process alone."""
    if not started_by_torchrun():
        yield World()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        # tensors of the CPU (counts, flags) travel by gloo
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
