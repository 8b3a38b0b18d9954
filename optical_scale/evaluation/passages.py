"""Long documents as passages, whose best score is the document's (MaxP of Dai and Callan, SIGIR 2019)."""

import re

_WORD = re.compile(r"\S+")


def split_passages(text: str, words: int | None) -> list[str]:
    """Windows of ``words`` words, each starting half a window after the one before, so that none is cut everywhere.

    Args:
        text: the document; a blank one becomes a full stop, so that it has a vector (and a low score).
        words: words between blanks; None keeps the text whole.
    """
    if not text.strip():
        return ["."]
    if words is None:
        return [text]
    spans = [match.span() for match in _WORD.finditer(text)]
    step = max(1, words // 2)
    starts = range(0, max(1, len(spans) - words + step), step)
    return [text[spans[start][0] : spans[min(start + words, len(spans)) - 1][1]] for start in starts]
