// Volumes: their list, what is in one, its way out and in, its clones.
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { accessible, picture } from '../browser';
import { busybox, dialog, file, go, longshore, page, row, talker } from './fixture';

describe('volumes', () => {
  beforeAll(talker);

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
  });
});

describe('a volume', () => {
  beforeAll(talker);

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
  beforeAll(busybox);

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
