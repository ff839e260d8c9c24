"""Several processes of one run, started by torchrun: what they share, and how the failure of one ends them all.

    torchrun --nproc_per_node 2 -m gan_engine.train stylegan2_256 --data photos

Every process has the whole networks and its part of each batch: the images i with i % size = rank. If each process has
whole groups of the minibatch standard deviation, they are the groups that one process alone would have. A single
process waits for nothing and copies nothing here.
"""

import contextlib
import datetime
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class PeerError(RuntimeError):
    """Another process of the run has failed; the message comes from that process."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, and this one among them."""

    rank: int = 0
    size: int = 1
    local: int = 0  # rank among the processes of this machine
    store: Any = None  # the store in which a process that fails leaves its message

    @property
    def first(self) -> bool:
        """True in the process that writes and prints."""
        return self.rank == 0

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes; all of them must pass tensors of the same shapes."""
        if self.size == 1 or not tensors:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            of_dtype = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in of_dtype])
            with self._failure_of_peers_told():
                dist.all_reduce(flat)
            flat /= self.size
            for tensor, mean in zip(of_dtype, flat.split([t.numel() for t in of_dtype]), strict=True):
                tensor.detach().copy_(mean.view(tensor.shape))

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over the processes."""
        if self.size == 1:
            return values
        values = values.clone()
        with self._failure_of_peers_told():
            dist.all_reduce(values)
        return values

    def max(self, number: int) -> int:
        """The largest `number` of all processes."""
        if self.size == 1:
            return number
        values = torch.tensor(number)
        with self._failure_of_peers_told():
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return int(values)

    def gather(self, value: T) -> list[T]:
        """The `value` of every process, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._failure_of_peers_told():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process, and return its result in all of them.

        If it raises, the first process raises the same, and the others raise PeerError.
        """
        if self.size == 1:
            return make()
        result = error = None
        if self.first:
            try:
                result = make()
            except Exception as raised:
                error = raised
        found = self.gather((result, None if error is None else str(error)))[0]
        if error is not None:
            raise error
        if found[1] is not None:
            raise PeerError(found[1])
        return found[0]

    def one_per_machine_first(self, make: Callable[[], T]) -> T:
        """Call `make` in one process of each machine, then in the others: it may fill a cache on the disk."""
        result = error = None
        for turn in (True, False):
            if (self.local == 0) is turn:
                try:
                    result = make()
                except Exception as raised:
                    error = raised
            self.gather(None)
        if error is not None:
            raise error
        return result

    def agree(self, error: Exception | None) -> None:
        """Raise `error`, or PeerError where another process has an error."""
        others = self.gather(None if error is None else str(error))
        if error is not None:
            raise error
        for rank, message in enumerate(others):
            if message is not None:
                raise PeerError(f"process {rank}: {message}")

    def announce(self, error: BaseException) -> None:
        """Tell the other processes why this one ends; they wait for it, or soon will."""
        if self.store is not None and not isinstance(error, PeerError):
            with contextlib.suppress(RuntimeError):
                self.store.set(_FAILURE, f"process {self.rank}: {type(error).__name__}: {error}")

    @contextlib.contextmanager
    def _failure_of_peers_told(self) -> Iterator[None]:
        """Inside, a communication that fails raises PeerError with what the process that is gone has announced."""
        try:
            yield
        except RuntimeError as error:
            raise PeerError(_announced(self.store) or _NOT_ANNOUNCED) from error

    @contextlib.contextmanager
    def _ended_with_peers(self) -> Iterator[None]:
        """Inside, end this process if another one has announced its failure and this one goes on for `_GRACE`.

        A communication on GPUs may wait for minutes for a process that is gone, in code that no exception reaches.
        """
        over = threading.Event()
        store = self.store.clone()  # threads that share a store wait for each other

        def watch() -> None:
            while not over.wait(_POLL):
                try:
                    failed = store.check([_FAILURE])
                except RuntimeError:  # the machine that had the store is gone
                    failed = True
                if failed and not over.wait(_GRACE):
                    message = _announced(store) or _NOT_ANNOUNCED
                    if not over.is_set():
                        print(f"error: {message}", file=sys.stderr, flush=True)
                        os._exit(1)

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            over.set()
            # The end of Python would abort the process while the thread asks the store, which is code in C++.
            watching.join(_GRACE)


ALONE = Processes()
_FAILURE = "gan_engine/failure"
_NOT_ANNOUNCED = "another process is gone and has left no message, perhaps it was killed; torchrun tells which"
_POLL = 1  # seconds from one look for a failure to the next
_GRACE = 30  # seconds that a process has to end by itself


def _announced(store: Any) -> str | None:
    """The message of a process that has failed."""
    for _ in range(20):  # a connection may break before the message is there
        with contextlib.suppress(RuntimeError):
            if store.check([_FAILURE]):
                return store.get(_FAILURE).decode()
        time.sleep(0.1)
    return None


@contextlib.contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that torchrun has started, or this one alone, and the device of this process.

    Args:
        device: as in `choose_device`. auto and cuda give each of several processes of a machine its own GPU; auto gives
            them the CPU on a machine without GPUs.

    Raises ValueError where one device is named for several processes, or where a machine has too few GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield ALONE, device
        return
    local = int(os.environ["LOCAL_RANK"])
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: want auto, cpu or cuda for several processes, got {device}")
    gpus = torch.cuda.device_count()
    if device != "cpu" and (gpus or device == "cuda"):
        here = int(os.environ.get("LOCAL_WORLD_SIZE", local + 1))  # launchers other than torchrun may not set it
        if here > gpus:
            raise ValueError(f"device: want a GPU for each of the {here} processes on this machine, got {gpus}")
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    store, rank, size = next(iter(dist.rendezvous("env://")))
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    group = dist.PrefixStore("gan_engine/group", store)
    # The first process may measure for hours while the others wait. The watch over peers tells of those that are gone.
    dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=datetime.timedelta(days=1))
    processes = Processes(rank, size, local, store)
    with processes._ended_with_peers():
        try:
            yield processes, "cpu" if device == "auto" else device
        finally:
            dist.destroy_process_group()
