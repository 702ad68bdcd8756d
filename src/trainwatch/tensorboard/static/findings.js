// What is said of one run, in the order and the words of the report.
import {copied} from './copy.js';
import {el} from './dom.js';

// Two parts, above and below the figures.
export function findings(said, step) {
  const above = el('div', {},
    el('p', {className: `verdict ${said.verdict}`, textContent: said.headline}),
    el('p', {className: 'faint', textContent: `As of step ${step.toLocaleString('en')}.`}),
    ...said.causes.map((cause) => causeOf(cause, said.words)),
    ...(said.resolved.length ? [resolvedOf(said.resolved)] : []));
  const below = el('div', {}, ...said.sections.map(sectionOf),
    said.more && el('p', {}, 'More: ', el('code', {textContent: said.more})));
  return [above, below];
}

function causeOf(cause, words) {
  const facts = [['Where', cause.where], ['When', cause.when]].filter(([, text]) => text);
  return el('section', {className: `cause ${cause.severity}${cause.unconfirmed ? ' unconfirmed' : ''}`},
    el('h2', {textContent: cause.title}),
    el('p', {}, el('strong', {textContent: cause.summary})),
    facts.length && el('dl', {}, ...facts.flatMap(([name, text]) => [el('dt', {textContent: name}), el('dd', {textContent: text})])),
    cause.evidence.length && tableOf(cause.evidence, words.numeric),
    cause.remedies.length && el('div', {}, el('h3', {textContent: words.remedies}), el('ol', {}, ...cause.remedies.map(remedyOf))),
    cause.consequences.length && el('div', {}, el('h3', {textContent: words.consequences}), effectsOf(cause.consequences)));
}

function tableOf([headings, ...rows], numeric) {
  const kind = (i) => (numeric.includes(headings[i]) ? 'number' : '');
  const cells = (name, texts, scope) => texts.map((textContent, i) => el(name, {textContent, className: kind(i), ...scope}));
  return el('div', {className: 'wide', tabIndex: 0, aria: {role: 'region', label: headings[0]}},
    el('table', {},
      el('thead', {}, el('tr', {}, ...cells('th', headings, {scope: 'col'}))),
      el('tbody', {}, ...rows.map((row) => el('tr', {}, ...cells('td', row))))));
}

function remedyOf(remedy) {
  return el('li', {className: remedy.in_use ? 'in-use' : ''},
    el('p', {}, el('strong', {textContent: remedy.title})),
    remedy.why && el('p', {textContent: remedy.why}),
    remedy.code && copied(remedy.code));
}

function effectsOf(effects) {
  return el('ul', {}, ...effects.map((effect) =>
    el('li', {}, el('strong', {textContent: effect.title}), `: ${effect.text}`,
      effect.consequences.length && effectsOf(effect.consequences))));
}

function resolvedOf(gone) {
  return el('section', {className: 'resolved'}, el('h2', {textContent: 'Resolved'}),
    el('ul', {}, ...gone.map(({title, summary, when}) =>
      el('li', {}, el('strong', {textContent: title}), `: ${summary} `, el('em', {textContent: when})))));
}

function sectionOf({title, lines}) {
  return el('section', {}, el('h2', {textContent: title}), el('ul', {}, ...lines.map((textContent) => el('li', {textContent}))));
}
