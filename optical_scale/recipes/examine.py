"""What is wrong with corpora as a whole, said before anything is written."""

import logging
from collections.abc import Sequence

from optical_scale.config.convert import ConvertConfig
from optical_scale.config.corpora import Bitext, Moses, Opus, Parallel
from optical_scale.corpora.alignment import find_misaligned
from optical_scale.corpora.reader import CorpusReader
from optical_scale.errors import CorpusError
from optical_scale.recipes.build_corpora import build_language_id
from optical_scale.runtime.log import progress

logger = logging.getLogger(__name__)


def examine(config: ConvertConfig, corpora: Sequence[CorpusReader]) -> None:
    """Warn of languages that cannot be identified and of stretches whose sides are out of step.

    Reads once what has its sides in files of their own, a million pairs in a few seconds, unless ``config.misaligned``
    is ``ignore``.

    Args:
        config: the conversion.
        corpora: its readers; those of images are passed over.

    Raises:
        CorpusError: a corpus is out of step and ``config.misaligned`` is ``error``, or cannot be read.
    """
    bitext = [reader for corpus, reader in zip(config.corpora, corpora, strict=True) if isinstance(corpus, Bitext)]
    if config.filters.language_id is not None:
        rule = build_language_id(config.filters.language_id, config.folder)
        spoken = sorted({language for corpus in bitext for language in corpus.languages})
        if unknown := [language for language in spoken if not rule.knows(language)]:
            logger.warning(
                "filters.language_id: not judged, because the model has no label for them: %s; "
                "name labels that count in filters.language_id.languages, or bring another model",
                ", ".join(unknown),
            )
    if config.misaligned == "ignore":
        return
    pairs = zip(config.corpora, corpora, strict=True)
    apart = [reader for corpus, reader in pairs if isinstance(corpus, Moses | Opus | Parallel)]
    found = [
        stretch
        for corpus in apart
        for stretch in find_misaligned(progress(corpus, f"compare sides of {corpus.name}", corpus.count(), "record"))
    ]
    if found and config.misaligned == "error":
        raise CorpusError(
            f"{'; '.join(map(str, found))}; repair the files, leave these lines out, or set `misaligned: warn`"
        )
    for stretch in found:
        logger.warning("%s; repair the file, or these pairs teach wrong translations", stretch)
