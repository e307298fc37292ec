// The views that the first page does without. Their code, the terminal's and the charts' above all, is read once that page is there.

export const views = {
  container: () => import('../container/Container.svelte'),
  project: () => import('../container/ProjectLogs.svelte'),
  image: () => import('../images/Image.svelte'),
  images: () => import('../images/Images.svelte'),
  volume: () => import('../volumes/Volume.svelte'),
  volumes: () => import('../volumes/Volumes.svelte'),
  networks: () => import('../networks/Networks.svelte'),
  layers: () => import('../layers/Layers.svelte'),
  settings: () => import('../settings/Settings.svelte'),
  doctor: () => import('../doctor/Doctor.svelte'),
  palette: () => import('../palette/Palette.svelte'),
};

/** Milliseconds from the first page until the others are read, so that none is waited for. */
const SETTLE = 1000;

/** Reads them all, once the page has had its time; until the returned function runs. */
export function readAhead(): () => void {
  const timer = setTimeout(() => {
    // What cannot be read is told when it is wanted.
    for (const load of Object.values(views)) load().catch(() => {});
  }, SETTLE);
  return () => clearTimeout(timer);
}
