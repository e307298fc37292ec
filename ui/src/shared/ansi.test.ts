import { describe, expect, it } from 'vitest';
import { parse, plain, PLAIN, styleAfter } from './ansi';

const ESC = '\x1b';

describe('parse', () => {
  it.each([
    ['plain', 'plain text', [['plain text', {}]]],
    ['colours', `a${ESC}[31mb${ESC}[0mc`, [['a', {}], ['b', { fg: 1 }], ['c', {}]]],
    ['an empty reset', `${ESC}[1;32mx${ESC}[my`, [['x', { bold: true, fg: 2 }], ['y', {}]]],
    ['bright ones', `${ESC}[97;101mx`, [['x', { fg: 15, bg: 9 }]]],
    ['256 colours', `${ESC}[38;5;196mx${ESC}[48;5;244my${ESC}[38;5;3mz`, [
      ['x', { fg: 'rgb(255 0 0)' }], ['y', { fg: 'rgb(255 0 0)', bg: 'rgb(128 128 128)' }], ['z', { fg: 3, bg: 'rgb(128 128 128)' }],
    ]],
    ['true colour', `${ESC}[38;2;1;2;999mx`, [['x', { fg: 'rgb(1 2 255)' }]]],
    ['colons', `${ESC}[38:5:2mx`, [['x', { fg: 2 }]]],
    ['a broken colour', `${ESC}[38;2mx`, [['x', { fg: 'rgb(0 0 0)' }]]],
    ['other sequences', `${ESC}[2J${ESC}[1;1Ha${ESC}(Bb${ESC}7c`, [['a', {}], ['b', {}], ['c', {}]]],
    ['titles and links', `${ESC}]0;title\x07a${ESC}]8;;http://x${ESC}\\b`, [['a', {}], ['b', {}]]],
    ['control characters', 'a\x00\x08b\x7f', [['ab', {}]]],
    ['tabs', 'ab\tc', [['ab      c', {}]]],
    ['a half escape', `a${ESC}`, [['a', {}]]],
  ])('reads %s', (_, line, want) => {
    expect(parse(line as string, PLAIN).map((s) => [s.text, s.style])).toEqual(want);
  });

  it('keeps what came last on a line that was written anew', () => {
    expect(plain('10%\r50%\r100%\r')).toBe('100%');
    expect(parse(`${ESC}[32m1\r2`, PLAIN)).toEqual([{ text: '2', style: { fg: 2 } }]);
  });

  it('leaves markup as text', () => expect(plain('<img src=x onerror=alert(1)>')).toBe('<img src=x onerror=alert(1)>'));
});

it('carries the style over to the next line', () => {
  const after = styleAfter(`${ESC}[31mred`, PLAIN);
  expect(after).toEqual({ fg: 1 });
  expect(parse('still', after)[0]?.style).toEqual({ fg: 1 });
  expect(styleAfter('no escape', after)).toBe(after);
});
