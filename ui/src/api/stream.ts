// Decoders of the bytes that the Docker API streams.

/** JSON values, one a line or simply one after the other on lines. A line that is no JSON is skipped. */
export async function* jsonLines<T>(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<T> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of chunks) {
    rest += decoder.decode(chunk, { stream: true });
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) yield* parsed<T>(line);
    // Nobody sends a line so long in good faith.
    if (rest.length > 8 << 20) rest = '';
  }
  yield* parsed<T>(rest + decoder.decode());
}

function* parsed<T>(line: string): Generator<T> {
  if (line.trim() === '') return;
  try {
    yield JSON.parse(line) as T;
  } catch {
    // Half a line at the end of a broken stream.
  }
}

export type Source = 'stdout' | 'stderr';

export interface Piece {
  source: Source;
  bytes: Uint8Array;
}

/** Takes apart the frames `[stream, 0, 0, 0, length (big endian), …]` of logs and attach without a terminal. */
export class Demultiplexer {
  #pending: Uint8Array = new Uint8Array(0);

  push(chunk: Uint8Array): Piece[] {
    let data = chunk;
    if (this.#pending.length > 0) {
      data = new Uint8Array(this.#pending.length + chunk.length);
      data.set(this.#pending);
      data.set(chunk, this.#pending.length);
    }
    const pieces: Piece[] = [];
    let at = 0;
    while (data.length - at >= 8) {
      const view = new DataView(data.buffer, data.byteOffset + at, 8);
      const length = view.getUint32(4);
      if (data.length - at - 8 < length) break;
      const bytes = data.subarray(at + 8, at + 8 + length);
      pieces.push({ source: view.getUint8(0) === 2 ? 'stderr' : 'stdout', bytes });
      at += 8 + length;
    }
    this.#pending = data.slice(at);
    return pieces;
  }
}

/** Whole lines of text from pieces of bytes; a character may be cut in two. */
export class LineSplitter {
  #decoder = new TextDecoder();
  #rest = '';

  push(bytes: Uint8Array): string[] {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split('\n');
    this.#rest = lines.pop() ?? '';
    return lines;
  }

  end(): string[] {
    const rest = this.#rest + this.#decoder.decode();
    this.#rest = '';
    return rest === '' ? [] : [rest];
  }
}
