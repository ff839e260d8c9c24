"""Time calls against each other fairly: in one process, taking turns, under the same threads and allocator."""

import contextlib
import ctypes
import gc
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from gan_engine.system import malloc

MIN_ROUNDS, MAX_ROUNDS = 5, 100


@dataclass(frozen=True)
class Timing:
    """What was measured of one peer: the milliseconds of each call, or the error that leaves none."""

    ms: tuple[float, ...] = ()
    peak_mib: float | None = None  # most memory held at once during a call, over that held before it
    error: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.ms)

    def quantile(self, q: float) -> float:
        """The smallest of the times that at least a share q of them does not exceed."""
        return sorted(self.ms)[max(0, -int(-q * len(self.ms) // 1) - 1)]


def compare(
    peers: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    device: str = "cpu",
    tuned: bool = False,
    rounds: tuple[int, int] = (MIN_ROUNDS, MAX_ROUNDS),
) -> dict[str, Timing]:
    """Call all peers in turn, in a new random order each round, until `seconds` are over.

    `tuned`: as `peak_mib` takes it.

    At least rounds[0] and at most rounds[1] rounds are run. A call ends with its result freed, as in real use, and
    what is freed is part of the time. On a GPU the L2 cache is overwritten before each call, and the time is that
    between two events on the stream. A peer that raises while it warms up is left out, and its error told.
    """
    clock = _on_gpu if device == "cuda" else _on_cpu
    errors, peaks = {}, {}
    for name, call in peers.items():
        try:
            call()
            peaks[name] = peak_mib(call, device, tuned)
        except Exception as error:
            # The first line says what; the rest of a compiler's message is its stack.
            text = (str(error).strip() or "no message").splitlines()[0]
            errors[name] = f"{type(error).__name__}: {text}"
    running = [name for name in peers if name not in errors]
    for name in running:
        clock(peers[name])
    gc.collect()
    times = {name: [] for name in running}
    order = random.Random(0)
    start, done = time.perf_counter(), 0
    while running and done < rounds[1] and (done < rounds[0] or time.perf_counter() - start < seconds):
        for name in order.sample(running, len(running)):
            times[name].append(clock(peers[name]))
        done += 1
    measured = {name: Timing(tuple(times[name]), peaks[name]) for name in running}
    return {name: measured[name] if name in measured else Timing(error=errors[name]) for name in peers}


def _on_cpu(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _on_gpu(call: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # Larger than the L2 cache of any GPU so far; writing it also keeps the GPU busy while the call is being launched.
    torch.empty(2**28, dtype=torch.uint8, device="cuda").zero_()
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def peak_mib(call: Callable[[], object], device: str = "cpu", tuned: bool = False) -> float | None:
    """The most MiB that `call` held at once, over what was held before; None where it cannot be measured.

    On a GPU: tensors. On a CPU: resident pages of the process, so that memory is counted whoever asks for it, a
    compiled kernel included, the median of three calls. The allocator's free pages are given back before each. With
    `tuned`, which says that malloc.tune() was called, large blocks do not come from its heap meanwhile: what lies free
    between blocks there is resident as well, but depends on all that the process did before, and varies from call to
    call by a third of the whole.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with _mapped_singly() if tuned else contextlib.nullcontext():
        peaks = [_resident_peak_mib(call) for _ in range(3)]
    return None if None in peaks else statistics.median(peaks)


class _Mallinfo2(ctypes.Structure):
    """From <malloc.h> of glibc."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


@contextlib.contextmanager
def _mapped_singly() -> Iterator[None]:
    """Large blocks of this thread are mapped, each by itself, by a glibc of 2.33 or newer."""
    libc, large, m_top_pad, m_mmap_threshold = ctypes.CDLL(None), 2**17, -2, -3
    if not hasattr(libc, "mallinfo2"):
        yield
        return
    libc.malloc.restype, libc.free.argtypes, libc.mallinfo2.restype = ctypes.c_void_p, [ctypes.c_void_p], _Mallinfo2
    fillers = []
    try:
        libc.mallopt(m_mmap_threshold, large)
        libc.mallopt(m_top_pad, 0)
        libc.malloc_trim(0)
        # As many as the free parts of the heap may hold; not touched, so that they take no pages.
        fillers += [libc.malloc(large) for _ in range(libc.mallinfo2().fordblks // large)]
        yield
    finally:
        for filler in fillers:
            libc.free(filler)
        malloc.tune()


def _resident_peak_mib(call: Callable[[], object]) -> float | None:
    with contextlib.suppress(AttributeError):  # a C library without malloc_trim keeps its free pages
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark VmHWM back to VmRSS
    except OSError:
        return None
    before = _resident_mib("VmRSS")
    call()
    return max(0.0, _resident_mib("VmHWM") - before)


def peak_tensor_mib(call: Callable[[], object]) -> float:
    """The most MiB of CPU tensors that were alive at once during `call`, over those before it.

    What peak_mib counts on a GPU; on a CPU it adds what kernels ask for beside tensors.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in changes)) / 2**20


def _resident_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
