// Plots of the last hour, or of what there is of it, as SVG.
import { make, put } from '/page/elements.js';
import { word } from '/page/words.js';

const [HEIGHT, LEFT, BOTTOM, TOP] = [170, 52, 20, 8];
const HOUR = 3600;
/** A process that has just started has so much of an hour, with room to see it. */
const LEAST = 120;

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A round number that is not below `most`. */
function nice(most) {
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map(step => step * power).find(step => step >= most * 0.999999);
}

/**
 * A plot of lines over the last hour, or since the first point of a younger process.
 * `lines`: `{name, kind}` each, kind `a`, `b` or `c`; `unit` writes a value.
 * `set(until, points, clock)`: the last instant, points `[unix time, value of each line or null]`, and how an instant is written.
 */
export function plot(title, lines, unit, width = 640) {
  const marks = svg('g');
  const paths = lines.map(line => svg('path', { class: `s ${line.kind}` }));
  const drawing = svg('svg', { class: 'plot', viewBox: `0 0 ${width} ${HEIGHT}`, role: 'img' }, marks, ...paths);
  const values = lines.map(() => make('span'));
  const keys = lines.map((line, nth) =>
    make(
      'span',
      {},
      svg(
        'svg',
        { class: 'key', viewBox: '0 0 26 8', 'aria-hidden': 'true' },
        svg('path', { class: `key ${line.kind}`, d: 'M0 4H26' }),
      ),
      ` ${line.name} `,
      values[nth],
    ),
  );
  const numbers = make('tbody');
  const details = make(
    'details',
    {},
    make('summary', {}, word('asTable')),
    make(
      'div',
      { class: 'scroll' },
      make(
        'table',
        {},
        make('caption', {}, title),
        make(
          'thead',
          {},
          make(
            'tr',
            {},
            make('th', { scope: 'col' }, word('at')),
            lines.map(line => make('th', { scope: 'col', class: 'n' }, line.name)),
          ),
        ),
        numbers,
      ),
    ),
  );
  const node = make('figure', {}, make('figcaption', {}, make('strong', {}, title), keys), drawing, details);

  let span = HOUR;
  const x = (at, until) => LEFT + (width - LEFT) * (1 - (until - at) / span);
  const y = (value, top) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);

  function grid(until, top, clock) {
    const all = [0, top / 2, top].flatMap(value => [
      svg('path', { class: 'grid', d: `M${LEFT} ${y(value, top)}H${width}` }),
      svg('text', { x: LEFT - 6, y: y(value, top) + 4, 'text-anchor': 'end' }, unit(value)),
    ]);
    const step = [60, 300, 900].find(step => span / step <= 6);
    for (let at = until - (until % step); at > until - span * 0.96; at -= step) {
      const end = until - at < span / 40 ? 'end' : 'middle';
      all.push(svg('text', { x: x(at, until), y: HEIGHT - 5, 'text-anchor': end }, clock(at)));
    }
    marks.replaceChildren(...all);
  }

  /** The path of one line; a gap where nothing was. */
  function line(points, nth, until, top) {
    let drawn = '',
      before = null;
    for (const point of points) {
      const value = point[nth + 1];
      if (value !== null) {
        const is_gap = before === null || point[0] - before > 60;
        drawn += `${is_gap ? 'M' : 'L'}${x(point[0], until).toFixed(1)} ${y(value, top).toFixed(1)}`;
        // A single point is a dot.
        if (is_gap) drawn += 'h1';
        before = point[0];
      }
    }
    return drawn;
  }

  function set(until, points, clock) {
    const shown = points.filter(point => point[0] > until - HOUR);
    span = Math.min(HOUR, Math.max(LEAST, until - (shown[0]?.[0] ?? until)));
    const all = shown.flatMap(point => point.slice(1)).filter(value => value !== null);
    const top = nice(all.reduce((most, value) => Math.max(most, value), 0));
    grid(until, top, clock);
    const last = shown.at(-1) ?? [];
    lines.forEach((of, nth) => {
      paths[nth].setAttribute('d', line(shown, nth, until, top));
      put(values[nth], unit(last[nth + 1] ?? null));
    });
    const said = lines.map((of, nth) => `${of.name} ${unit(last[nth + 1] ?? null)}`).join(', ');
    drawing.setAttribute('aria-label', `${title}: ${said}`);
    if (details.open) tabulate(shown, until, clock);
  }

  /** Means of five minutes, for whoever does not see the lines. */
  function tabulate(points, until, clock) {
    const rows = [];
    for (let end = until; end > until - HOUR; end -= 300) {
      const within = points.filter(point => point[0] > end - 300 && point[0] <= end);
      const mean = nth => {
        const known = within.map(point => point[nth + 1]).filter(value => value !== null);
        return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
      };
      rows.push(
        make(
          'tr',
          {},
          make('th', { scope: 'row' }, clock(end)),
          lines.map((of, nth) => make('td', { class: 'n' }, unit(mean(nth)))),
        ),
      );
    }
    numbers.replaceChildren(...rows);
  }

  return { node, set };
}
