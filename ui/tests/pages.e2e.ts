// What a user does with the pages, from the first start on.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { accessible, launch, picture, watch } from './browser';
import { Longshore } from './longshore';

const longshore = new Longshore();
let browser: Browser;
let page: Page;
let wrong: string[];
let registry: string;
let dead: string;
let closed: string;
let slow: string;

const row = (name: string) => page.getByRole('row').filter({ has: page.getByRole('link', { name, exact: true }) });
/** A row of a folder, by the whole name. */
const file = (name: string) => page.getByRole('row').filter({ has: page.locator(`.title[title="${name.replaceAll('"', '\\"')}"]`) });
const go = (...parts: string[]) => page.evaluate((hash) => (location.hash = hash), `#/${parts.join('/')}`);
const dialog = () => page.getByRole('dialog');

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

describe('first run', () => {
  it('lets one browser in, once', async () => {
    const url = await longshore.longshore('ui', '--no-open');
    const context = await browser.newContext({ viewport: { width: 1180, height: 740 }, acceptDownloads: true, permissions: ['clipboard-read', 'clipboard-write'] });
    page = await context.newPage();
    wrong = watch(page);
    await page.goto(url);
    await page.getByRole('heading', { name: 'Welcome to Longshore' }).waitFor();
    expect(page.url()).not.toContain('token');
    const stranger = await browser.newPage();
    expect((await stranger.goto(url))?.status()).toBe(403);
    // Without its cookie the address opens nothing.
    expect((await stranger.goto(page.url()))?.status()).toBe(403);
    await stranger.close();
  });

  it('explains itself and starts', async () => {
    await accessible(page);
    await picture(page, 'first-run');
    await page.getByRole('button', { name: 'Start Longshore' }).click();
    await page.getByText('Starting the engine').waitFor();
    await page.getByRole('listitem').nth(2).waitFor();
    await picture(page, 'starting');
    await page.getByText('Engine running').waitFor({ timeout: 120_000 });
    await page.getByRole('heading', { name: 'No containers yet' }).waitFor();
    await accessible(page);
    await picture(page, 'nothing-yet');
  }, 150_000);
});

describe('images', () => {
  it('appear when they come', async () => {
    await go('images');
    await page.getByRole('heading', { name: 'No images yet' }).waitFor();
    await longshore.load('busybox');
    await row('busybox').waitFor();
    await accessible(page);
  });

  it('are tagged', async () => {
    await row('busybox').getByRole('button', { name: /More actions/ }).click();
    await page.getByRole('menuitem', { name: 'Tag…' }).click();
    await dialog().getByLabel('New name').fill(`${registry}/team/box:1`);
    await dialog().getByRole('button', { name: 'Tag' }).click();
    await row(`${registry}/team/box`).waitFor();
    expect(await longshore.docker('images', '-q', `${registry}/team/box:1`)).not.toBe('');
  });

  it('are deleted, and pulled again layer by layer', async () => {
    await longshore.docker('push', '-q', `${registry}/team/box:1`);
    await row(`${registry}/team/box`).getByRole('button', { name: /^Delete/ }).click();
    expect(await dialog().innerText()).toContain(`${registry}/team/box:1`);
    await dialog().getByRole('button', { name: 'Delete' }).click();
    await row(`${registry}/team/box`).waitFor({ state: 'detached' });
    await longshore.docker('rmi', 'busybox');
    await page.getByRole('button', { name: 'Pull', exact: true }).click();
    await dialog().getByLabel('Image').fill(`${registry}/team/box:1`);
    await dialog().getByRole('button', { name: 'Pull' }).click();
    const article = page.getByRole('article', { name: /team\/box/ });
    await article.getByText('Pulled').waitFor();
    await row(`${registry}/team/box`).waitFor();
    await longshore.docker('tag', `${registry}/team/box:1`, 'busybox');
    await article.getByRole('button', { name: 'Dismiss' }).click();
  });

  it('are pulled no further when one thinks better of it', async () => {
    await page.getByRole('button', { name: 'Pull', exact: true }).click();
    await dialog().getByLabel('Image').fill(`${dead}/slow`);
    await page.keyboard.press('Enter');
    const article = page.getByRole('article', { name: /slow/ });
    await article.getByRole('button', { name: 'Cancel' }).click();
    await article.getByText(/^Cancelled/).waitFor();
    await article.getByRole('button', { name: 'Dismiss' }).click();
  });

  it('are pushed and pulled layer by layer, and no further than they are wanted', async () => {
    const name = `${slow}/layers:1`;
    const cancelled = async (what: 'Push' | 'Pull', counted: RegExp) => {
      const article = page.getByRole('article', { name: `${what} of ${name}` });
      await expect.poll(async () => (await article.getByRole('listitem').allInnerTexts()).filter((text) => counted.test(text)).length, { timeout: 30_000 }).toBeGreaterThan(0);
      expect(await article.getByRole('listitem').count()).toBeGreaterThan(3);
      const far = Number(await article.getByRole('progressbar').getAttribute('aria-valuenow'));
      expect(far).toBeLessThan(100);
      if (what === 'Pull') {
        await accessible(page);
        await picture(page, 'pull');
      }
      await article.getByRole('button', { name: 'Cancel' }).click();
      await article.getByText(/^Cancelled/).waitFor();
      await article.getByRole('button', { name: 'Dismiss' }).click();
    };
    await longshore.load('layers');
    await longshore.docker('tag', 'layers', name);
    await row(`${slow}/layers`).getByRole('button', { name: /More actions/ }).click();
    await page.getByRole('menuitem', { name: 'Push…' }).click();
    await dialog().getByRole('button', { name: 'Push' }).click();
    await cancelled('Push', /[\d.]+ MB of [\d.]+ MB/);
    await longshore.docker('tag', 'layers', `${registry}/layers:1`);
    await longshore.docker('push', '-q', `${registry}/layers:1`);
    await longshore.docker('rmi', 'layers', name, `${registry}/layers:1`);
    await page.getByRole('button', { name: 'Pull', exact: true }).click();
    await dialog().getByLabel('Image').fill(name);
    await page.keyboard.press('Enter');
    await cancelled('Pull', /[\d.]+ MB of [\d.]+ MB/);
    expect(await longshore.docker('images', '-q', name)).toBe('');

    // An archive, too.
    await page.locator('input[type=file]').setInputFiles(longshore.archive('layers'));
    const loading = page.getByRole('status').filter({ hasText: 'layers.tar' });
    await loading.getByText(/% of [\d.]+ MB/).waitFor();
    await loading.getByRole('button', { name: 'Cancel' }).click();
    await loading.waitFor({ state: 'detached' });
    await page.waitForTimeout(1000);
    expect(await longshore.docker('images', '-q', 'layers')).toBe('');
  }, 120_000);

  it('say why they cannot be pulled', async () => {
    await page.getByRole('button', { name: 'Pull', exact: true }).click();
    await dialog().getByLabel('Image').fill(`${registry}/no/such`);
    await page.keyboard.press('Enter');
    const article = page.getByRole('article', { name: /no\/such/ });
    await article.getByRole('button', { name: 'Try again' }).waitFor();
    expect(await article.innerText()).toMatch(/not found|unknown|denied|does not exist/i);
    await article.getByRole('button', { name: 'Dismiss' }).click();
  });

  it('are pushed and pulled with the sign-in of the docker command, which no page sees', async () => {
    const name = `${closed}/mine/box:1`;
    await longshore.docker('tag', 'busybox', name);
    const push = async () => {
      await row(`${closed}/mine/box`).getByRole('button', { name: /More actions/ }).click();
      await page.getByRole('menuitem', { name: 'Push…' }).click();
      expect(await dialog().innerText()).toContain(closed);
      await dialog().getByRole('button', { name: 'Push' }).click();
    };
    const article = page.getByRole('article', { name: `Push of ${name}` });
    await push();
    await article.getByRole('button', { name: 'Try again' }).waitFor();
    expect(await article.innerText()).toMatch(/unauthorized|authentication|denied|credentials/i);
    longshore.signIn(closed);
    await article.getByRole('button', { name: 'Try again' }).click();
    await article.getByText('Pushed', { exact: true }).waitFor();
    await article.getByRole('button', { name: 'Dismiss' }).click();
    await longshore.docker('rmi', name);
    await row(`${closed}/mine/box`).waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Pull', exact: true }).click();
    await dialog().getByLabel('Image').fill(name);
    await page.keyboard.press('Enter');
    const pull = page.getByRole('article', { name: `Pull of ${name}` });
    await pull.getByText('Pulled', { exact: true }).waitFor();
    await pull.getByRole('button', { name: 'Dismiss' }).click();
    await longshore.docker('rmi', name);
    expect(await page.content()).not.toContain('secret');
  });

  it('are saved as a file, and loaded from one', async () => {
    await longshore.docker('tag', 'busybox', 'travels:1');
    await row('travels').getByRole('button', { name: /More actions/ }).click();
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('menuitem', { name: 'Save as tar' }).click()]);
    expect(download.suggestedFilename()).toBe('travels_1.tar');
    const file = await download.path();
    await longshore.docker('rmi', 'travels:1');
    await row('travels').waitFor({ state: 'detached' });
    const chooser = page.locator('input[type=file]');
    await chooser.setInputFiles(file);
    await page.getByText(/Loaded image: travels:1/).waitFor();
    await row('travels').waitFor();
    await longshore.docker('rmi', 'travels:1');
    await chooser.setInputFiles([{ name: 'broken.tar', mimeType: '', buffer: Buffer.from('this is no archive') }]);
    await page.getByText(/broken\.tar could not be loaded: /).waitFor();
    await accessible(page);
  });

  it('are cleaned up, those that nobody uses', async () => {
    await longshore.docker('tag', 'busybox', 'spare:1');
    await row('spare').waitFor();
    await longshore.docker('create', '--name', 'user', 'busybox');
    await row('busybox').getByText('user').waitFor();
    await longshore.docker('rm', 'user');
    await row('busybox').getByText('unused').waitFor();
    await page.getByRole('button', { name: 'Clean up' }).click();
    expect(await dialog().innerText()).toMatch(/busybox:latest[\s\S]*spare:1/);
    await dialog().getByRole('button', { name: /^Delete \d/ }).click();
    await page.getByText(/are free again/).waitFor();
    await page.getByRole('heading', { name: 'No images yet' }).waitFor();
    await longshore.load('busybox');
    await longshore.docker('tag', 'busybox', `${registry}/team/box:1`);
    await row('busybox').waitFor();
  });

  it('show their layers', async () => {
    await picture(page, 'images');
    await row('busybox').getByRole('link').click();
    await page.getByRole('heading', { name: 'Layers' }).waitFor();
    await accessible(page);
    await picture(page, 'image');
  });

  it('run, with the docker line that does the same', async () => {
    await page.getByRole('button', { name: 'Run' }).click();
    await dialog().getByLabel('Name', { exact: true }).fill('talker');
    const script = `i=0; while true; do i=$((i+1)); printf '\\033[31mline %d\\033[0m <b>bold</b>\\n' $i; sleep 0.2; done`;
    await dialog().getByLabel('Command', { exact: true }).fill(`sh -c "${script.replaceAll('$', '\\$')}"`);
    await dialog().getByRole('button', { name: 'Set a variable' }).click();
    await dialog().getByLabel('Name of the variable').fill('GREETING');
    await dialog().getByLabel('Value of the variable').fill('<script>alert(1)</script>');
    await dialog().getByRole('button', { name: 'Publish a port' }).click();
    await dialog().getByLabel('Port of the container').fill('8000');
    await dialog().getByRole('button', { name: 'Mount a volume' }).click();
    await dialog().getByLabel('Volume or folder').fill('talk-data');
    await dialog().getByLabel('Path in the container', { exact: true }).fill('/data');
    const line = await dialog().getByLabel('The same as a docker command').innerText();
    expect(line).toMatch(/^docker run -d --name talker -p 8000 -v talk-data:\/data -e 'GREETING=<script>alert\(1\)<\/script>' \S+ sh -c/);
    await accessible(page);
    await picture(page, 'run');
    await dialog().getByRole('button', { name: 'Run' }).click();
    await page.getByRole('tab', { name: 'Logs' }).waitFor();
  });
});

describe('a container', () => {
  it('shows its log in colours and never as markup', async () => {
    const log = page.getByRole('log');
    await log.getByText('line 3', { exact: true }).waitFor();
    expect(await log.getByText('<b>bold</b>').count()).toBeGreaterThan(0);
    expect(await log.locator('b').count()).toBe(0);
    const colour = await log.getByText('line 3', { exact: true }).evaluate((e) => getComputedStyle(e).color);
    expect(colour).not.toBe(await log.getByText('<b>bold</b>').first().evaluate((e) => getComputedStyle(e).color));
    await accessible(page);
    await picture(page, 'logs');
  });

  it('searches, shows times, wraps and downloads', async () => {
    await page.getByLabel('Search the log').fill('line 2');
    await page.getByText(/^\d+ of \d+$/).waitFor();
    await page.getByRole('button', { name: 'Show times' }).click();
    await page.getByRole('log').getByText(/^\d{4}-\d\d-\d\d \d\d:\d\d/).first().waitFor();
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download' }).click()]);
    expect(download.suggestedFilename()).toBe('talker.log');
    await page.keyboard.press('Escape');
  });

  it('has a terminal that fits, and lives on under other tabs', async () => {
    await page.getByRole('tab', { name: 'Terminal' }).click();
    const screen = page.locator('.xterm-rows');
    await expect.poll(() => screen.innerText(), { timeout: 20_000 }).toMatch(/[#$] *$/m);
    await page.keyboard.type('echo answer $((6*7)); stty size\n');
    await expect.poll(() => screen.innerText(), { timeout: 10_000 }).toContain('answer 42');
    const size = async () => /^(\d+) (\d+)$/m.exec(await screen.innerText())?.slice(1).map(Number);
    await expect.poll(size, { timeout: 10_000 }).toBeTruthy();
    const before = (await size())!;
    await page.getByRole('tab', { name: 'Inspect' }).click();
    await page.setViewportSize({ width: 900, height: 600 });
    await page.getByRole('tab', { name: 'Terminal' }).click();
    // What was hidden is drawn with the next frame.
    await expect.poll(() => screen.innerText()).toContain('answer 42');
    await page.waitForTimeout(500);
    await page.keyboard.type('clear; stty size\n');
    await expect.poll(size, { timeout: 10_000 }).toSatisfy((now: number[] | undefined) => !!now && now[0]! < before[0]! && now[1]! < before[1]!);
    await page.setViewportSize({ width: 1180, height: 740 });
    await page.keyboard.type('exit\n');
    await page.getByText('The shell has ended.').waitFor();
    await picture(page, 'terminal');
  });

  it('shows charts, mounts and what the engine knows', async () => {
    await page.getByRole('tab', { name: 'Stats' }).click();
    await expect.poll(() => page.locator('canvas').count()).toBe(4);
    await page.getByText(/\d process/).waitFor();
    const cpu = page.getByRole('figure').filter({ hasText: 'CPU' }).locator('figcaption');
    const first = await cpu.innerText();
    await expect.poll(() => cpu.innerText(), { timeout: 15_000 }).not.toBe(first);
    await accessible(page);
    await picture(page, 'stats');
    await page.getByRole('tab', { name: 'Mounts and environment' }).click();
    await page.getByText('<script>alert(1)</script>').waitFor();
    await page.getByText('/data', { exact: true }).waitFor();
    await accessible(page);
    await picture(page, 'mounts');
    await page.getByRole('tab', { name: 'Inspect' }).click();
    await page.getByLabel('Search names and values').fill('hostconfig binds');
    await page.getByText('"talk-data:/data"').waitFor();
    await accessible(page);
    await picture(page, 'inspect');
  });

  it('has files that are read, sent, replaced, downloaded and deleted', async () => {
    const evil = '<img src=x onerror=alert(1)>.txt';
    await longshore.docker('exec', 'talker', 'sh', '-c', `mkdir -p /work/inner; cd /work; echo "<b>hello</b>" > '${evil}'; printf odd > "$(printf 'odd\\377')"; ln -s inner door; ln -s /nowhere lost; head -c 3000000 /dev/zero | tr '\\0' x > long.log; mkfifo pipe`);
    await page.getByRole('tab', { name: 'Files' }).click();
    await file('work').getByText('work', { exact: true }).click();
    await file(evil).waitFor();
    expect(await page.locator('img[src="x"]').count()).toBe(0);
    await file('door').getByText('→ inner').waitFor();
    await accessible(page);
    await picture(page, 'files');

    // A file, as text and nothing else.
    await file(evil).getByText(evil, { exact: true }).click();
    const content = page.getByRole('region', { name: /^Content of/ });
    await content.getByText('<b>hello</b>').waitFor();
    expect(await content.locator('b').count()).toBe(0);
    await accessible(page);
    await picture(page, 'file');
    await page.keyboard.press('Escape');
    await file('long.log').getByText('long.log', { exact: true }).click();
    await page.getByText('the first 1.05 MB').waitFor();
    expect((await content.innerText()).length).toBe(1 << 20);
    await page.getByRole('button', { name: 'Back to the folder' }).click();
    await file('odd\ufffd').getByText('odd\ufffd', { exact: true }).click();
    await content.getByText('odd', { exact: true }).waitFor();
    await page.keyboard.press('Escape');

    // Uploads: one that is new, and one that asks before it replaces.
    const large = Buffer.alloc(24 << 20, 'z');
    const chooser = page.getByLabel('Files to upload');
    await chooser.setInputFiles([{ name: 'new.txt', mimeType: 'text/plain', buffer: Buffer.from('first') }, { name: 'large.bin', mimeType: '', buffer: large }]);
    await page.getByText('2 files uploaded').waitFor();
    await file('large.bin').getByText('25.2 MB').waitFor();
    await chooser.setInputFiles([{ name: 'new.txt', mimeType: 'text/plain', buffer: Buffer.from('second') }]);
    expect(await dialog().innerText()).toContain('new.txt');
    await dialog().getByRole('button', { name: 'Replace' }).click();
    await page.getByText('new.txt uploaded').waitFor();
    expect(await longshore.docker('exec', 'talker', 'cat', '/work/new.txt')).toBe('second');

    // Folders: one that is chosen, one that is dropped with a file beside it, and one that asks.
    const place = mkdtempSync(join(tmpdir(), 'upload-'));
    mkdirSync(join(place, 'chosen/deep'), { recursive: true });
    mkdirSync(join(place, 'dropped/empty'), { recursive: true });
    writeFileSync(join(place, 'chosen/deep/leaf.txt'), 'chosen');
    writeFileSync(join(place, 'dropped/<b>.txt'), 'dropped');
    writeFileSync(join(place, 'beside.txt'), 'beside');
    await page.getByLabel('Folder to upload').setInputFiles(join(place, 'chosen'));
    await page.getByText('chosen uploaded').waitFor();
    await file('chosen').waitFor();
    const drag = await page.context().newCDPSession(page);
    const drop = async (...names: string[]) => {
      const data = { items: [], files: names.map((name) => join(place, name)), dragOperationsMask: 1 };
      for (const type of ['dragEnter', 'dragOver', 'drop'] as const) await drag.send('Input.dispatchDragEvent', { type, x: 600, y: 420, data });
    };
    await drop('dropped', 'beside.txt');
    await page.getByText('2 files uploaded').last().waitFor();
    await file('dropped').waitFor();
    await file('beside.txt').waitFor();
    const found = await longshore.docker('exec', 'talker', 'sh', '-c', "cd /work && cat chosen/deep/leaf.txt 'dropped/<b>.txt' beside.txt && ls -d dropped/empty");
    expect(found).toBe('chosendroppedbesidedropped/empty');
    writeFileSync(join(place, 'dropped/<b>.txt'), 'again');
    await drop('dropped');
    expect(await dialog().innerText()).toMatch(/Upload into dropped[\s\S]*the rest stays/);
    await dialog().getByRole('button', { name: 'Upload' }).click();
    await page.getByText('dropped uploaded').waitFor();
    await expect.poll(() => longshore.docker('exec', 'talker', 'cat', '/work/dropped/<b>.txt')).toBe('again');
    await drag.detach();
    rmSync(place, { recursive: true });

    // Downloads: a file as it is, a folder as tar.
    const saved = async (name: string) => {
      const [download] = await Promise.all([page.waitForEvent('download'), file(name).getByRole('button', { name: `Download ${name}` }).click()]);
      return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()) };
    };
    const bin = await saved('large.bin');
    expect([bin.name, bin.bytes.equals(large)]).toEqual(['large.bin', true]);
    expect((await saved('odd\ufffd')).bytes.toString()).toBe('odd');
    const inner = await saved('inner');
    expect(inner.name).toBe('inner.tar');
    expect(inner.bytes.subarray(0, 6).toString()).toBe('inner/');

    // The keyboard alone: to a row, into the folder and back, and a file goes.
    await page.getByLabel('Search this folder').fill('inner');
    await file('new.txt').waitFor({ state: 'detached' });
    await file('inner').focus();
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'This folder is empty' }).waitFor();
    await page.getByRole('button', { name: 'Up to the folder above' }).click();
    await file('new.txt').focus();
    await page.keyboard.press('Delete');
    expect(await dialog().innerText()).toContain('/work/new.txt');
    await page.keyboard.press('Enter');
    await file('new.txt').waitFor({ state: 'detached' });
    expect(await longshore.docker('exec', 'talker', 'ls', '/work')).not.toContain('new.txt');
  });

  it('has files when it does not run, and says what cannot be done', async () => {
    await longshore.docker('create', '--name', 'still', '-v', 'still-data:/data', 'busybox', 'true');
    await go('containers');
    await row('still').getByRole('link').click();
    await page.getByRole('tab', { name: 'Files' }).click();
    await file('data').getByText('data', { exact: true }).click();
    await page.getByRole('heading', { name: 'This folder is empty' }).waitFor();
    await page.getByLabel('Files to upload').setInputFiles([{ name: 'kept.txt', mimeType: 'text/plain', buffer: Buffer.from('kept') }]);
    await file('kept.txt').waitFor();
    await page.getByText('Files are deleted in a running container only').waitFor();
    expect(await longshore.docker('run', '--rm', '-v', 'still-data:/v', 'busybox', 'cat', '/v/kept.txt')).toBe('kept');
    await longshore.docker('rm', 'still');
    await longshore.docker('volume', 'rm', 'still-data');

    await longshore.docker('create', '--name', 'fixed', '--read-only', 'busybox', 'true');
    await go('containers');
    await row('fixed').getByRole('link').click();
    await page.getByRole('tab', { name: 'Files' }).click();
    await file('etc').waitFor();
    await page.getByLabel('Files to upload').setInputFiles([{ name: 'x.bin', mimeType: '', buffer: Buffer.alloc(8 << 20) }]);
    await page.getByText(/x\.bin could not be uploaded: .*read-only/).waitFor();
    await longshore.docker('rm', 'fixed');
  });

  it('holds a hundred thousand lines and draws a screenful', async () => {
    await longshore.docker('run', '-d', '--name', 'flood', 'busybox', 'sh', '-c', 'seq 1 100000 | sed "s/.*/line & of a long log/"');
    await longshore.docker('wait', 'flood');
    await go('containers');
    await row('flood').getByRole('link').click();
    await page.getByText(/100,000 lines/).waitFor({ timeout: 60_000 });
    await page.getByText('line 100000 of a long log').waitFor();
    expect(await page.getByRole('log').locator('.line').count()).toBeLessThan(120);
    const began = Date.now();
    await page.getByLabel('Search the log').fill('line 50000 ');
    await page.getByText('1 of 1').waitFor();
    await page.getByText('line 50000 ').first().waitFor();
    expect(Date.now() - began).toBeLessThan(3000);
    const scrolled = await page.getByRole('log').evaluate(async (view) => {
      const start = performance.now();
      for (let i = 0; i < 30; i++) {
        view.scrollTop += 20_000;
        await new Promise(requestAnimationFrame);
      }
      return (performance.now() - start) / 30;
    });
    expect(scrolled, 'milliseconds for a frame while scrolling').toBeLessThan(100);
  });
});

describe('the logs of a project', () => {
  it('are one, in the order of time, each line with its service, and go on', async () => {
    const project = ['--label', 'com.docker.compose.project=duo'];
    // The second writes between the first's two lines.
    await longshore.docker('run', '-d', '--name', 'duo-one', ...project, 'busybox', 'sh', '-c', 'echo first; until [ -e /go ]; do sleep 0.1; done; echo third; exec sleep 1000');
    await longshore.docker('run', '-d', '--name', 'duo-two', ...project, '-t', 'busybox', 'sh', '-c', 'echo second; exec sh');
    await longshore.docker('exec', 'duo-one', 'touch', '/go');
    await go('containers');
    await page.getByRole('button', { name: 'More actions for the project duo' }).click();
    await page.getByRole('menuitem', { name: 'Logs' }).click();
    const log = page.getByRole('log', { name: 'Log of duo' });
    await log.getByText('third').waitFor();
    const lines = async () => (await log.locator('.line').allInnerTexts()).map((line) => line.trim().replace(/\s+/g, ' '));
    expect((await lines()).filter((line) => /first|second|third/.test(line))).toEqual(['one first', 'two second', 'one third']);
    const colour = (service: string) => log.locator('.from', { hasText: service }).first().evaluate((element) => getComputedStyle(element).color);
    expect(await colour('one')).not.toBe(await colour('two'));
    await accessible(page);
    await picture(page, 'project-logs');

    // A new start goes on in the same log, and says nothing twice.
    await longshore.docker('restart', '-t', '0', 'duo-one');
    await expect.poll(async () => (await lines()).filter((line) => line === 'one third').length, { timeout: 20_000 }).toBe(2);
    expect((await lines()).filter((line) => line === 'one first').length).toBe(2);
    await longshore.docker('rm', '-f', 'duo-one', 'duo-two');
    await page.getByRole('heading', { name: 'This project has no containers' }).waitFor();
  });
});

describe('containers', () => {
  it('appear and change without being asked', async () => {
    await go('containers');
    await longshore.docker('run', '-d', '--name', 'from-cli', 'busybox', 'sleep', '1000');
    await row('from-cli').getByText(/^Up /).waitFor();
    await longshore.docker('pause', 'from-cli');
    await row('from-cli').getByText(/Paused/).waitFor();
    await longshore.docker('unpause', 'from-cli');
    await row('from-cli').getByText(/%/).waitFor();
    await longshore.docker('rm', '-f', 'flood');
    await row('flood').waitFor({ state: 'detached' });
  });

  it('stand below their project, whatever it is called', async () => {
    const project = '<img src=x onerror=alert(1)>';
    for (const [service, label] of [['web', 'shop'], ['db', 'shop'], ['evil', project]] as const)
      await longshore.docker('run', '-d', '--name', `${label === 'shop' ? 'shop-' : ''}${service}`, '--label', `com.docker.compose.project=${label}`, 'busybox', 'sleep', '1000');
    const group = page.getByRole('row').filter({ hasText: '2 of 2 running' });
    await group.waitFor();
    await page.getByText(project).waitFor();
    expect(await page.locator('img[src="x"]').count()).toBe(0);
    await accessible(page);
    await picture(page, 'containers');
    await page.getByRole('button', { name: 'Hide the containers of the project shop' }).click();
    await row('web').waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Show the containers of the project shop' }).click();
    await row('web').waitFor();
  });

  it('are acted on as a group, after a question that names them', async () => {
    await page.getByRole('button', { name: 'Stop the project shop' }).click();
    expect(await dialog().innerText()).toMatch(/shop-db[\s\S]*shop-web/);
    await picture(page, 'confirm');
    await dialog().getByRole('button', { name: 'Stop 2' }).click();
    await page.getByText('0 of 2 running').waitFor({ timeout: 40_000 });
    await page.getByRole('button', { name: 'Start the project shop' }).click();
    await page.getByText('2 of 2 running').waitFor();
  });

  it('keep an error on the row that it belongs to', async () => {
    await longshore.docker('create', '--name', 'broken', 'busybox', '/no/such/program');
    await row('broken').getByRole('button', { name: 'Start broken' }).click();
    const alert = row('broken').getByRole('alert');
    await alert.waitFor();
    expect(await alert.innerText()).toMatch(/no such|not found/i);
    expect(await page.getByRole('alert').count()).toBe(1);
    await row('broken').getByRole('button', { name: 'Dismiss the error' }).click();
    await alert.waitFor({ state: 'detached' });
  });

  it('are found, and a search without a match says so', async () => {
    await page.keyboard.press('/');
    await page.keyboard.type('talk');
    await row('from-cli').waitFor({ state: 'detached' });
    await row('talker').waitFor();
    await page.keyboard.type('zzz');
    await page.getByRole('heading', { name: 'No container matches' }).waitFor();
    await page.getByRole('button', { name: 'Clear search and filter' }).click();
    await page.getByRole('button', { name: /^Stopped/ }).click();
    await row('broken').waitFor();
    await row('talker').waitFor({ state: 'detached' });
    await page.getByRole('button', { name: /^All/ }).click();
  });

  it('are reached and deleted with the keyboard alone', async () => {
    await page.getByRole('row').nth(1).focus();
    await page.keyboard.press('End');
    await expect.poll(() => page.evaluate(() => document.activeElement?.textContent)).toContain('broken');
    await page.keyboard.press('Space');
    await page.getByText('1 selected').waitFor();
    await page.keyboard.press('Delete');
    expect(await dialog().innerText()).toContain('broken');
    await page.keyboard.press('Enter');
    await row('broken').waitFor({ state: 'detached' });
    await page.keyboard.press('Control+k');
    await page.getByRole('combobox').waitFor();
    await accessible(page);
    await page.keyboard.type('terminal talker');
    await picture(page, 'palette');
    await page.keyboard.press('Enter');
    await page.getByRole('tab', { name: 'Terminal', selected: true }).waitFor();
    await go('containers');
  });

  it('are deleted together', async () => {
    for (const name of ['shop-db', 'shop-web', 'evil']) await row(name.replace(/^shop-/, '')).getByRole('checkbox').click();
    await page.getByText('3 selected').waitFor();
    await page.getByRole('button', { name: 'Delete', exact: true }).click();
    for (const name of ['shop-db', 'shop-web', 'evil']) expect(await dialog().innerText()).toContain(name);
    await dialog().getByRole('button', { name: 'Delete 3' }).click();
    await page.getByText('2 of 2 running').waitFor({ state: 'detached', timeout: 40_000 });
    await row('evil').waitFor({ state: 'detached' });
  });
});

describe('volumes and networks', () => {
  it('are created, shown with their users, and deleted', async () => {
    await go('volumes');
    await page.getByRole('row').filter({ hasText: 'talk-data' }).getByRole('link', { name: 'talker' }).waitFor();
    await page.getByRole('button', { name: 'Create' }).click();
    await dialog().getByLabel('Name').fill('spare');
    await dialog().getByRole('button', { name: 'Create' }).click();
    const spare = page.getByRole('row').filter({ hasText: 'spare' });
    await spare.waitFor();
    await accessible(page);
    await picture(page, 'volumes');
    await page.getByRole('button', { name: 'Delete talk-data' }).click();
    await dialog().getByRole('button', { name: 'Delete' }).click();
    expect(await page.getByRole('alert').innerText()).toMatch(/in use/);
    await page.getByRole('button', { name: 'Delete spare' }).click();
    await dialog().getByRole('button', { name: 'Delete' }).click();
    await spare.waitFor({ state: 'detached' });

    await go('networks');
    await page.getByRole('row').filter({ hasText: 'bridge' }).getByRole('link', { name: 'talker' }).or(page.getByText(/\+\d/)).first().waitFor();
    await page.getByRole('button', { name: 'Create' }).click();
    await dialog().getByLabel('Name').fill('back-end');
    await dialog().getByLabel('Subnet').fill('172.30.0.0/16');
    await dialog().getByRole('button', { name: 'Create' }).click();
    const network = page.getByRole('row').filter({ hasText: 'back-end' });
    await network.getByText('172.30.0.0/16').waitFor();
    await accessible(page);
    await picture(page, 'networks');
    await page.getByRole('button', { name: 'Delete back-end' }).click();
    await dialog().getByRole('button', { name: 'Delete' }).click();
    await network.waitFor({ state: 'detached' });
  });
});

describe('layers', () => {
  const card = (name: string) => page.getByRole('region', { name, exact: true });
  const pid = async (name: string) => Number(/pid\s*(\d+)/.exec(await card(name).innerText())?.[1]);

  it('show the chain down to the processes of a container', async () => {
    await go('layers');
    await card('Shim of talker').getByText('sh', { exact: true }).first().waitFor();
    for (const name of ['Daemon', 'Supervisor', 'Shim of talker']) {
      expect(await pid(name)).toBeGreaterThan(1);
      expect(await card(name).innerText()).toMatch(/memory\s*[\d.]+ MB/);
    }
    await card('Daemon').getByText(/\d+\.\d+\.\d+/).waitFor();
    expect(await longshore.longshore('shell', 'cat', `/proc/${await pid('Shim of talker')}/comm`)).toMatch(/shim/);
    await card('Daemon').getByText('%').waitFor();
    await accessible(page);
  });

  it('show what the last requests did in each of them', async () => {
    await longshore.docker('run', '--rm', 'busybox', 'true');
    await page.getByLabel('Only what changes something').check();
    const request = page.getByRole('row').filter({ hasText: /\/containers\/[0-9a-f]{64}\/start/ }).first();
    await request.waitFor();
    await request.focus();
    await page.keyboard.press('Enter');
    const shares = page.getByLabel('Time in each layer');
    for (const layer of ['daemon', 'supervisor', 'shim']) await shares.getByText(layer, { exact: true }).waitFor();
    expect(await page.getByRole('region', { name: 'Waterfall' }).getByRole('listitem').count()).toBeGreaterThan(3);
    await accessible(page);
    await picture(page, 'layers');
  });

  it('are looked at every two seconds at most, and never from elsewhere', async () => {
    let asked = 0;
    page.on('request', (request) => (asked += Number(request.url().endsWith('/api/v1/layers'))));
    await page.waitForTimeout(6500);
    expect(asked).toBeGreaterThan(0);
    expect(asked).toBeLessThanOrEqual(4);
    await go('networks');
    await page.waitForTimeout(300);
    asked = 0;
    await page.waitForTimeout(4000);
    expect(asked).toBe(0);
  });

  it('are killed, come back, and containers live on', async () => {
    await go('layers');
    const state = () => longshore.docker('inspect', '-f', '{{.State.Pid}} {{.State.StartedAt}}', 'talker');
    const before = await state();
    for (const name of ['Daemon', 'Supervisor']) {
      await card(name).getByText('pid').waitFor();
      const old = await pid(name);
      const shim = await pid('Shim of talker');
      await card(name).getByRole('button', { name: 'Kill' }).click();
      expect(await dialog().innerText()).toMatch(/live on|lives on/);
      await dialog().getByRole('button', { name: 'Kill' }).click();
      await expect.poll(() => pid(name), { timeout: 20_000 }).toSatisfy((now: number) => now > 1 && now !== old);
      await card(name).getByText(/^started \d+ times/).waitFor();
      expect(await pid('Shim of talker')).toBe(shim);
    }
    await expect.poll(() => state().catch(() => ''), { timeout: 20_000 }).toBe(before);
  });
});

describe('a volume', () => {
  const importer = () => page.locator('input[type=file]');
  const open = (name: string) => page.getByRole('row').filter({ hasText: name }).getByRole('link', { name, exact: true }).click();

  it('is browsed, exported, and imported into another', async () => {
    await longshore.docker('volume', 'create', 'from');
    await longshore.docker('volume', 'create', 'to');
    await longshore.docker('run', '--rm', '-v', 'from:/v', 'busybox', 'sh', '-c', 'mkdir /v/inner; echo deep > /v/inner/text; echo top > /v/text; chown 7:8 /v/text');
    await go('volumes');
    await open('from');
    await file('inner').getByText('inner', { exact: true }).click();
    await file('text').getByText('text', { exact: true }).click();
    await page.getByText('deep', { exact: true }).waitFor();
    await page.keyboard.press('Escape');
    await accessible(page);
    await picture(page, 'volume');
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Export' }).click()]);
    expect(download.suggestedFilename()).toBe('from.tar');
    const tar = readFileSync(await download.path());
    await go('volumes');
    await open('to');
    await page.getByRole('heading', { name: 'This folder is empty' }).waitFor();
    await importer().setInputFiles([{ name: 'from.tar', mimeType: '', buffer: tar }]);
    expect(await dialog().innerText()).toContain('to');
    await dialog().getByRole('button', { name: 'Import' }).click();
    await file('inner').waitFor();
    expect(await longshore.docker('run', '--rm', '-v', 'to:/v', 'busybox', 'sh', '-c', 'cat /v/inner/text /v/text; stat -c %u:%g /v/text')).toBe('deep\ntop\n7:8');
    await importer().setInputFiles([{ name: 'bad.tar', mimeType: '', buffer: Buffer.alloc(4096, 'x') }]);
    await dialog().getByRole('button', { name: 'Import' }).click();
    await page.getByText(/bad\.tar could not be imported: /).waitFor();
    // No list shows what looked into the volumes, and nothing of it is left.
    await go('containers');
    await row('talker').waitFor();
    const removed = (name: string) => longshore.docker('volume', 'rm', name).then(() => 'removed', (error: Error) => error.message);
    for (const name of ['from', 'to']) await expect.poll(() => removed(name), { timeout: 10_000 }).toBe('removed');
    await expect.poll(() => longshore.docker('ps', '-aq', '--filter', 'label=dev.longshore.helper'), { timeout: 10_000 }).toBe('');
  });
});

describe('a clone of a volume', () => {
  const volume = (name: string) => page.getByRole('row').filter({ has: page.locator(`.title[title="${name}"]`) });
  const clone = async (name: string) => {
    await volume(name).getByRole('button', { name: `Clone ${name}` }).click();
    await dialog().getByLabel('Name of the copy').waitFor();
  };
  const names = async () => (await longshore.docker('volume', 'ls', '-q')).split('\n');
  /** What the engine has on its disk for volumes, whole or not. */
  const folders = async () => (await longshore.longshore('shell', 'sh', '-c', `ls -A ${await place()}`)).split('\n').sort();
  const place = async () => (await longshore.docker('volume', 'inspect', '-f', '{{.Mountpoint}}', 'first')).replace(/\/first\/_data$/, '');

  it('holds the same, and lives on its own', async () => {
    await longshore.docker('volume', 'create', '--label', 'mine=1', '--label', 'com.docker.compose.project=shop', 'first');
    await longshore.docker('run', '--rm', '-v', 'first:/v', 'busybox', 'sh', '-c', 'mkdir -m 1770 /v/inner; echo deep > /v/inner/text; chown 7:8 /v/inner/text; ln /v/inner/text /v/second; ln -s /etc/passwd /v/link; mkfifo /v/pipe');
    await go('volumes');
    await clone('first');
    expect(await dialog().getByLabel('Name of the copy').inputValue()).toBe('first-copy');
    await accessible(page);
    await picture(page, 'clone');
    await dialog().getByRole('button', { name: 'Clone' }).click();
    await page.getByText('first is copied to first-copy').waitFor();
    await volume('first-copy').waitFor();
    const look = 'cat /v/inner/text; stat -c "%a %u:%g %h" /v/inner /v/inner/text | sed 1s/.....$//; readlink /v/link; ls -i /v/second /v/inner/text | cut -d/ -f1 | sort -u | wc -l; test -p /v/pipe && echo pipe';
    const seen = (name: string) => longshore.docker('run', '--rm', '-v', `${name}:/v`, 'busybox', 'sh', '-c', look);
    expect(await seen('first-copy')).toBe(await seen('first'));
    expect(await seen('first-copy')).toMatch(/^deep\n1770[\s\S]*644 7:8 2\n\/etc\/passwd\n1\npipe$/);
    expect(JSON.parse(await longshore.docker('volume', 'inspect', '-f', '{{json .Labels}}', 'first-copy'))).toEqual({ mine: '1' });
    await longshore.docker('run', '--rm', '-v', 'first-copy:/v', 'busybox', 'rm', '-rf', '/v/inner');
    expect(await longshore.docker('run', '--rm', '-v', 'first:/v', 'busybox', 'cat', '/v/inner/text')).toBe('deep');
  });

  it('has a name of its own, and is told who uses the first', async () => {
    await longshore.docker('run', '-d', '--name', 'writer', '-v', 'first:/v', 'busybox', 'sleep', '1000');
    await clone('first');
    expect(await dialog().getByLabel('Name of the copy').inputValue()).toBe('first-copy-2');
    await dialog().getByText(/In use by writer/).waitFor();
    await accessible(page);
    await dialog().getByLabel('Name of the copy').fill('first-copy');
    await dialog().getByText('There is a volume named first-copy already.').waitFor();
    expect(await dialog().getByRole('button', { name: 'Clone anyway' }).isDisabled()).toBe(true);
    await dialog().getByLabel('Name of the copy').fill('b@d');
    await dialog().getByRole('button', { name: 'Clone anyway' }).click();
    await dialog().getByText(/invalid characters/).waitFor();
    await dialog().getByLabel('Name of the copy').fill('live');
    await dialog().getByRole('button', { name: 'Clone anyway' }).click();
    await volume('live').waitFor();
    await longshore.docker('rm', '-f', 'writer');
    await longshore.docker('volume', 'rm', 'live', 'first-copy');
  });

  it('leaves nothing when it is given up, or when the engine dies', async () => {
    await longshore.docker('run', '--rm', '-v', 'first:/v', 'busybox', 'dd', 'if=/dev/zero', 'of=/v/large', 'bs=1M', 'count=700');
    const before = await folders();
    const begin = async (name: string) => {
      await clone('first');
      await dialog().getByLabel('Name of the copy').fill(name);
      await dialog().getByRole('button', { name: 'Clone' }).click();
      await dialog().getByText(/% of 734 MB/).waitFor();
    };
    await begin('given-up');
    // Its source stays meanwhile.
    expect(await longshore.docker('volume', 'rm', 'first').catch((e: Error) => e.message)).toMatch(/in use/);
    expect((await folders()).length).toBe(before.length + 1);
    await dialog().getByRole('button', { name: 'Stop copying' }).click();
    await dialog().getByRole('button', { name: 'Cancel' }).click();
    await expect.poll(folders, { timeout: 20_000 }).toEqual(before);
    expect(await names()).not.toContain('given-up');

    await begin('lost');
    await longshore.longshore('shell', 'sh', '-c', 'kill -9 $(pidof longshore-daemon)');
    await dialog().getByRole('alert').waitFor();
    await dialog().getByRole('button', { name: 'Cancel' }).click();
    await expect.poll(() => folders().catch(() => []), { timeout: 30_000 }).toEqual(before);
    expect(await names()).not.toContain('lost');
    await longshore.docker('volume', 'rm', 'first');
  }, 120_000);
});

describe('the engine', () => {
  it('is examined', async () => {
    await go('doctor');
    await page.getByText('Docker socket', { exact: false }).first().waitFor();
    await accessible(page);
    await picture(page, 'doctor');
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Save diagnostics' }).click()]);
    expect(download.suggestedFilename()).toMatch(/^longshore-diagnostics-\d{8}-\d{6}\.tar\.gz$/);
    const listed = execFileSync('tar', ['-tzf', await download.path()], { encoding: 'utf8' }).split('\n');
    for (const name of ['about.json', 'settings.json', 'engine.json', 'logs/host.log', 'logs/daemon.log']) expect(listed).toContain(`longshore-diagnostics/${name}`);
  });

  it('refuses what the machine must not open to a page', async () => {
    await go('settings');
    await page.getByLabel('Address for published ports').fill('0.0.0.0');
    await page.getByRole('button', { name: 'Save' }).click();
    expect(await page.getByRole('alert').innerText()).toContain('terminal');
    await page.getByRole('button', { name: 'Discard' }).click();
    await accessible(page);
    await picture(page, 'settings');
  });

  it('restarts with other resources, and containers come back', async () => {
    await longshore.docker('update', '--restart', 'always', 'talker');
    await page.getByLabel('CPUs', { exact: true }).fill('1');
    await page.getByLabel('Memory in gibibytes').fill('1.5');
    await page.getByRole('button', { name: 'Apply and restart' }).click();
    expect(await dialog().innerText()).toContain('talker');
    await dialog().getByRole('button', { name: 'Apply and restart' }).click();
    await page.getByText('Applied; the engine has restarted').waitFor({ timeout: 120_000 });
    expect(await longshore.longshore('shell', 'nproc')).toBe('1');
    const total = Number(/MemTotal:\s+(\d+)/.exec(await longshore.longshore('shell', 'cat', '/proc/meminfo'))?.[1]);
    expect(total).toBeGreaterThan(1.2 * 1024 * 1024);
    await go('containers');
    await row('talker').getByText(/^Up /).waitFor();
  }, 180_000);

  it('loses its daemon and the list stays', async () => {
    await longshore.longshore('shell', 'sh', '-c', 'kill -9 $(pidof longshore-daemon)');
    await page.waitForTimeout(1500);
    await row('talker').getByText(/^Up /).waitFor();
    await longshore.docker('rename', 'talker', 'renamed');
    await row('renamed').waitFor({ timeout: 20_000 });
  });

  it('is lost in the middle of everything, and comes back', async () => {
    const status = JSON.parse(await longshore.longshore('status', '--json')) as { vm: { qemu_pid: number } };
    process.kill(status.vm.qemu_pid, 'SIGKILL');
    await page.getByRole('heading', { name: 'The engine has failed' }).waitFor();
    await accessible(page);
    await picture(page, 'failed');
    await page.getByRole('button', { name: 'Start it again' }).click();
    await row('renamed').getByText(/^Up /).waitFor({ timeout: 120_000 });
  }, 150_000);

  it('stops after a question, and a page without it says what to do', async () => {
    await page.getByRole('button', { name: 'Engine actions' }).click();
    await page.getByRole('menuitem', { name: 'Stop' }).click();
    expect(await dialog().innerText()).toContain('renamed');
    await dialog().getByRole('button', { name: 'Stop the engine' }).click();
    await page.getByRole('heading', { name: 'The engine is not running' }).waitFor({ timeout: 60_000 });
    await accessible(page);
    await picture(page, 'not-running');
  });
});
