"""Cost of each objective, forward and backward, as a multiple of that of `mse`.

python benchmarks/objectives.py [--pairs 32] [--tokens 64] [--width 384] [--repeats 7]

Random teacher states without gradient and student states with it. The encoders, which take most of a step, are not in
the numbers. Under torchrun it measures the exchange between ranks as well.
"""

import argparse
import statistics
import time
from typing import Any

import torch
import torch.distributed as dist
from pydantic import TypeAdapter

from optical_scale.batch import TokenStates
from optical_scale.config import objectives as schema
from optical_scale.losses.objective import Moment, Objective, at
from optical_scale.recipes.build_objective import objective

TRANSPORT = {"name": "optimal_transport"}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "mse": {"name": "mse"},
    "optimal_transport": TRANSPORT,
    "… epsilon_mode: relative, epsilon: 0.15": TRANSPORT | {"epsilon_mode": "relative", "epsilon": 0.15},
    "… iterations: 5": TRANSPORT | {"iterations": 5},
    "… debias": TRANSPORT | {"debias": True},
    "… marginals: norm": TRANSPORT | {"marginals": "norm"},
    "… marginals: idf": TRANSPORT | {"marginals": "idf"},
    "… rho: 0.5": TRANSPORT | {"rho": 0.5},
    "… mass: 0.8": TRANSPORT | {"mass": 0.8},
    "… order: 0.5": TRANSPORT | {"order": 0.5},
    "… solver: ipot": TRANSPORT | {"solver": "ipot"},
    "token_mse": {"name": "token_mse"},
    "token_kl": {"name": "token_kl"},
    "greedy": {"name": "greedy"},
    "contrastive": {"name": "contrastive"},
    "… late_interaction: 1": {"name": "contrastive", "late_interaction": 1.0},
    "… exchange: turns": {"name": "contrastive", "exchange": "turns"},
    "siglip": {"name": "siglip"},
    "list_kl": {"name": "list_kl"},
}


def states(pairs: int, tokens: int, width: int, seed: int) -> TokenStates:
    """Random vectors of uneven lengths, from half of the tokens up."""
    generator = torch.Generator().manual_seed(seed)
    lengths_B1 = torch.randint(tokens // 2, tokens + 1, (pairs, 1), generator=generator)
    mask_BT = torch.arange(tokens)[None] < lengths_B1
    x_BTD, idf_BT = (torch.randn(pairs, tokens, *more, generator=generator) for more in ((width,), ()))
    return TokenStates(x_BTD, mask_BT, mask_BT, idf_BT.abs())


def seconds(loss: Objective, teacher: TokenStates, student: TokenStates) -> float:
    """One forward and backward, after which all ranks have arrived."""
    student.x_BTD.grad = None
    started = time.perf_counter()
    loss(teacher, student).sum.backward()
    return time.perf_counter() - started


def main() -> None:
    """Measure the objectives in turn, so that a slow minute of the machine falls on all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("pairs", 32), ("tokens", 64), ("width", 384), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    many = dist.is_torchelastic_launched()
    if many:
        dist.init_process_group("gloo")
    rank, size = (dist.get_rank(), dist.get_world_size()) if many else (0, 1)
    teacher = states(options.pairs, options.tokens, options.width, 2 * rank)
    student = states(options.pairs, options.tokens, options.width, 2 * rank + 1)
    student.x_BTD.requires_grad_()
    moment = Moment(0, (options.pairs,) * size)
    adapter: TypeAdapter[schema.Objective] = TypeAdapter(schema.Objective)
    losses = {name: at(objective(adapter.validate_python(values)), moment) for name, values in OBJECTIVES.items()}
    times: dict[str, list[float]] = {name: [] for name in losses}
    for repeat in range(options.repeats + 1):
        for name, loss in losses.items():
            taken = seconds(loss, teacher, student)
            if repeat:  # the first compiles and allocates
                times[name].append(taken)
    medians = {name: statistics.median(found) for name, found in times.items()}
    if not rank:
        print(f"{size} process(es), {options.pairs} pairs of {options.tokens} tokens, width {options.width}")
        print("| objective | ms | times mse |\n|---|---:|---:|")
        for name, median in medians.items():
            print(f"| `{name}` | {1e3 * median:.1f} | {median / medians['mse']:.1f} |")
    if many:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
