"""TensorParallel: the processes that share one model, and what they exchange."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from melange.errors import EngineError
from melange.nanoflow.runtime.batch import Batch

MEETING_LIMIT = timedelta(minutes=10)
# An idle engine's followers wait for a batch: the control group's limit must not end them.
IDLE_LIMIT = timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorParallel:
    """This process's place among ``tp`` processes. ``control`` carries batches and works on CPU memory."""

    rank: int = 0
    tp: int = 1
    control: dist.ProcessGroup | None = None

    @classmethod
    def join(cls, *, rank: int, tp: int, rendezvous: str, device: torch.device) -> TensorParallel:
        """Meet the others at ``rendezvous`` (``file:///path`` or ``tcp://host:port``), by NCCL on CUDA, else gloo."""
        try:
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                init_method=rendezvous,
                rank=rank,
                world_size=tp,
                timeout=MEETING_LIMIT,
            )
            return cls(rank=rank, tp=tp, control=dist.new_group(backend="gloo", timeout=IDLE_LIMIT))
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"the {tp} processes could not meet at {rendezvous}: {error}") from None

    def all_reduce(self, tensor: Tensor) -> None:
        """Sum the processes' tensors in place."""
        dist.all_reduce(tensor)

    def from_leader(self, tensor: Tensor) -> Tensor:
        """The leader's values of a tensor that every process has the shape of."""
        if self.tp > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def least(self, number: int) -> int:
        """The smallest of the processes' numbers."""
        if self.tp == 1:
            return number
        box = torch.tensor([number])
        dist.all_reduce(box, op=dist.ReduceOp.MIN, group=self.control)
        return int(box)

    def share_batch(self, batch: Batch | None) -> Batch | None:
        """The leader's batch on every process; None says that there will be no more, or that the leader is gone."""
        if self.tp == 1:
            return batch
        box = [batch]
        try:
            dist.broadcast_object_list(box, src=0, group=self.control)
        except RuntimeError:
            if self.rank == 0:
                raise
            return None
        return box[0]

    def leave(self) -> None:
        """Give up the connection to the other processes."""
        if self.tp > 1:
            dist.destroy_process_group()
