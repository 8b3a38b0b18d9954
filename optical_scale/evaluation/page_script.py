"""The script of the alignment viewer inside report pages. It loads nothing and stores nothing."""

VIEWER = """
{
  const viewer = document.querySelector('.viewer'), shown = viewer.querySelector('.shown');
  const pairs = JSON.parse(document.getElementById('alignments').textContent);
  const languages = viewer.querySelector('.language'), choices = viewer.querySelector('.pair');
  const make = (name, text, parent) => {
    const element = document.createElement(name);
    element.textContent = text;
    parent.append(element);
    return element;
  };
  const table = pair => {
    const figure = make('table', '', shown);
    figure.className = 'plan';
    const head = make('tr', '', make('thead', '', figure)), body = make('tbody', '', figure);
    make('td', '', head);
    for (const token of pair.columns) {
      const cell = make('th', token, head);
      cell.lang = pair.language;
      cell.dir = 'auto';
    }
    pair.rows.forEach((token, i) => {
      const row = make('tr', '', body);
      make('th', token, row).scope = 'row';
      pair.shares[i].forEach((share, j) => {
        const cell = make('td', share >= 10 ? share.toFixed(0) : '', row);
        cell.style.setProperty('--share', share);
        cell.title = `${token} → ${pair.columns[j]}: ${share} %`;
        if (share >= 55) cell.className = 'strong';
      });
    });
  };
  const picture = pair => {
    const words = make('p', '', shown), frame = make('div', '', shown), facts = make('p', '', shown);
    words.className = 'words';
    frame.className = 'picture';
    const image = make('img', '', frame), patches = make('div', '', frame);
    image.src = pair.picture;
    image.alt = pair.rows.join(' ');
    patches.className = 'patches';
    patches.style.gridTemplate = `repeat(${pair.height}, 1fr) / repeat(${pair.width}, 1fr)`;
    for (let i = 0; i < pair.height * pair.width; i++) make('div', '', patches);
    const show = number => {
      const shares = pair.shares[number], most = Math.max(...shares, 1e-9);
      [...patches.children].forEach((patch, i) => { patch.style.opacity = 0.85 * (1 - shares[i] / most); });
      [...words.children].forEach((word, i) => word.setAttribute('aria-pressed', i === number));
      facts.textContent = `Brightest patch: ${most.toFixed(1)} % of the mass of “${pair.rows[number]}”; ` +
        `evenly spread it would be ${(100 / shares.length).toFixed(1)} %.`;
    };
    pair.rows.forEach((word, i) => {
      const button = make('button', word, words);
      button.type = 'button';
      button.lang = pair.language;
      button.addEventListener('click', () => show(i));
    });
    show(0);
  };
  const show = () => {
    shown.replaceChildren();
    const pair = pairs[Number(choices.value)];
    if (pair.picture) picture(pair); else table(pair);
  };
  const list = () => {
    choices.replaceChildren();
    pairs.forEach((pair, i) => {
      if (pair.language === languages.value) make('option', pair.title, choices).value = i;
    });
    show();
  };
  for (const language of new Set(pairs.map(pair => pair.language))) make('option', language, languages);
  languages.addEventListener('change', list);
  choices.addEventListener('change', show);
  list();
  viewer.hidden = false;
}
"""
