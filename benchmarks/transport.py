"""Transport cost, forward and student gradient, against peers: `python benchmarks/transport.py [--shapes a b c d]`.

Times are process CPU seconds of one thread, the minimum over alternated repetitions, so that a busy machine slows every
method alike; only ratios are meant to be quoted. `x mm` relates a time to that of the two matrix products no method can
avoid (x y^T and P^T x), done by torch.mm in the same process. Peak memory is the growth of the process's high-water
mark over its inputs, in a process per method. Peers run if installed; their plan is detached by hand where their own
gradient keeps the whole loop or differentiates something else. Slow ones run fewer iterations, marked by *, and their
time is scaled to the full number.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Before jax is imported: one thread for everybody.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import torch
from torch import Tensor

from optical_scale.transport import sinkhorn_cost

# Pairs, tokens, width, shortest sequence.
SHAPES = {
    "warm": (1, 64, 128, 64),
    "a": (64, 64, 384, 16),
    "b": (8, 512, 768, 512),
    "c": (1, 4096, 128, 4096),
    "d": (1, 16384, 128, 16384),
    "long": (1, 131072, 128, 131072),
}
EPSILON = 0.1
Tokens = tuple[Tensor, Tensor, Tensor, Tensor]
# Tokens and iterations to the gradient of y.
Method = Callable[[Tokens, int], Tensor]


@dataclass(frozen=True)
class Entry:
    """A method, the shapes it is run on, and on which of them with fewer iterations."""

    run: Method
    shapes: str = "abcd"
    fewer: tuple[tuple[str, int], ...] = ()

    def iterations(self, shape: str, asked: int) -> int:
        """As many as asked, or as this shape can bear."""
        return min(asked, dict(self.fewer).get(shape, asked))


def make_tokens(shape: str) -> Tokens:
    B, T, D, shortest = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    x_BND = torch.randn(B, T, D, generator=generator)
    y_BMD = torch.randn(B, T, D, generator=generator).add_(x_BND.flip(1), alpha=0.5).requires_grad_()
    lengths_B1, lengths_y_B1 = (torch.randint(shortest, T + 1, (B, 1), generator=generator) for _ in range(2))
    return x_BND, y_BMD, torch.arange(T) < lengths_B1, torch.arange(T) < lengths_y_B1


def gradient(cost: Tensor, y_BMD: Tensor) -> Tensor:
    (grad_BMD,) = torch.autograd.grad(cost, y_BMD)
    return grad_BMD


def masses(tokens: Tokens) -> tuple[Tensor, Tensor]:
    a_BN, b_BM = (mask / mask.sum(1, keepdim=True) for mask in tokens[2:])
    return a_BN, b_BM


def ours(**options: object) -> Method:
    def run(tokens: Tokens, iterations: int) -> Tensor:
        cost_B = sinkhorn_cost(*tokens, epsilon=EPSILON, iterations=iterations, **options).cost_B
        return gradient(cost_B.sum(), tokens[1])

    return run


def detached_plan(plans: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> Method:
    """<P, C> with P from a peer, without gradient."""

    def run(tokens: Tokens, iterations: int) -> Tensor:
        x_BND, y_BMD = tokens[:2]
        normalize = torch.nn.functional.normalize
        cost_BNM = 1 - normalize(x_BND, dim=-1) @ normalize(y_BMD, dim=-1).mT
        with torch.no_grad():
            plan_BNM = plans(cost_BNM.detach(), *masses(tokens), iterations)
        return gradient((plan_BNM * cost_BNM).sum(), y_BMD)

    return run


def pot_methods() -> dict[str, Entry]:
    import ot
    import ot.batch

    def one_by_one(method: str) -> Method:
        def plans(cost_BNM: Tensor, a_BN: Tensor, b_BM: Tensor, iterations: int) -> Tensor:
            settings = {"method": method, "numItermax": iterations, "stopThr": 0.0, "warn": False}
            if len(cost_BNM) == 1:
                return ot.sinkhorn(a_BN[0], b_BM[0], cost_BNM[0], EPSILON, **settings)[None]
            plan_BNM = torch.zeros_like(cost_BNM)
            for cost_NM, a_N, b_M, plan_NM in zip(cost_BNM, a_BN, b_BM, plan_BNM, strict=True):
                n, m = int((a_N > 0).sum()), int((b_M > 0).sum())
                plan_NM[:n, :m] = ot.sinkhorn(a_N[:n], b_M[:m], cost_NM[:n, :m], EPSILON, **settings)
            return plan_BNM

        return detached_plan(plans)

    def batched(cost_BNM: Tensor, a_BN: Tensor, b_BM: Tensor, iterations: int) -> Tensor:
        # Zero masses stand for padding; their logarithm is minus infinity.
        result = ot.batch.solve_batch(
            cost_BNM, EPSILON, a=a_BN, b=b_BM, max_iter=iterations, tol=0.0, reg_type="entropy", grad="detach"
        )
        return result.plan

    def lazy(tokens: Tokens, iterations: int) -> Tensor:
        normalize = torch.nn.functional.normalize
        with torch.no_grad():
            x, y = (normalize(t[0], dim=-1) for t in tokens[:2])
            # |x - y|^2 of unit vectors is twice the cosine cost. There is no gradient.
            ot.bregman.empirical_sinkhorn(
                x, y, 2 * EPSILON, numIterMax=iterations, stopThr=0.0, isLazy=True, batchSize=512, warn=False
            )
        return torch.zeros_like(tokens[1])

    return {
        "POT sinkhorn, detached plan": Entry(one_by_one("sinkhorn")),
        "POT sinkhorn_log, detached plan": Entry(one_by_one("sinkhorn_log"), "abc", (("c", 10),)),
        "POT batch, detached plan": Entry(detached_plan(batched), "abc", (("c", 10),)),
        "POT lazy, forward only": Entry(lazy, "cd", (("c", 5), ("d", 2))),
    }


def geomloss_methods() -> dict[str, Entry]:
    from geomloss import SamplesLoss

    def run(backend: str) -> Method:
        def step(tokens: Tokens, iterations: int) -> Tensor:
            # |x - y|^2 / 2 of unit vectors is the cosine cost; its annealing is stretched to the asked iterations.
            blur = EPSILON**0.5
            loss = SamplesLoss(
                "sinkhorn", p=2, blur=blur, diameter=2.0, debias=False, backend=backend,
                scaling=(blur / 2.0) ** (1.0 / max(1, iterations - 2)),
            )  # fmt: skip
            x_BND, y_BMD = (torch.nn.functional.normalize(t, dim=-1) for t in tokens[:2])
            a_BN, b_BM = masses(tokens)
            if backend == "online":
                return gradient(loss(a_BN[0], x_BND[0], b_BM[0], y_BMD[0]), tokens[1])
            return gradient(loss(a_BN, x_BND, b_BM, y_BMD).sum(), tokens[1])

        return step

    return {
        "GeomLoss tensorized": Entry(run("tensorized"), "abc", (("c", 10),)),
        "GeomLoss online (KeOps)": Entry(run("online"), "c", (("c", 3),)),
    }


def ott_methods() -> dict[str, Entry]:
    import jax
    import jax.numpy as jnp
    from jax._src.interpreters import batching
    from ott.geometry import pointcloud
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    if not hasattr(jax.interpreters.batching, "is_vmappable"):
        # ott-jax 0.6.0's online mode asks for a function that jax 0.10 removed.
        jax.interpreters.batching.is_vmappable = lambda value: type(value) in batching.vmappables
    compiled: dict[tuple[int | None, int], Callable[..., object]] = {}

    def build(block: int | None, iterations: int) -> Callable[..., object]:
        solver = sinkhorn.Sinkhorn(
            min_iterations=iterations, max_iterations=iterations, inner_iterations=iterations, threshold=-1.0
        )

        def one(y, x, a, b):  # type: ignore[no-untyped-def]
            x, y = (z / jnp.maximum(jnp.linalg.norm(z, axis=-1, keepdims=True), 1e-12) for z in (x, y))
            cloud = pointcloud.PointCloud(x, y, epsilon=2 * EPSILON, batch_size=block)
            return solver(linear_problem.LinearProblem(cloud, a, b)).reg_ot_cost / 2

        def total(y, x, a, b):  # type: ignore[no-untyped-def]
            return one(y[0], x[0], a[0], b[0]) if len(x) == 1 else jax.vmap(one)(y, x, a, b).sum()

        return jax.jit(jax.value_and_grad(total))

    def run(block: int | None) -> Method:
        def step(tokens: Tokens, iterations: int) -> Tensor:
            if (block, iterations) not in compiled:
                compiled[block, iterations] = build(block, iterations)
            x_BND, y_BMD = (t.detach().numpy() for t in tokens[:2])
            _, grad = compiled[block, iterations](y_BMD, x_BND, *(t.numpy() for t in masses(tokens)))
            return torch.from_numpy(jax.device_get(grad).copy())

        return step

    return {
        "OTT-JAX dense": Entry(run(None), "abc"),
        "OTT-JAX online": Entry(run(512), "cd", (("c", 5), ("d", 1))),
    }


def methods() -> dict[str, Entry]:
    found = {
        "ours, auto": Entry(ours()),
        "ours, dense": Entry(ours(backend="dense"), "abc"),
        "ours, dense log": Entry(ours(backend="dense", domain="log"), "ab"),
        "ours, bounded": Entry(ours(backend="blockwise"), "bcdlong", (("long", 2),)),
    }
    for name, peer in (("POT", pot_methods), ("GeomLoss", geomloss_methods), ("OTT-JAX", ott_methods)):
        try:
            found |= peer()
        except ImportError as error:
            print(f"{name} left out: {error}")
    return found


def seconds_of(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def products(tokens: Tokens) -> float:
    """Seconds of x y^T and P^T x by torch.mm, the least any method with a plan computes."""
    x_BND, y_BMD = tokens[0], tokens[1].detach()
    rows = min(x_BND.shape[1], 4096)
    share_RM = torch.empty(rows, y_BMD.shape[1])

    def both() -> None:
        for x_ND, y_MD in zip(x_BND, y_BMD, strict=True):
            torch.mm(x_ND[:rows], y_MD.t(), out=share_RM)
            torch.mm(share_RM.t(), x_ND[:rows])

    return min(seconds_of(both) for _ in range(5)) * x_BND.shape[1] / rows


def measured_alone(name: str, shape: str, iterations: int) -> tuple[float, str]:
    """CPU seconds and the growth of the high-water mark in MB of one run in a process of its own."""
    command = [sys.executable, __file__, "--shapes", shape, "--iterations", str(iterations), "--alone", name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return float("inf"), "failed"
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), peak


def measure_alone(entry: Entry, shape: str, iterations: int) -> None:
    """Print what :func:`measured_alone` reads; the process does nothing else."""
    entry.run(make_tokens("warm"), 2)  # code is loaded and compiled here, and counts for nobody
    tokens = make_tokens(shape)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    seconds = seconds_of(lambda: entry.run(tokens, entry.iterations(shape, iterations)))
    print(f"{seconds:.4f} {(status('VmHWM') - before) / 1e3:.1f}")


def status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(key)).split()[1]) * 1.024


def compare(shape: str, iterations: int, repetitions: int, entries: dict[str, Entry]) -> None:
    B, T, D, shortest = SHAPES[shape]
    tokens = make_tokens(shape)
    least = products(tokens)
    print(f"\n({shape}) {B} pairs of {shortest}..{T} tokens, width {D}, {iterations} iterations, forward and gradient")
    print(f"both products by torch.mm: {least:.4f} s, {4e-9 * B * T * T * D / least:.0f} GFLOP/s")
    best, grads = dict.fromkeys(entries, float("inf")), {}
    for repetition in range(repetitions + 1 if repetitions else 0):
        for name in list(best):
            count = entries[name].iterations(shape, iterations)
            # Compilers warm up at full size; the slowest methods have nothing to warm.
            if repetition == 0 and count < iterations and "OTT" not in name:
                continue
            try:
                start = time.process_time()
                grads[name] = entries[name].run(tokens, count)
                spent = (time.process_time() - start) * iterations / count
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:90]}")
                del best[name]
                continue
            if repetition:
                best[name] = min(best[name], spent)
    alone = {name: measured_alone(name, shape, iterations) for name in best}
    for name, (seconds, _) in alone.items():
        if not repetitions:
            best[name] = seconds * iterations / entries[name].iterations(shape, iterations)
    mine = next(name for name in best if name.startswith("ours"))
    print(f"{'method':34s} {'CPU s':>9s} {'x ours':>8s} {'x mm':>7s} {'peak MB':>8s} {'gradient vs ours':>17s}")
    for name, seconds in sorted(best.items(), key=lambda item: item[1]):
        star = "*" if entries[name].iterations(shape, iterations) < iterations else " "
        error = ((grads[name] - grads[mine]).norm() / grads[mine].norm()).item() if grads else float("nan")
        row = f"{name:34s} {seconds:9.4f}{star}{seconds / best[mine]:8.2f} {seconds / least:7.2f}"
        print(f"{row} {alone[name][1]:>8s} {error:17.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["a", "b", "c", "d"])
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument(
        "--repetitions", type=int, default=3, help="0: once, in the process that measures the memory, for huge shapes"
    )
    parser.add_argument("--only", default="", help="methods whose name holds this text, and ours")
    parser.add_argument("--alone", metavar="METHOD", help="only print seconds and peak MB of one method on one shape")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    entries = methods()
    if arguments.alone:
        measure_alone(entries[arguments.alone], arguments.shapes[0], arguments.iterations)
        return
    for shape in arguments.shapes:
        fitting = {
            name: entry
            for name, entry in entries.items()
            if shape in entry.shapes and (arguments.only in name or name.startswith("ours"))
        }
        compare(shape, arguments.iterations, arguments.repetitions, fitting)


if __name__ == "__main__":
    main()
