import { expect, it } from 'vitest';
import { statusText } from './status';

it.each([
  ['Up 3 seconds', 0, 'Up a moment'],
  ['Up 3 seconds', 20, 'Up 23 seconds'],
  ['Up Less than a second (healthy)', 90, 'Up 1 minute (healthy)'],
  ['Up About an hour (Paused)', 0, 'Up 1 hour (Paused)'],
  ['Exited (137) 59 seconds ago', 2, 'Exited (137) 1 minute ago'],
  ['Created', 100, 'Created'],
  ['Up 2 days (health: starting)', 86_400, 'Up 3 days (health: starting)'],
])('%s, %i seconds later', (status, later, text) => expect(statusText(status, 1e9, 1e9 + later)).toBe(text));
