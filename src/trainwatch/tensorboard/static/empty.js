// What to do where no run has written anything for the tab.
import {copied} from './copy.js';
import {el} from './dom.js';

const PLAIN = `import trainwatch

watch = trainwatch.watch(model, optimizer, loss_fn=criterion, log_dir="runs/exp1")
...  # the training loop as it is
watch.finish()`;
const LIGHTNING = 'trainer = L.Trainer(callbacks=[trainwatch.TrainWatch()])';

export function empty() {
  return el('section', {className: 'empty'},
    el('h2', {textContent: 'No run has been watched yet'}),
    el('p', {textContent: 'Watch a training, with one line before the loop and one after it:'}), copied(PLAIN),
    el('p', {textContent: 'or, with Lightning, whose TensorBoard logger is used:'}), copied(LIGHTNING),
    el('p', {textContent: 'Then start TensorBoard on the directory above the runs, and reload this page once the first steps are done:'}),
    copied('tensorboard --logdir runs'));
}
