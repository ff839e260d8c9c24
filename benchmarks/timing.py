"""Compare the times of calls fairly: in one process, in turn, with the same threads and the same allocator."""

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
    """The measurement of one peer: the time of each call, or an error."""

    ms: tuple[float, ...] = ()  # milliseconds
    peak_mib: float | None = None  # peak memory of a call, minus the memory in use before it
    error: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.ms)

    def quantile(self, q: float) -> float:
        """The q-quantile: the smallest time t such that at least the fraction q of all times is <= t."""
        return sorted(self.ms)[max(0, -int(-q * len(self.ms) // 1) - 1)]


def compare(
    peers: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    device: str = "cpu",
    tuned: bool = False,
    rounds: tuple[int, int] = (MIN_ROUNDS, MAX_ROUNDS),
    clock: Callable[[Callable[[], object]], float] | None = None,
) -> dict[str, Timing]:
    """Call all peers in turn, in a new random order in each round, for about `seconds`.

    The time of a call includes freeing its result, as in real use. On a GPU, the time lies between two events on the
    stream, and the L2 cache is overwritten before each call. If the first call of a peer raises, this peer is not
    timed, and its Timing holds the error.

    Args:
        tuned: whether malloc.tune() was called; see `peak_mib`.
        rounds: the least and the greatest number of rounds.
        clock: from a call to its milliseconds; None: those of the device.
    """
    clock = clock or (_on_gpu if device == "cuda" else _on_cpu)
    errors, peaks = {}, {}
    for name, call in peers.items():
        try:
            call()
            peaks[name] = peak_mib(call, device, tuned)
        except Exception as error:
            # The first line says what failed; the other lines of a compiler's message are its stack.
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


def on_this_thread(call: Callable[[], object]) -> float:
    """Processor time of this thread, which other programs of a busy machine do not lengthen as they do wall time."""
    start = time.thread_time()
    call()
    return (time.thread_time() - start) * 1e3


def _on_gpu(call: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # 256 MiB exceed the L2 cache of any GPU so far. Writing them also keeps the GPU busy while the call is launched.
    torch.empty(2**28, dtype=torch.uint8, device="cuda").zero_()
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def peak_mib(call: Callable[[], object], device: str = "cpu", tuned: bool = False) -> float | None:
    """The peak memory of `call` in MiB, minus the memory in use before it. None if it cannot be measured.

    GPU: memory of tensors. CPU: resident pages of the process, so that all memory counts, also that of compiled
    kernels. The CPU value is the median of three calls, and the allocator returns its free pages before each call.

    Args:
        tuned: malloc.tune() was called. Large blocks are then taken from outside the heap during the measurement. Free
            gaps between blocks of the heap are resident too, but depend on everything that the process did before. They
            would change the result by a third from call to call.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with _blocks_outside_heap() if tuned else contextlib.nullcontext():
        peaks = [_resident_peak_mib(call) for _ in range(3)]
    return None if None in peaks else statistics.median(peaks)


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of glibc's <malloc.h>."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


@contextlib.contextmanager
def _blocks_outside_heap() -> Iterator[None]:
    """Make malloc map every large block of this thread separately, with glibc 2.33 or newer."""
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
        # Fill the free parts of the heap, as far as possible. The fillers are never written, so they take no pages.
        fillers += [libc.malloc(large) for _ in range(libc.mallinfo2().fordblks // large)]
        yield
    finally:
        for filler in fillers:
            libc.free(filler)
        malloc.tune()


def _resident_peak_mib(call: Callable[[], object]) -> float | None:
    with contextlib.suppress(AttributeError):  # another C library has no malloc_trim and keeps its free pages
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak VmHWM to the current VmRSS
    except OSError:
        return None
    before = _resident_mib("VmRSS")
    call()
    return max(0.0, _resident_mib("VmHWM") - before)


def peak_tensor_mib(call: Callable[[], object]) -> float:
    """The peak memory of CPU tensors during `call` in MiB, minus the tensors before it.

    `peak_mib` measures the same on a GPU. On a CPU, `peak_mib` also counts memory that kernels allocate themselves.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in changes)) / 2**20


def _resident_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
