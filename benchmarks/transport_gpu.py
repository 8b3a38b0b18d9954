"""Transport on a GPU, forward and student gradient, against peers: `python benchmarks/transport_gpu.py`.

Peers run in the same process, if installed: flash-sinkhorn (which allows TF32 products by default), GeomLoss on KeOps,
POT (plan detached by hand), and a dense log-domain loop under torch.compile. Each row gives the median time, the ratio
to ours, the peak of memory above the inputs, and the gradient's distance to a float64 solve where that fits. Without a
GPU, `--roofline` prints the predictions and `--compile` what the kernels take of a multiprocessor on sm_90.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optical_scale.transport import sinkhorn_cost
from optical_scale.transport.triton.launch import FusedLaunch


class Shape(NamedTuple):
    """A benchmark: pairs, tokens at most and at least, width, and the time aimed at on an H200."""

    B: int
    T: int
    D: int
    shortest: int
    target_us: float


SHAPES = {
    "a": Shape(64, 64, 384, 16, 35),
    "b": Shape(8, 512, 768, 512, 200),
    "c": Shape(1, 4096, 128, 4096, 800),
    "d": Shape(1, 16384, 128, 16384, 10_000),
    "e": Shape(512, 128, 1024, 16, 250),
    "f": Shape(1, 65536, 128, 65536, 170_000),
}
EPSILON = 0.1
TIERS = ("triton_pairs", "triton_stored", "triton_tiles")
Step = Callable[[], Tensor]

# H200: bfloat16 products and copies as measured on one elsewhere, the rest from its clock and data sheet.
PRODUCTS, MEMORY, CACHE, PROCESSORS, CLOCK, LAUNCH = 790e12, 4.3e12, 6e12, 132, 1.98e9, 2.5e-6
EXPONENTIALS, MULTIPLY_ADDS = 16 * PROCESSORS * CLOCK, 128 * PROCESSORS * CLOCK


def roofline(shape: Shape, tier: str, iterations: int) -> float:
    """Seconds of the bfloat16 solve and its gradient, without the launches that prepare features and add up costs."""
    elements = shape.B * shape.T * shape.T
    product, exponential = 2 * elements * shape.D / PRODUCTS, elements / EXPONENTIALS
    features, gradient = (count * shape.B * shape.T * shape.D * 2 / MEMORY for count in (2, 1))
    # The gradient's product runs twice, for the two halves of the split plan.
    last = 2 * product + gradient
    if tier == "triton_pairs":
        # Two reductions over registers per iteration: a dependent chain of about 280 clocks each. One launch; vectors
        # are read again for the gradient, from the cache where they fit; the backward pass scales what was kept.
        waves = -(-shape.B // (2 * PROCESSORS))
        chain = iterations * 2 * 280 / CLOCK * waves
        work = max(2 * elements * iterations / MULTIPLY_ADDS, chain) + exponential
        again = max(features * MEMORY / CACHE, 2 * product)
        return max(features, product) + work + again + 3 * gradient + 2 * LAUNCH
    if tier == "triton_stored":
        stored = 2 * elements / (CACHE if 2 * elements < 40e6 else MEMORY)
        reads = 1 if shape.T <= 16_384 else 2
        launches = 1 if shape.T <= 512 else 2
        return (
            features
            + product
            + stored
            + exponential
            + iterations * (reads * stored + launches * LAUNCH)
            + stored
            + last
        )
    blocks = -(-shape.D // 128)
    recomputed = iterations * (2 * (product + exponential) + 2 * LAUNCH)
    return features + recomputed + (blocks * product + exponential) + last


def make_tokens(shape: Shape, dtype: torch.dtype) -> tuple[Tensor, ...]:
    generator = torch.Generator("cuda").manual_seed(0)
    options = {"device": "cuda", "generator": generator}
    x_BND = torch.randn(shape.B, shape.T, shape.D, **options)
    y_BMD = (0.5 * x_BND.flip(1) + torch.randn(shape.B, shape.T, shape.D, **options)).to(dtype).requires_grad_()
    lengths = [torch.randint(shape.shortest, shape.T + 1, (shape.B, 1), **options) for _ in range(2)]
    masks = [torch.arange(shape.T, device="cuda") < length_B1 for length_B1 in lengths]
    return x_BND.to(dtype), y_BMD, *masks


def ours(tokens: tuple[Tensor, ...], iterations: int, backend: str, **options: object) -> Step:
    settings = {"epsilon": EPSILON, "iterations": iterations, "check": False, **options}
    return lambda: sinkhorn_cost(*tokens, backend=backend, **settings).cost_B.sum()


def graphed(step: Step, student: Tensor) -> Callable[[], None]:
    """Forward and backward captured in a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            torch.autograd.grad(step(), student)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.autograd.grad(step(), student)
    return graph.replay


def detached(tokens: tuple[Tensor, ...], plan: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Step:
    x_BND, y_BMD, mask_x_BN, mask_y_BM = tokens
    a_BN, b_BM = (mask / mask.sum(1, keepdim=True) for mask in (mask_x_BN.float(), mask_y_BM.float()))

    def step() -> Tensor:
        normalize = torch.nn.functional.normalize
        cost_BNM = 1 - normalize(x_BND.float(), dim=-1) @ normalize(y_BMD.float(), dim=-1).mT
        with torch.no_grad():
            plan_BNM = plan(cost_BNM.detach(), a_BN, b_BM)
        return (plan_BNM * cost_BNM).sum()

    return step


def compiled_log(iterations: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    @torch.compile(dynamic=False)
    def iterate(kernel_BNM: Tensor, g_BM: Tensor, log_a_BN: Tensor, log_b_BM: Tensor) -> tuple[Tensor, Tensor]:
        f_BN = -torch.logsumexp(kernel_BNM + (g_BM + log_b_BM)[:, None], 2)
        return f_BN, -torch.logsumexp(kernel_BNM + (f_BN + log_a_BN)[:, :, None], 1)

    def plan(cost_BNM: Tensor, a_BN: Tensor, b_BM: Tensor) -> Tensor:
        kernel_BNM, g_BM = cost_BNM / -EPSILON, torch.zeros_like(b_BM)
        for _ in range(iterations):
            f_BN, g_BM = iterate(kernel_BNM, g_BM, a_BN.log(), b_BM.log())
        return torch.exp(kernel_BNM + (f_BN + a_BN.log())[:, :, None] + (g_BM + b_BM.log())[:, None])

    return plan


def pot(iterations: int) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    try:
        import ot
    except ImportError:
        return None
    settings = {"method": "sinkhorn", "numItermax": iterations, "stopThr": 0.0, "warn": False}

    def plan(cost_BNM: Tensor, a_BN: Tensor, b_BM: Tensor) -> Tensor:
        plans = (ot.sinkhorn(a, b, cost, EPSILON, **settings) for a, b, cost in zip(a_BN, b_BM, cost_BNM, strict=True))
        return torch.stack(list(plans))

    return plan


def sampled(tokens: tuple[Tensor, ...], loss: Callable[..., Tensor]) -> Step:
    """A peer that takes unit vectors of one pair with half the squared distance, which is the cosine cost."""

    def step() -> Tensor:
        total = tokens[0].new_zeros((), dtype=torch.float32)
        for x_ND, y_MD, mask_x_N, mask_y_M in zip(*tokens, strict=True):
            unit = [torch.nn.functional.normalize(t.float(), dim=-1) for t in (x_ND[mask_x_N], y_MD[mask_y_M])]
            total = total + loss(*unit)
        return total

    return step


def peers(tokens: tuple[Tensor, ...], shape: Shape, iterations: int) -> Iterator[tuple[str, Step]]:
    if shape.B * shape.T**2 <= 1 << 29:
        yield "torch.compile, dense log", detached(tokens, compiled_log(iterations))
        plan = pot(iterations)
        if plan is not None:
            yield "POT sinkhorn", detached(tokens, plan)
    try:
        from flash_sinkhorn import SamplesLoss
    except ImportError:
        pass
    else:
        options = {
            "half_cost": True,
            "n_iters": iterations,
            "debias": False,
            "normalize": False,
            "use_epsilon_scaling": False,
        }
        yield "flash-sinkhorn", sampled(tokens, SamplesLoss("sinkhorn", eps=EPSILON, **options))
    try:
        import pykeops  # noqa: F401
        from geomloss import SamplesLoss as KeopsLoss
    except ImportError:
        return
    # Scaling chosen so that annealing takes about as many iterations as the others run.
    scaling = (EPSILON**0.5 / 2) ** (1 / iterations)
    loss = KeopsLoss("sinkhorn", p=2, blur=EPSILON**0.5, scaling=scaling, diameter=2.0, debias=False, backend="online")
    yield "GeomLoss on KeOps", sampled(tokens, loss)


def microseconds(call: Callable[[], object], seconds: float) -> float:
    """The median over at most 20 calls, or as many as fit the seconds."""
    started = time.perf_counter()
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    times: list[float] = []
    while len(times) < 3 or (len(times) < 20 and time.perf_counter() - started < seconds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) * 1e3)
    return statistics.median(times)


def steps_of_ours(tokens: tuple[Tensor, ...], shape: Shape, iterations: int) -> dict[str, Step]:
    fits = [tier for tier in TIERS if tier != "triton_pairs" or shape.T <= 256]
    steps = {f"ours, {tier}": ours(tokens, iterations, tier) for tier in fits}
    if shape.B * shape.T**2 <= 1 << 29:
        steps["ours, auto"] = ours(tokens, iterations, "auto")
    return steps


def exact_gradient(tokens: tuple[Tensor, ...], shape: Shape, iterations: int) -> Tensor | None:
    """Of the student, by a float64 solve of as many iterations, where that fits."""
    if shape.B * shape.T**2 > 1 << 26:
        return None
    wide = (tokens[0].double(), tokens[1].detach().double().requires_grad_(), *tokens[2:])
    options = {"epsilon": EPSILON, "iterations": iterations, "backend": "dense", "domain": "log", "check": False}
    return torch.autograd.grad(sinkhorn_cost(*wide, **options).cost_B.sum(), wide[1])[0]


def measure(name: str, shape: Shape, dtype: torch.dtype, iterations: int, seconds: float) -> list[dict[str, Any]]:
    """Correctness of every method first, then its times; a method that fails is a row that says so."""
    tokens = make_tokens(shape, dtype)
    student, exact = tokens[1], exact_gradient(tokens, shape, iterations)
    mine = steps_of_ours(tokens, shape, iterations)
    steps = mine | dict(peers(tokens, shape, iterations))
    rows = []
    for key, step in steps.items():
        row: dict[str, Any] = {"shape": name, "method": key, "dtype": str(dtype), "iterations": iterations}
        rows.append(row)
        try:
            call = lambda step=step: torch.autograd.grad(step(), student)  # noqa: E731
            gradient = call()[0]
            if exact is not None:
                row["gradient_error"] = float((gradient.double() - exact).norm() / exact.norm())
            del gradient
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            row["us"] = microseconds(call, seconds)
            row["peak_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
            if key in mine:
                row["graph_us"] = microseconds(graphed(step, student), seconds)
        except Exception as error:  # A peer that cannot do a shape must not end the run.
            row["error"] = f"{type(error).__name__}: {error}"[:300]
    print_rows(name, shape, rows)
    return rows


def best(rows: list[dict[str, Any]]) -> float:
    """Microseconds of our fastest method, in a CUDA graph or not; infinite if none ran."""
    own = [row for row in rows if row["method"].startswith("ours")]
    return min((row[key] for row in own for key in ("us", "graph_us") if key in row), default=float("inf"))


def print_rows(name: str, shape: Shape, rows: list[dict[str, Any]]) -> None:
    fastest = best(rows)
    print(f"\n({name}) {shape}, epsilon {EPSILON}")
    print(f"{'method':28s} {'us':>10s} {'graph us':>10s} {'x ours':>7s} {'peak MiB':>9s} {'gradient error':>15s}")
    for row in rows:
        if "us" not in row:
            print(f"{row['method']:28s} failed: {row.get('error')}")
            continue
        graph = f"{row['graph_us']:10.1f}" if "graph_us" in row else " " * 10
        error = f"{row['gradient_error']:15.1e}" if "gradient_error" in row else " " * 15
        ratio = min(row["us"], row.get("graph_us", row["us"])) / fastest
        print(f"{row['method']:28s} {row['us']:10.1f} {graph} {ratio:7.2f} {row['peak_mib']:9.1f} {error}")
    state = "met" if fastest <= shape.target_us else f"missed by {fastest / shape.target_us:.2f}x"
    print(f"mark {shape.target_us:,.0f} us: best {fastest:,.1f} us, {state}", flush=True)


def print_roofline(iterations: int) -> None:
    print("| shape | " + " | ".join(TIERS) + " | target |\n|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        cells = [
            "-" if tier == "triton_pairs" and shape.T > 256 else f"{roofline(shape, tier, iterations) * 1e6:,.0f}"
            for tier in TIERS
        ]
        print(f"| {name} {shape.B} x {shape.T}², D {shape.D} | {' | '.join(cells)} | {shape.target_us:,.0f} |")


def print_compiled() -> None:
    from optical_scale.transport.triton import ahead, fused, kernels, pairs

    print("| kernel | warps | registers | stack bytes | shared bytes | products |\n|---|---|---|---|---|---|")
    common = {"PRECISION": "ieee", "INTERPRETED": False, "BALANCED": True}
    half = dict.fromkeys(("x", "y", "stored", "values", "grad_x", "grad_y"), "*bf16") | {"active": "*i32"}
    half |= {"mask_x": "*u8", "mask_y": "*u8", "ends_x": "*i64", "ends_y": "*i64", "unit": "fp32"}
    whole = dict.fromkeys(("MASKED_X", "MASKED_Y", "NEEDS_Y"), True)
    whole |= dict.fromkeys(("PACKED", "GIVEN_X", "GIVEN_Y", "NEEDS_X"), False)
    tile = {"BN": 128, "BM": 128, "BK": 64}
    cases = [("half step", kernels.half_step, {**tile, "PARTS": 4, "STORED": False, "RESIDENT": False}, 8)]
    cases += [("build", kernels.build, tile, 8)]
    cases += [
        (f"pairs {T} x {T}", pairs.solve_pairs, {"BN": T, "BM": T, "BK": 64}, 4 if T <= 64 else 8)
        for T in (32, 64, 128)
    ]
    fits = [FusedLaunch.of(torch.bfloat16, T, T, 384) for T in (32, 64, 128)]
    cases += [(f"fused {fit.BN} x {fit.BM}", fused.fused_pairs, {**whole, **fit.blocks}, fit.warps) for fit in fits]
    sizes = ((512, 32, 16), (4096, 4, 16), (16384, 1, 16))
    cases += [
        (f"sweep {R} x {BM}", kernels.sweep, {"R": R, "BM": BM, "PANELS": 16, "PARTS": 16}, warps)
        for BM, R, warps in sizes
    ]
    plan = {"BN": 64, "BM": 64, "BK": 64, "BE": 128, "SPLIT": True, "FACTORS": True}
    cases += [(f"apply, stored {stored}", kernels.apply, {**plan, "STORED": stored}, 4) for stored in (False, True)]
    for name, kernel, blocks, warps in cases:
        for log in (False, True):
            chosen = {key: value for key, value in {**common, **blocks, "LOG": log}.items() if key in kernel.arg_names}
            pointers = half | ({"stored": "*fp32"} if log else {})
            usage = ahead.compile_kernel(kernel, chosen, pointers, warps=warps)
            row = f"| {usage.registers} | {usage.stack} | {usage.shared} | {usage.products} |"
            print(f"| {name}, {'log' if log else 'exp'} | {warps} {row}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement, at most, after two warm calls")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds after which no further shape is begun")
    parser.add_argument("--out", type=Path, default=Path("transport_gpu.json"))
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--roofline", action="store_true", help="only print the predictions")
    parser.add_argument("--compile", action="store_true", help="only compile the kernels for sm_90")
    arguments = parser.parse_args()
    if arguments.compile:
        print_compiled()
        return
    print_roofline(arguments.iterations)
    if arguments.roofline:
        return
    if not torch.cuda.is_available():
        raise SystemExit("No CUDA device: nothing was measured. --roofline and --compile work without one.")
    started, device = time.monotonic(), torch.cuda.get_device_name()
    print(f"\n{device}, torch {torch.__version__}")
    report: dict[str, Any] = {"device": device, "torch": torch.__version__, "epsilon": EPSILON, "rows": []}
    for name in arguments.shapes:
        if time.monotonic() - started > arguments.budget:
            print(f"\n({name}) not begun: {arguments.budget:g} seconds are over")
            continue
        dtype = getattr(torch, arguments.dtype)
        report["rows"] += measure(name, SHAPES[name], dtype, arguments.iterations, arguments.seconds)
        torch.cuda.empty_cache()
        # After every shape, so that a run that is cut off has left what it measured.
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
