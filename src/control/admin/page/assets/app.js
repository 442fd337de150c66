// The frame: which view is shown, the language, the theme, the token, the figures of each second.
import { account } from '/page/account.js';
import { accounts } from '/page/accounts.js';
import { listen, onTokenWanted, setToken } from '/page/ask.js';
import { decision } from '/page/decision.js';
import { make, put } from '/page/elements.js';
import { overview } from '/page/overview.js';
import { language, setLanguage, word, writeFrame } from '/page/words.js';

const main = document.getElementById('main');
const line = document.getElementById('line');
const version = document.getElementById('version');
let view = null,
  shown = new AbortController(),
  listening = new AbortController(),
  wantsToken = false,
  now = null;

/** The view that the address names. */
function viewOf(signal) {
  const [path, query] = location.hash.replace(/^#/, '').split('?');
  const [, name, id] = path.split('/').map(part => {
    try {
      return decodeURIComponent(part);
    } catch {
      return '';
    }
  });
  if (!name) return overview(signal);
  if (name === 'accounts') return id ? account(signal, id) : accounts(signal, new URLSearchParams(query));
  if (name === 'decisions') return decision(signal, id);
  return { node: make('p', {}, word('notFound')), update: () => {} };
}

function show(takesFocus) {
  shown.abort();
  shown = new AbortController();
  wantsToken = false;
  writeFrame();
  view = viewOf(shown.signal);
  main.replaceChildren(view.node);
  const name = location.hash.split(/[/?]/)[1] ?? '';
  for (const link of document.querySelectorAll('nav a')) {
    if ((link.hash.split('/')[1] ?? '') === name) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${main.querySelector('h1')?.textContent ?? ''} · tollgate`;
  if (takesFocus) main.focus();
  if (now) view.update(now);
}

function follow() {
  listening.abort();
  listening = new AbortController();
  const tell = told => {
    now = told;
    put(version, `tollgate ${told.process.version} (${told.process.commit}) · ${told.process.replica}`);
    if (!wantsToken) view.update(told);
  };
  const tellLine = (is_there, why) => put(line, is_there ? word('connected') : why || word('away'));
  listen(tell, tellLine, listening.signal);
}

/** Asks for the token, in place of the view. */
function wantToken(why) {
  if (wantsToken) return;
  wantsToken = true;
  shown.abort();
  const field = make('input', { id: 'token', type: 'password', autocomplete: 'off', required: true });
  const enter = event => {
    event.preventDefault();
    setToken(field.value);
    show(true);
    follow();
  };
  main.replaceChildren(
    make('h1', {}, word('token')),
    make('p', { role: 'alert' }, word(why)),
    make(
      'form',
      { onsubmit: enter },
      make('label', { for: 'token' }, word('token'), field),
      make('button', { class: 'b' }, word('enter')),
    ),
    make('p', { class: 'quiet' }, word('tokenKept')),
  );
  field.focus();
}

const languages = document.getElementById('language');
languages.value = language();
languages.addEventListener('change', () => {
  setLanguage(languages.value);
  show(false);
});
const themes = document.getElementById('theme');
themes.value = document.documentElement.dataset.theme ?? 'auto';
themes.addEventListener('change', () => {
  localStorage.setItem('tollgate.theme', themes.value);
  if (themes.value === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = themes.value;
});
onTokenWanted(wantToken);
addEventListener('hashchange', () => show(true));
// A browser keeps a page that was left, with its connections: six of them, and it could ask for nothing more.
addEventListener('pagehide', () => {
  listening.abort();
  shown.abort();
});
addEventListener('pageshow', event => {
  if (!event.persisted) return;
  show(false);
  follow();
});
show(false);
follow();
