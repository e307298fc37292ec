import { describe, expect, it } from 'vitest';
import { Demultiplexer, jsonLines, LineSplitter } from './stream';

const encoder = new TextEncoder();

function frame(stream: number, text: string): Uint8Array {
  const body = encoder.encode(text);
  const bytes = new Uint8Array(8 + body.length);
  bytes[0] = stream;
  new DataView(bytes.buffer).setUint32(4, body.length);
  bytes.set(body, 8);
  return bytes;
}

describe('Demultiplexer', () => {
  const whole = new Uint8Array([...frame(1, 'out'), ...frame(2, 'err'), ...frame(1, ''), ...frame(1, 'x')]);
  it.each([1, 2, 7, 8, 9, 11, 100])('puts frames together from pieces of %i bytes', (size) => {
    const demultiplexer = new Demultiplexer();
    const seen: string[] = [];
    for (let at = 0; at < whole.length; at += size) {
      for (const piece of demultiplexer.push(whole.subarray(at, at + size)))
        seen.push(`${piece.source}:${new TextDecoder().decode(piece.bytes)}`);
    }
    expect(seen).toEqual(['stdout:out', 'stderr:err', 'stdout:', 'stdout:x']);
  });
});

describe('LineSplitter', () => {
  it('joins what was cut, characters too', () => {
    const bytes = encoder.encode('één\ntwee\nrest');
    const splitter = new LineSplitter();
    const lines: string[] = [];
    for (const byte of bytes) lines.push(...splitter.push(new Uint8Array([byte])));
    expect(lines).toEqual(['één', 'twee']);
    expect(splitter.end()).toEqual(['rest']);
    expect(splitter.end()).toEqual([]);
  });
});

describe('jsonLines', () => {
  it('yields each value and skips what is none', async () => {
    async function* chunks() {
      yield encoder.encode('{"a":1}\n{"a"');
      yield encoder.encode(':2}\r\n\nnonsense\n{"a":3}');
    }
    const seen: unknown[] = [];
    for await (const value of jsonLines(chunks())) seen.push(value);
    expect(seen).toEqual([{ a: 1 }, { a: 2 }, { a: 3 }]);
  });
});
