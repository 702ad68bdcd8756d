// Lines over steps or another axis, by uPlot; marks and error bars are drawn on top.
import {el, number, read, short} from '../dom.js';
import uPlot from '../third_party/uplot/uPlot.esm.js';
import {css} from './colours.js';

const HEIGHT = 260;
const DASHES = [[], [6, 4], [8, 3, 2, 3], [2, 3]];
const FEW = 30; // points that are drawn as dots too

export function curveOf(figure, colours) {
  const lines = Object.entries(figure.lines).map(([name, points]) => [name, points.map(([x, y]) => [x, read(y), NaN])]);
  const bands = Object.entries(figure.bands ?? {}).map(([name, points]) => [name, points.map((point) => point.map(read))]);
  return chart({...figure, lines, bands, x_label: 'optimiser step', log: figure.log_y}, colours);
}

export function profileOf(figure, colours) {
  const lines = Object.entries(figure.lines).map(([name, points]) => [name, points.map((point) => point.map(read))]);
  return chart({...figure, lines, bands: []}, colours);
}

function chart({lines, bands, marks, x_label: below, y_label: left, log}, colours) {
  const fits = (y) => Number.isFinite(y) && (y > 0 || !log);
  const drawn = lines.map(([name, points]) => [name, points.filter(([x, y]) => Number.isFinite(x) && fits(y))])
    .filter(([, points]) => points.length);
  if (!drawn.length) return el('p', {className: 'faint', textContent: 'no finite value to draw'});
  const least = Math.min(...drawn.flatMap(([, points]) => points.map(([, y]) => y))); // instead of what a log scale lacks
  const shaded = bands.filter(([name]) => drawn.some(([line]) => line === name))
    .map(([name, points]) => [name, points.filter(([, , high]) => fits(high)).map(([x, low, high]) => [x, fits(low) ? low : least, high])]);
  const colour = (name) => colours[drawn.findIndex(([line]) => line === name) % colours.length];
  const edges = shaded.flatMap(([, points]) => [points.map(([x, , high]) => [x, high]), points.map(([x, low]) => [x, low])]);
  const series = [...drawn.map(([, points]) => points), ...edges];
  const ink = css('--ink');
  const grid = {stroke: css('--line'), width: 1};
  const axis = {stroke: ink, grid, ticks: grid, font: '12px system-ui, sans-serif', labelFont: '12px system-ui, sans-serif', labelSize: 20};
  const values = (plot, splits) => splits.map((v) => (v === null ? '' : number(v)));
  const holder = el('div', {className: 'lines', aria: {role: 'img', label: told(drawn, marks, left, below)}});
  const options = {
    width: 600, height: HEIGHT,
    padding: [13 * Math.min(Object.keys(marks).length, 3) + 8, 12, 0, 0], // marks stand in up to three storeys
    cursor: {drag: {x: true, y: false}},
    scales: {x: {time: false}, y: log ? {distr: 3} : {}},
    series: [
      {label: below, value: (plot, v) => (v === null ? '' : number(v))},
      ...drawn.map(([name, points], i) => ({
        label: short(name, 40), stroke: colours[i % colours.length], width: 1.6, spanGaps: true,
        dash: DASHES[Math.floor(i / colours.length) % DASHES.length],
        points: {show: points.length < FEW, size: points.length === 1 ? 10 : 5, fill: colours[i % colours.length]},
        value: (plot, v) => (v === null ? '' : number(v)),
      })),
      ...edges.map(() => ({class: 'edge', width: 0, spanGaps: true, points: {show: false}})),
    ],
    bands: shaded.map(([name], i) => {
      const first = drawn.length + 1 + 2 * i;
      return {series: [first, first + 1], fill: `${colour(name)}40`};
    }),
    axes: [{...axis, size: 32, label: short(below, 60), values}, {...axis, size: 70, label: short(left, 40), values: log ? undefined : values}],
    hooks: {draw: [(plot) => { errorBars(plot, drawn, colours); verticals(plot, marks, ink); }]},
  };
  const plot = new uPlot(options, joined(series), holder);
  new ResizeObserver(() => { // also the first width, once the chart stands on the page
    const width = Math.floor(holder.clientWidth);
    if (width && width !== plot.width) plot.setSize({width, height: HEIGHT});
  }).observe(holder);
  return holder;
}

// One row of x for all: a point of one line leaves the others empty, and lines run on across what is empty.
function joined(series) {
  const curves = series.every((points) => points.every(([x], i) => !i || x > points[i - 1][0]));
  const places = series.flatMap((points, line) => points.map(([x, y]) => [x, y, line])).sort((a, b) => a[0] - b[0]);
  const data = [[], ...series.map(() => [])];
  for (const [x, y, line] of places) {
    const xs = data[0];
    if (!curves || xs.at(-1) !== x) {
      xs.push(x);
      data.slice(1).forEach((column) => column.push(null));
    }
    data[line + 1][xs.length - 1] = y;
  }
  return data;
}

function errorBars(plot, drawn, colours) {
  const {ctx} = plot;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  drawn.forEach(([, points], i) => {
    ctx.strokeStyle = colours[i % colours.length];
    for (const [x, y, error] of points) {
      if (!(error > 0)) continue;
      const at = plot.valToPos(x, 'x', true);
      ctx.beginPath();
      ctx.moveTo(at, plot.valToPos(y - error, 'y', true));
      ctx.lineTo(at, plot.valToPos(y + error, 'y', true));
      ctx.stroke();
    }
  });
  ctx.restore();
}

function verticals(plot, marks, ink) {
  const {ctx, bbox} = plot;
  const unit = devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = ink;
  ctx.lineWidth = unit;
  ctx.font = `${11 * unit}px system-ui, sans-serif`;
  ctx.setLineDash([2 * unit, 3 * unit]);
  sorted(marks).forEach(([x, label], rank) => {
    const at = plot.valToPos(x, 'x', true);
    if (at < bbox.left || at > bbox.left + bbox.width) return;
    ctx.beginPath();
    ctx.moveTo(at, bbox.top - 13 * unit * (rank % 3));
    ctx.lineTo(at, bbox.top + bbox.height);
    ctx.stroke();
    const right = at < bbox.left + bbox.width / 2;
    ctx.textAlign = right ? 'left' : 'right';
    ctx.fillText(short(label, 40), at + (right ? 3 : -3) * unit, bbox.top - (13 * (rank % 3) + 3) * unit);
  });
  ctx.restore();
}

const sorted = (marks) => Object.entries(marks).map(([x, label]) => [read(Number(x)), label]).sort((a, b) => a[0] - b[0]);

function told(drawn, marks, left, below) {
  const lines = drawn.map(([name, points]) =>
    `${name} from ${number(points[0][1])} to ${number(points.at(-1)[1])} at ${number(points.at(-1)[0])}`);
  return [`${left} over ${below}`, ...lines, ...sorted(marks).map(([x, label]) => `${label} at ${number(x)}`)].join('; ');
}
