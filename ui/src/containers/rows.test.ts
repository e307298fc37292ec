import { describe, expect, it } from 'vitest';
import type { ContainerRow } from '../api/docker';
import { keyOf, matches, nameOf, portUrl, publishedPorts, shortName, toRows, type View } from './rows';

function container(name: string, more: Partial<ContainerRow> = {}): ContainerRow {
  return {
    Id: name.padEnd(64, '0'), Names: [`/${name}`], Image: 'busybox', ImageID: 'sha256:1', Command: '', Created: 1, Ports: [],
    Labels: {}, State: 'running', Status: 'Up', ...more,
  };
}

const ofProject = (project: string) => ({ Labels: { 'com.docker.compose.project': project } });
const all: View = { query: '', filter: 'all', folded: new Set() };

describe('toRows', () => {
  const list = [
    container('zebra'),
    container('shop-web-1', ofProject('shop')),
    container('alone', { State: 'exited' }),
    container('shop-db-1', { ...ofProject('shop'), State: 'exited' }),
    container('blog-1', ofProject('blog')),
  ];
  const names = (view: Partial<View>) =>
    toRows(list, { ...all, ...view }).map((row) => (row.kind === 'group' ? `[${row.project} ${row.running}/${row.members.length}]` : nameOf(row.container)));

  it('puts projects first, then what runs', () =>
    expect(names({})).toEqual(['[blog 1/1]', 'blog-1', '[shop 1/2]', 'shop-db-1', 'shop-web-1', 'zebra', 'alone']));
  it('folds', () => expect(names({ folded: new Set(['shop']) })).toEqual(['[blog 1/1]', 'blog-1', '[shop 1/2]', 'zebra', 'alone']));
  it('opens folded groups for a search', () =>
    expect(names({ folded: new Set(['shop']), query: 'db' })).toEqual(['[shop 0/1]', 'shop-db-1']));
  it('filters', () => expect(names({ filter: 'stopped' })).toEqual(['[shop 0/1]', 'shop-db-1', 'alone']));
  it('has a key for each', () => {
    const keys = toRows(list, all).map(keyOf);
    expect(new Set(keys).size).toBe(keys.length);
  });
});

it('takes a project with a name like an object property as any other', () => {
  const rows = toRows([container('a', ofProject('__proto__')), container('b', ofProject('constructor'))], all);
  expect(rows.filter((r) => r.kind === 'group')).toHaveLength(2);
});

it('finds the own name among links', () => {
  expect(nameOf(container('x', { Names: ['/other/alias', '/x'] }))).toBe('x');
  expect(nameOf(container('x', { Names: [] }))).toBe('x'.padEnd(12, '0'));
  expect(shortName(container('shop-web-1', ofProject('shop')))).toBe('web-1');
});

it('searches names, images and ports', () => {
  const web = container('web', { Image: 'nginx:1.27', Ports: [{ PrivatePort: 80, PublicPort: 8080, Type: 'tcp' }] });
  expect(['WEB', 'nginx 8080', ''].map((q) => matches(web, q))).toEqual([true, true, true]);
  expect(matches(web, 'nginx 9090')).toBe(false);
});

it('lists each published port once', () => {
  const ports = publishedPorts([
    { IP: '0.0.0.0', PrivatePort: 443, PublicPort: 8443, Type: 'tcp' },
    { IP: '::', PrivatePort: 443, PublicPort: 8443, Type: 'tcp' },
    { PrivatePort: 80, Type: 'tcp' },
    { IP: '127.0.0.1', PrivatePort: 53, PublicPort: 53, Type: 'udp' },
  ]);
  expect(ports.map(portUrl)).toEqual([undefined, 'https://localhost:8443']);
  expect(portUrl({ IP: '192.168.1.2', PrivatePort: 80, PublicPort: 80, Type: 'tcp' })).toBe('http://192.168.1.2:80');
});
