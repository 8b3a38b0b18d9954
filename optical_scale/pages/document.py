"""The page around its parts, for screen (light and dark), print and black and white, and its tables."""

from collections.abc import Collection, Sequence
from html import escape

_CSS = """
:root { color-scheme: light dark; --paper: #fdfdfc; --card: #ffffff; --ink: #1b1f24; --soft: #5b6470; --line: #d5d9de;
  --heat: #14508c; --series-0: #7a8490; --series-1: #1f6fb2; --series-2: #c8641b; --series-3: #2b8a5b;
  --series-4: #8a4fa8; --series-5: #a8873a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --card: #1b1f25; --ink: #e8eaed; --soft: #a2abb6;
  --line: #3a414a; --heat: #7db8f0; --series-0: #9aa4b0; --series-1: #6db1ef; --series-2: #f0a064; --series-3: #6fcb9b;
  --series-4: #c79be0; --series-5: #d9bd73; } }
@media print { :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; }
  .chart, .scroll { break-inside: avoid; overflow: visible; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .5rem; } h3 { font-size: 1rem; margin: 1.75rem 0 .4rem; }
p, figcaption { color: var(--soft); margin: .25rem 0 .75rem; max-width: 46rem; font-size: .92rem; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .75rem;
  margin: .5rem 0 1rem; overflow-x: auto; }
.chart svg { display: block; width: 100%; min-width: 36rem; height: auto; }
.chart svg text { font-family: inherit !important; }
figure { margin: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { font-weight: 600; } tbody th, thead th:first-child { text-align: left; } tbody th { font-weight: 500; }
th.stage { text-align: center; border-left: 1px solid var(--line); } td.first { border-left: 1px solid var(--line); }
td.text, thead th.text { text-align: left; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid var(--heat); }
th[aria-sort="ascending"] button::after { content: " ▲"; } th[aria-sort="descending"] button::after { content: " ▼"; }
summary { cursor: pointer; margin: .4rem 0; } small { color: var(--soft); }
tr.mean > * { font-weight: 650; } tr.mean:first-child > * { border-top: 2px solid var(--ink); }
"""

_SORTING = """
for (const heading of document.querySelectorAll('table.sortable th[data-column]')) {
  const button = document.createElement('button');
  button.type = 'button';
  button.append(...heading.childNodes);
  heading.append(button);
  button.addEventListener('click', () => {
    const table = heading.closest('table'), column = Number(heading.dataset.column);
    const rising = heading.getAttribute('aria-sort') === 'descending';
    for (const other of table.querySelectorAll('th[aria-sort]')) other.removeAttribute('aria-sort');
    heading.setAttribute('aria-sort', rising ? 'ascending' : 'descending');
    const body = table.tBodies[0];
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const sign = rising ? 1 : -1;
    const compare = (a, b) => {
      const [x, y] = [Number(key(a)), Number(key(b))];
      // Cells without a number stay at the end.
      if (Number.isNaN(x) || Number.isNaN(y)) {
        if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
        return sign * key(a).localeCompare(key(b), undefined, {numeric: true});
      }
      return sign * (x - y);
    };
    body.append(...[...body.rows].sort(compare));
  });
}
"""


def document(title: str, parts: Sequence[str], style: str = "") -> str:
    """A page around its parts, with everything it needs inside.

    Args:
        title: plain text.
        parts: ready HTML.
        style: rules of CSS that only this page needs.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + f"\n</main>\n<script>{_SORTING}</script>\n</body>\n</html>\n"
    )


def chart(svg: str) -> str:
    """A figure around a drawing."""
    return f'<figure class="chart">{svg}</figure>'


def pairs_table(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values without a heading."""
    body = "".join(f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<div class="scroll"><table><tbody>{body}</tbody></table></div>'


def sortable_table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[int] = ()) -> str:
    """A sortable table of ready cells.

    Args:
        head: plain text of the headings.
        rows: HTML of the cells.
        words: columns of text, whose headings stand to the left.
    """
    columns = "".join(
        f"<th scope='col' data-column='{i}'{' class=text' if i in words else ''}>{escape(name)}</th>"
        for i, name in enumerate(head)
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def label_cell(text: str) -> str:
    """The heading cell of a row."""
    return f"<th scope='row'>{escape(text)}</th>"


def number_cell(value: float | None, text: str) -> str:
    """A cell that shows ``text`` and is sorted by ``value``; a dash for None."""
    return f'<td data-value="{value!r}">{text}</td>' if value is not None else "<td>–</td>"
