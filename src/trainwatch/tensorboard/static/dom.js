// Elements from plain text only: names and messages come from disk and are never parsed as markup.

export function el(name, props = {}, ...children) {
  const {dataset, aria, ...rest} = props;
  const node = Object.assign(document.createElement(name), rest);
  Object.assign(node.dataset, dataset);
  for (const [key, value] of Object.entries(aria ?? {})) node.setAttribute(key === 'role' ? key : `aria-${key}`, value);
  node.append(...children.filter(Boolean)); // an absent part may be given as null, 0 or ''
  return node;
}

export function number(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? '' : value > 0 ? 'inf' : '-inf';
  const size = Math.abs(value);
  if ((size >= 1e4 && size < 1e9) || (Number.isInteger(value) && size < 1e9)) return Math.round(value).toLocaleString('en');
  if (size >= 1e-4 && size < 1e4) return String(Number(value.toPrecision(4)));
  return value.toExponential(3).replace(/\.?0+e/, 'e');
}

// What Python wrote: null for NaN, "inf" and "-inf" in words.
export function read(value) {
  if (typeof value === 'number') return value;
  return value === 'inf' ? Infinity : value === '-inf' ? -Infinity : NaN;
}

export const short = (text, width) =>
  text.length <= width ? text : `${text.slice(0, (width - 1) / 2)}…${text.slice(-(width - 1) / 2)}`;
