"""Corpus schemas -> readers and rules."""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from optical_scale.config.convert import Filters, LanguageIdentification
from optical_scale.config.corpora import (
    Bible,
    CollectionPairs,
    Corpus,
    JsonLines,
    Lists,
    Moses,
    Opus,
    Parallel,
    Parquet,
    Squad,
    Table,
    Tmx,
    Xliff,
)
from optical_scale.config.image_corpora import (
    CaptionLines,
    Crossmodal3600,
    Flickr30kEntities,
    FlickrCaptions,
    Karpathy,
)
from optical_scale.corpora.bible import BibleCorpus
from optical_scale.corpora.collections.candidates import Mining
from optical_scale.corpora.collections.pairs import CollectionCorpus
from optical_scale.corpora.duplicates import PairDigests
from optical_scale.corpora.filters import HeldOut, LengthBounds, LengthRatio, Rule, TokenRatio, untranslated
from optical_scale.corpora.jsonl import JsonLinesCorpus
from optical_scale.corpora.language_id import LanguageId
from optical_scale.corpora.lists import ListsCorpus
from optical_scale.corpora.moses import MosesCorpus
from optical_scale.corpora.near import NearDigests
from optical_scale.corpora.opus import OpusCorpus
from optical_scale.corpora.parallel import ParallelCorpus
from optical_scale.corpora.parquet import ParquetCorpus
from optical_scale.corpora.reader import CorpusReader
from optical_scale.corpora.scripts import ScriptShare, swapped_scripts
from optical_scale.corpora.squad import SquadCorpus
from optical_scale.corpora.table import TableCorpus
from optical_scale.corpora.tmx import TmxCorpus
from optical_scale.corpora.xliff import XliffCorpus
from optical_scale.recipes.build_image_corpora import build_image_corpus


def build_corpus(config: Corpus, folder: Path) -> CorpusReader:
    """The reader of one corpus; relative paths start at ``folder``.

    Raises:
        CorpusError: a language is no BCP-47 tag.
    """
    match config:
        case Moses():
            return MosesCorpus(config.name, folder / config.source, folder / config.target, config.language)
        case Opus():
            path = folder / config.path
            return OpusCorpus(config.name, path, config.language, config.code, config.source_code)
        case Table():
            return TableCorpus(
                config.name,
                folder / config.path,
                config.language,
                config.source,
                config.target,
                tuple(config.columns),
                config.delimiter,
                config.quoted,
                tuple(config.negatives),
            )
        case JsonLines():
            path = folder / config.path
            return JsonLinesCorpus(config.name, path, config.language, config.source, config.target)
        case Lists():
            fields = config.query, config.positives, tuple(config.negatives), tuple(config.scores)
            return ListsCorpus(config.name, folder / config.path, config.language, *fields)
        case Tmx():
            path = folder / config.path
            return TmxCorpus(config.name, path, config.language, config.code, config.source_code)
        case Xliff():
            path = folder / config.path
            return XliffCorpus(config.name, path, config.language, config.code, config.source_code)
        case Bible():
            return BibleCorpus(config.name, folder / config.source, folder / config.target, config.language)
        case Squad():
            sides = folder / config.source, folder / config.target
            return SquadCorpus(config.name, *sides, config.language, tuple(config.parts))
        case Parquet():
            path = folder / config.path
            return ParquetCorpus(config.name, path, config.language, config.source, config.target)
        case Parallel():
            codes = {language: config.codes.get(language, language) for language in config.languages}
            return ParallelCorpus(config.name, folder, config.source, config.target, codes)
        case CollectionPairs():
            how = config.negatives
            mining = None if how is None else Mining(folder / how.candidates, how.most, how.margin)
            return CollectionCorpus(config.name, folder / config.path, config.language, mining)
        case Flickr30kEntities() | FlickrCaptions() | Karpathy() | CaptionLines() | Crossmodal3600():
            return build_image_corpus(config, folder)
        case _:
            assert_never(config)


def build_rules(config: Filters, folder: Path) -> Sequence[Rule]:
    """The rules about single pairs that ``config`` sets, cheapest first.

    Args:
        config: bounds and switches.
        folder: where relative paths start.

    Raises:
        CorpusError: a held-out file or the tokenizer cannot be read.
    """
    rules: list[Rule] = []
    if (config.min_characters, config.max_characters) != (1, None):
        rules.append(LengthBounds("characters", config.min_characters, config.max_characters))
    if (config.min_words, config.max_words) != (1, None):
        rules.append(LengthBounds("words", config.min_words, config.max_words))
    if config.max_length_ratio is not None:
        rules.append(LengthRatio(config.max_length_ratio))
    if config.scripts:
        rules.append(ScriptShare(config.min_script_share, config.scripts))
    if config.drop_swapped:
        rules.append(swapped_scripts)
    if config.drop_untranslated:
        rules.append(untranslated)
    if config.max_token_ratio is not None and config.tokenizer is not None:
        rules.append(TokenRatio(config.max_token_ratio, folder / config.tokenizer))
    if config.held_out:
        rules.append(HeldOut(folder / path for path in config.held_out))
    if config.language_id is not None:
        rules.append(build_language_id(config.language_id, folder))
    return rules


def build_language_id(config: LanguageIdentification, folder: Path) -> LanguageId:
    """The rule, with its model loaded; relative paths start at ``folder``.

    Raises:
        CorpusError: the extra is not installed, or the file is no model.
    """
    model = None if config.model == "builtin" else folder / config.model
    return LanguageId(model, config.min_probability, config.min_letters, config.languages)


def build_digests(config: Filters) -> PairDigests | None:
    """What pairs are remembered by; None if they are not."""
    near = config.near_duplicates
    if near is None and not config.drop_duplicates:
        return None
    return PairDigests(config.drop_duplicates, None if near is None else NearDigests(near.bands, near.rows, near.piece))
