"""The script inside report pages: sorting of tables, and the alignment viewer. It loads nothing and stores nothing."""

SORTING = """
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
