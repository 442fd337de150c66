// The accounts, a page at a time: the gate searches, filters and sorts.
import { ask } from '/page/ask.js';
import { bar, make, number, put } from '/page/elements.js';
import { ofMode, word } from '/page/words.js';

const ROWS = 50;
const EVERY = 2000;
const ONLY = [
  ['all', 'all'],
  ['called', 'called'],
  ['throttled', 'withThrottles'],
  ['stopped', 'stopped'],
  ['arrears', 'arrears'],
  ['per_call', 'per_call'],
  ['qps', 'qps'],
  ['free', 'free_mode'],
];
const SORT = [
  ['id', 'id'],
  ['name', 'name'],
  ['throttled', 'throttled'],
  ['admitted', 'admitted'],
  ['refused', 'refused'],
  ['used', 'used'],
];

const stopOf = stop => (stop === 'violation' ? word('violation') : word('arrearsStop'));

/** By group the limiter of an account that is used most: how it is charged, the live use against the quota. */
function limiters(services) {
  return Object.entries(services).map(([group, all]) => {
    const of = all.reduce((most, next) =>
      next.in_use * (most.quota_qps || 1) > most.in_use * (next.quota_qps || 1) ? next : most,
    );
    const kind = of.stopped ? stopOf(of.stopped) : ofMode(of.mode) + (all.length > 1 ? ` × ${all.length}` : '');
    return make(
      'div',
      { class: 'limiter' },
      make('span', {}, group, make('br'), make('span', { class: of.stopped ? 'bad' : 'quiet' }, kind)),
      bar(of.in_use, of.quota_qps, word('useOf', of.action ?? group)),
      make('span', { class: 'n' }, `${of.in_use} / ${of.quota_qps}`),
    );
  });
}

function sums(services) {
  const all = Object.values(services).flat();
  return ['admitted', 'throttled', 'refused'].map(name => all.reduce((sum, of) => sum + of[name], 0));
}

function choice(id, name, options, chosen, change) {
  const select = make(
    'select',
    { id, onchange: event => change(event.target.value) },
    options.map(([value, text]) => make('option', { value, selected: value === chosen }, word(text))),
  );
  return make('label', { for: id }, word(name), select);
}

/** One row, whose cells change in place: what has the focus keeps it. */
function row(id) {
  const link = make('a', { href: `#/accounts/${encodeURIComponent(id)}` }, id);
  const [called, standing] = [make('div'), make('div', { class: 'bad' })];
  const name = make('td', { class: 'name' }, called, standing);
  const use = make('td');
  const figures = Array.from({ length: 7 }, () => make('td', { class: 'n' }));
  const node = make('tr', { 'data-account': id }, make('th', { scope: 'row' }, link), name, use, figures);
  let drawn = '';
  return {
    id,
    node,
    set(of, books) {
      const services = JSON.stringify(of.services);
      if (services !== drawn) use.replaceChildren(...limiters(of.services));
      drawn = services;
      const in_arrears = of.in_arrears || books?.in_arrears;
      put(called, of.name);
      put(standing, in_arrears ? word('arrearsStop') : '');
      const texts = [
        ...sums(of.services).map(number),
        number(books?.calls),
        number(books?.free_left),
        number(books?.packs_left),
        books?.balance ?? '–',
      ];
      texts.forEach((text, nth) => put(figures[nth], text));
      figures[6].className = in_arrears ? 'n bad' : 'n';
    },
  };
}

/** The view. `query` is what stands behind `?` in the address. */
export function accounts(signal, query) {
  const asked = {
    search: query.get('search') ?? '',
    only: query.get('only') ?? 'all',
    sort: query.get('sort') ?? 'id',
    descending: query.get('descending') === 'true',
    offset: Number(query.get('offset') ?? 0) || 0,
  };
  const go = change => {
    Object.assign(asked, { offset: 0 }, change);
    const kept = new URLSearchParams(
      Object.entries(asked)
        .filter(([, value]) => value && value !== 'all')
        .map(([name, value]) => [name, String(value)]),
    );
    history.replaceState(null, '', `#/accounts?${kept}`);
    refresh();
  };
  const field = make('input', { id: 'search', type: 'search', maxlength: '64', autocomplete: 'off', spellcheck: 'false' });
  field.value = asked.search;
  let typed;
  field.addEventListener('input', () => {
    clearTimeout(typed);
    typed = setTimeout(() => go({ search: field.value }), 250);
  });
  const found = make('p', { role: 'status', class: 'quiet' });
  const body = make('tbody');
  const heads = ['account', 'name', 'window', 'admitted', 'throttled', 'refused', 'month', 'freeLeft', 'packsLeft', 'balance'];
  const elsewhere = make('p', { class: 'quiet' });
  const [before, next] = [
    make(
      'button',
      { class: 'b', type: 'button', onclick: () => go({ offset: Math.max(0, asked.offset - ROWS) }) },
      word('before'),
    ),
    make('button', { class: 'b', type: 'button', onclick: () => go({ offset: asked.offset + ROWS }) }, word('next')),
  ];
  const place = make('span');
  const down = make('input', { id: 'down', type: 'checkbox', onchange: event => go({ descending: event.target.checked }) });
  down.checked = asked.descending;
  // Figures are of interest where they are high, names from the first on.
  const sort = value => {
    down.checked = value !== 'id' && value !== 'name';
    go({ sort: value, descending: down.checked });
  };
  const node = make(
    'div',
    {},
    make('h1', {}, word('accounts')),
    make(
      'form',
      { role: 'search', onsubmit: event => event.preventDefault() },
      make('label', { for: 'search' }, word('search'), field),
      choice('only', 'only', ONLY, asked.only, only => go({ only })),
      choice('sort', 'sort', SORT, asked.sort, sort),
      make('label', { for: 'down' }, word('descending'), down),
    ),
    found,
    make(
      'section',
      { 'aria-label': word('accounts') },
      make(
        'div',
        { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': word('accounts') },
        make(
          'table',
          {},
          make(
            'thead',
            {},
            make(
              'tr',
              {},
              heads.map((name, nth) => make('th', { scope: 'col', class: nth > 2 ? 'n' : null }, word(name))),
            ),
          ),
          body,
        ),
      ),
      make('div', { class: 'pages' }, before, place, next),
    ),
    elsewhere,
  );

  let rows = [],
    books = {},
    booked = '',
    asking = 0;
  async function refresh() {
    asking += 1;
    const mine = asking;
    const { search, only, descending, offset } = asked;
    const parameters = new URLSearchParams({
      search,
      only,
      sort: asked.sort,
      descending: String(descending),
      offset: String(offset),
      rows: String(ROWS),
    });
    const page = await ask(`/v1/status/accounts?${parameters}`, signal).catch(error => ({ error }));
    if (mine !== asking || signal.aborted) return;
    if (page.error) {
      put(found, page.error.message);
      return;
    }
    put(found, word('found', number(page.found), number(page.accounts)));
    draw(page);
    await readBooks(page.rows.map(of => of.id));
    if (mine === asking && !signal.aborted) draw(page);
  }

  function draw(page) {
    if (page.rows.map(of => of.id).join() !== rows.map(of => of.id).join()) {
      rows = page.rows.map(of => row(of.id));
      body.replaceChildren(...rows.map(of => of.node));
    }
    page.rows.forEach((of, nth) => rows[nth].set(of, books[of.id]));
    put(place, page.rows.length ? word('rows', number(page.offset + 1), number(page.offset + page.rows.length)) : word('none'));
    before.disabled = page.offset === 0;
    next.disabled = page.offset + page.rows.length >= page.found;
  }

  /** What the ledger knows, of the shown rows alone and seldom: it takes longer. */
  let readAt = 0;
  async function readBooks(ids) {
    if (!ids.length || (ids.join() === booked && Date.now() - readAt < 20000)) return;
    [booked, readAt] = [ids.join(), Date.now()];
    const known = await ask(`/v1/status/books?ids=${ids.join(',')}`, signal).catch(() => null);
    if (!known) return;
    books = { ...Object.fromEntries(Object.entries(books).filter(([id]) => ids.includes(id))), ...known.accounts };
    put(elsewhere, known.elsewhere ? word('elsewhere') : '');
    // The gate leaves out those for which its time was up.
    if (ids.some(id => !(id in books))) readAt = 0;
  }

  const again = setInterval(() => {
    if (!document.hidden) refresh();
  }, EVERY);
  signal.addEventListener('abort', () => clearInterval(again));
  refresh();
  return { node, update: () => {} };
}
