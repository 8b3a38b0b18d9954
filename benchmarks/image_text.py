"""Prepares the study of images and captions in docs: photographs of Flickr30k with captions in three languages.

    python benchmarks/image_text.py --data ../shared/data --minilm FOLDER --output studies/data/image_text

Images come in three parts that share none: training (captions in English), validation (every tenth image of the list
of training images; captions in English, German and Portuguese), and the images of Flickr30k-Entities whose phrases have
boxes, two of three for training and one for grounding. A text student of MiniLM learns English, German and Portuguese
from Multi30k without the captions of images of the last two parts; it reads the captions of the study. Its teacher
states of the training captions are cached for all cells.
"""

import argparse
import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

from optical_scale.runtime.files import write_atomic, write_json

LANGUAGES = {"en": "results_20130124.token", "de": "results.de.token", "pt": "results.pt.token"}
HELD_OUT_EVERY, GROUNDING_EVERY = 10, 3
PAIRS = 5_000
TEXT_STUDENT = Path(__file__).parent.parent / "configs/distill/multi30k_minilm.yaml"
TEXT_OBJECTIVE = (
    "{name: mixture, parts: [{weight: 1, objective: {name: optimal_transport, epsilon: 0.05, iterations: 10}}, "
    "{weight: 1, objective: {name: mse}}]}"
)
STUDY_BASE = Path(__file__).parent.parent / "configs/distill/image_text.yaml"


def run(*words: str) -> None:
    """One verb of the command line; any failure ends the script."""
    if status := subprocess.run([sys.executable, "-m", "optical_scale", *words], check=False).returncode:
        raise SystemExit(status)


def lines(path: Path) -> list[str]:
    """Lines of a plain or gzipped file; only a line feed ends one."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return content.decode("utf-8").removesuffix("\n").split("\n")


def write_lines(path: Path, content: list[str]) -> Path:
    """A text file; returns its absolute path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(f"{line}\n" for line in content))
    return path.resolve()


def convert(folder: Path, part: str, *corpora: dict[str, Any], **filters: Any) -> None:
    """Write ``part`` unless it is there."""
    if not (folder / part).exists():
        write_json(folder / f"{part}.yaml", {"output": str(folder / part), "corpora": corpora, "filters": filters})
        run("convert", str(folder / f"{part}.yaml"))  # JSON is YAML


def images(data: Path, folder: Path) -> list[str]:
    """Convert the four parts; returns the images of all but the first."""
    flickr, entities = data / "flickr30k", data / "flickr30k_entities"
    train, boxed = lines(flickr / "train_with_image.txt"), lines(flickr / "val_with_image.txt")
    parts = {
        "train": [image for place, image in enumerate(train) if place % HELD_OUT_EVERY],
        "validation": train[::HELD_OUT_EVERY],
        "phrases": [image for place, image in enumerate(boxed) if place % GROUNDING_EVERY],
        "grounding": boxed[::GROUNDING_EVERY],
    }
    pictures = {"short_side": 160, "quality": 90}
    for part, wanted in parts.items():
        split = write_lines(folder / "lists" / f"{part}.txt", wanted)
        common: dict[str, Any] = {"name": f"flickr-{part}", "images": str(flickr.resolve() / "flickr30k-images")}
        if part in ("train", "validation"):
            languages = LANGUAGES if part == "validation" else {"en": LANGUAGES["en"]}
            captions = {language: str((flickr / name).resolve()) for language, name in languages.items()}
            corpus = {"format": "flickr_captions", "captions": captions, "splits": {part: str(split)}}
            corpus |= {"pictures": pictures}
        else:
            corpus = {"format": "flickr30k_entities", "path": str(entities.resolve()), "split": str(split)}
        convert(folder, part, common | corpus)
    return [image for part, wanted in parts.items() if part != "train" for image in wanted]


def text_student(data: Path, folder: Path, minilm: Path, held_out: list[str]) -> None:
    """Distil MiniLM into a reader of the three languages; none of its pairs describes a held-out image."""
    raw = data / "multi30k" / "task1"
    names = [name.partition(".")[0] for name in lines(raw / "image_splits" / "train.txt")]
    english = lines(raw / "raw" / "train.en.gz")
    others = {"en": english, "de": lines(raw / "raw" / "train.de.gz")}
    others["pt"] = lines(data / "multi30k-pt" / "task1" / "raw" / "train.pt.gz")
    unseen = set(held_out)
    kept = [place for place, name in enumerate(names) if name not in unseen][:PAIRS]
    corpora = []
    for language, target in others.items():
        assert len(target) == len(english) == len(names), language
        sides = {"source": english, "target": target}
        files = {
            side: str(write_lines(folder / "text" / f"{language}.{side}", [text[place] for place in kept]))
            for side, text in sides.items()
        }
        corpora.append({"format": "moses", "name": f"multi30k-{language}", "language": language, **files})
    convert(folder, "bitext", *corpora)
    tokenizer = folder / "tokenizer"
    if not tokenizer.exists():
        run("tokenizer", str(TEXT_STUDENT.parent.parent / "tokenizer/multi30k.yaml"),
            f"output={tokenizer}", f"shards=[{folder / 'bitext'}]")  # fmt: skip
    if not (folder / "texts").exists():
        run("train", str(TEXT_STUDENT), f"run={folder / 'text_run'}", f"teacher.backbone.pretrained={minilm}",
            f"student.backbone.pretrained={minilm}", f"student.backbone.tokenizer={tokenizer}",
            f"objective={TEXT_OBJECTIVE}", f"stream.sources=[{{shards: {folder / 'bitext'}}}]",
            "evaluation=[]")  # fmt: skip
        run("export", str(folder / "text_run"), "--output", str(folder / "texts"))


def main() -> None:
    """Prepare everything that configs/study/image_text.yaml reads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minilm", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    folder = arguments.output
    held_out = images(arguments.data, folder)
    if not (folder / "cache").exists():
        run("cache", str(STUDY_BASE), f"teacher.backbone.pretrained={arguments.minilm}",
            f"teacher.cache.folder={folder / 'cache'}",
            f"stream.sources=[{{shards: {folder / 'train'}}}, {{shards: {folder / 'phrases'}}}]")  # fmt: skip
    text_student(arguments.data, folder, arguments.minilm, held_out)


if __name__ == "__main__":
    main()
