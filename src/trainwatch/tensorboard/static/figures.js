// The charts of one run. Each kind of figure is drawn by a module of its own, once it comes near to what is seen.
import {barsOf} from './charts/bars.js';
import {el} from './dom.js';
import {galleryOf} from './charts/gallery.js';
import {heatmapOf, planeOf} from './charts/heatmap.js';
import {histogramOf} from './charts/histogram.js';
import {intervalsOf} from './charts/intervals.js';
import {curveOf, profileOf} from './charts/lines.js';

const DRAWN = {
  bars: barsOf, curve: curveOf, gallery: galleryOf, heatmap: heatmapOf, histogram: histogramOf, intervals: intervalsOf,
  plane: planeOf, profile: profileOf,
};

export function figures({figures: all, colours, left_out: leftOut}, heading) {
  const section = el('section', {className: 'figures'});
  if (!all.length && !leftOut.length) return section;
  section.append(el('h2', {textContent: heading}));
  const seen = new IntersectionObserver((entries) => {
    for (const {target, isIntersecting} of entries) {
      if (isIntersecting) {
        seen.unobserve(target);
        draw(target);
      }
    }
  }, {rootMargin: '400px'});
  const draw = (holder) => setTimeout(() => { // each in a task of its own, so that none blocks the page for long
    const made = DRAWN[holder.figure.kind]?.(holder.figure, colours);
    holder.replaceChildren(made ?? el('p', {className: 'faint', textContent: 'This chart needs a newer trainwatch beside TensorBoard.'}));
    holder.classList.remove('waiting');
  });
  for (const figure of all) {
    const holder = Object.assign(el('div', {className: 'chart waiting'}), {figure});
    section.append(el('figure', {dataset: {name: figure.name}}, el('figcaption', {textContent: figure.title}), holder));
    seen.observe(holder);
  }
  if (leftOut.length) section.append(el('p', {className: 'faint', textContent: `Too large to be drawn here: ${leftOut.join('; ')}.`}));
  return section;
}
