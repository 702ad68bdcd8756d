// The findings of all runs, one row each.
import {el} from './dom.js';

const HEADINGS = ['run', 'step', 'finding', 'when', 'summary'];

export function overview(runs, choose) {
  const rows = runs.flatMap(({run, step, headline, causes, verdict}) => {
    const first = [
      el('th', {scope: 'row'}, el('button', {type: 'button', className: 'link', textContent: run, onclick: () => choose(run)})),
      el('td', {className: 'number', textContent: step.toLocaleString('en')}),
    ];
    if (!causes.length) return [el('tr', {}, ...first, el('td', {colSpan: 3, className: verdict, textContent: headline}))];
    first.forEach((cell) => { cell.rowSpan = causes.length; });
    return causes.map((cause, i) => el('tr', {}, ...(i ? [] : first),
      el('td', {className: cause.severity}, el('strong', {textContent: cause.title})),
      el('td', {textContent: cause.when}), el('td', {textContent: cause.summary})));
  });
  return el('div', {className: 'wide', tabIndex: 0, aria: {role: 'region', label: 'findings of all runs'}},
    el('table', {className: 'runs'},
      el('thead', {}, el('tr', {}, ...HEADINGS.map((textContent) => el('th', {textContent, scope: 'col'})))),
      el('tbody', {}, ...rows)));
}
