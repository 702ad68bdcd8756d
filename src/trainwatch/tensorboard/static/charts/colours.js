// Colours of charts: lines by order, as in the page of the report; cells by matplotlib's cividis, at 17 even places.

export const CIVIDIS = [
  [0, 34, 78], [0, 46, 106], [26, 56, 111], [50, 67, 109], [67, 78, 108], [83, 90, 109],
  [97, 101, 111], [111, 112, 115], [125, 124, 120], [140, 136, 120], [155, 148, 118], [171, 160, 114],
  [188, 174, 108], [205, 187, 99], [222, 201, 88], [240, 216, 70], [254, 232, 56],
];

// share in [0, 1] -> [red, green, blue]
export function cividis(share) {
  const place = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
  const below = Math.min(Math.floor(place), CIVIDIS.length - 2);
  return CIVIDIS[below].map((v, i) => Math.round(v + (CIVIDIS[below + 1][i] - v) * (place - below)));
}

export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
