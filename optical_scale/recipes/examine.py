"""What is wrong with corpora as a whole."""

import contextlib
import logging
from collections.abc import Iterator, Sequence

from optical_scale.config.convert import ConvertConfig
from optical_scale.config.corpora import Bitext, Moses, Opus, Parallel
from optical_scale.corpora.alignment import Misaligned, find_misaligned
from optical_scale.corpora.reader import CorpusReader
from optical_scale.errors import CorpusError
from optical_scale.recipes.build_corpora import build_language_id
from optical_scale.runtime.log import progress
from optical_scale.runtime.pool import Aside

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def examined(config: ConvertConfig, corpora: Sequence[CorpusReader], aside: bool = False) -> Iterator[None]:
    """Warn of languages that cannot be identified and of stretches whose sides are out of step.

    Reads once what has its sides in files of their own, a million pairs in a few seconds, unless ``config.misaligned``
    is ``ignore``. What is an error is found before the block begins. Warnings may come when it ends.

    Args:
        config: the conversion.
        corpora: its readers; those of images are passed over.
        aside: look for what is worth a warning in another process while the block runs.

    Raises:
        CorpusError: a corpus is out of step and ``config.misaligned`` is ``error``, or cannot be read.
        WorkerError: the other process was killed.
    """
    readers = list(zip(config.corpora, corpora, strict=True))
    _name_unknown_languages(config, [reader for corpus, reader in readers if isinstance(corpus, Bitext)])
    apart = [reader for corpus, reader in readers if isinstance(corpus, Moses | Opus | Parallel)]
    if config.misaligned == "ignore" or not apart:
        yield
    elif config.misaligned == "warn" and aside:
        with Aside(_misaligned, apart, shown=False) as examination:
            yield
            _warn(examination.result())
    else:
        found = _misaligned(apart, shown=True)
        if found and config.misaligned == "error":
            raise CorpusError(
                f"{'; '.join(map(str, found))}; repair the files, leave these lines out, or set `misaligned: warn`"
            )
        _warn(found)
        yield


def _name_unknown_languages(config: ConvertConfig, bitext: Sequence[CorpusReader]) -> None:
    if config.filters.language_id is not None:
        rule = build_language_id(config.filters.language_id, config.folder)
        spoken = sorted({language for corpus in bitext for language in corpus.languages})
        if unknown := [language for language in spoken if not rule.knows(language)]:
            logger.warning(
                "filters.language_id: not judged, because the model has no label for them: %s; "
                "name labels that count in filters.language_id.languages, or bring another model",
                ", ".join(unknown),
            )


def _misaligned(corpora: Sequence[CorpusReader], shown: bool) -> list[Misaligned]:
    """All stretches out of step; each corpus is read once."""
    found: list[Misaligned] = []
    for corpus in corpora:
        what = f"compare sides of {corpus.name}"
        found += find_misaligned(progress(corpus, what, corpus.count(), "record") if shown else corpus)
    return found


def _warn(found: list[Misaligned]) -> None:
    for stretch in found:
        logger.warning("%s; repair the file, or these pairs teach wrong translations", stretch)
