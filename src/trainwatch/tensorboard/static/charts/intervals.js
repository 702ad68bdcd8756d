// Values with what they are uncertain by, one below the other on a common axis with a mark at zero.
import {el, number, read, short} from '../dom.js';

export function intervalsOf({labels, values, errors, value_label: valueLabel}, colours) {
  const shown = labels.map((label, i) => [label, read(values[i]), read(errors[i])])
    .filter(([, value]) => Number.isFinite(value))
    .map(([label, value, error]) => [label, value, Number.isFinite(error) ? error : 0]);
  if (!shown.length) return el('p', {className: 'faint', textContent: 'no finite value to draw'});
  const low = Math.min(0, ...shown.map(([, v, e]) => v - e));
  const high = Math.max(0, ...shown.map(([, v, e]) => v + e));
  const place = (value) => 2 + (96 * (value - low)) / (high - low || 1);
  const part = (className, from, to = from) => {
    const node = el('span', {className});
    node.style.left = `${place(from)}%`;
    if (to !== from) node.style.width = `${place(to) - place(from)}%`;
    node.style.background = className === 'zero' ? '' : colours[0];
    return node;
  };
  const rows = shown.map(([label, value, error]) => el('tr', {},
    el('th', {scope: 'row', textContent: short(label, 60), title: label}),
    el('td', {className: 'track'}, part('zero', 0), error > 0 && part('error-bar', value - error, value + error), part('dot', value)),
    el('td', {className: 'number', textContent: error > 0 ? `${number(value)} ± ${number(error)}` : number(value)})));
  return el('div', {className: 'wide', tabIndex: 0, aria: {role: 'region', label: valueLabel}},
    el('table', {className: 'intervals'},
      el('thead', {}, el('tr', {}, el('td'), el('th', {scope: 'col', textContent: valueLabel}), el('td'))),
      el('tbody', {}, ...rows)));
}
