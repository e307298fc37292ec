// What all stories of the pages share: one service with its VM, one browser with one page, and what is on it.
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { launch, watch } from '../browser';
import { Longshore } from '../longshore';

export const longshore = new Longshore();
export let browser: Browser;
export let page: Page;
/** One that takes everything; one that wants a sign-in; one that never answers; the first one, slowly. */
export let registry: string;
export let closed: string;
export let dead: string;
export let slow: string;
let wrong: string[] = [];

export const row = (name: string) => page.getByRole('row').filter({ has: page.getByRole('link', { name, exact: true }) });
/** A row of a folder, by the whole name. */
export const file = (name: string) => page.getByRole('row').filter({ has: page.locator(`.title[title="${name.replaceAll('"', '\\"')}"]`) });
export const go = (...parts: string[]) => page.evaluate((hash) => (location.hash = hash), `#/${parts.join('/')}`);
export const dialog = () => page.getByRole('dialog');

/** From the list to a container. */
export async function show(container: string) {
  await go('containers');
  await row(container).getByRole('link', { name: container, exact: true }).click();
}

beforeAll(async () => {
  registry = await longshore.registry();
  closed = await longshore.registry(true);
  dead = await longshore.deadRegistry();
  slow = await longshore.slowRegistry(registry);
  await longshore.longshore('settings', 'set', 'cpus=2', 'memory=1g', 'disk=8g', 'docker_context=false', `insecure_registries=${registry},${closed},${dead},${slow}`);
  browser = await launch();
});

afterAll(async () => {
  if (page && process.env['LONGSHORE_SCREENSHOTS']) await page.screenshot({ path: `${process.env['LONGSHORE_SCREENSHOTS']}/last.png` }).catch(() => {});
  await browser?.close();
  await longshore.end();
});

afterEach(() => {
  expect(wrong.splice(0)).toEqual([]);
});

/** Opens the page; its address, which works once. */
export async function open(): Promise<string> {
  const url = await longshore.longshore('ui', '--no-open');
  const context = await browser.newContext({ viewport: { width: 1180, height: 740 }, acceptDownloads: true, permissions: ['clipboard-read', 'clipboard-write'] });
  page = await context.newPage();
  wrong = watch(page);
  await page.goto(url);
  // The token's address leads on to the session's.
  await page.waitForURL((now) => !now.search.includes('token'));
  return url;
}

/** The page with an engine that runs, as the stories before left it, or else new. */
export async function engine() {
  if (!page) await open();
  await longshore.longshore('start');
  await page.getByText('Engine running').waitFor();
}

/** The same, with an image. */
export async function busybox() {
  await engine();
  if (!(await longshore.docker('images', '-q', 'busybox'))) await longshore.load('busybox');
}

/** Says a coloured line and one that looks like markup, five times a second. */
export const TALK = `i=0; while true; do i=$((i+1)); printf '\\033[31mline %d\\033[0m <b>bold</b>\\n' $i; sleep 0.2; done`;
export const GREETING = '<script>alert(1)</script>';

/** The same, with the container that the story of the images ends with. */
export async function talker() {
  await busybox();
  if (await longshore.docker('ps', '-q', '--filter', 'name=^talker$')) return;
  await longshore.docker('run', '-d', '--name', 'talker', '-p', '8000', '-v', 'talk-data:/data', '-e', `GREETING=${GREETING}`, 'busybox', 'sh', '-c', TALK);
}
