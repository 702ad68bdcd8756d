// Spreads of several quantities, a small panel each: the first group filled, the others as outlines before it.
import {el, number, read, short} from '../dom.js';

const SVG = 'http://www.w3.org/2000/svg';
const [WIDTH, HEIGHT] = [200, 80];

export function histogramOf({edges, shares, notes}, colours) {
  const names = Object.keys(edges).filter((name) => edges[name].length > 1 && Object.keys(shares[name] ?? {}).length);
  if (!names.length) return el('p', {className: 'faint', textContent: 'no finite value to draw'});
  const groups = [...new Set(names.flatMap((name) => Object.keys(shares[name])))];
  const key = groups.map((group, i) => {
    const swatch = el('span', {className: 'swatch'});
    swatch.style.background = colours[i % colours.length];
    return el('span', {}, swatch, ` ${group} `);
  });
  const panels = names.map((name) => panelOf(name, edges[name].map(read), shares[name], notes[name], groups, colours));
  return el('div', {}, groups.length > 1 && el('p', {}, ...key), el('ul', {className: 'tiles wider'}, ...panels));
}

function panelOf(name, places, ofGroups, note, groups, colours) {
  const heights = Object.entries(ofGroups).map(([group, values]) => [group, values.map(read).map((v) => (Number.isFinite(v) ? v : 0))]);
  const highest = Math.max(...heights.flatMap(([, values]) => values)) || 1;
  const x = (place) => (WIDTH * (place - places[0])) / (places.at(-1) - places[0] || 1);
  const y = (share) => HEIGHT - 2 - ((HEIGHT - 4) * share) / highest;
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', `${name} from ${number(places[0])} to ${number(places.at(-1))}, shares of ${groups.join(', ')}`);
  heights.forEach(([group, values], rank) => {
    const colour = colours[groups.indexOf(group) % colours.length];
    const steps = values.map((share, i) => `L${x(places[i])},${y(share)} L${x(places[i + 1])},${y(share)}`).join(' ');
    const path = document.createElementNS(SVG, 'path');
    path.setAttribute('d', `M0,${y(0)} ${steps} L${WIDTH},${y(0)}`);
    path.setAttribute('fill', rank ? 'none' : colour);
    path.setAttribute('fill-opacity', 0.6);
    path.setAttribute('stroke', colour);
    svg.append(path);
  });
  const range = `${number(places[0])} to ${number(places.at(-1))}${note ? `; ${note}` : ''}`;
  return el('li', {}, el('span', {textContent: short(name, 40), title: name}), svg, el('span', {className: 'faint', textContent: range}));
}
