"""What patching other people's StyleGAN2 gains: `python -m benchmarks.drop_in [WORD ...] [--isa avx2]`.

Networks of 64x64 at base 16384, batch 8, in float32 on one CPU thread, in the names of StyleGAN2-ADA and of rosinality
(benchmarks/dialects). A word keeps the steps whose names have it. Each step is the gradients of

    G          mean(softplus(-D(G(z)))) by the parameters of G
    D          mean(softplus(D(fake)) + softplus(-D(real))) by the parameters of D
    R1         mean(softplus(-D(real))) + gamma / 2 * mean(|dD/dreal|^2) by the parameters of D
    R1 level   the same by gan_engine.losses.penalties.backward_with_penalty
    PL         (|d(G * noise)/dws| - mean)^2 by the parameters of G, on half of the batch
    draw       images in eval mode

Peers take turns: the network as it is; with functions patched; with whole layers patched; the first and the last of
these in the layout channels_last too, networks and images. Times are CPU times of the thread. Rows go to
runs/benchmarks/drop-in.jsonl.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import isa as instruction_sets
from benchmarks.dialects import rosinality, stylegan

OUT = Path("runs") / "benchmarks" / "drop-in.jsonl"
RESOLUTION, BASE, BATCH, GAMMA = 64, 16384, 8, 1.0
LAST = ", channels_last"
PEERS = ("as it is", "functions", "layers", f"as it is{LAST}", f"layers{LAST}")

Networks = tuple[nn.Module, nn.Module]


def parameters(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]


def of_g(nets: Networks, z: Tensor, real: Tensor) -> None:
    G, D = nets
    D.requires_grad_(False)
    torch.autograd.grad(F.softplus(-D(G(z))).mean(), parameters(G), allow_unused=True)
    D.requires_grad_(True)


def of_d(nets: Networks, z: Tensor, real: Tensor) -> None:
    loss = F.softplus(nets[1](real.flip(3))).mean() + F.softplus(-nets[1](real)).mean()
    torch.autograd.grad(loss, parameters(nets[1]))


def r1(nets: Networks, z: Tensor, real: Tensor) -> None:
    real = real.detach().requires_grad_()
    logits = nets[1](real)
    (g,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    loss = F.softplus(-logits).mean() + GAMMA / 2 * g.square().sum([1, 2, 3]).mean()
    torch.autograd.grad(loss, parameters(nets[1]), allow_unused=True)


def r1_by_level(nets: Networks, z: Tensor, real: Tensor) -> None:
    from gan_engine.losses.penalties import backward_with_penalty

    nets[1].zero_grad()
    backward_with_penalty(nets[1], real, lambda logits: F.softplus(-logits), gamma=GAMMA)


def path_length(nets: Networks, z: Tensor, real: Tensor) -> None:
    G = nets[0]
    ws = G.ws(z[: BATCH // 2])
    img = G.synthesis(ws)
    noise = torch.randn_like(img) / RESOLUTION
    (g,) = torch.autograd.grad((img * noise).sum(), ws, create_graph=True)
    lengths = g.square().sum(2).mean(1).sqrt()
    torch.autograd.grad((lengths - 1).square().mean(), parameters(G), allow_unused=True)


def draw(nets: Networks, z: Tensor, real: Tensor) -> None:
    with torch.no_grad():
        nets[0].eval()(z)
    nets[0].train()


STEPS: dict[str, Callable[[Networks, Tensor, Tensor], None]] = {
    "G": of_g,
    "D": of_d,
    "R1": r1,
    "R1 level": r1_by_level,
    "PL": path_length,
    "draw": draw,
}


def patched(peer: str, dialect: object, nets: Networks) -> None:
    """The owner's change"""
    from gan_engine.patch import patch

    if peer == "functions":  # of this instance alone: other peers share the modules
        from gan_engine.patch.modules import patch_calls

        for net in nets:
            patch_calls(net)
    elif peer.startswith("layers"):
        for net in nets:
            patch(net)
    if peer.endswith(LAST):
        for net in nets:
            for p in net.parameters():  # Module.to refuses the weights of rosinality, which have five dimensions
                if p.ndim == 4:
                    p.data = p.data.contiguous(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--isa")
    parser.add_argument("--seconds", type=float, default=20, help="for each step")
    options = parser.parse_args()
    if options.isa:
        instruction_sets.run_again(options.isa, [sys.executable, "-m", "benchmarks.drop_in", *sys.argv[1:]])
    from gan_engine.system import malloc, native

    torch.set_num_threads(1)
    malloc.tune()
    if options.isa and native.WHY_NO_CPU is None:
        native.cpu.module.use_isa(options.isa)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    for name, dialect in (("stylegan", stylegan), ("rosinality", rosinality)):
        peers: dict[str, Networks] = {}
        for peer in PEERS:
            torch.manual_seed(0)
            peers[peer] = dialect.Generator(RESOLUTION, BASE), dialect.Discriminator(RESOLUTION, BASE)
            patched(peer, dialect, peers[peer])
        z, real = torch.randn(BATCH, 512), torch.randn(BATCH, 3, RESOLUTION, RESOLUTION)
        for step, run in STEPS.items():
            label = f"{name} {step}"
            if options.words and not any(word in label for word in options.words):
                continue
            times = measured({peer: (run, nets) for peer, nets in peers.items()}, z, real, options.seconds)
            row = {"step": label, "isa": instruction_sets.in_use(), "torch": torch.__version__, "ms": times}
            with OUT.open("a") as file:
                file.write(json.dumps(row) + "\n")
            gains = "  ".join(f"{peer} {times[PEERS[0]] / ms:.2f}" for peer, ms in times.items())
            print(f"{label:22} {row['isa']:7} {times[PEERS[0]]:8.0f} ms  {gains}", flush=True)


def measured(peers: dict, z: Tensor, real: Tensor, seconds: float) -> dict[str, float]:
    """The median of each peer in milliseconds of CPU time, in turns"""
    times: dict[str, list[float]] = {peer: [] for peer in peers}
    start, done = time.perf_counter(), -1
    while done < 3 or time.perf_counter() - start < seconds:
        for peer, (run, nets) in peers.items():
            images = real.contiguous(memory_format=torch.channels_last) if peer.endswith(LAST) else real
            began = time.thread_time()
            run(nets, z, images)
            if done >= 0:
                times[peer].append((time.thread_time() - began) * 1e3)
        done += 1
    return {peer: statistics.median(each) for peer, each in times.items()}


if __name__ == "__main__":
    main()
