// What the views need of whoever serves them: http.ts in a browser, tauri.ts in the window.
import type { ApiError, ErrorCode, Saving, StreamRequest } from './types';

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE' | 'HEAD';

export interface Ask {
  body?: unknown;
  /** Credentials for a registry, as the Docker API wants them in its header. */
  registryAuth?: string;
  signal?: AbortSignal;
}

/** An answer that is read as it comes. */
export interface Streamed {
  contentType: string;
  chunks: AsyncIterable<Uint8Array>;
}

/** Bytes of any length, which are read while they are sent. */
export interface Upload {
  body: Blob;
  contentType: string;
  /** Bytes that have been sent. */
  onProgress?: (sent: number) => void;
  signal?: AbortSignal;
}

/** How a download is followed and given up, where the browser does not do that itself. */
export interface Following {
  onProgress?: (saving: Saving) => void;
  signal?: AbortSignal;
}

/** Raw bytes to and from a program in a container. */
export interface Terminal {
  send(data: Uint8Array | string): void;
  close(): void;
  /** Resolves when the program or the connection has ended: with the reason, if it is not the ordinary one. */
  ended: Promise<string | undefined>;
}

export interface Backend {
  /** The JSON of an answer; undefined when it has no body. Throws a Failure. */
  request<T>(method: Method, path: string, ask?: Ask): Promise<T>;
  /** Opens a stream; it ends when `ask.signal` aborts. Throws a Failure. */
  stream(method: Method, path: string, ask?: Ask): Promise<Streamed>;
  /** Sends a file's bytes; gives the text of the answer. Throws a Failure. */
  upload(method: 'POST' | 'PUT', path: string, upload: Upload): Promise<string>;
  /** Saves what is at `path` among the user's downloads; gives the file's path, where the browser does not show it itself. Throws a Failure. */
  download(path: string, name: string, following?: Following): Promise<string | undefined>;
  /** Starts an exec that was created with a terminal, or attaches to a container that has one. */
  terminal(kind: 'exec' | 'attach', id: string, onData: (data: Uint8Array) => void): Terminal;
}

/** Why a request failed: a code for the views, text for people. */
export class Failure extends Error {
  constructor(
    readonly code: ErrorCode | 'unreachable' | 'signed_out',
    message: string,
    readonly hint?: string,
    readonly stage?: string,
    readonly log: string[] = [],
  ) {
    super(message);
    this.name = 'Failure';
  }

  static of(error: unknown): Failure {
    if (error instanceof Failure) return error;
    return new Failure('internal', error instanceof Error ? error.message : String(error));
  }

  static from(error: ApiError): Failure {
    return new Failure(error.code, error.message, error.hint, error.stage, error.log ?? []);
  }

  /** An answer with an error status: the host service's shape, or the Docker API's `{"message": …}`. */
  static ofAnswer(status: number, text: string): Failure {
    let parsed: Partial<ApiError> = {};
    try {
      parsed = JSON.parse(text) as Partial<ApiError>;
    } catch {
      // Not JSON: the text itself is all there is to show.
    }
    const message = String(parsed.message ?? text.slice(0, 500).trim()) || `The engine answered ${status}.`;
    if (parsed.code) return new Failure(parsed.code, message, parsed.hint, parsed.stage, parsed.log ?? []);
    const code: ErrorCode =
      status === 404 ? 'not_found' : status === 409 ? 'conflict' : status === 503 ? 'unavailable' : status < 500 ? 'invalid' : 'internal';
    return new Failure(code, message);
  }
}

export function streamRequest(method: Method, path: string, ask: Ask): StreamRequest {
  const request: StreamRequest = { method, path };
  if (ask.body !== undefined) request.body = JSON.stringify(ask.body);
  if (ask.registryAuth) request.registry_auth = ask.registryAuth;
  return request;
}

/** What an answer says; nothing, when it has no body. */
export function ofJson<T>(path: string, text: string): T {
  if (text === '') return undefined as T;
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new Failure('internal', `The answer to ${path} is not understood.`);
  }
}

export function abort(): DOMException {
  return new DOMException('aborted', 'AbortError');
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}
