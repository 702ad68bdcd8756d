// Entry point of the iframe: TensorBoard calls render() once.
import {el} from './dom.js';
import {empty} from './empty.js';
import {figures} from './figures.js';
import {findings} from './findings.js';
import {get, onReload, onTheme} from './host.js';
import {overview} from './overview.js';

const SCHEMA = 1; // of trainwatch.tensorboard.snapshot
const ALL = ''; // in the list of runs
const KEPT = 'trainwatch.run'; // the chosen run outlives a reload of the page

export async function render() {
  for (const href of ['./third_party/uplot/uPlot.min.css', './style.css']) {
    document.head.append(el('link', {rel: 'stylesheet', href}));
  }
  document.documentElement.lang = 'en';
  document.title = 'Diagnosis';
  const tab = new Tab();
  onTheme(() => tab.redraw());
  onReload(() => tab.refresh());
  await tab.refresh();
}

class Tab {
  constructor() {
    this.runs = [];
    this.chosen = sessionStorage.getItem(KEPT) ?? null;
    this.shown = ''; // run, step and time of what stands on the page
    this.turn = 0; // answers of an older refresh are dropped
    this.select = el('select', {id: 'run', onchange: () => this.choose(this.select.value)});
    this.status = el('p', {className: 'status', aria: {role: 'status'}});
    this.main = el('div', {id: 'content'});
    const choice = el('div', {className: 'choice'}, el('label', {htmlFor: 'run', textContent: 'Run'}), this.select);
    document.body.append(el('main', {}, el('header', {}, el('h1', {textContent: 'Diagnosis'}), choice), this.status, this.main));
  }

  choose(run) {
    this.chosen = run;
    sessionStorage.setItem(KEPT, run);
    return this.refresh();
  }

  async refresh() {
    const turn = ++this.turn;
    const current = () => turn === this.turn;
    try {
      const {runs} = await get('./runs');
      if (!current()) return;
      this.runs = runs;
      this.list();
      await this.draw(current);
      if (current()) this.status.textContent = '';
    } catch (error) {
      if (current()) this.status.textContent = `Nothing new could be loaded: ${error.message}. Is TensorBoard still running?`;
    }
  }

  list() {
    const names = this.runs.map(({run}) => run);
    if (this.chosen !== ALL && !names.includes(this.chosen)) this.chosen = names.length === 1 ? names[0] : ALL;
    const options = names.length > 1 ? [ALL, ...names] : names;
    if (options.join('\n') !== [...this.select.options].map((o) => o.value).join('\n')) {
      this.select.replaceChildren(
        ...options.map((name) => el('option', {value: name, textContent: name === ALL ? `All ${names.length} runs` : name})));
    }
    this.select.value = this.chosen;
    this.select.parentElement.hidden = !names.length;
  }

  async draw(current) {
    const run = this.runs.find((each) => each.run === this.chosen);
    const stamp = JSON.stringify(run ? [run.run, run.step, run.wall_time] : this.runs);
    if (stamp === this.shown) return;
    if (!this.runs.length) {
      this.main.replaceChildren(empty());
    } else if (!run) {
      this.main.replaceChildren(overview(this.runs, (name) => this.choose(name).then(() => this.select.focus())));
    } else {
      await this.one(run, current);
      if (!current()) return;
    }
    this.shown = stamp;
    this.main.dataset.run = this.chosen;
    performance.mark('trainwatch shown'); // for benchmarks/tab.py
  }

  async one(run, current) {
    const query = `?run=${encodeURIComponent(run.run)}`;
    const [said, drawn] = await Promise.all([get(`./findings${query}`), get(`./figures${query}`)]);
    if (!current()) return;
    if (!(said.schema <= SCHEMA)) {
      this.main.replaceChildren(el('p', {textContent: 'This run was written by a newer trainwatch: upgrade the one beside TensorBoard.'}));
      return;
    }
    this.drawn = {drawn, heading: said.words.figures};
    this.charts = figures(drawn, said.words.figures);
    const [causes, rest] = findings(said, run.step);
    this.main.replaceChildren(causes, this.charts, rest);
  }

  redraw() {
    if (!this.charts?.isConnected) return;
    const again = figures(this.drawn.drawn, this.drawn.heading);
    this.charts.replaceWith(again);
    this.charts = again;
  }
}
