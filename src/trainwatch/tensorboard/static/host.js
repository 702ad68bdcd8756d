// What TensorBoard tells the page in the iframe: that data were reloaded, and whether it is dark.

export function onReload(callback) {
  const {port1, port2} = new MessageChannel();
  port1.onmessage = ({data}) => {
    const message = JSON.parse(data);
    if (message.isReply) return;
    if (message.type === 'experimental.DataReloaded') callback();
    port1.postMessage(JSON.stringify({...message, payload: null, error: null, isReply: true}));
  };
  window.parent.postMessage('experimental.bootstrap', '*', [port2]);
}

// The dark mode is not passed on: it is a class of the surrounding page.
export function onTheme(callback) {
  const outside = window.parent.document.body;
  const dark = () => outside.classList.contains('dark-mode');
  let last = dark();
  document.documentElement.classList.toggle('dark', last);
  new MutationObserver(() => {
    if (dark() === last) return;
    last = dark();
    document.documentElement.classList.toggle('dark', last);
    callback();
  }).observe(outside, {attributes: true, attributeFilter: ['class']});
}

export async function get(route) {
  const answer = await fetch(route); // relative: absolute paths break under --path_prefix
  if (!answer.ok) throw new Error(`TensorBoard answered ${answer.status}`);
  return answer.json();
}
