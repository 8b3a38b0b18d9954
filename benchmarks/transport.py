"""Transport cost, forward and backward, against POT in one process: `python benchmarks/transport.py [--shapes a b c]`.

Times are process CPU seconds of one thread, the minimum over alternated repetitions, so that a busy machine slows every
method alike; only the ratios are meant to be quoted. Peers are imported if installed. Their plan is detached by hand,
because their own gradients keep the whole loop or differentiate something else.
"""

import argparse
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from optical_scale.transport import sinkhorn_cost

SHAPES = {"a": (64, 64, 384, 16), "b": (8, 512, 768, 512), "c": (1, 4096, 128, 4096)}
EPSILON = 0.1
Step = Callable[[], Tensor]


def make_tokens(shape: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, T, D, shortest = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    x_BND = torch.randn(B, T, D, generator=generator)
    y_BMD = (0.5 * x_BND.flip(1) + torch.randn(B, T, D, generator=generator)).requires_grad_()
    lengths_B1, lengths_y_B1 = (torch.randint(shortest, T + 1, (B, 1), generator=generator) for _ in range(2))
    return x_BND, y_BMD, torch.arange(T) < lengths_B1, torch.arange(T) < lengths_y_B1


def ours(tokens: tuple[Tensor, ...], **options: object) -> Step:
    return lambda: sinkhorn_cost(*tokens, epsilon=EPSILON, **options).cost_B.sum()


def detached_plan_cost(tokens: tuple[Tensor, ...], plans: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Step:
    x_BND, y_BMD, mask_x_BN, mask_y_BM = tokens
    a_BN, b_BM = (mask / mask.sum(1, keepdim=True) for mask in (mask_x_BN.float(), mask_y_BM.float()))

    def step() -> Tensor:
        normalize = torch.nn.functional.normalize
        cost_BNM = 1 - normalize(x_BND, dim=-1) @ normalize(y_BMD, dim=-1).mT
        with torch.no_grad():
            plan_BNM = plans(cost_BNM.detach(), a_BN, b_BM)
        return (plan_BNM * cost_BNM).sum()

    return step


def peers(tokens: tuple[Tensor, ...], iterations: int) -> Mapping[str, Step]:
    try:
        import ot
        import ot.batch
    except ImportError:
        return {}
    settings = {"numItermax": iterations, "stopThr": 0.0, "warn": False}

    def one_by_one(method: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def plans(cost_BNM: Tensor, a_BN: Tensor, b_BM: Tensor) -> Tensor:
            plan_BNM = torch.zeros_like(cost_BNM)
            for cost_NM, a_N, b_M, plan_NM in zip(cost_BNM, a_BN, b_BM, plan_BNM, strict=True):
                n, m = int((a_N > 0).sum()), int((b_M > 0).sum())
                plan_NM[:n, :m] = ot.sinkhorn(a_N[:n], b_M[:m], cost_NM[:n, :m], EPSILON, method=method, **settings)
            return plan_BNM

        return plans

    def batched(cost_BNM: Tensor, a_BN: Tensor, b_BM: Tensor) -> Tensor:
        # Zero masses stand for padding; their logarithm is minus infinity.
        result = ot.batch.solve_batch(
            cost_BNM, EPSILON, a=a_BN, b=b_BM, max_iter=iterations, tol=0.0, reg_type="entropy", grad="detach"
        )
        return result.plan

    return {
        "POT sinkhorn, detached plan": detached_plan_cost(tokens, one_by_one("sinkhorn")),
        "POT sinkhorn_log, detached plan": detached_plan_cost(tokens, one_by_one("sinkhorn_log")),
        "POT batch, detached plan": detached_plan_cost(tokens, batched),
    }


def methods(shape: str, tokens: tuple[Tensor, ...], iterations: int) -> dict[str, Step]:
    mine = {"ours, auto": ours(tokens, iterations=iterations)}
    mine["ours, dense log"] = ours(tokens, iterations=iterations, backend="dense", domain="log")
    if shape != "a":
        mine["ours, blockwise"] = ours(tokens, iterations=iterations, backend="blockwise")
    return mine | dict(peers(tokens, iterations))


def measure(steps: Mapping[str, Step], y_BMD: Tensor, repetitions: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    seconds = dict.fromkeys(steps, float("inf"))
    gradients = {}
    for _ in range(repetitions):
        for name, step in steps.items():
            y_BMD.grad = None
            start = time.process_time()
            step().backward()
            seconds[name] = min(seconds[name], time.process_time() - start)
            assert y_BMD.grad is not None
            gradients[name] = y_BMD.grad
    return seconds, gradients


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for shape in arguments.shapes:
        tokens = make_tokens(shape)
        B, T, D, shortest = SHAPES[shape]
        print(f"\n({shape}) {B} pairs, {shortest}..{T} tokens, width {D}, {arguments.iterations} iterations, fwd+bwd")
        print(f"{'method':34s} {'CPU s':>9s} {'x ours':>8s} {'gradient vs ours':>17s}")
        seconds, gradients = measure(methods(shape, tokens, arguments.iterations), tokens[1], arguments.repetitions)
        mine = gradients["ours, auto"]
        for name, second in sorted(seconds.items(), key=lambda item: item[1]):
            error = ((gradients[name] - mine).norm() / mine.norm()).item()
            print(f"{name:34s} {second:9.4f} {second / seconds['ours, auto']:8.2f} {error:17.1e}")


if __name__ == "__main__":
    main()
