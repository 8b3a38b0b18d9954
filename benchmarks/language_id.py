"""Language identification, peers side by side: `python benchmarks/language_id.py DATA [--fasttext lid.176.ftz]`.

Up to 300 texts of every file of TICO-19, LAFAND and Tatoeba below DATA. Each method that is installed (py3langid,
pycld2, lingua, a fastText model) gives its best label; `right` is the mean over the languages that it knows, as tags
are compared by langcodes. Texts per second are of one thread, loading excluded.
"""

import argparse
import importlib.util
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import langcodes

Method = tuple[Callable[[str], str], set[str]]


def sets(data: Path) -> Iterator[tuple[str, list[str]]]:
    """Language and texts."""
    source = random.Random(0)
    for path in sorted([*data.glob("tico19/en-*/*"), *data.glob("lafand-mt/en-*/train.*"), *data.glob("tatoeba/*")]):
        code = path.suffix[1:]
        if code in ("ids", "txt", "en") or path.name.endswith(".eng"):
            continue
        texts = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        yield code, source.sample(texts, min(300, len(texts)))


def language(tag: str) -> str:
    try:
        return langcodes.Language.get(tag.replace("_", "-")).prefer_macrolanguage().language or tag
    except langcodes.LanguageTagError:
        return tag


def methods(fasttext_model: Path | None) -> Iterator[tuple[str, Method]]:
    if importlib.util.find_spec("py3langid"):
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        ours = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        yield "py3langid", (lambda text: ours.classify(text)[0], set(ours.labels))
    if importlib.util.find_spec("pycld2"):
        import pycld2

        yield "pycld2", (lambda text: pycld2.detect(text)[2][0][1], {code for _, code in pycld2.LANGUAGES})
    if fasttext_model is not None:
        import fasttext

        model = fasttext.load_model(str(fasttext_model))
        labels = {label.removeprefix("__label__") for label in model.predict("a", k=-1, threshold=-1.0)[0]}
        yield fasttext_model.name, (lambda text: model.predict(text)[0][0].removeprefix("__label__"), labels)
    if importlib.util.find_spec("lingua"):
        from lingua import Language, LanguageDetectorBuilder

        detector = LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models().build()
        codes = {one.iso_code_639_1.name.lower() for one in Language.all()}

        def lingua(text: str) -> str:
            found = detector.detect_language_of(text)
            return found.iso_code_639_1.name.lower() if found else "und"

        yield "lingua", (lingua, codes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--fasttext", type=Path, help="a fastText classifier")
    arguments = parser.parse_args()
    texts = list(sets(arguments.data))
    for name, (identify, labels) in methods(arguments.fasttext):
        known = {language(label) for label in labels}
        shares, start = [], time.perf_counter()
        for code, lines in texts:
            right = 0
            for line in lines:
                try:
                    right += language(identify(line)) == language(code)
                except Exception:  # a text that a peer refuses counts as wrong
                    continue
            if language(code) in known:
                shares.append(right / len(lines))
        rate = sum(len(lines) for _, lines in texts) / (time.perf_counter() - start)
        print(f"{name}: right {sum(shares) / len(shares):.3f} over {len(shares)} sets, {rate:,.0f} texts/s")


if __name__ == "__main__":
    main()
