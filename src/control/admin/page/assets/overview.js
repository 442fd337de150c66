// The whole gate: what it does now, the last hour, what it depends on, what may need a person.
import { ask } from '/page/ask.js';
import { bytes, clockOf, facts, instant, isInUse, make, number, put, rate, seconds, table, yes } from '/page/elements.js';
import { plot } from '/page/plot.js';
import { refusals } from '/page/decision.js';
import { word } from '/page/words.js';

const HOUR = 3600;

function card(name, id, kind) {
  const value = make('dd', { 'data-figure': id, class: kind });
  return { node: make('div', { class: 'card' }, make('dt', {}, name), value), value };
}

const section = (title, ...content) => make('section', { 'aria-label': title }, make('h2', {}, title), content);

function days(left) {
  if (left === null) return null;
  return left > 3650 ? word('longer') : word('daysOf', number(Math.floor(left)));
}

const up = is => [word('up'), yes(is)];
const gone = name => [[word('state'), [word(name), 'quiet']]];
const trouble = why => (why ? [word('trouble'), [why, 'bad']] : null);

const ofUpstream = now => [
  [word('reachable'), yes(now.upstream_up)],
  [`${word('half')}, ${word('minute')}`, seconds(now.upstream[0])],
  [`${word('most')}, ${word('minute')}`, seconds(now.upstream[1])],
];

const ofLedger = (ledger, now) => [
  [word('healthy'), yes(ledger.healthy)],
  [word('records'), number(ledger.last_seq)],
  [word('lastCommit'), instant(ledger.last_commit_at)],
  [word('lag'), number(ledger.pending)],
  [word('size'), `${bytes(ledger.bytes)} + ${bytes(ledger.wal_bytes)}`],
  [word('free'), bytes(ledger.free_bytes)],
  [word('days'), days(now.disk_days_left) ?? '–'],
];

function ofStore(store) {
  if (!store) return gone('alone');
  const node = of => [of.node, [of.trouble ?? `${of.up}/${of.connections}`, of.up === of.connections ? 'good' : 'bad']];
  return [up(store.up), [word('since'), instant(store.since)], ...store.nodes.map(node)];
}

function ofOutbox(outbox, ledger) {
  if (!outbox) return gone('stays');
  return [
    up(outbox.up),
    [word('since'), instant(outbox.since)],
    [word('server'), outbox.nats.server ?? '–'],
    [word('notSent'), number(outbox.lag_records)],
    [word('waited'), seconds(outbox.lag_seconds)],
    [word('notCollected'), number(Math.max(0, ledger.last_seq - outbox.collected_seq))],
    trouble(outbox.trouble),
  ];
}

const ofStanding = standing => [
  [word('current'), yes(standing.is_current)],
  [word('at'), instant(standing.as_of)],
  [word('generation'), number(standing.generation)],
  [word('stoppedAccounts'), number(standing.stopped)],
];

/** Of each ledger what it told and is not collected, and before which instant all is. */
function ofCollector(collector) {
  const source = of => [
    `${of.replica} ${of.ledger.slice(0, 8)}`,
    [
      of.broken ?? `${word('notCollected')} ${number(of.lag_records)} · ${word('watermark')} ${instant(of.watermark)}`,
      of.broken ? 'bad' : '',
    ],
  ];
  return [
    up(collector.nats.up),
    [word('server'), collector.nats.server ?? '–'],
    [word('records'), number(collector.records)],
    trouble(collector.waits ?? collector.nats.trouble),
    ...collector.sources.map(source),
  ];
}

const ofProcess = (process, now) => [
  [word('state'), [process.state, process.state === 'serving' ? 'good' : 'bad']],
  [word('since'), instant(process.started_at)],
  [word('replica'), process.replica],
  [word('generation'), number(process.policy.generation)],
  [word('digest'), process.policy.digest.slice(0, 12) || '–'],
  [word('accounts'), number(process.policy.accounts)],
  [word('lastReload'), yes(process.policy.last_reload_success)],
  [word('restart'), yes(process.policy.restart_pending, false)],
  // It is not in the first hour of each process.
  [word('clock'), word(now.clock_trusted ? 'yes' : 'no')],
];

/** What the process depends on, and is: for each title the facts of now. A collector takes no calls. */
function parts(now) {
  const { process } = now;
  const { ledger, outbox, store, standing, collector } = process;
  return [
    collector ? null : [word('upstream'), ofUpstream(now)],
    [word('ledger'), ofLedger(ledger, now)],
    collector ? [word('collector'), ofCollector(collector)] : [word('store'), ofStore(store)],
    collector ? null : [word('outbox'), ofOutbox(outbox, ledger)],
    standing ? [word('standing'), ofStanding(standing)] : null,
    [word('process'), ofProcess(process, now)],
  ].filter(Boolean);
}

function reloads(list) {
  const outcome = of => make('span', { class: of === 'refused' ? 'bad' : '' }, word(of === 'refused' ? 'refusedReload' : of));
  const said = of =>
    make(
      'ul',
      { lang: 'en' },
      of.lines.map(line => make('li', {}, line)),
      of.all_lines > of.lines.length ? make('li', {}, word('moreLines', of.all_lines - of.lines.length)) : null,
    );
  if (!list.length) return make('p', { class: 'quiet' }, word('none'));
  return table(
    word('reloads'),
    [word('at'), word('outcome'), { n: word('generation') }, word('said')],
    list.map(of => [
      instant(of.at),
      outcome(of.outcome),
      { n: number(of.generation) },
      of.lines.length ? said(of) : word('nothing'),
    ]),
  );
}

function events(list, pending) {
  if (list === null) return make('p', { class: 'bad' }, word('ledgerAway'));
  if (!list.length) return make('p', { class: 'quiet' }, word('none'));
  const link = id => make('a', { href: `#/accounts/${encodeURIComponent(id)}` }, id);
  return [
    make('p', {}, word('newestOf', list.length, Math.max(pending, list.length))),
    table(
      word('events'),
      [word('at'), word('type'), word('account'), word('failing')],
      list.map(of => [instant(of.raised_at), of.type, link(of.account), instant(of.failing_since)]),
    ),
  ];
}

/** The view. `update` gets the figures of now, each second. */
export function overview(signal) {
  const cards = ['admitted', 'throttled', 'refused'].map(name => card(`${word(name)}, ${word('perSecond')}`, `rate-${name}`));
  const totals = ['admitted', 'throttled', 'refused'].map(name => card(`${word(name)}, ${word('sinceStart')}`, `total-${name}`));
  const times = ['overhead', 'upstream'].map(name =>
    card(`${word(name === 'upstream' ? 'upstreamTime' : name)}, ${word('half')} / ${word('most')}`, name, 'pair'),
  );
  const more = [
    card(`${word('pending')} / ${word('inFlight')}`, 'pending'),
    card(word('connections'), 'connections'),
    card(word('inArrears'), 'arrears'),
    card(word('events'), 'events'),
  ];
  const decided = plot(
    word('calls'),
    [
      { name: word('admitted'), kind: 'a' },
      { name: word('throttled'), kind: 'b' },
      { name: word('refused'), kind: 'c' },
    ],
    rate,
    1240,
  );
  const both = [
    { name: word('half'), kind: 'a' },
    { name: word('most'), kind: 'b' },
  ];
  const [overhead, upstream] = [plot(word('overhead'), both, seconds), plot(word('upstreamTime'), both, seconds)];
  const places = make('div', { class: 'halves' });
  const [news, pack, calls] = [make('div'), make('div'), make('div')];
  const node = make(
    'div',
    {},
    make('h1', {}, word('now')),
    make(
      'dl',
      { class: 'cards' },
      [...cards, ...times, ...totals, ...more].map(of => of.node),
    ),
    section(word('lastHour'), make('div', {}, decided.node)),
    make('div', { class: 'halves' }, section(word('overhead'), overhead.node), section(word('upstreamTime'), upstream.node)),
    places,
    section(word('newest'), calls),
    section(word('reloads'), news),
    section(word('events'), pack),
  );

  let points = [],
    number_of = 0,
    drawn = new Map(),
    asked = '',
    clock = null;
  const draw = until => {
    decided.set(
      until,
      points.map(of => [of.at, ...of.rates]),
      clock,
    );
    overhead.set(
      until,
      points.map(of => [of.at, ...of.overhead]),
      clock,
    );
    upstream.set(
      until,
      points.map(of => [of.at, ...of.upstream]),
      clock,
    );
  };

  async function begin() {
    const hour = await ask('/v1/status/history', signal);
    [points, number_of] = [hour.points, hour.number];
  }
  let begun = begin().catch(() => {});

  async function tellNews(now) {
    const told = await ask('/v1/status/news', signal).catch(() => null);
    if (!told || signal.aborted) return;
    news.replaceChildren(reloads(told.reloads));
    pack.replaceChildren(...[events(told.events, now.events_pending)].flat());
    if (!isInUse(calls)) calls.replaceChildren(refusals(told.refusals));
  }

  function put_cards(now) {
    now.rates.forEach((value, nth) => put(cards[nth].value, rate(value)));
    now.totals.decided.forEach((value, nth) => put(totals[nth].value, number(value)));
    [now.overhead, now.upstream].forEach(([half, most], nth) => put(times[nth].value, `${seconds(half)} / ${seconds(most)}`));
    const { calls: of, connections } = now.process;
    [
      now.process.collector ? '–' : `${number(of.pending)} / ${number(of.in_flight)}`,
      `${number(connections)} / ${number(now.connections_limit)}`,
      number(now.accounts_in_arrears),
      number(now.events_pending),
    ].forEach((text, nth) => put(more[nth].value, text));
  }

  function put_parts(now) {
    for (const [title, pairs] of parts(now)) {
      if (!drawn.has(title)) {
        drawn.set(title, facts());
        places.append(section(title, drawn.get(title).node));
      }
      drawn.get(title).set(pairs);
    }
  }

  async function update(now) {
    await begun;
    clock = clockOf(now.at);
    put_cards(now);
    put_parts(now);
    if (now.point && now.point.number !== number_of) {
      // After a pause more than one is missing.
      if (now.point.number === number_of + 1)
        [points, number_of] = [[...points, now.point.point].filter(of => of.at > now.unix - HOUR), now.point.number];
      else await (begun = begin().catch(() => {}));
    }
    draw(now.unix);
    // What is not told each second is asked for when its counts have changed.
    const [, throttled, refused] = now.totals.decided;
    const counts = [now.reloads, now.events_pending, throttled, refused].join();
    if (counts !== asked) {
      asked = counts;
      await tellNews(now);
    }
  }

  let busy = false;
  return {
    node,
    update: now => {
      if (busy) return;
      busy = true;
      update(now)
        .catch(() => {})
        .finally(() => {
          busy = false;
        });
    },
  };
}
