// The files of a container: read, sent, replaced, downloaded, deleted.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { accessible, picture } from '../browser';
import { dialog, file, longshore, page, show, talker } from './fixture';

describe('the files of a container', () => {
  beforeAll(talker);

  it('are read, sent, replaced, downloaded and deleted', async () => {
    const evil = '<img src=x onerror=alert(1)>.txt';
    await longshore.docker('exec', 'talker', 'sh', '-c', `mkdir -p /work/inner; cd /work; echo "<b>hello</b>" > '${evil}'; printf odd > "$(printf 'odd\\377')"; ln -s inner door; ln -s /nowhere lost; head -c 3000000 /dev/zero | tr '\\0' x > long.log; mkfifo pipe`);
    await show('talker');
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

  it('are there when it does not run, and say what cannot be done', async () => {
    await longshore.docker('create', '--name', 'still', '-v', 'still-data:/data', 'busybox', 'true');
    await show('still');
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
    await show('fixed');
    await page.getByRole('tab', { name: 'Files' }).click();
    await file('etc').waitFor();
    await page.getByLabel('Files to upload').setInputFiles([{ name: 'x.bin', mimeType: '', buffer: Buffer.alloc(8 << 20) }]);
    await page.getByText(/x\.bin could not be uploaded: .*read-only/).waitFor();
    await longshore.docker('rm', 'fixed');
  });
});
