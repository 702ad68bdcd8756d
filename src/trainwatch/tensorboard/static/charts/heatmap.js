// Cells on a canvas of one pixel each, stretched: drawing costs the same whatever the size, hovering only moves a frame.
import {el, number, read, short} from '../dom.js';
import {cividis, css} from './colours.js';

const TALLEST = 560; // pixels
const ROW = 14; // pixels that a name needs

export function heatmapOf({rows, columns, values, value_label: valueLabel, log}) {
  return gridOf({
    rows, columns: columns.map((step) => step.toLocaleString('en')), values, valueLabel, log,
    below: 'optimiser step', told: (row, column, value) => `${row}, step ${column}: ${value}`,
  });
}

export function planeOf({x, y, values, x_label: below, y_label: left, value_label: valueLabel}) {
  const up = y.map((_, i) => y.length - 1 - i); // the largest on top
  const here = [up.findIndex((i) => y[i] === 0), x.indexOf(0)];
  return gridOf({
    rows: up.map((i) => number(read(y[i]))), columns: x.map((at) => number(read(at))), values: up.map((i) => values[i]),
    valueLabel, log: false, below, left, here,
    told: (row, column, value) => `${column} along the axis below, ${row} along the other: ${value}`,
  });
}

function gridOf({rows, columns, values, valueLabel, log, below, left, here, told}) {
  const cells = values.map((row) => row.map(read));
  const drawn = cells.flat().filter((v) => Number.isFinite(v) && (v > 0 || !log));
  if (!drawn.length) return el('p', {className: 'faint', textContent: 'no finite value to draw'});
  const [low, high] = drawn.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const scale = log ? Math.log : (v) => v;
  const share = (v) => (high > low ? (scale(v) - scale(low)) / (scale(high) - scale(low)) : 0.5);

  const canvas = el('canvas', {width: columns.length, height: rows.length, tabIndex: 0, aria: {
    role: 'img',
    label: `${valueLabel} in ${rows.length} rows (${rows[0]} to ${rows.at(-1)}) and ${columns.length} columns`
      + ` (${below} ${columns[0]} to ${columns.at(-1)}), from ${number(low)} to ${number(high)}; the arrow keys read out cells`,
  }});
  paint(canvas, cells, (v) => (Number.isFinite(v) && (v > 0 || !log) ? cividis(share(v)) : null));

  const readout = el('output', {textContent: 'Point at a cell, or use the arrow keys.'});
  const frame = el('span', {className: 'frame', hidden: true});
  const field = el('div', {className: 'field'}, canvas, frame);
  field.style.height = `${Math.min(Math.max(ROW * rows.length, 60), TALLEST)}px`;
  if (here && here.every((i) => i >= 0)) field.append(placed(el('span', {className: 'here', title: 'here'}), here, rows, columns));
  follow(canvas, frame, rows.length, columns.length, (row, column) => {
    placed(frame, [row, column], rows, columns);
    readout.textContent = told(rows[row], columns[column], number(cells[row][column]) || 'none');
  });

  return el('div', {className: 'heatmap'},
    el('div', {className: 'names', aria: {hidden: 'true'}}, ...names(rows, Math.floor(TALLEST / ROW))),
    field,
    el('div', {className: 'steps', aria: {hidden: 'true'}}, ...ticks(columns)),
    el('p', {className: 'axis faint', textContent: left ? `${below}; upwards: ${left}` : below}),
    el('p', {className: 'scale faint'}, number(low), el('span', {className: 'ramp'}), number(high), ` ${valueLabel}${log ? ', log scale' : ''}${cells.flat().some((v) => Math.abs(v) === Infinity) ? '; red: not finite' : ''}`),
    readout);
}

function paint(canvas, cells, colour) {
  const context = canvas.getContext('2d');
  const image = context.createImageData(canvas.width, canvas.height);
  const odd = css('--error').match(/[0-9a-f]{2}/gi).map((hex) => parseInt(hex, 16)); // what is not finite
  cells.flat().forEach((value, i) => {
    const rgb = Number.isNaN(value) ? null : Number.isFinite(value) ? colour(value) : odd;
    if (rgb) image.data.set([...rgb, 255], 4 * i);
  });
  context.putImageData(image, 0, 0);
}

// Mouse and arrow keys alike choose a cell.
function follow(canvas, frame, rows, columns, choose) {
  let at = [0, 0];
  const go = (row, column) => {
    at = [Math.min(Math.max(row, 0), rows - 1), Math.min(Math.max(column, 0), columns - 1)];
    frame.hidden = false;
    choose(...at);
  };
  canvas.addEventListener('mousemove', ({offsetX, offsetY}) =>
    go(Math.floor((offsetY / canvas.clientHeight) * rows), Math.floor((offsetX / canvas.clientWidth) * columns)));
  canvas.addEventListener('mouseleave', () => { frame.hidden = true; });
  canvas.addEventListener('keydown', (event) => {
    const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!move) return;
    event.preventDefault();
    if (frame.hidden) go(...at);
    else go(at[0] + move[0], at[1] + move[1]);
  });
}

function placed(node, [row, column], rows, columns) {
  const percent = (part, whole) => `${(100 * part) / whole}%`;
  Object.assign(node.style, {
    top: percent(row, rows.length), left: percent(column, columns.length),
    height: percent(1, rows.length), width: percent(1, columns.length),
  });
  return node;
}

function names(rows, most) {
  const every = Math.ceil(rows.length / most);
  return rows.map((name, i) => [name, i]).filter(([, i]) => i % every === 0).map(([name, i]) => {
    const node = el('span', {textContent: short(name, 28), title: name});
    node.style.top = `${(100 * (i + 0.5)) / rows.length}%`;
    return node;
  });
}

function ticks(columns) {
  const last = columns.length - 1;
  const places = [...new Set([0, 0.25, 0.5, 0.75, 1].map((part) => Math.round(part * last)))];
  return places.map((i) => {
    const node = el('span', {textContent: columns[i]});
    node.style.left = `${(100 * (i + 0.5)) / columns.length}%`;
    return node;
  });
}
