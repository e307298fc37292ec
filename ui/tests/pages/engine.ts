// The engine: examined, set, restarted, lost, stopped.
import { execFileSync } from 'node:child_process';
import { beforeAll, describe, expect, it } from 'vitest';
import { accessible, picture } from '../browser';
import { dialog, go, longshore, page, row, talker } from './fixture';

describe('the engine', () => {
  beforeAll(talker);

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
    await go('settings');
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
