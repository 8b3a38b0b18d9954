"""Exact late-interaction search beside the scoring of sentence-transformers and PyLate: `python benchmarks/search.py`.

Random unit vectors: 1,000 queries of 32 tokens, passages of 64 tokens, width 128. Every part runs in a process of its
own. Ours searches token matrices on disk (half precision) and keeps the best 1,000; the peers score padded tensors in
memory (float32), of which a part is enough, since their time is linear in the passages: it is scaled and marked so.
PyLate is called by the interpreter that `--pylate-python` names; without one its formula stands in for it. Either keeps
the similarities of all tokens, so it is given as many passages at a time as keep them under 400 MB;
sentence-transformers divides the work itself. The scores of all are compared on the first passages.

Private memory (RssAnon) is what the process cannot give back; it is the peak above what was there when the inputs were.
Mapped memory (RssFile) is what the kernel keeps of files because nothing else wants it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# A peer's interpreter has nothing of ours, so what is ours, or the other peer's, is imported where it is used.

QUERY_TOKENS, TOKENS, WIDTH = 32, 64, 128


def unit(count: int, tokens: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, tokens, WIDTH, generator=generator), dim=-1)


def passages(texts: list[str]) -> Any:
    """A text is the number of a passage: its own seed makes its vectors."""
    from optical_scale.batch import TokenStates

    x_BTD = torch.stack([unit(1, TOKENS, 1_000_000 + int(text))[0] for text in texts])
    ones_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool)
    return TokenStates(x_BTD, ones_BT, ones_BT)


def packed(x_BTD: Tensor) -> Any:
    from optical_scale.evaluation.encoding import EncodedSet

    offsets = torch.arange(len(x_BTD) + 1) * x_BTD.shape[1]
    return EncodedSet(x_BTD.flatten(0, 1), offsets, torch.nn.functional.normalize(x_BTD.mean(1), dim=-1))


def pylate_scores(queries: Tensor, documents: Tensor) -> Tensor:
    return torch.einsum("qnd,kmd->qknm", queries, documents).amax(-1).sum(-1)


def in_steps(score, queries: Tensor, documents: Tensor, step: int) -> None:
    for start in range(0, len(documents), step):
        score(queries, documents[start : start + step]).topk(min(step, len(documents) - start), dim=1)


class PeakMemory:
    """The largest private and mapped memory of this process inside the block, in MB; private above its start."""

    def __enter__(self) -> "PeakMemory":
        self._before = resident()[0]
        self.private = self.mapped = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            private, mapped = resident()
            self.private, self.mapped = max(self.private, private - self._before), max(self.mapped, mapped)


def resident() -> tuple[float, float]:
    """RssAnon and RssFile of this process in MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    private, mapped = (float(status[key].split()[0]) * 1024 / 1e6 for key in ("RssAnon", "RssFile"))
    return private, mapped


def measured(part: str, folder: Path, queries: int, documents: int) -> dict[str, float]:
    q_QTD = unit(queries, QUERY_TOKENS, seed=1)
    d_KTD = unit(0 if part == "ours" else documents, TOKENS, seed=2)
    step = max(1, 10**8 // (queries * QUERY_TOKENS * TOKENS))
    if part == "ours":
        from optical_scale.evaluation.search import search_matrices
        from optical_scale.evaluation.token_matrices import TokenMatrices

        matrices, query_set = TokenMatrices(folder), packed(q_QTD)
    elif part == "sentence-transformers":
        from sentence_transformers.util import maxsim
    elif part == "PyLate":
        from pylate.scores import colbert_scores
    with PeakMemory() as peak:
        began = time.perf_counter()
        if part == "ours":
            search_matrices(query_set, matrices, "late_interaction", top_k=1000)
        elif part == "sentence-transformers":
            maxsim(q_QTD, d_KTD).topk(min(1000, documents), dim=1)
        else:
            in_steps(colbert_scores if part == "PyLate" else pylate_scores, q_QTD, d_KTD, step)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "private": peak.private, "mapped": peak.mapped}


def largest_difference(queries: int = 20, documents: int = 200) -> float:
    from sentence_transformers.util import maxsim as sentence_transformers_maxsim

    from optical_scale.evaluation.scoring import maxsim

    q_QTD, d_KTD = unit(queries, QUERY_TOKENS, seed=3), unit(documents, TOKENS, seed=4)
    ours = maxsim(packed(q_QTD), packed(d_KTD))
    theirs = sentence_transformers_maxsim(q_QTD, d_KTD), pylate_scores(q_QTD, d_KTD)
    return max(float((ours - other).abs().max()) for other in theirs)


def write(folder: Path, documents: int) -> dict[str, float]:
    from optical_scale.evaluation.token_matrices import write_token_matrices
    from optical_scale.runtime.world import World

    numbers = [str(number) for number in range(documents)]
    with PeakMemory() as peak:
        began = time.perf_counter()
        write_token_matrices(folder, numbers, passages, source="random", batch_size=512, world=World())
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "private": peak.private, "mapped": peak.mapped}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--peer-passages", type=int, default=4_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pylate-python", help="an interpreter with pylate")
    parser.add_argument("--part", nargs=3, metavar=("PART", "FOLDER", "PASSAGES"), help="one part, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.part:
        part, folder, documents = arguments.part[0], Path(arguments.part[1]), int(arguments.part[2])
        found = write(folder, documents) if part == "writing" else measured(part, folder, arguments.queries, documents)
        print(json.dumps(found))
        return
    print(f"largest difference of scores: {largest_difference():.1e}")
    pylate = "PyLate" if arguments.pylate_python else "PyLate's formula"
    parts = {"writing": arguments.passages, "ours": arguments.passages}
    parts |= dict.fromkeys(("sentence-transformers", pylate), arguments.peer_passages)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for part, documents in parts.items():
            command = [arguments.pylate_python if part == "PyLate" else sys.executable, __file__]
            command += ["--queries", str(arguments.queries), "--threads", str(arguments.threads)]
            command += ["--part", part, f"{scratch}/matrices", str(documents)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds[part] = found["seconds"] * arguments.passages / documents
            scaled = "" if documents == arguments.passages else f" (scaled from {documents:,} passages)"
            memory = f"{found['private']:.0f} MB private above inputs, {found['mapped']:.0f} MB mapped"
            print(f"{part}: {seconds[part]:.1f} s{scaled}, {memory}", flush=True)
    for part in list(parts)[2:]:
        print(f"{part} / ours: {seconds[part] / seconds['ours']:.2f}")


if __name__ == "__main__":
    main()
