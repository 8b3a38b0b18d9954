"""An inspection as text for a terminal."""

from collections.abc import Collection, Iterable, Sequence

from optical_scale.inspection.schema import UNREADABLE, Inspection, Shown, Spread, Terms, Texts

_JOINERS = "\u200c\u200d"  # format characters that Persian and Indic spelling needs
Table = list[list[str]]


def terminal_text(report: Inspection) -> str:
    """Counts, lengths, tokens, images and samples."""
    parts = [_summary(report), _table(_account_table(report), (0, 1, 2, 5))]
    if report.parts:
        lines = [f"  {item.corpus}: {item.number:,} {item.reason}" for item in report.parts]
        parts.append("\n".join(["left out of records that were kept:", *lines]))
    if report.texts:
        parts += [f"{reading(report)}\n\n{_table(_length_table(report.texts), (0, 1))}"]
    for tokenizer in report.tokenizers:
        head = f"tokens of {tokenizer.path} ({tokenizer.pieces:,} pieces); {TOKENS_NOTE}"
        parts.append(f"{head}\n\n{_table(_token_table(report, tokenizer.name), (0, 1))}")
        if warning := unreadable(report, tokenizer.name):
            parts.append(warning)
    if report.images is not None:
        parts.append(_table(_image_table(report)))
    parts += [_shown(sample) for sample in report.shown]
    return "\n\n".join(parts) + "\n"


TOKENS_NOTE = "special tokens count as an encoder sees them, not in tokens per word"


def unreadable(report: Inspection, name: str) -> str:
    """A warning of the texts that a tokenizer cannot spell; empty if there are none.

    An unknown piece often stands for a whole word, so what cannot be read looks short.
    """
    found = [
        f"{row.language} {row.side} {tokens.unknown:.0%}"
        for row in report.texts
        for tokens in row.tokens
        if tokens.tokenizer == name and tokens.unknown > UNREADABLE
    ]
    return f"largely unknown to {name}, so few tokens mean lost text: {', '.join(found)}" if found else ""


def reading(report: Inspection) -> str:
    """How much was read, in a sentence."""
    unit = "images" if report.images is not None else "pairs"
    if report.images is not None:
        read, most = report.images.read, report.samples
    else:
        read, most = sum(row.read for row in report.languages), report.samples
    if read == most:
        return f"lengths of all {most:,} {unit}"
    each = "" if report.images is not None else " of each language"
    return f"lengths of {read:,} of {most:,} {unit} (at most {report.limit:,}{each}, chosen by seed {report.seed})"


def _summary(report: Inspection) -> str:
    unit = "pairs" if report.kind == "bitext" else "images"
    lines = [
        f"{report.folder}: {report.samples:,} {unit} in {report.shards:,} shards, {report.bytes / 1e6:,.1f} MB",
        f"format {report.format_version}, fingerprint {report.fingerprint[:16]}, corpora {', '.join(report.corpora)}",
        *(f"{item.corpus}: {stated(item)}" for item in report.terms),
    ]
    return "\n".join(map(printable, lines))


def stated(terms: Terms) -> str:
    """Licence and origin, as far as they are known."""
    found = (f"license {terms.license}" if terms.license else "", f"from {terms.origin}" if terms.origin else "")
    return ", ".join(filter(None, found))


def printable(text: str) -> str:
    """``text`` on one line, without anything that could steer a terminal or turn the direction of writing."""
    return "".join(
        char if char.isprintable() or char in _JOINERS else f"\\u{{{ord(char):x}}}" if char != "\n" else "\\n"
        for char in text
    )


def _account_table(report: Inspection) -> Table:
    rows = [["corpus", "language", "unit", "kept", "dropped", "reasons"]]
    for row in report.accounts:
        reasons = ", ".join(f"{name} {number:,}" for name, number in row.dropped.items())
        kept = f"{'' if row.exact else '≈'}{row.kept:,}"
        dropped = f"{sum(row.dropped.values()):,}"
        rows.append([row.corpus, row.language or "–", row.unit, kept, dropped, reasons])
    if report.kind == "bitext" and len(report.corpora) > 1:
        rows += [["all", row.language, "pairs", f"{row.samples:,}", "", ""] for row in report.languages]
    return rows


def _length_table(texts: Iterable[Texts]) -> Table:
    rows = [["language", "side", "read", *_names("characters"), *_names("words")]]
    for row in texts:
        words = _numbers(row.words) if row.spaced else ["–"] * 4
        rows.append([row.language, row.side, f"{row.read:,}", *_numbers(row.characters), *words])
    return rows


def _names(what: str) -> list[str]:
    return [f"{what}: 5 %", "50 %", "95 %", "longest"]


def _numbers(spread: Spread) -> list[str]:
    return [f"{spread.low:,.0f}", f"{spread.median:,.0f}", f"{spread.high:,.0f}", f"{spread.most:,}"]


def _token_table(report: Inspection, name: str) -> Table:
    rows = [["language", "side", "tokens: 50 %", "95 %", "longest", "per word", "x English", "unknown"]]
    limits: tuple[int, ...] = ()
    for row in report.texts:
        for tokens in row.tokens:
            if tokens.tokenizer != name:
                continue
            limits = tuple(tokens.truncated)
            lengths = [f"{tokens.lengths.median:,.0f}", f"{tokens.lengths.high:,.0f}", f"{tokens.lengths.most:,}"]
            ratios = [_ratio(tokens.per_word), _ratio(tokens.premium), f"{tokens.unknown:.2%}"]
            shares = [f"{tokens.truncated[limit]:.1%}" for limit in limits]
            rows.append([row.language, row.side, *lengths, *ratios, *shares])
    rows[0] += [f">{limit}" for limit in limits]
    return rows


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _image_table(report: Inspection) -> Table:
    images = report.images
    assert images is not None
    rows = [["images", "5 %", "50 %", "95 %", "largest"]]
    for name in ("width", "height", "kibibytes"):
        rows.append([name, *_numbers(getattr(images, name))])
    rows += [[f"{language} captions", f"{mean:.2f} each", "", "", ""] for language, mean in images.captions.items()]
    rows += [[f"without {tag}", f"{number:,}", "", "", ""] for tag, number in images.bare.items() if number]
    for kind in dict.fromkeys([*images.phrases, *images.boxes]):
        phrases, boxes = images.phrases.get(kind, 0), images.boxes.get(kind, 0)
        without = f"{images.unplaced.get(kind, 0):,} without box"
        rows.append([f"phrases {kind}", f"{phrases:,}", without, f"{boxes:,} boxes", ""])
    if images.unnamed:
        rows.append(["boxes without phrase", f"{images.unnamed:,}", "", "", ""])
    return rows


def _shown(sample: Shown) -> str:
    facts = f"{sample.key}  ({sample.corpus}"
    if sample.width:
        facts += f", {sample.width} x {sample.height} pixels, {sample.boxes} boxes"
    lines = [f"{facts})"]
    for text in sample.texts:
        counts = ", ".join(f"{number} tokens" for number in text.tokens.values())
        lines.append(f"  {text.language:<8}{text.text}" + (f"  [{counts}]" if counts else ""))
    return "\n".join(map(printable, lines))


def _table(rows: Sequence[Sequence[str]], words: Collection[int] = (0,)) -> str:
    """Columns in line, those of words to the left and numbers to the right."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in shown) for i in range(len(shown[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i in words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
