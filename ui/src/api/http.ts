// The backend in a browser: plain requests for what is answered at once, a WebSocket for each stream, as a browser opens only
// six connections to one server.
import { abort, type Ask, type Backend, Failure, type Method, ofJson, type Streamed, streamRequest, type Terminal, type Upload } from './backend';
import type { StreamHead } from './types';

/** No list of an engine in use is so long. */
const MOST_CHARACTERS = 64 << 20;

export class HttpBackend implements Backend {
  /** The session's path: everything else stands below it. */
  get #root(): URL {
    return new URL('.', location.href.split('#')[0]!);
  }

  async request<T>(method: Method, path: string, ask: Ask = {}): Promise<T> {
    const headers: Record<string, string> = {};
    if (ask.body !== undefined) headers['Content-Type'] = 'application/json';
    if (ask.registryAuth) headers['X-Registry-Auth'] = ask.registryAuth;
    let response: Response;
    let text: string;
    try {
      response = await fetch(this.#at(path), {
        method,
        headers,
        body: ask.body === undefined ? undefined : JSON.stringify(ask.body),
        signal: ask.signal,
        credentials: 'same-origin',
      });
      text = await bounded(response);
    } catch (error) {
      if (ask.signal?.aborted) throw abort();
      throw error instanceof Failure ? error : unreachable(error);
    }
    if (!response.ok) throw Failure.ofAnswer(response.status, text);
    return ofJson<T>(path, text);
  }

  async stream(method: Method, path: string, ask: Ask = {}): Promise<Streamed> {
    if (ask.signal?.aborted) throw abort();
    const messages = new Messages(this.#socket('stream'), ask.signal);
    await messages.opened;
    messages.socket.send(JSON.stringify(streamRequest(method, path, ask)));
    const first = await messages.next();
    if (typeof first !== 'string') throw unreachable('the stream has ended');
    const head = JSON.parse(first) as StreamHead;
    if (head.status >= 400) {
      const decoder = new TextDecoder();
      let text = '';
      for await (const chunk of messages.rest()) text += decoder.decode(chunk, { stream: true });
      throw Failure.ofAnswer(head.status, text);
    }
    return { contentType: head.content_type ?? '', chunks: messages.rest() };
  }

  // The only request of a browser that tells how much of it has been sent, and reads the file meanwhile.
  upload(method: 'POST' | 'PUT', path: string, { body, contentType, onProgress, signal }: Upload): Promise<string> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(abort());
      const request = new XMLHttpRequest();
      request.open(method, this.#at(path));
      request.setRequestHeader('Content-Type', contentType);
      request.upload.onprogress = (event) => onProgress?.(event.loaded);
      request.onload = () =>
        request.status >= 200 && request.status < 300 ? resolve(request.responseText) : reject(Failure.ofAnswer(request.status, request.responseText));
      request.onerror = () => reject(unreachable('the connection was lost'));
      request.onabort = () => reject(abort());
      signal?.addEventListener('abort', () => request.abort());
      request.send(body);
    });
  }

  async download(path: string, name: string): Promise<undefined> {
    const anchor = document.createElement('a');
    anchor.href = this.#at(path);
    anchor.download = name;
    anchor.click();
  }

  terminal(kind: 'exec' | 'attach', id: string, onData: (data: Uint8Array) => void): Terminal {
    const socket = this.#socket(`${kind}/${encodeURIComponent(id)}`);
    const waiting: (Uint8Array<ArrayBuffer> | string)[] = [];
    socket.onopen = () => waiting.splice(0).forEach((data) => socket.send(data));
    socket.onmessage = (event) => onData(new Uint8Array(event.data as ArrayBuffer));
    const ended = new Promise<string | undefined>((resolve) => {
      socket.onclose = (event) =>
        resolve(event.code === 1000 ? undefined : event.reason || 'The connection to the container was lost.');
    });
    return {
      ended,
      send(data) {
        const piece = typeof data === 'string' ? data : new Uint8Array(data);
        if (socket.readyState === WebSocket.CONNECTING) waiting.push(piece);
        else if (socket.readyState === WebSocket.OPEN) socket.send(piece);
      },
      close: () => socket.close(),
    };
  }

  #at(path: string): string {
    return new URL(path.slice(1), this.#root).href;
  }

  #socket(path: string): WebSocket {
    const url = new URL(path, this.#root);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(url);
    socket.binaryType = 'arraybuffer';
    return socket;
  }
}

/** The messages of a socket, in order, for one reader. */
class Messages {
  readonly opened: Promise<void>;
  #queue: (string | Uint8Array)[] = [];
  #wake: (() => void) | undefined;
  #over = false;
  #failure: unknown;

  constructor(
    readonly socket: WebSocket,
    signal?: AbortSignal,
  ) {
    this.opened = new Promise((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onclose = (event) => {
        const failure = signal?.aborted ? abort() : event.code === 1000 ? undefined : unreachable(event.reason || 'the connection was lost');
        this.#finish(failure);
        reject(failure ?? unreachable('the connection was lost'));
      };
    });
    this.opened.catch(() => {});
    socket.onmessage = (event) => {
      this.#queue.push(typeof event.data === 'string' ? event.data : new Uint8Array(event.data as ArrayBuffer));
      this.#wake?.();
    };
    signal?.addEventListener('abort', () => {
      this.#finish(abort());
      socket.close();
    });
  }

  #finish(failure: unknown) {
    if (this.#over) return;
    this.#over = true;
    this.#failure = failure;
    this.#wake?.();
  }

  async next(): Promise<string | Uint8Array | undefined> {
    for (;;) {
      const message = this.#queue.shift();
      if (message !== undefined) return message;
      if (this.#over) {
        if (this.#failure) throw this.#failure;
        return undefined;
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async *rest(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) {
        const message = await this.next();
        if (message === undefined) return;
        if (typeof message !== 'string') yield message;
      }
    } finally {
      this.socket.close();
    }
  }
}

/** The text of an answer. An engine that never ends its answer must not fill this page's memory. */
async function bounded(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  let text = '';
  for (let piece = await reader?.read(); piece && !piece.done; piece = await reader?.read()) {
    text += decoder.decode(piece.value, { stream: true });
    if (text.length > MOST_CHARACTERS) {
      void reader?.cancel();
      throw new Failure('internal', 'The answer of the engine is too long.');
    }
  }
  return text + decoder.decode();
}

function unreachable(why: unknown): Failure {
  const text = why instanceof Error ? why.message : String(why);
  return new Failure('unreachable', `Longshore's host service does not answer: ${text}`, 'Open the window again with: longshore ui');
}
