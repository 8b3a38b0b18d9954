"""Exact late-interaction search beside the scoring of sentence-transformers and PyLate: `python benchmarks/search.py`.

Random unit vectors: 1,000 queries of 32 tokens, passages of 64 tokens, width 128. Every part runs in a process of its
own, whose peak of resident memory is reported. Ours searches token matrices on disk (half precision) and keeps the
best 1,000; the peers score padded tensors in memory (float32), of which a part is enough, since their time is linear
in the passages: it is scaled and marked so. PyLate's scoring is one einsum over all pairs, as its documentation gives
it, called on as many passages at a time as keep its similarities under 400 MB; sentence-transformers divides the work
itself. The scores of all three are compared on the first passages.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from sentence_transformers.util import maxsim as sentence_transformers_maxsim
from torch import Tensor

from optical_scale.batch import TokenStates
from optical_scale.evaluation.encoding import EncodedSet
from optical_scale.evaluation.scoring import maxsim
from optical_scale.evaluation.search import search_matrices
from optical_scale.evaluation.token_matrices import TokenMatrices, write_token_matrices
from optical_scale.runtime.world import World

QUERY_TOKENS, TOKENS, WIDTH = 32, 64, 128


def unit(count: int, tokens: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, tokens, WIDTH, generator=generator), dim=-1)


def passages(texts: list[str]) -> TokenStates:
    """A text is the number of a passage: its own seed makes its vectors."""
    x_BTD = torch.stack([unit(1, TOKENS, 1_000_000 + int(text))[0] for text in texts])
    ones_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool)
    return TokenStates(x_BTD, ones_BT, ones_BT)


def packed(x_BTD: Tensor) -> EncodedSet:
    offsets = torch.arange(len(x_BTD) + 1) * x_BTD.shape[1]
    return EncodedSet(x_BTD.flatten(0, 1), offsets, torch.nn.functional.normalize(x_BTD.mean(1), dim=-1))


def pylate_scores(queries: Tensor, documents: Tensor) -> Tensor:
    return torch.einsum("qnd,kmd->qknm", queries, documents).amax(-1).sum(-1)


def in_steps(score, queries: Tensor, documents: Tensor, step: int) -> None:
    for start in range(0, len(documents), step):
        score(queries, documents[start : start + step]).topk(min(step, len(documents) - start), dim=1)


def measured(part: str, folder: Path, queries: int, documents: int) -> dict[str, float]:
    q_QTD = unit(queries, QUERY_TOKENS, seed=1)
    d_KTD = unit(0 if part == "ours" else documents, TOKENS, seed=2)
    if part == "ours":
        matrices = TokenMatrices(folder)
    began = time.perf_counter()
    if part == "ours":
        search_matrices(packed(q_QTD), matrices, "late_interaction", top_k=1000)
    elif part == "sentence-transformers":
        sentence_transformers_maxsim(q_QTD, d_KTD).topk(min(1000, documents), dim=1)
    else:
        in_steps(pylate_scores, q_QTD, d_KTD, max(1, 10**8 // (queries * QUERY_TOKENS * TOKENS)))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_gb": peak_gb()}


def peak_gb() -> float:
    """Highest resident memory since this program started; getrusage would count that of the parent as well."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


def largest_difference(queries: int = 20, documents: int = 200) -> float:
    q_QTD, d_KTD = unit(queries, QUERY_TOKENS, seed=3), unit(documents, TOKENS, seed=4)
    ours = maxsim(packed(q_QTD), packed(d_KTD))
    theirs = sentence_transformers_maxsim(q_QTD, d_KTD), pylate_scores(q_QTD, d_KTD)
    return max(float((ours - other).abs().max()) for other in theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--peer-passages", type=int, default=4_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", nargs=3, metavar=("PART", "FOLDER", "PASSAGES"), help="one part, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.part:
        part, folder, documents = arguments.part
        print(json.dumps(measured(part, Path(folder), arguments.queries, int(documents))))
        return
    print(f"largest difference of scores: {largest_difference():.1e}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "matrices"
        numbers = [str(number) for number in range(arguments.passages)]
        began = time.perf_counter()
        write_token_matrices(folder, numbers, passages, source="random", batch_size=512, world=World())
        seconds_written = time.perf_counter() - began
        print(f"writing {arguments.passages:,} passages: {seconds_written:.1f} s, peak {peak_gb():.2f} GB", flush=True)
        parts = {"ours": arguments.passages} | dict.fromkeys(
            ("sentence-transformers", "PyLate's formula"), arguments.peer_passages
        )
        seconds: dict[str, float] = {}
        for part, documents in parts.items():
            command = [sys.executable, __file__, "--queries", str(arguments.queries)]
            command += ["--threads", str(arguments.threads), "--part", part, str(folder), str(documents)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds[part] = found["seconds"] * arguments.passages / documents
            scaled = "" if documents == arguments.passages else f" (scaled from {documents:,} passages)"
            print(f"{part}: {seconds[part]:.1f} s{scaled}, peak {found['peak_gb']:.2f} GB", flush=True)
        for part in list(parts)[1:]:
            print(f"{part} / ours: {seconds[part] / seconds['ours']:.2f}")


if __name__ == "__main__":
    main()
