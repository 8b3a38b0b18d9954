"""English paraphrases of the bitext's phrases, for training an English teacher on nothing but the demo's own data."""

from pathlib import Path
from random import Random

from optical_scale.runtime.seeding import derive_seed
from optical_scale.synthetic.bitext import Phrase, Row, collect
from optical_scale.synthetic.moses import write_aligned
from optical_scale.synthetic.phrases import PARAPHRASES, Speaker, Split, split_of


def write_paraphrases(folder: Path, *, seed: int, train: int, validation: int, test: int) -> dict[str, int]:
    """Write ``{train,validation,test}.en-en.{query,passage}``: one meaning said in two ways of CLDR's.

    One side is the sentence the bitext would use, the other abbreviates it or turns it around (``Monday, March 3,
    2025: 3 hours`` and ``3 hr – Mon, Mar 3, 2025``); which side is the query is drawn per pair. No text of a
    training pair is in a held-out split of any bitext (:func:`split_of`) or of the paraphrases.

    Args:
        folder: existing folder for the files.
        seed: the same seed gives the same bytes.
        train: pairs.
        validation: pairs.
        test: pairs.

    Returns:
        Number of lines by file name.

    Raises:
        CorpusError: more distinct pairs are asked for than exist.
    """
    speaker = Speaker("en")
    sizes: tuple[tuple[Split, int], ...] = (("test", test), ("validation", validation), ("train", train))
    taken: list[set[str]] = []
    counts: dict[str, int] = {}
    for split, size in sizes:
        pairs = _pairs(speaker, split, size, seed, taken)
        taken.append({text for pair in pairs for text in pair})
        sides = Random(derive_seed(seed, "sides", split))
        turned = [pair if sides.random() < 0.5 else pair[::-1] for pair in pairs]
        counts |= write_aligned(folder, f"{split}.en-en", ("query", "passage"), turned)
    return counts


def _pairs(speaker: Speaker, split: Split, size: int, seed: int, taken: list[set[str]]) -> list[Row]:
    styles = Random(derive_seed(seed, "styles", split))

    def say(phrase: Phrase) -> Row | None:
        english = speaker.say(*phrase)
        if split_of(english) != split:
            return None
        others = [speaker.say(*phrase, style) for style in PARAPHRASES]
        # Held-out passages may fall into any split, for they are kept out of training by name (``taken``).
        usable = [text for text in others if text != english and (split != "train" or split_of(text) == split)]
        return (english, styles.choice(usable)) if usable else None

    return collect(say, size, seed, split, "en-en", taken=taken)
