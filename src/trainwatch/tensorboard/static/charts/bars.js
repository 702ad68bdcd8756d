// Bars as a table: one row a label, one column a group, each column on its own scale, since groups differ in unit.
import {el, number, read, short} from '../dom.js';

const MOST = 40;

export function barsOf({labels, groups}, colours) {
  const columns = Object.entries(groups).map(([name, values]) => [name, values.map(read)]);
  const longest = columns.map(([, values]) => Math.max(...values.filter(Number.isFinite), 0) || 1);
  const cell = (value, i) => {
    const bar = el('span', {className: 'bar'});
    bar.style.width = `${Number.isFinite(value) ? (60 * Math.max(value, 0)) / longest[i] : 0}%`;
    bar.style.background = colours[i % colours.length];
    return el('td', {}, bar, ` ${number(value)}`);
  };
  const rows = labels.slice(0, MOST).map((label, at) =>
    el('tr', {}, el('th', {scope: 'row', textContent: short(label, 40), title: label}),
      ...columns.map(([, values], i) => cell(values[at], i))));
  const head = el('tr', {}, el('td'), ...columns.map(([textContent]) => el('th', {scope: 'col', textContent})));
  const more = labels.length - MOST;
  return el('div', {className: 'wide', tabIndex: 0, aria: {role: 'region', label: Object.keys(groups).join(', ')}},
    el('table', {className: 'bars'}, el('thead', {}, head), el('tbody', {}, ...rows)),
    more > 0 && el('p', {className: 'faint', textContent: `${more.toLocaleString('en')} more are not drawn.`}));
}
