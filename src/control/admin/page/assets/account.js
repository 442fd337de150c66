// One account: its last hour, its quotas and why, its orders, keys, statement so far and refusals.
import { ask } from '/page/ask.js';
import { bar, clockOf, facts, instant, isInUse, make, number, put, rate, table } from '/page/elements.js';
import { because, refusals } from '/page/decision.js';
import { plot } from '/page/plot.js';
import { ofMode, word } from '/page/words.js';

const EVERY = 3000;
const SELDOM = 20000;
const section = (title, ...content) => make('section', { 'aria-label': title }, make('h2', {}, title), content);

function quotas(services) {
  const all = Object.entries(services).flatMap(([group, of]) => of.map(limiter => ({ group, ...limiter })));
  const heads = [
    word('group'),
    word('mode'),
    { n: word('quota') },
    word('inUse'),
    { n: word('admitted') },
    { n: word('throttled') },
    { n: word('refused') },
    word('because'),
    word('next_change'),
  ];
  const change = of => (of.next_change ? `${instant(of.next_change.at)}: ${word('quotaOf', of.next_change.quota_qps)}` : '–');
  return table(
    word('quotas'),
    heads,
    all.map(of => [
      of.action ? `${of.group} / ${of.action}` : of.group,
      make(
        'span',
        { class: of.stopped ? 'bad' : '' },
        of.stopped ? word(of.stopped === 'violation' ? 'violation' : 'arrearsStop') : ofMode(of.mode),
      ),
      { n: number(of.quota_qps) },
      make('div', {}, bar(of.in_use, of.quota_qps, word('useOf', of.action ?? of.group)), `${of.in_use} / ${of.quota_qps}`),
      { n: number(of.admitted) },
      { n: number(of.throttled) },
      { n: number(of.refused) },
      make(
        'ul',
        { lang: 'en' },
        [...because(of.because), of.to_do].map(text => make('li', {}, text)),
      ),
      change(of),
    ]),
  );
}

function keys(list) {
  return table(
    word('keys'),
    [word('key'), word('expires'), word('lastUsed')],
    list.map(of => [
      make('code', {}, of.key),
      of.expires ? instant(of.expires) : word('none'),
      of.last_used ? instant(of.last_used) : word('never'),
    ]),
  );
}

function orders(told) {
  const what = of =>
    ({
      pack: () =>
        word('pack', of.count, number(of.calls)) + (of.refunded ? ` · ${word('refunded')} ${instant(of.refunded)}` : ''),
      qps: () => word('quotaOf', of.qps),
      licence: () => `${word('licence')} ${of.package}`,
      payment: () => `${word('payment')} ${of.amount}`,
      adjustment: () => `${word('adjustment')} ${of.amount}: ${of.why}`,
    })[of.kind]();
  if (!told.orders) return make('p', { class: 'quiet' }, word('none'));
  return [
    told.orders > told.newest_orders.length ? make('p', {}, word('newestOf', told.newest_orders.length, told.orders)) : null,
    table(
      word('orders'),
      [word('order'), word('group'), word('what'), word('from'), word('until')],
      told.newest_orders.map(of => [
        make('code', {}, of.order),
        of.group ?? '–',
        what(of),
        instant(of.from),
        of.until ? instant(of.until) : '–',
      ]),
    ),
  ].filter(Boolean);
}

function statement(of) {
  const all = facts();
  all.set([
    [word('state'), `${of.month}, ${word(of.fixed ? 'fixed' : 'provisional')}`],
    [word('dueAt'), `${of.due} ${of.currency}`],
    [word('paid'), `${of.paid_when_ordered} ${of.currency}`],
    of.balance ? [word('balance'), `${of.balance.after} ${of.currency}`] : null,
  ]);
  const rows = of.groups.map(group => {
    const calls = [...group.calls, ...group.not_billable].reduce((sum, line) => sum + line.calls, 0);
    return [
      group.group,
      { n: number(calls) },
      { n: number(group.per_call?.free.left) },
      { n: number(group.per_call?.packs.reduce((sum, pack) => sum + pack.left, 0)) },
      { n: number(group.per_call?.postpaid.calls) },
    ];
  });
  const heads = [word('group'), { n: word('month') }, { n: word('freeLeft') }, { n: word('packsLeft') }, { n: word('postpaid') }];
  return [all.node, rows.length ? table(word('statement'), heads, rows) : null].filter(Boolean);
}

/** The view. */
export function account(signal, id) {
  const name = make('h1', {}, id);
  const lines = [
    { name: word('admitted'), kind: 'a' },
    { name: word('throttled'), kind: 'b' },
    { name: word('refused'), kind: 'c' },
  ];
  const hour = plot(word('calls'), lines, rate, 1240);
  const [noHour, quota, order, key, bill, calls, balance] = Array.from({ length: 7 }, () => make('div'));
  const node = make(
    'div',
    {},
    name,
    balance,
    section(word('lastHour'), hour.node, noHour),
    section(word('quotas'), quota),
    make('div', { class: 'halves' }, section(word('statement'), bill), section(word('keys'), key)),
    section(word('orders'), order),
    section(word('recent'), calls),
  );
  const path = encodeURIComponent(id);
  let drawn = '';
  const draw = (place, content) => {
    const hadFocus = place.contains(document.activeElement);
    place.replaceChildren(...[content].flat());
    if (hadFocus) place.querySelector('[tabindex]')?.focus({ preventScroll: true });
  };

  /** What the ledger is not needed for. */
  async function describe() {
    const told = await ask(`/v1/status/accounts/${path}`, signal);
    if (told.name) put(name, `${told.name} (${id})`);
    draw(quota, quotas(told.services));
    const steps = told.steps ?? [];
    const begins = told.unix - (steps.length - 1) * told.step_seconds;
    const rates = (step, nth) => [begins + nth * told.step_seconds, ...step.map(count => count / told.step_seconds)];
    hour.set(told.unix, steps.map(rates), clockOf(told.at));
    const limiters = Object.values(told.services).flat();
    const hasCalls = limiters.some(of => of.admitted + of.throttled + of.refused > 0);
    put(noHour, told.steps ? '' : word(hasCalls ? 'noHour' : 'soon'));
    const rest = JSON.stringify([told.newest_orders, told.refusals]);
    if (rest !== drawn && !isInUse(calls)) {
      draw(order, orders(told));
      draw(calls, refusals(told.refusals, false));
      drawn = rest;
    }
  }

  /** What the ledger knows: seldom, for it takes as long as a bill. */
  async function readBooks() {
    const of = await ask(`/v1/accounts/${path}`, signal);
    draw(key, keys(of.keys));
    const { balances } = of;
    const owes = balances?.in_arrears ? ` · ${word('arrearsStop')}` : '';
    if (of.removed) draw(balance, make('p', { class: 'bad' }, word('removed')));
    else if (balances)
      draw(balance, make('p', { class: owes ? 'bad' : 'quiet' }, `${word('balance')} ${balances.balance}${owes}`));
    // A replica makes no bills.
    if ('books' in of) draw(bill, make('p', { class: 'quiet' }, word('elsewhere')));
    else draw(bill, statement(await ask(`/v1/statements/${path}`, signal)));
  }

  const tell = place => error => {
    if (!signal.aborted) draw(place, make('p', { class: 'bad', role: 'alert' }, error.message));
  };
  const unlessHidden = then => () => document.hidden || then();
  const refresh = () => describe().catch(tell(noHour));
  const refreshBooks = () => readBooks().catch(tell(balance));
  const again = [setInterval(unlessHidden(refresh), EVERY), setInterval(unlessHidden(refreshBooks), SELDOM)];
  signal.addEventListener('abort', () => again.forEach(clearInterval));
  refresh();
  refreshBooks();
  return { node, update: () => {} };
}
