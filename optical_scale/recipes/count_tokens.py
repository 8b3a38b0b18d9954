"""Document frequencies of a run's tokens, counted by all ranks before training."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from optical_scale.backbones.tokenizers import ADDED, TextTokenizer
from optical_scale.backbones.vision import ImageTransform
from optical_scale.errors import OpticalScaleError
from optical_scale.records import Record, TextPair
from optical_scale.runtime.collectives import agree_on_errors, sum_over_ranks
from optical_scale.runtime.world import World
from optical_scale.stream.collate import ENGLISH, PairCollator
from optical_scale.stream.frequencies import InverseDocumentFrequency, document_counts, places
from optical_scale.stream.source import Source
from optical_scale.stream.tokens import TokenisedPair

logger = logging.getLogger(__name__)

Rows = list[NDArray[np.uint32]]


def document_frequencies(
    found: Sequence[Source],
    collate: PairCollator,
    tokenize: TextTokenizer,
    prepare: TextTokenizer | ImageTransform,
    *,
    tolerant: bool,
    world: World,
    device: torch.device | str,
) -> tuple[InverseDocumentFrequency, InverseDocumentFrequency | None]:
    """Of the English side and of the student's, the latter by language and None for images; all ranks enter.

    Args:
        found: sources of the run, of which at most :data:`~.frequencies.PIECES` x :data:`~.frequencies.PIECE` samples
            each are read.
        collate: says which English texts a sample may bring.
        tokenize: reads the English side.
        prepare: reads the student's side.
        tolerant: samples that cannot be read are left out.
        world: this rank among all.
        device: of this rank, for the exchange with others.

    Raises:
        OpticalScaleError: a sample cannot be read.
    """
    sides = (tokenize, prepare if isinstance(prepare, TextTokenizer) else None)
    sizes = [0 if side is None else 1 + max(side.tokenizer.get_vocab().values()) for side in sides]
    counts = [
        {ENGLISH: np.zeros(sizes[0] + 1, np.int64)},
        {s.language: np.zeros(sizes[1] + 1, np.int64) for s in found},
    ]
    with agree_on_errors("counting document frequencies", device):
        for source in found:
            for run in places(len(source))[world.rank :: world.size]:
                rows = _ids(_read(source, run, tolerant), collate, *sides)
                for side, language in enumerate((ENGLISH, source.language)):
                    counts[side][language] += document_counts((row & (ADDED - 1) for row in rows[side]), sizes[side])
    for table in counts:
        for language in sorted(table):
            table[language] = sum_over_ranks(torch.from_numpy(table[language]).to(device)).cpu().numpy()
    logger.info(
        "document frequencies of %s English texts and of %s",
        f"{counts[0][ENGLISH][-1]:,}",
        ", ".join(f"{table[-1]:,} in {language}" for language, table in counts[1].items()) if sides[1] else "no others",
    )
    english, target = (InverseDocumentFrequency(table) for table in counts)
    return english, target if sides[1] is not None else None


def _read(source: Source, run: range, tolerant: bool) -> list[Record]:
    records = []
    for index in run:
        try:
            records.append(source[index])
        except OpticalScaleError:
            if not tolerant:
                raise
    return records


def _ids(
    records: Sequence[Record], collate: PairCollator, tokenize: TextTokenizer, prepare: TextTokenizer | None
) -> tuple[Rows, Rows]:
    """Token ids of both sides, from where they are stored already or else by the tokenizers."""
    known = [record for record in records if isinstance(record, TokenisedPair)]
    if len(known) == len(records):
        return [pair.source_ids for pair in known], [pair.target_ids for pair in known]
    english = tokenize.encode([text for record in records for text in collate.texts(record)])
    if prepare is None:
        return english, []
    return english, prepare.encode([record.target for record in records if isinstance(record, TextPair)])
