import { describe, expect, it } from 'vitest';
import { createBody, emptySpec, problem, quoted, runLine, splitWords } from './run';

it.each([
  ['', []],
  ['  ls   -l ', ['ls', '-l']],
  [`sh -c 'echo "$HOME" it'"'"'s'`, ['sh', '-c', `echo "$HOME" it's`]],
  ['a "b c" d\\ e ""', ['a', 'b c', 'd e', '']],
  ['"a \\" \\n"', ['a " \\n']],
  ["'open", ['open']],
])('splits %s', (text, words) => expect(splitWords(text as string)).toEqual(words));

it.each([
  ['plain', 'plain'],
  ['', "''"],
  ['a b', "'a b'"],
  ["it's", `'it'\\''s'`],
  ['$(rm -rf /)', "'$(rm -rf /)'"],
])('quotes %s', (word, text) => {
  expect(quoted(word as string)).toBe(text);
  expect(splitWords(text as string)).toEqual([word]);
});

const full = {
  ...emptySpec('nginx:1.27'),
  name: 'web',
  command: `sh -c 'sleep 1; echo done'`,
  ports: [
    { host: '8080', container: '80', protocol: 'tcp' as const },
    { host: '', container: '53', protocol: 'udp' as const },
    { host: '127.0.0.1:443', container: '443', protocol: 'tcp' as const },
  ],
  mounts: [
    { source: 'data', target: '/data', readOnly: true },
    { source: '', target: '/cache', readOnly: false },
  ],
  env: [{ name: 'A', value: 'b c' }],
  restart: 'always' as const,
  memory: '512 m',
  cpus: '1.5',
  terminal: true,
};

describe('runLine', () => {
  it('says everything', () =>
    expect(runLine(full)).toBe(
      "docker run -dit --name web --restart always -p 8080:80 -p 53/udp -p 127.0.0.1:443:443 -v data:/data:ro -v /cache -e 'A=b c' --memory 512m --cpus 1.5 nginx:1.27 sh -c 'sleep 1; echo done'",
    ));
  it('says nothing that is not asked for', () => expect(runLine(emptySpec('busybox'))).toBe('docker run -d busybox'));
});

it('makes the same for the engine', () =>
  expect(createBody(full)).toEqual({
    Image: 'nginx:1.27',
    Cmd: ['sh', '-c', 'sleep 1; echo done'],
    Env: ['A=b c'],
    Tty: true,
    OpenStdin: true,
    ExposedPorts: { '80/tcp': {}, '53/udp': {}, '443/tcp': {} },
    Volumes: { '/cache': {} },
    HostConfig: {
      PortBindings: {
        '80/tcp': [{ HostIp: '', HostPort: '8080' }],
        '53/udp': [{ HostIp: '', HostPort: '' }],
        '443/tcp': [{ HostIp: '127.0.0.1', HostPort: '443' }],
      },
      Binds: ['data:/data:ro'],
      RestartPolicy: { Name: 'always' },
      AutoRemove: false,
      Memory: 512 * 1024 * 1024,
      NanoCpus: 1_500_000_000,
    },
  }));

it.each([
  [{}, undefined],
  [{ name: '-x' }, /name/],
  [{ ports: [{ host: '', container: '0', protocol: 'tcp' as const }] }, /port of the container/],
  [{ ports: [{ host: '70000', container: '80', protocol: 'tcp' as const }] }, /port of this machine/],
  [{ mounts: [{ source: 'a', target: 'b', readOnly: false }] }, /path/],
  [{ env: [{ name: '', value: 'x' }] }, /variable/],
  [{ memory: 'lots' }, /memory/],
  [{ cpus: '-1' }, /CPU/],
  [{ remove: true, restart: 'always' as const }, /restarted/],
])('finds what is wrong with %o', (part, want) => {
  const found = problem({ ...emptySpec('x'), ...part });
  if (want) expect(found).toMatch(want);
  else expect(found).toBeUndefined();
});
