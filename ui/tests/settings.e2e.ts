// What a user sets in the pages is found in the engine, and what does not work is taken back.
import { existsSync } from 'node:fs';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { accessible, launch, picture, watch } from './browser';
import { Longshore } from './longshore';

const longshore = new Longshore();
let browser: Browser;
let page: Page;
let wrong: string[];

const options = () => page.getByLabel('Engine options');
const button = (name: string) => page.getByRole('button', { name, exact: true });

beforeAll(async () => {
  longshore.installImage();
  await longshore.longshore('settings', 'set', 'cpus=2', 'memory=1g', 'disk=8g', 'docker_context=false');
  await longshore.longshore('start');
  browser = await launch();
  page = await (await browser.newContext({ viewport: { width: 1180, height: 740 } })).newPage();
  wrong = watch(page);
  await page.goto(await longshore.longshore('ui', '--no-open'));
  // The token's address leads on to the session's.
  await page.getByText('Engine running').waitFor();
  await page.evaluate(() => (location.hash = '#/settings'));
});

afterAll(async () => {
  await browser?.close();
  await longshore.end();
});

afterEach(() => {
  expect(wrong.splice(0)).toEqual([]);
});

it('refuses options that the engine does not have, and says what to do', async () => {
  await options().fill('{"debug": true');
  await page.getByText('This is not JSON yet').waitFor();
  expect(await button('Apply and restart').or(button('Save')).isEnabled()).toBe(false);
  await accessible(page);
  await options().fill('{"debug": true, "colour": 1}');
  await button('Save for the next start').click();
  const alert = page.getByRole('alert');
  await alert.getByText("don't match any configuration option: colour; remove them").waitFor();
  await button('Discard').click();
  expect(await options().inputValue()).toBe('');
});

it('is light or dark as the user wants it, whatever the system wants', async () => {
  const ground = () => page.locator('main').evaluate((e) => getComputedStyle(e).backgroundColor);
  const [light, dark] = ['rgb(255, 255, 255)', 'rgb(23, 25, 29)'];
  for (const [theme, system, seen] of [['system', 'light', light], ['dark', 'light', dark], ['light', 'dark', light], ['system', 'dark', dark], ['system', 'light', light]] as const) {
    await page.emulateMedia({ colorScheme: system });
    await page.getByLabel('Theme', { exact: true }).selectOption(theme);
    await expect.poll(ground, { message: `${theme} on ${system}` }).toBe(seen);
  }
});

it('brings options into force', async () => {
  await options().fill('{"log-driver": "local", "labels": ["from=page"], "bip": "10.33.0.1/24"}');
  await picture(page, 'engine-options');
  await button('Apply and restart').click();
  await page.getByText('Applied; the engine has restarted').waitFor({ timeout: 120_000 });
  expect(await longshore.docker('info', '--format', '{{.LoggingDriver}} {{.Labels}}')).toBe('local [from=page]');
  expect(await longshore.docker('network', 'inspect', '--format', '{{(index .IPAM.Config 0).Gateway}}', 'bridge')).toBe('10.33.0.1');
}, 150_000);

it('moves the data, and refuses what cannot be', async () => {
  const dialog = page.getByRole('dialog');
  await longshore.docker('volume', 'create', 'kept');
  await button('Move…').click();
  await accessible(page);
  await picture(page, 'move-data');
  await dialog.getByLabel('New folder').fill('not/absolute');
  await dialog.getByRole('button', { name: 'Stop, move and start' }).click();
  await dialog.getByText(/not an absolute path/).waitFor();
  const folder = `${longshore.folder}/data elsewhere`;
  await dialog.getByLabel('New folder').fill(folder);
  await dialog.getByRole('button', { name: 'Stop, move and start' }).click();
  await page.getByText(`The data is in ${folder}`).waitFor({ timeout: 120_000 });
  await page.getByText(folder, { exact: true }).waitFor();
  expect(existsSync(`${folder}/data.img`)).toBe(true);
  expect(existsSync(`${longshore.home}/data.img`)).toBe(false);
  expect(await longshore.docker('volume', 'ls', '-q')).toBe('kept');
}, 150_000);

it('swaps as much as it is told to', async () => {
  const swapped = async () => Number(/SwapTotal:\s+(\d+)/.exec(await longshore.longshore('shell', 'cat', '/proc/meminfo'))?.[1]) / 1024;
  expect(await swapped()).toBe(0);
  for (const [value, most] of [['1', 1024], ['0.5', 512], ['0', 0]] as const) {
    await page.getByLabel('Swap in gibibytes').fill(value);
    await button('Apply and restart').click();
    await page.getByText('Applied; the engine has restarted').waitFor({ timeout: 120_000 });
    const now = await swapped();
    expect(now).toBeLessThanOrEqual(most);
    expect(now).toBeGreaterThan(most - 2);
    await page.getByText('Applied; the engine has restarted').waitFor({ state: 'detached' });
  }
  // Nothing was left mounted when it ended.
  const log = await longshore.longshore('logs', 'console');
  expect(log).not.toContain('stays mounted');
}, 300_000);

it('takes back what the engine does not start with, and says why', async () => {
  await page.getByLabel('Accelerator', { exact: true }).selectOption('hvf');
  await button('Apply and restart').click();
  const alert = page.getByRole('alert');
  await alert.getByText('does not start with the new accelerator').waitFor({ timeout: 150_000 });
  expect(await alert.innerText()).toContain('the settings before are back, and the engine runs with them');
  expect(await page.getByLabel('Accelerator', { exact: true }).inputValue()).toBe('auto');
  expect(await longshore.docker('info', '--format', '{{.LoggingDriver}}')).toBe('local');
  await page.getByText('Engine running').waitFor();

  // Whoever restarts it elsewhere is told as well.
  await longshore.longshore('settings', 'set', 'accelerator=hvf');
  await page.evaluate(() => (location.hash = '#/containers'));
  await page.getByText('does not start with the new accelerator').waitFor({ state: 'detached' });
  await page.getByRole('button', { name: 'Engine actions' }).click();
  await page.getByRole('menuitem', { name: 'Restart' }).click();
  await page.getByText('does not start with the new accelerator').first().waitFor({ timeout: 150_000 });
  // That is told before those from before have been tried.
  await page.getByText('Engine running').waitFor({ timeout: 150_000 });
}, 300_000);

it('runs with the image before when an update does not start, and says so', async () => {
  await expect.poll(() => existsSync(`${longshore.home}/good-image/good.json`), { message: 'the image that works is kept', timeout: 60_000 }).toBe(true);
  longshore.updateImage('kernel', Buffer.alloc(8 << 20));
  await page.getByRole('button', { name: 'Engine actions' }).click();
  await page.getByRole('menuitem', { name: 'Restart' }).click();
  const attention = button('Needs attention');
  await attention.waitFor({ timeout: 300_000 });
  await page.getByText('Engine running').waitFor();
  await picture(page, 'needs-attention');
  expect(await attention.getAttribute('title')).toContain('--retry-image');
  await accessible(page);
  await attention.click();
  await page.getByText(/The installed guest image does not start/i).first().waitFor();
}, 330_000);
