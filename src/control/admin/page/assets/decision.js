// Why a call was not let through, by its request id.
import { ask } from '/page/ask.js';
import { facts, instant, make, number, table } from '/page/elements.js';
import { ofMode, word } from '/page/words.js';

const ofVerdict = verdict => word(verdict);
const toCall = id => `#/decisions/${encodeURIComponent(id)}`;
const toAccount = id => (id ? make('a', { href: `#/accounts/${encodeURIComponent(id)}` }, id) : '–');

/** The newest calls that were not let through. */
export function refusals(list, withAccount = true) {
  if (!list.length) return make('p', { class: 'quiet' }, word('none'));
  const heads = [word('requestId'), word('at'), word('decision'), word('reason'), word('account'), word('action')];
  const row = of => [
    make('a', { href: toCall(of.request_id) }, make('code', {}, of.request_id)),
    instant(of.at),
    ofVerdict(of.decision),
    of.reason,
    toAccount(of.account),
    of.action ?? '–',
  ];
  const kept = withAccount ? () => true : (_, nth) => nth !== 4;
  return table(
    word(withAccount ? 'newest' : 'recent'),
    heads.filter(kept),
    list.map(of => row(of).filter(kept)),
  );
}

/** The reasons of a quota, a text each. */
export function because(reasons) {
  return (reasons ?? []).map(
    of => of.rule ?? `${of.order}: ${word('quotaOf', of.qps)}, ${instant(of.from)} – ${instant(of.until)}`,
  );
}

function described(of) {
  const all = facts();
  all.set([
    [word('requestId'), of.request_id],
    [word('at'), instant(of.at)],
    [word('decision'), ofVerdict(of.decision)],
    [word('reason'), of.reason],
    [word('title'), of.title],
    [word('status'), `${of.status} ${of.code ?? ''}`],
    [word('account'), of.account ?? '–'],
    [word('key'), of.key ?? '–'],
    [word('action'), of.action ?? '–'],
    [word('group'), of.limiter?.group],
    [word('mode'), of.mode ? ofMode(of.mode) : null],
    [word('quota'), of.quota_qps === null ? null : number(of.quota_qps)],
    [word('because'), because(of.because).join('; ') || null],
    [word('nthNewest'), of.nth_newest_start ? instant(of.nth_newest_start) : null],
    [word('nextStart'), of.next_start ? instant(of.next_start) : null],
    [word('peer'), of.peer],
    [word('generation'), of.generation === null ? null : `${of.generation} / ${of.generation_now}`],
    of.files_changed ? [word('because'), word('filesChanged')] : null,
  ]);
  return [all.node, of.account ? make('p', {}, toAccount(of.account)) : null];
}

/** The view: a form, and the answer. */
export function decision(signal, id) {
  const field = make('input', {
    class: 'id',
    id: 'request',
    name: 'request',
    autocomplete: 'off',
    spellcheck: 'false',
    required: true,
  });
  field.value = id ?? '';
  const answer = make('section', { 'aria-live': 'polite', 'aria-label': word('decision') });
  const submit = event => {
    event.preventDefault();
    location.hash = toCall(field.value.trim());
  };
  const node = make(
    'div',
    {},
    make('h1', {}, word('explain')),
    make(
      'form',
      { onsubmit: submit },
      make('label', { for: 'request' }, word('requestId'), field),
      make('button', { class: 'b' }, word('lookUp')),
    ),
    make('p', { class: 'quiet' }, word('explainHint')),
    answer,
  );
  async function show() {
    try {
      answer.replaceChildren(...described(await ask(`/v1/decisions/${encodeURIComponent(id)}`, signal)).filter(Boolean));
    } catch (error) {
      if (!signal.aborted) answer.replaceChildren(make('p', { class: 'bad' }, error.message));
    }
  }
  async function showNewest() {
    const news = await ask('/v1/status/news', signal).catch(() => null);
    if (news && !signal.aborted) answer.replaceChildren(refusals(news.refusals));
  }
  if (id) show();
  else showNewest();
  return { node, update: () => {} };
}
