// The first run: who is let in, and the first start.
import { describe, expect, it } from 'vitest';
import { accessible, picture } from '../browser';
import { browser, longshore, open, page, row } from './fixture';

describe('first run', () => {
  it('lets one browser in, once', async () => {
    const url = await open();
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

  it('ends with a running container, and its page', async () => {
    await page.getByRole('button', { name: 'Run a first container' }).click();
    await row('welcome').getByText(/^Up /).waitFor({ timeout: 60_000 });
    const port = await longshore.docker('port', 'welcome', '80');
    expect(port).toMatch(/^127\.0\.0\.1:\d+$/);
    await row('welcome').getByRole('link', { name: port.split(':')[1] }).waitFor();
    expect(await (await fetch(`http://${port}/`)).text()).toContain('Your first container runs.');
    await longshore.docker('rm', '-f', 'welcome');
    await longshore.docker('rmi', 'longshore/welcome');
    await page.getByRole('heading', { name: 'No containers yet' }).waitFor();
  }, 90_000);
});
