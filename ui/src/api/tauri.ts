// The backend in the window: commands of app/desktop, which hands each request on to the host service. Streams are asked for piece by piece.
import { invoke } from '@tauri-apps/api/core';
import { abort, type Ask, type Backend, Failure, type Following, type Method, ofJson, type Streamed, streamRequest, type Terminal, type Upload } from './backend';
import type { Saving, StreamHead, UploadRequest } from './types';

/** What of a file is sent at once. */
const PIECE = 1 << 20;

/** What a command of ours fails with. */
interface Refusal {
  status: number;
  text: string;
}

export class TauriBackend implements Backend {
  async request<T>(method: Method, path: string, ask: Ask = {}): Promise<T> {
    const answer = call<ArrayBuffer>('ask', { request: streamRequest(method, path, ask) });
    return ofJson<T>(path, new TextDecoder().decode(await unlessAborted(answer, ask.signal)));
  }

  async stream(method: Method, path: string, ask: Ask = {}): Promise<Streamed> {
    const opening = call<{ id: number; head: StreamHead }>('open_stream', { request: streamRequest(method, path, ask) });
    // Aborted or not: what has been opened is closed.
    ask.signal?.addEventListener('abort', () => void opening.then(({ id }) => close(id), () => {}));
    const { id, head } = await unlessAborted(opening, ask.signal);
    const chunks = pieces(id, ask.signal);
    if (head.status < 400) return { contentType: head.content_type ?? '', chunks };
    const decoder = new TextDecoder();
    let text = '';
    for await (const chunk of chunks) text += decoder.decode(chunk, { stream: true });
    throw Failure.ofAnswer(head.status, text);
  }

  async upload(method: 'POST' | 'PUT', path: string, { body, contentType, onProgress, signal }: Upload): Promise<string> {
    const request: UploadRequest = { method, path, content_type: contentType, size: body.size };
    const id = await call<number>('open_upload', { request });
    const headers = { upload: String(id) };
    try {
      for (let at = 0; at < body.size; at += PIECE) {
        const piece = new Uint8Array(await body.slice(at, at + PIECE).arrayBuffer());
        // The engine may answer before it has read everything: that it will not.
        if (!(await unlessAborted(call<boolean>('write_upload', piece, { headers }), signal))) break;
        onProgress?.(Math.min(at + PIECE, body.size));
      }
      return new TextDecoder().decode(await unlessAborted(call<ArrayBuffer>('end_upload', { id }), signal));
    } catch (error) {
      void invoke('drop_upload', { id });
      throw error;
    }
  }

  async download(path: string, name: string, { onProgress, signal }: Following = {}): Promise<string> {
    const opening = call<number>('open_save', { path, name });
    const drop = () => void opening.then((id) => invoke('drop_save', { id }), () => {});
    signal?.addEventListener('abort', drop);
    try {
      const id = await unlessAborted(opening, signal);
      for (;;) {
        const saving = await unlessAborted(call<Saving>('follow_save', { id }), signal);
        if (saving.path !== undefined) return saving.path;
        onProgress?.(saving);
      }
    } finally {
      signal?.removeEventListener('abort', drop);
    }
  }

  terminal(kind: 'exec' | 'attach', id: string, onData: (data: Uint8Array) => void): Terminal {
    const opened = call<number>('open_terminal', { kind, name: id });
    const follow = async () => {
      for await (const piece of pieces(await opened)) onData(piece);
    };
    // One after the other, or what is typed quickly would arrive in another order.
    let written: Promise<unknown> = opened;
    return {
      ended: follow().then(
        () => undefined,
        (error) => Failure.of(error).message,
      ),
      send(data) {
        const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data;
        const write = async () => call('write', bytes, { headers: { stream: String(await opened) } });
        // The end of the stream tells why it has ended.
        written = written.then(write).catch(() => {});
      },
      close: () => void opened.then(close, () => {}),
    };
  }
}

async function* pieces(id: number, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    for (;;) {
      const piece = new Uint8Array(await unlessAborted(call<ArrayBuffer>('read', { id }), signal));
      if (piece.length === 0) return;
      yield piece;
    }
  } finally {
    close(id);
  }
}

function close(id: number) {
  void invoke('close', { id });
}

async function call<T>(...command: Parameters<typeof invoke>): Promise<T> {
  try {
    return await invoke<T>(...command);
  } catch (error) {
    const refusal = error as Partial<Refusal>;
    throw refusal?.status ? Failure.ofAnswer(refusal.status, refusal.text ?? '') : Failure.of(error);
  }
}

/** The answer, or the abort if that comes first. */
async function unlessAborted<T>(answer: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return answer;
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(abort());
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop);
  });
  try {
    return await Promise.race([answer, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
