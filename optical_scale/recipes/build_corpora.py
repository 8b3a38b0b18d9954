"""Corpus schemas -> readers and rules."""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from optical_scale.config.convert import Filters
from optical_scale.config.corpora import Corpus, Flickr30kEntities, Moses
from optical_scale.corpora.filters import Duplicates, HeldOut, LengthBounds, LengthRatio, Rule
from optical_scale.corpora.flickr30k_entities import Flickr30kEntitiesCorpus
from optical_scale.corpora.moses import MosesCorpus
from optical_scale.corpora.reader import CorpusReader


def build_corpus(config: Corpus, folder: Path) -> CorpusReader:
    """The reader of one corpus; relative paths start at ``folder``.

    Raises:
        CorpusError: a language is no BCP-47 tag.
    """
    match config:
        case Moses():
            return MosesCorpus(config.name, folder / config.source, folder / config.target, config.language)
        case Flickr30kEntities():
            return Flickr30kEntitiesCorpus(
                config.name,
                folder / config.path,
                folder / config.split,
                tuple(config.languages),
                folder / config.images if config.images else None,
            )
        case _:
            assert_never(config)


def build_rules(config: Filters, folder: Path) -> Sequence[Rule]:
    """The rules that ``config`` sets, cheapest first; duplicates last, so that only kept pairs are remembered.

    Raises:
        CorpusError: a held-out file cannot be read.
    """
    rules: list[Rule] = []
    if (config.min_characters, config.max_characters) != (1, None):
        rules.append(LengthBounds("characters", config.min_characters, config.max_characters))
    if (config.min_words, config.max_words) != (1, None):
        rules.append(LengthBounds("words", config.min_words, config.max_words))
    if config.max_length_ratio is not None:
        rules.append(LengthRatio(config.max_length_ratio))
    if config.held_out:
        rules.append(HeldOut(folder / path for path in config.held_out))
    if config.drop_duplicates:
        rules.append(Duplicates())
    return rules
