// Layers: the chain of processes, requests in it, and what happens when one is killed.
import { beforeAll, describe, expect, it } from 'vitest';
import { accessible, picture } from '../browser';
import { dialog, go, longshore, page, talker } from './fixture';

describe('layers', () => {
  beforeAll(talker);

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
