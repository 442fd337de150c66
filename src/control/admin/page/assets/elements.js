// Elements. A text becomes a text node here and nowhere else, so that no name is ever markup.
import { language, word } from '/page/words.js';

/** An element with properties (`class`, `on…`, attributes) and children: nodes, texts, or nothing. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined));
  return element;
}

/** Puts another text into an element, if it is another. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Whether somebody points at something in it or has reached it with the keyboard: then it must not be drawn anew. */
export const isInUse = place => place.contains(document.activeElement) || place.matches(':hover');

/** A table. `rows` are lists of cells: a text, a node, or `{n}` for a number. */
export function table(caption, heads, rows) {
  const cell = (content, first) => {
    const is_number = content !== null && typeof content === 'object' && 'n' in content;
    const tag = first ? 'th' : 'td';
    return make(tag, { scope: first ? 'row' : null, class: is_number ? 'n' : 'wrap' }, is_number ? content.n : content);
  };
  const head = name => {
    const is_number = typeof name === 'object';
    return make('th', { scope: 'col', class: is_number ? 'n' : null }, is_number ? name.n : name);
  };
  return make(
    'div',
    { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': caption },
    make(
      'table',
      {},
      make('caption', {}, caption),
      make('thead', {}, make('tr', {}, heads.map(head))),
      make(
        'tbody',
        {},
        rows.map(row =>
          make(
            'tr',
            {},
            row.map((content, nth) => cell(content, nth === 0)),
          ),
        ),
      ),
    ),
  );
}

/** Names and values that change: `set` puts new ones in. A value is a text or `[text, class]`. */
export function facts() {
  const node = make('dl', { class: 'facts' });
  const known = new Map();
  const set = pairs => {
    const shown = pairs.filter(pair => pair && pair[1] !== null && pair[1] !== undefined);
    for (const [name, value] of shown) {
      const [text, kind] = Array.isArray(value) ? value : [value, ''];
      if (!known.has(name)) {
        known.set(name, make('dd'));
        node.append(make('dt', {}, name), known.get(name));
      }
      put(known.get(name), String(text));
      known.get(name).className = kind;
    }
    const names = new Set(shown.map(([name]) => name));
    for (const [name, of] of known) {
      if (names.has(name)) continue;
      of.previousSibling.remove();
      of.remove();
      known.delete(name);
    }
  };
  return { node, set };
}

/** The live use of a window as a bar against the cap. */
export function bar(used, cap, label) {
  const part = cap > 0 ? Math.min(1, used / cap) : 0;
  const fill = make('i');
  // Not an attribute: the page's policy allows no style in markup.
  fill.style.width = `${(part * 100).toFixed(1)}%`;
  return make(
    'div',
    {
      class: part >= 1 ? 'bar full' : 'bar',
      role: 'meter',
      'aria-label': label,
      'aria-valuenow': String(used),
      'aria-valuemin': '0',
      'aria-valuemax': String(Math.max(cap, used, 1)),
      'aria-valuetext': `${used} / ${cap}`,
    },
    fill,
  );
}

export const number = value => (value === null || value === undefined ? '–' : new Intl.NumberFormat(language()).format(value));

export function rate(value) {
  return value >= 100 ? number(Math.round(value)) : number(Math.round(value * 10) / 10);
}

export function seconds(value) {
  if (value === null || value === undefined) return '–';
  if (value === 0) return '0';
  if (value < 0.001) return `${number(Math.round(value * 1e6))} µs`;
  if (value < 1) return `${number(Number((value * 1e3).toPrecision(3)))} ms`;
  return `${number(Number(value.toPrecision(3)))} s`;
}

export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let nth = 0;
  for (; value >= 1024 && nth < units.length - 1; nth += 1) value /= 1024;
  return `${number(Number(value.toPrecision(3)))} ${units[nth]}`;
}

/** An instant in the provider's zone, as the gate writes it, to the second. */
export const instant = text => (text ? text.slice(0, 19).replace('T', ' ') : '–');

/** Writes Unix times in the provider's zone, whose offset stands at the end of each instant. */
export function clockOf(instantText) {
  const [, sign, hours, minutes] = instantText.match(/([+-])(\d\d):(\d\d)/) ?? [null, '+', '0', '0'];
  const offset = (sign === '-' ? -60 : 60) * (Number(hours) * 60 + Number(minutes));
  return at => new Date((at + offset) * 1000).toISOString().slice(11, 16);
}

export const yes = (is, good = true) => [word(is ? 'yes' : 'no'), is === good ? 'good' : 'bad'];
