"""An inspection as one self-contained page, for screen (light and dark), print and black and white."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

from optical_scale.inspection.figures import lengths_svg, sizes_svg, tokens_svg
from optical_scale.inspection.schema import Inspection, Shown, ShownText, Spread, Texts
from optical_scale.inspection.text import TOKENS_NOTE, reading, stated, unreadable
from optical_scale.pages.document import chart, document, label_cell, number_cell, sortable_table

_STYLE = """
td.share { background: color-mix(in srgb, var(--heat) calc(var(--share) * .45%), transparent); }
td.long { white-space: normal; text-align: left; min-width: 16rem; max-width: 32rem; vertical-align: top; }
.picture { display: grid; grid-template-columns: 12rem 1fr; gap: 1rem; margin: 1rem 0; break-inside: avoid; }
.picture img { max-width: 100%; height: auto; border: 1px solid var(--line); } .picture ul { margin: .25rem 0; }
.picture p { margin: 0; }
"""
_ACCOUNT_NOTE = """What was read from a source is what was kept plus what was dropped. ≈: estimated from the samples
read, because the manifest counts languages, not corpora."""
_LENGTH_NOTE = """Histograms: share of the texts, over classes that grow by a half and a third in turn; solid: target or
caption, dashed: English. Words are what stands between blanks; languages mostly written without them have none here."""
_TOKEN_NOTE = f"""Tokens per word (fertility) and tokens of the target for each English one of the same pairs (premium):
what a language pays for a vocabulary that was not made for it. Unknown: tokens without a piece. Then the share of texts
that a limit of so many tokens cuts, and the share of all their tokens that it loses; {TOKENS_NOTE}."""
_CONTROLS = {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421}


def inspection_page(report: Inspection, thumbnails: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        report: what to show.
        thumbnails: data URIs of small images, by key of the sample.
    """
    unit = "pairs" if report.kind == "bitext" else "images"
    title = f"{report.folder}: {report.samples:,} {unit}"
    parts = [f"<h1>{_safe(title)}</h1>", _summary(report), "<h2>Kept and dropped</h2>", f"<p>{_ACCOUNT_NOTE}</p>"]
    parts += [_account_table(report), *_parts(report)]
    parts += ["<h2>Languages</h2>", _language_table(report)]
    if report.images is not None:
        parts += _image_section(report)
    if report.texts:
        parts += _length_section(report)
    if report.tokenizers and report.texts:
        parts += _token_section(report)
    if report.shown:
        parts.append("<h2>Samples</h2>")
        parts += [_pictures(report.shown, thumbnails)] if report.kind == "images" else _pairs(report.shown)
    return document(title, parts, _STYLE)


def _safe(text: str) -> str:
    """Escaped, with control characters made visible."""
    return escape(text.translate(_CONTROLS))


def _summary(report: Inspection) -> str:
    facts = (
        f"{report.shards:,} shards, {report.bytes / 1e6:,.1f} MB",
        f"corpora: {', '.join(report.corpora)}",
        f"format version {report.format_version}, fingerprint {report.fingerprint}",
        *(f"{item.corpus}: {stated(item)}" for item in report.terms),
        reading(report),
    )
    return "<p>" + "<br>".join(map(_safe, facts)) + "</p>"


def _account_table(report: Inspection) -> str:
    reasons = list(dict.fromkeys(reason for row in report.accounts for reason in row.dropped))
    rows = []
    for row in report.accounts:
        dropped = sum(row.dropped.values())
        cells = [label_cell(row.corpus), _text(row.language or "–"), _text(row.unit)]
        cells += [
            number_cell(row.kept, f"{'' if row.exact else '≈'}{row.kept:,}"),
            number_cell(dropped, f"{dropped:,}"),
        ]
        share = dropped / max(row.kept + dropped, 1)
        cells.append(number_cell(share, f"{share:.1%}"))
        cells += [_count(row.dropped.get(reason)) for reason in reasons]
        rows.append(cells)
    return sortable_table(["corpus", "language", "unit", "kept", "dropped", "share", *reasons], rows, (1, 2))


def _text(text: str) -> str:
    return f"<td class='text'>{_safe(text)}</td>"


def _count(number: int | None) -> str:
    return number_cell(number, "" if number is None else f"{number:,}")


def _parts(report: Inspection) -> list[str]:
    if not report.parts:
        return []
    rows = [[label_cell(item.corpus), _text(item.reason), _count(item.number)] for item in report.parts]
    note = "<p>Boxes, phrases and negatives that were left out of records that were kept; they are no records.</p>"
    return [note, sortable_table(["corpus", "reason", "number"], rows, (1,))]


def _language_table(report: Inspection) -> str:
    what = "pairs" if report.kind == "bitext" else "captions"
    rows = []
    for row in report.languages:
        size = None if row.bytes is None else row.bytes / 1e6
        cells = [label_cell(row.language), _count(row.samples), _count(row.shards)]
        cells += [number_cell(size, "" if size is None else f"{size:,.1f}"), _count(row.read)]
        if report.images is not None:
            mean, bare = report.images.captions[row.language], report.images.bare[row.language]
            cells += [number_cell(mean, f"{mean:.2f}"), _count(bare)]
        rows.append(cells)
    head = ["language", what, "shards", "MB", f"{what} read"]
    return sortable_table(head if report.images is None else [*head, "per image", "images without"], rows)


def _length_section(report: Inspection) -> list[str]:
    parts = ["<h2>Lengths</h2>", f"<p>{_LENGTH_NOTE}</p>"]
    parts.append(chart(lengths_svg(report.texts, "characters", "characters", lambda row: row.characters)))
    if words := lengths_svg(report.texts, "words", "words", lambda row: row.words if row.spaced else None):
        parts.append(chart(words))
    for what in ("characters", "words"):
        rows = [
            [label_cell(row.language), _text(row.side), _count(row.read), *_spread(getattr(row, what))]
            for row in report.texts
            if row.spaced or what == "characters"
        ]
        head = ["language", "side", "texts", f"{what}, mean", "5 %", "50 %", "95 %", "longest"]
        parts.append(sortable_table(head, rows, (1,)))
    return parts


def _spread(values: Spread) -> list[str]:
    numbers = (values.low, values.median, values.high, values.most)
    return [number_cell(values.mean, f"{values.mean:,.1f}"), *(number_cell(n, f"{n:,.0f}") for n in numbers)]


def _token_section(report: Inspection) -> list[str]:
    parts = ["<h2>Tokens</h2>", f"<p>{_TOKEN_NOTE}</p>", chart(tokens_svg(report))]
    for number, tokenizer in enumerate(report.tokenizers):
        histogram = lengths_svg(report.texts, f"lengths-{number}", "tokens", _lengths_of(number))
        parts += [
            f"<h3>{_safe(tokenizer.name)}: {tokenizer.pieces:,} pieces</h3>",
            "<p>"
            + "<br>".join(map(_safe, filter(None, (tokenizer.path, unreadable(report, tokenizer.name)))))
            + "</p>",
            _token_table(report.texts, number),
            _limit_table(report.texts, number),
            f"<details><summary>Histograms</summary>{chart(histogram)}</details>",
        ]
    return parts


def _lengths_of(number: int) -> Callable[[Texts], Spread]:
    return lambda row: row.tokens[number].lengths


def _token_table(texts: Sequence[Texts], number: int) -> str:
    rows = []
    for row in texts:
        tokens = row.tokens[number]
        cells = [label_cell(row.language), _text(row.side)]
        cells += [number_cell(value, f"{value:,.0f}") for value in (tokens.lengths.median, tokens.lengths.high)]
        cells.append(_count(tokens.lengths.most))
        for ratio in (tokens.per_word, tokens.premium, tokens.characters_per_token):
            cells.append(number_cell(ratio, "" if ratio is None else f"{ratio:.2f}"))
        rows.append([*cells, _share(tokens.unknown)])
    head = ["language", "side", "tokens, 50 %", "95 %", "longest", "per word", "premium", "characters each", "unknown"]
    return sortable_table(head, rows, (1,))


def _limit_table(texts: Sequence[Texts], number: int) -> str:
    rows = []
    for row in texts:
        tokens = row.tokens[number]
        shares = [*tokens.truncated.values(), *tokens.lost.values()]
        rows.append([label_cell(row.language), _text(row.side), *map(_share, shares)])
    limits = texts[0].tokens[number].truncated
    head = [f"cut at {limit}" for limit in limits] + [f"lost at {limit}" for limit in limits]
    return sortable_table(["language", "side", *head], rows, (1,))


def _share(share: float) -> str:
    """Shaded by its size; the number says the same."""
    return f'<td class="share" style="--share: {100 * share:.0f}" data-value="{share!r}">{share:.1%}</td>'


def _image_section(report: Inspection) -> list[str]:
    images = report.images
    assert images is not None
    formats = ", ".join(f"{number:,} {name}" for name, number in images.formats.items())
    rows = [
        [label_cell(name), *_spread(values)]
        for name, values in (("width", images.width), ("height", images.height), ("KiB", images.kibibytes))
    ]
    parts = ["<h2>Images</h2>", f"<p>{_safe(formats)}</p>", chart(sizes_svg(report))]
    parts.append(sortable_table(["", "mean", "5 %", "50 %", "95 %", "largest"], rows))
    kinds = list(dict.fromkeys([*images.phrases, *images.boxes]))
    if kinds:
        found = [
            [
                label_cell(kind),
                *(_count(counts.get(kind, 0)) for counts in (images.phrases, images.unplaced, images.boxes)),
            ]
            for kind in kinds
        ]
        parts.append(sortable_table(["phrases and boxes", "phrases", "without a box", "boxes"], found))
    if images.unnamed:
        parts.append(f"<p>{images.unnamed:,} boxes belong to no phrase.</p>")
    return parts


def _pairs(shown: Sequence[Shown]) -> list[str]:
    """Both sides beside each other, a table per language."""
    parts = []
    for language in dict.fromkeys(sample.language for sample in shown):
        rows = [
            [label_cell(sample.key), _text(sample.corpus), *map(_side, sample.texts)]
            for sample in shown
            if sample.language == language
        ]
        parts += [
            f"<h3>{_safe(language)}</h3>",
            sortable_table(["key", "corpus", "English", language], rows, (1, 2, 3)),
        ]
    return parts


def _side(text: ShownText) -> str:
    return f'<td class="long" lang="{escape(text.language)}" dir="auto">{_safe(text.text)}{_counts(text)}</td>'


def _counts(text: ShownText) -> str:
    """Tokens of a text by tokenizer, in small print."""
    if not text.tokens:
        return ""
    counts = ", ".join(f"{name} {number}" for name, number in text.tokens.items())
    return f'<br><small dir="ltr">{_safe(counts)}</small>'


def _pictures(shown: Sequence[Shown], thumbnails: Mapping[str, str]) -> str:
    parts = []
    for sample in shown:
        picture = thumbnails.get(sample.key)
        image = f'<img src="{picture}" alt="{escape(sample.key)}">' if picture else "<p>cannot be shown</p>"
        captions = "".join(
            f'<li lang="{escape(text.language)}" dir="auto"><small>{_safe(text.language)}</small> '
            f"{_safe(text.text)}{_counts(text)}</li>"
            for text in sample.texts
        )
        facts = f"{sample.key} ({sample.corpus}), {sample.width} x {sample.height} pixels, {sample.boxes} boxes"
        parts.append(
            f'<div class="picture"><div>{image}</div><div><p>{_safe(facts)}</p><ul>{captions}</ul></div></div>'
        )
    return "".join(parts)
