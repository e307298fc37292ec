// The list of networks: their subnets and members.
import { beforeAll, describe, it } from 'vitest';
import { accessible, picture } from '../browser';
import { dialog, go, page, talker } from './fixture';

describe('networks', () => {
  beforeAll(talker);

  it('are created, shown with their members, and deleted', async () => {
    await go('networks');
    await page.getByRole('row').filter({ hasText: 'bridge' }).getByRole('link', { name: 'talker' }).or(page.getByText(/\+\d/)).first().waitFor();
    await page.getByRole('button', { name: 'Create' }).click();
    await dialog().getByLabel('Name').fill('back-end');
    await dialog().getByLabel('Subnet').fill('172.30.0.0/16');
    await dialog().getByRole('button', { name: 'Create' }).click();
    const network = page.getByRole('row').filter({ hasText: 'back-end' });
    await network.getByText('172.30.0.0/16').waitFor();
    await accessible(page);
    await picture(page, 'networks');
    await page.getByRole('button', { name: 'Delete back-end' }).click();
    await dialog().getByRole('button', { name: 'Delete' }).click();
    await network.waitFor({ state: 'detached' });
  });
});
