// The first run: who is let in, and the first start.
import { describe, expect, it } from 'vitest';
import { accessible, picture } from '../browser';
import { browser, open, page } from './fixture';

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
});
