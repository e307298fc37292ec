// The logs of a project, as one.
import { beforeAll, describe, expect, it } from 'vitest';
import { accessible, picture } from '../browser';
import { busybox, go, longshore, page } from './fixture';

describe('the logs of a project', () => {
  beforeAll(busybox);

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
