// Images: tagged, pulled, pushed, saved, loaded, cleaned up, run.
import { beforeAll, describe, expect, it } from 'vitest';
import { accessible, picture } from '../browser';
import { closed, dead, dialog, engine, go, GREETING, longshore, page, registry, row, slow, TALK } from './fixture';

describe('images', () => {
  beforeAll(engine);

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
    await dialog().getByLabel('Command', { exact: true }).fill(`sh -c "${TALK.replaceAll('$', '\\$')}"`);
    await dialog().getByRole('button', { name: 'Set a variable' }).click();
    await dialog().getByLabel('Name of the variable').fill('GREETING');
    await dialog().getByLabel('Value of the variable').fill(GREETING);
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
