// One container: its log, terminal, charts, mounts, and a long log.
import type { Locator } from 'playwright-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { accessible, picture } from '../browser';
import { longshore, page, show, talker } from './fixture';

/** The colours of a canvas's pixels, each with its opacity. */
function drawn(canvas: Locator): Promise<string[]> {
  return canvas.evaluate((found) => {
    const { width, height } = found as HTMLCanvasElement;
    const bytes = (found as HTMLCanvasElement).getContext('2d')!.getImageData(0, 0, width, height).data;
    const colours = new Set<string>();
    for (let at = 0; at < bytes.length; at += 4) colours.add(bytes.subarray(at, at + 4).join());
    return [...colours];
  });
}

describe('a container', () => {
  beforeAll(async () => {
    await talker();
    await show('talker');
  });

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
    await page.keyboard.type('printf "\\033[31mred\\033[0m\\n"\n');
    const red = screen.locator('span').getByText('red', { exact: true });
    const drawn = () => red.evaluate((e) => getComputedStyle(e).color);
    await expect.poll(drawn).toBe('rgb(179, 38, 30)');
    await page.emulateMedia({ colorScheme: 'dark' });
    await expect.poll(drawn).toBe('rgb(255, 141, 132)');
    await page.emulateMedia({ colorScheme: 'light' });
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
    for (const [colorScheme, grid] of [['dark', '43,47,54'], ['light', '227,230,234']] as const) {
      await page.emulateMedia({ colorScheme });
      await expect.poll(() => drawn(page.locator('canvas').first()), { message: colorScheme }).toContain(`${grid},255`);
    }
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

  it('holds a hundred thousand lines and draws a screenful', async () => {
    await longshore.docker('run', '-d', '--name', 'flood', 'busybox', 'sh', '-c', 'seq 1 100000 | sed "s/.*/line & of a long log/"');
    await longshore.docker('wait', 'flood');
    await show('flood');
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
    await longshore.docker('rm', 'flood');
  });
});
