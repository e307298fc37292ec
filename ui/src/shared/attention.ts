// Whether somebody looks: what moves by itself may move more slowly on a page that nobody has touched for a while.

const PATIENCE = 20_000;

let last = 0;

if (typeof document !== 'undefined') {
  for (const kind of ['pointermove', 'pointerdown', 'keydown', 'wheel', 'focus'] as const) {
    addEventListener(kind, () => (last = performance.now()), { passive: true, capture: true });
  }
}

export function attended(): boolean {
  return performance.now() - last < PATIENCE;
}
