// Small pictures with captions, in groups. Only what is a PNG in base64 becomes a picture.
import {el} from '../dom.js';

const PNG = /^iVBORw0KGgo[A-Za-z0-9+/]*={0,2}$/;

export function galleryOf({groups}) {
  return el('div', {}, ...Object.entries(groups).flatMap(([name, tiles]) => [
    el('h3', {textContent: name}),
    el('ul', {className: 'tiles'}, ...tiles.filter(([png]) => PNG.test(png)).map(([png, said]) =>
      el('li', {}, el('img', {src: `data:image/png;base64,${png}`, alt: `${name}: ${said}`}), el('span', {className: 'faint', textContent: said})))),
  ]));
}
