// The list of containers: changes, projects, actions, search, keyboard.
import { beforeAll, describe, expect, it } from 'vitest';
import { accessible, picture } from '../browser';
import { dialog, go, longshore, page, row, talker } from './fixture';

describe('containers', () => {
  beforeAll(talker);

  it('appear and change without being asked', async () => {
    await go('containers');
    await longshore.docker('run', '-d', '--name', 'from-cli', 'busybox', 'sleep', '1000');
    await row('from-cli').getByText(/^Up /).waitFor();
    await longshore.docker('pause', 'from-cli');
    await row('from-cli').getByText(/Paused/).waitFor();
    await longshore.docker('unpause', 'from-cli');
    await row('from-cli').getByText(/%/).waitFor();
    await longshore.docker('create', '--name', 'leaves', 'busybox', 'true');
    await row('leaves').waitFor();
    await longshore.docker('rm', 'leaves');
    await row('leaves').waitFor({ state: 'detached' });
  });

  it('show what they use', async () => {
    await longshore.docker('run', '-d', '--name', 'spins', 'busybox', 'sh', '-c', 'while :; do :; done');
    const cell = (at: number) => row('spins').getByRole('gridcell').nth(at).innerText();
    await expect.poll(async () => parseFloat(await cell(4)), { timeout: 30_000 }).toBeGreaterThan(20);
    expect(await cell(5)).toMatch(/^[\d.]+ [kKM]i?B$/);
    await longshore.docker('rm', '-f', 'spins');
    await row('spins').waitFor({ state: 'detached' });
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
