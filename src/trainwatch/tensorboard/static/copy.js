// Code with a button that copies it.
import {el} from './dom.js';

export function copied(code) {
  const text = el('code', {textContent: code});
  const button = el('button', {type: 'button', className: 'copy', textContent: 'Copy', aria: {live: 'polite'}});
  button.addEventListener('click', async () => {
    button.textContent = (await put(code, text)) ? 'Copied' : 'Select it and press Ctrl+C';
    setTimeout(() => { button.textContent = 'Copy'; }, 2000);
  });
  return el('div', {className: 'code'}, el('pre', {tabIndex: 0, aria: {label: 'code', role: 'region'}}, text), button);
}

async function put(code, node) {
  try {
    await navigator.clipboard.writeText(code);
    return true;
  } catch { // no clipboard outside of HTTPS and localhost
    const range = document.createRange();
    range.selectNodeContents(node);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return document.execCommand('copy');
  }
}
