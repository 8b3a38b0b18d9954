"""Line-aligned text files as Moses tools read them: one sentence a line, UTF-8, one line feed after each."""

from collections.abc import Sequence
from pathlib import Path


def write_aligned(folder: Path, stem: str, sides: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, int]:
    """Write one file per side, ``{stem}.{side}``, with line i of all files from ``rows[i]``.

    Args:
        folder: existing folder.
        stem: for example ``train.en-sw``.
        sides: file suffixes, for example ``("en", "sw")``.
        rows: one text per side in each row; no text is empty or holds a tab or line break.

    Returns:
        Number of lines by file name.
    """
    counts = {}
    for column, side in enumerate(sides):
        lines = [row[column] for row in rows]
        assert all(line and line.splitlines() == [line] and "\t" not in line for line in lines), (stem, side)
        path = folder / f"{stem}.{side}"
        path.write_bytes("".join(f"{line}\n" for line in lines).encode())
        counts[path.name] = len(lines)
    return counts
