"""Which objective distils best? MiniLM (English) into a 2-layer student of German, French and Czech on Multi30k.

    python benchmarks/quality_multi30k.py --data ../shared/data/multi30k --minilm FOLDER --output runs/quality

Every run is the project's ordinary path (convert, tokenizer, train with evaluation) with the same initial weights, data
order, steps and learning rate; only `objective` differs. Scores are of the validation split: a foreign caption searches
1,014 English ones encoded by the teacher. Finished runs are skipped, so the command can be repeated.
"""

import argparse
import gzip
import json
import math
import subprocess
import sys
from itertools import islice
from pathlib import Path

from optical_scale.runtime.files import write_json

OT = "{name: optimal_transport, epsilon: 0.05, iterations: 10}"
MSE = "{name: mse}"
OBJECTIVES = {
    "ot": OT,
    "mse": MSE,
    "contrastive": "{name: contrastive, temperature: 0.05}",
    "ot+mse": f"{{name: mixture, parts: [{{weight: 1, objective: {OT}}}, {{weight: 1, objective: {MSE}}}]}}",
}
MODES = ("dense", "late_interaction")
ROOT = Path(__file__).parent.parent


def run(*words: str) -> None:
    """One verb of the command line, in a process of its own as users start it; any failure ends the benchmark."""
    if status := subprocess.run([sys.executable, "-m", "optical_scale", *words], check=False).returncode:
        raise SystemExit(status)


def prepare(data: Path, output: Path, pairs: int, languages: list[str]) -> Path:
    """Shards and tokenizer of the first ``pairs`` lines of every language; returns their folder."""
    folder = output / f"{pairs}"
    text = folder / "text"
    if not text.exists():
        text.mkdir(parents=True)
        for language in ("en", *languages):
            with gzip.open(data / f"task1/raw/train.{language}.gz", "rb") as source:
                (text / f"train.{language}").write_bytes(b"".join(islice(source, pairs)))
    if not (folder / "shards").exists():
        corpora = [
            f"{{format: moses, name: multi30k, language: {language}, source: train.en, target: train.{language}}}"
            for language in languages
        ]
        config = ROOT / "configs/convert/multi30k.yaml"
        held_out = ", ".join(str((data / f"task1/raw/val.{language}.gz").resolve()) for language in ("en", *languages))
        run("convert", str(config), f"folder={text}", f"output={folder / 'shards'}", f"corpora=[{', '.join(corpora)}]",
            f"filters.held_out=[{held_out}]")  # fmt: skip
    if not (output / "validation").exists():
        config = ROOT / "configs/convert/multi30k_validation.yaml"
        run("convert", str(config), f"folder={data}", f"output={output / 'validation'}")
    if not (folder / "tokenizer").exists():
        config = ROOT / "configs/tokenizer/multi30k.yaml"
        run("tokenizer", str(config), f"shards=[{folder / 'shards'}]", f"output={folder / 'tokenizer'}")
    return folder


def train(arguments: argparse.Namespace, folder: Path, pairs: int, objective: str) -> list[dict]:
    """One run; returns its evaluations before and after training."""
    target = folder / objective
    done = target / "results.json"
    if not done.exists():
        steps = math.ceil(arguments.epochs[arguments.pairs.index(pairs)] * pairs * len(arguments.languages) / 64)
        run(
            "train", str(ROOT / "configs/distill/multi30k_minilm.yaml"), f"run={target}",
            f"teacher.backbone.pretrained={arguments.minilm}", f"student.backbone.pretrained={arguments.minilm}",
            f"student.backbone.tokenizer={folder / 'tokenizer'}", f"stream.sources.0.shards={folder / 'shards'}",
            f"objective={OBJECTIVES[objective]}", "optimization.epochs=null", f"optimization.steps={steps}",
            f"evaluation.0.shards={arguments.output / 'validation'}",
            f"evaluation.0.languages=[{', '.join(arguments.languages)}]", "--processes", str(arguments.processes),
            *arguments.override,
        )  # fmt: skip
        events = [json.loads(line) for line in (target / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        write_json(done, [event for event in events if event["event"] == "evaluation"])
    return json.loads(done.read_text(encoding="utf-8"))


def table(results: dict[str, list[dict]], languages: list[str]) -> str:
    """Rows: pairs and objective; columns: R@1 dense/MaxSim by language, their means, and the difference to mse."""
    heads = ["pairs", "objective", *(f"{language} R@1" for language in languages), "mean R@1", "to mse", "mean MRR"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    means: dict[str, list[float]] = {}
    for name, events in results.items():
        pairs, objective = name.split(" ", 1)
        last = max(event["step"] for event in events)
        score = {(e["language"], e["mode"]): e["metrics"] for e in events if e["step"] == last}
        by_mode = {
            metric: [[score[language, mode][metric] for language in languages] for mode in MODES]
            for metric in ("R@1", "MRR")
        }
        means[name] = [sum(values) / len(values) for values in by_mode["R@1"]]
        base = means.get(f"{pairs} mse")
        cells = [
            pairs,
            objective,
            *("/".join(f"{value:.3f}" for value in both) for both in zip(*by_mode["R@1"], strict=True)),
            "/".join(f"{value:.3f}" for value in means[name]),
            "/".join(f"{a - b:+.3f}" for a, b in zip(means[name], base, strict=True)) if base else "",
            "/".join(f"{sum(values) / len(values):.3f}" for values in by_mode["MRR"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="checkout of the Multi30k data set")
    parser.add_argument("--minilm", type=Path, required=True, help="folder of the all-MiniLM-L6-v2 weights")
    parser.add_argument("--output", type=Path, default=Path("runs/quality"))
    parser.add_argument("--languages", nargs="+", choices=["de", "fr", "cs"], default=["de", "fr", "cs"])
    parser.add_argument("--pairs", type=int, nargs="+", default=[29_000, 2_000], help="per language")
    parser.add_argument("--epochs", type=float, nargs="+", default=[1, 8], help="for each of --pairs")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=["mse", "ot", "contrastive", "ot+mse"])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--override", nargs="*", default=[], help="dotted overrides for every run")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[dict]] = {}
    for pairs in arguments.pairs:
        folder = prepare(arguments.data, arguments.output, pairs, arguments.languages)
        for objective in arguments.objectives:
            results[f"{pairs} {objective}"] = train(arguments, folder, pairs, objective)
            print(table(results, arguments.languages), flush=True)
    untrained = next(iter(results.values()))
    for event in untrained:
        if event["step"] == 0:
            print(f"before training: {event['language']} {event['mode']} R@1 {event['metrics']['R@1']:.3f}")
    write_json(arguments.output / "results.json", results)


if __name__ == "__main__":
    main()
