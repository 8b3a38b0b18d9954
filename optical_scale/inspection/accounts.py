"""What the manifest says of a folder: kept, dropped, and contents by language."""

from collections import Counter, defaultdict

from optical_scale.corpora.reader import PART
from optical_scale.inspection.schema import Account, InLanguage, Parts, Terms, Unit
from optical_scale.shards.manifest import Manifest


def accounts(manifest: Manifest, kept: Counter[tuple[str, str]]) -> tuple[Account, ...]:
    """Kept and dropped by corpus and language, in the order of the corpora.

    Manifests without sources count what was kept by language only, so with several corpora in a language their shares
    come from the samples read; they are exact if all were. A corpus of which no sample was read then has no line.

    Args:
        manifest: of the folder.
        kept: samples read, by corpus and language, ``""`` for images.
    """
    totals = dict(manifest.counts)
    if manifest.kind == "images":
        totals[""] = manifest.samples
    read: Counter[str] = Counter()
    for (_, language), number in kept.items():
        read[language] += number
    dropped: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for item in manifest.dropped:
        if not item.reason.startswith(PART):
            reasons = dropped[item.corpus, item.language]
            reasons[item.reason] = reasons.get(item.reason, 0) + item.records
    if manifest.sources:
        kept = Counter({(s.corpus, language): number for s in manifest.sources for language, number in s.kept.items()})
        read = Counter(totals)
    elif len(manifest.corpora) == 1:
        kept = Counter({(manifest.corpora[0], language): total for language, total in totals.items()})
        read = Counter(totals)
    order = {corpus: number for number, corpus in enumerate(manifest.corpora)}
    rows = []
    for corpus, language in sorted({*kept, *dropped}, key=lambda row: (order.get(row[0], len(order)), *row)):
        total = totals.get(language, 0)
        exact = read[language] == total
        number = kept[corpus, language]
        share = number if exact else round(total * number / max(read[language], 1))
        rows.append(
            Account(
                corpus=corpus,
                language=language,
                unit=_unit(manifest, language),
                kept=share,
                exact=exact,
                dropped=dropped.get((corpus, language), {}),
            )
        )
    return tuple(rows)


def terms(manifest: Manifest) -> tuple[Terms, ...]:
    """Licences and origins, of the corpora that state any."""
    stated = (source for source in manifest.sources if source.license or source.origin)
    return tuple(Terms(corpus=source.corpus, license=source.license, origin=source.origin) for source in stated)


def _unit(manifest: Manifest, language: str) -> Unit:
    return "pairs" if manifest.kind == "bitext" else "captions" if language else "images"


def in_languages(manifest: Manifest, read: Counter[str]) -> tuple[InLanguage, ...]:
    """Contents by language; ``read`` holds the pairs or captions behind the statistics."""
    own = manifest.kind == "bitext"
    return tuple(
        InLanguage(
            language=language,
            samples=number,
            shards=sum(shard.language == language for shard in manifest.shards) if own else None,
            bytes=sum(shard.bytes for shard in manifest.shards if shard.language == language) if own else None,
            read=read[language],
        )
        for language, number in sorted(manifest.counts.items())
    )


def parts(manifest: Manifest) -> tuple[Parts, ...]:
    """Boxes, phrases and negatives that were left out of records that were kept."""
    numbers: Counter[tuple[str, str]] = Counter()
    for item in manifest.dropped:
        if item.reason.startswith(PART):
            numbers[item.corpus, item.reason.removeprefix(PART)] += item.records
    return tuple(Parts(corpus=corpus, reason=reason, number=number) for (corpus, reason), number in numbers.items())
