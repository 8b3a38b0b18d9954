"""Prepares the corpora of the studies in docs: real text, cut to stated numbers of pairs, with validation parts.

    python benchmarks/low_resource.py --data ../shared/data --output studies/data

Writes text files, shards and tokenizers for eight settings:

- ``tico``: TICO-19 in Swahili, Hausa, Tagalog and Marathi; the last 400 lines are validation. Not Somali: from about
  line 600 on its lines are not those of the English file (their lengths correlate by 0.04 to 0.34, where the other
  languages have 0.96), and a student scores 0.07 where it has 0.65 in the others;
- ``somali`` and ``bible``: see the functions; ``swahili``: the first 1,500 pairs of LAFAND-MT, and the first 400 of its
  development part, late in taking part in choices (docs/study_recipe.md);
- ``captions``: Multi30k in German, French, Czech and Portuguese with 1,500 pairs each, and in Bodo, Guarani, Quechua
  and Aymara with 300 each; the first 400 lines of its validation part are validation. (Portuguese and the last four
  come from extensions of Multi30k; Guarani, Quechua and Aymara are machine-made.)
- ``captions_2000`` and ``captions_29000``: Multi30k in Czech, French and German, the first 2,000 lines and all of them;
  validation is the first 400 lines of its validation part, and all 1,014.
- ``news``: LAFAND-MT in Hausa, Igbo, Yoruba, Zulu and Twi, 3,023 to 6,856 lines each, of which 3,021 to 6,707 pairs
  are left without duplicates and texts of validation; the first 300 lines of its development part are validation.
  Beside it the collection ``afriqa``: questions in these languages, as their speakers asked them and as people put them
  into English, and the English passages of Wikipedia that answer them.

Every language of ``tico``, ``bible`` and ``captions`` has the same English validation text, so that languages differ in
nothing else.
"""

import argparse
import gzip
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

from optical_scale.runtime.files import write_atomic, write_json

VALIDATION = 400
LOW = {"brx": "multi30k-brx", "gn": "multi30k-mt", "qu": "multi30k-mt", "ay": "multi30k-mt"}
HIGH = {"de": "multi30k", "fr": "multi30k", "cs": "multi30k", "pt": "multi30k-pt"}


def run(*words: str) -> None:
    """One verb of the command line; any failure ends the script."""
    if status := subprocess.run([sys.executable, "-m", "optical_scale", *words], check=False).returncode:
        raise SystemExit(status)


def lines(path: Path) -> list[str]:
    """Lines of a plain or gzipped file; only a line feed ends one."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return content.decode("utf-8").removesuffix("\n").split("\n")


def find(folder: Path, part: str, language: str) -> Path:
    """The file of one language and part, wherever its collection keeps it."""
    (found,) = [p for p in folder.rglob(f"{part}.*") if p.name.split(".")[1].split("-")[0].lower() == language]
    return found


def write_pair(folder: Path, part: str, language: str, english: list[str], other: list[str]) -> None:
    """Two aligned files."""
    for code, side in (("en", english), ("xx", other)):
        write_atomic(folder / f"{part}.{language}.{code}", "".join(f"{line}\n" for line in side))


def tico(data: Path, folder: Path) -> list[str]:
    """TICO-19's development part, cut in two."""
    languages = ["sw", "ha", "tl", "mr"]
    for language in languages:
        stem = data / "tico19" / f"en-{language}" / f"tico19.en-{language}"
        english, other = (lines(stem.with_name(f"{stem.name}.{code}")) for code in ("en", language))
        write_pair(folder, "train", language, english[:-VALIDATION], other[:-VALIDATION])
        write_pair(folder, "validation", language, english[-VALIDATION:], other[-VALIDATION:])
    return languages


def somali(data: Path, folder: Path) -> list[str]:
    """HornMT's development part, cut in two."""
    english, other = (lines(data / "hornmt" / "eng-som" / f"hornmt.{code}") for code in ("eng", "som"))
    write_pair(folder, "train", "so", english[:-VALIDATION], other[:-VALIDATION])
    write_pair(folder, "validation", "so", english[-VALIDATION:], other[-VALIDATION:])
    return ["so"]


def swahili(data: Path, folder: Path) -> list[str]:
    """LAFAND-MT's Swahili, the beginning of its training part and of its development part."""
    for part, name, count in (("train", "train", 1500), ("dev", "validation", VALIDATION)):
        english, other = (lines(data / "lafand-mt" / "en-swa" / f"{part}.{side}")[:count] for side in ("en", "swa"))
        write_pair(folder, name, "sw", english, other)
    return ["sw"]


def bible(data: Path, folder: Path) -> list[str]:
    """Verses that both languages have, so that they differ in nothing else."""
    found = {
        language: dict(line.split("\t", 1) for line in lines(data / "bible" / f"en-{language}.tsv.gz"))
        for language in ("sw", "tl")
    }
    verses = [name for name in found["sw"] if name in found["tl"]]
    romans = [name for name in verses if name.startswith("ROM ")][:VALIDATION]
    train = [name for name in verses if not name.startswith("ROM ")][::4]
    for language, texts in found.items():
        for part, names in (("train", train), ("validation", romans)):
            pairs = [texts[name].split("\t") for name in names]
            write_pair(folder, part, language, [english for english, _ in pairs], [other for _, other in pairs])
    return list(found)


def captions(data: Path, folder: Path) -> list[str]:
    """Captions in eight languages, four of them with few pairs."""
    for part, length in (("train", None), ("val", VALIDATION)):
        english = lines(data / "multi30k" / "task1" / "raw" / f"{part}.en.gz")
        for language, collection in (HIGH | LOW).items():
            count = length or (1500 if language in HIGH else 300)
            other = lines(find(data / collection, part, language))
            assert len(other) == len(english), (language, len(other), len(english))
            name = "train" if part == "train" else "validation"
            write_pair(folder, name, language, list(islice(english, count)), other[:count])
    return [*HIGH, *LOW]


def multi30k(data: Path, folder: Path, pairs: int | None, validation: int | None) -> list[str]:
    """Captions in three high-resource languages, the first ``pairs`` lines of each."""
    languages = ["cs", "de", "fr"]
    raw = data / "multi30k" / "task1" / "raw"
    for part, name, count in (("train", "train", pairs), ("val", "validation", validation)):
        for language in languages:
            english, other = (lines(raw / f"{part}.{code}.gz")[:count] for code in ("en", language))
            write_pair(folder, name, language, english, other)
    return languages


NEWS = {"ha": "hau", "ig": "ibo", "yo": "yor", "zu": "zul", "tw": "twi"}


def news(data: Path, folder: Path) -> list[str]:
    """LAFAND-MT, and the collection of AfriQA in the same languages."""
    for language, code in NEWS.items():
        for part, name, count in (("train", "train", None), ("dev", "validation", 300)):
            english, other = (
                lines(data / "lafand-mt" / f"en-{code}" / f"{part}.{side}")[:count] for side in ("en", code)
            )
            write_pair(folder, name, language, english, other)
    passages = {
        language: [
            {"format": "afriqa", "path": str(path.resolve())}
            for path in sorted((data / "afriqa" / "gold_passages" / code).glob("*.json"))
        ]
        for language, code in NEWS.items()
    }
    collection = {
        "name": "afriqa",
        "documents": [file for files in passages.values() for file in files],
        # Development questions, of Yoruba those for training: the ids of both start at 0.
        "languages": {language: {"topics": files[:1], "judgements": files[:1]} for language, files in passages.items()},
    }
    path = folder.parent / "afriqa.yaml"
    write_json(path, {"output": str(folder.parent / "afriqa"), "collection": collection})
    run("convert", str(path))
    return list(NEWS)


def conversion(folder: Path, name: str, part: str, languages: list[str]) -> dict[str, object]:
    """What `optical-scale convert` is told; training pairs that occur in validation are left out."""
    text = folder.resolve() / "text"
    corpora = [
        {
            "format": "moses",
            "name": name,
            "language": language,
            "source": f"{part}.{language}.en",
            "target": f"{part}.{language}.xx",
        }
        for language in languages
    ]
    held_out = [f"validation.{language}.{side}" for language in languages for side in ("en", "xx")]
    filters: dict[str, object] = {"held_out": held_out} if part == "train" else {"drop_duplicates": False}
    return {"output": str(folder / part), "folder": str(text), "corpora": corpora, "filters": filters}


def main() -> None:
    """Prepare the settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    settings: dict[str, Callable[[Path, Path], list[str]]] = {
        "tico": tico,
        "somali": somali,
        "swahili": swahili,
        "bible": bible,
        "captions": captions,
        "captions_2000": partial(multi30k, pairs=2_000, validation=VALIDATION),
        "captions_29000": partial(multi30k, pairs=None, validation=None),
        "news": news,
    }
    parser.add_argument("--settings", nargs="+", choices=settings, default=list(settings))
    arguments = parser.parse_args()
    for name in arguments.settings:
        folder = arguments.output / name
        languages = settings[name](arguments.data, folder / "text")
        for part in ("train", "validation"):
            write_json(folder / f"{part}.yaml", conversion(folder, name, part, languages))  # JSON is YAML
            run("convert", str(folder / f"{part}.yaml"))
        run("tokenizer", str(Path(__file__).parent.parent / "configs/tokenizer/multi30k.yaml"),
            f"output={folder / 'tokenizer'}", f"shards=[{folder / 'train'}]")  # fmt: skip


if __name__ == "__main__":
    main()
