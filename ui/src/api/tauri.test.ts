import { clearMocks, mockIPC } from '@tauri-apps/api/mocks';
import { afterEach, beforeAll, expect, it } from 'vitest';
import { Failure, isAbort } from './backend';
import { TauriBackend } from './tauri';

const backend = new TauriBackend();
const bytes = (text: string) => new TextEncoder().encode(text).buffer;

beforeAll(() => {
  globalThis.window ??= globalThis as unknown as Window & typeof globalThis;
});
afterEach(() => clearMocks());

it('hands a request on and reads its JSON', async () => {
  mockIPC((command, payload) => {
    expect([command, payload]).toEqual(['ask', { request: { method: 'POST', path: '/api/v1/x', body: '{"a":1}' } }]);
    return bytes('{"b":2}');
  });
  expect(await backend.request('POST', '/api/v1/x', { body: { a: 1 } })).toEqual({ b: 2 });
});

it('tells why a request was refused', async () => {
  mockIPC(() => {
    throw { status: 409, text: '{"message":"the name is taken"}' };
  });
  const failure = await backend.request('GET', '/docker/x').catch((e: unknown) => e);
  expect(failure).toBeInstanceOf(Failure);
  expect(failure).toMatchObject({ code: 'conflict', message: 'the name is taken' });
});

it('reads a stream to its end and closes it', async () => {
  const answers = ['one', 'two', ''];
  const closed: unknown[] = [];
  mockIPC((command, payload) => {
    if (command === 'open_stream') return { id: 7, head: { status: 200 } };
    if (command === 'read') return bytes(answers.shift()!);
    closed.push(payload);
  });
  const got: string[] = [];
  for await (const chunk of (await backend.stream('GET', '/docker/events')).chunks) got.push(new TextDecoder().decode(chunk));
  expect(got).toEqual(['one', 'two']);
  expect(closed).toEqual([{ id: 7 }]);
});

it('lets go of a stream that nobody wants any more', async () => {
  const closed: unknown[] = [];
  mockIPC((command, payload) => {
    if (command === 'open_stream') return { id: 7, head: { status: 200 } };
    if (command === 'read') return new Promise(() => {});
    closed.push(payload);
  });
  const controller = new AbortController();
  const { chunks } = await backend.stream('GET', '/docker/events', { signal: controller.signal });
  const first = chunks[Symbol.asyncIterator]().next();
  controller.abort();
  expect(isAbort(await first.catch((e: unknown) => e))).toBe(true);
  await expect.poll(() => closed.length).toBeGreaterThan(0);
});

it('follows a download to its file', async () => {
  const answers = [{ bytes: 1, total: 2 }, { bytes: 2, total: 2, path: '/downloads/a' }];
  mockIPC((command, payload) => {
    if (command === 'open_save') {
      expect(payload).toEqual({ path: '/docker/x', name: 'a' });
      return 3;
    }
    expect([command, payload]).toEqual(['follow_save', { id: 3 }]);
    return answers.shift();
  });
  const seen: unknown[] = [];
  expect(await backend.download('/docker/x', 'a', { onProgress: (saving) => seen.push(saving) })).toBe('/downloads/a');
  expect(seen).toEqual([{ bytes: 1, total: 2 }]);
});

it('gives a download up, opened by then or not', async () => {
  const dropped: unknown[] = [];
  mockIPC((command, payload) => {
    if (command === 'open_save') return 3;
    if (command === 'follow_save') return new Promise(() => {});
    dropped.push([command, payload]);
  });
  for (const soon of [true, false]) {
    const controller = new AbortController();
    const saving = backend.download('/docker/x', 'a', { signal: controller.signal }).catch((e: unknown) => e);
    if (!soon) await new Promise((later) => setTimeout(later, 10));
    controller.abort();
    expect(isAbort(await saving)).toBe(true);
  }
  await expect.poll(() => dropped).toEqual([['drop_save', { id: 3 }], ['drop_save', { id: 3 }]]);
});

it('keeps the order of what is typed', async () => {
  const typed: string[] = [];
  mockIPC(async (command, payload) => {
    if (command === 'open_terminal') return 3;
    if (command === 'read') return new Promise(() => {});
    // The first one takes longest.
    await new Promise((done) => setTimeout(done, typed.length === 0 ? 20 : 0));
    typed.push(new TextDecoder().decode(payload as unknown as Uint8Array));
  });
  const terminal = backend.terminal('exec', 'abc', () => {});
  for (const key of ['a', 'b', 'c']) terminal.send(key);
  await expect.poll(() => typed).toEqual(['a', 'b', 'c']);
});

it('sends a file piece by piece, and no more than is wanted', async () => {
  const body = new Blob([new Uint8Array((2 << 20) + 5)]);
  const request = { method: 'PUT', path: '/docker/x', content_type: 'application/x-tar', size: body.size };
  for (const wanted of [3, 1]) {
    const sizes: number[] = [];
    const progress: number[] = [];
    mockIPC((command, payload) => {
      if (command === 'open_upload') {
        expect(payload).toEqual({ request });
        return 4;
      }
      if (command === 'write_upload') return sizes.push((payload as unknown as Uint8Array).length) < wanted || wanted === 3;
      expect([command, payload]).toEqual(['end_upload', { id: 4 }]);
      return bytes('done');
    });
    const sent = backend.upload('PUT', '/docker/x', { body, contentType: 'application/x-tar', onProgress: (at) => progress.push(at) });
    expect(await sent).toBe('done');
    expect(sizes).toEqual([1 << 20, 1 << 20, 5].slice(0, wanted));
    expect(progress).toEqual(wanted === 3 ? [1 << 20, 2 << 20, body.size] : []);
  }
});

it('breaks an upload off that is cancelled', async () => {
  const controller = new AbortController();
  const commands: string[] = [];
  mockIPC((command) => {
    commands.push(command);
    if (command === 'open_upload') return 4;
    if (command === 'write_upload') {
      controller.abort();
      return new Promise(() => {});
    }
  });
  const sent = backend.upload('PUT', '/docker/x', { body: new Blob(['abc']), contentType: 'x', signal: controller.signal });
  expect(isAbort(await sent.catch((e: unknown) => e))).toBe(true);
  expect(commands).toEqual(['open_upload', 'write_upload', 'drop_upload']);
});
