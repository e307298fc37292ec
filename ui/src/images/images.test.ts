import { expect, it } from 'vitest';
import { Pull, pullTarget, registryOf, splitReference, toLines } from './images.svelte';

it.each([
  ['nginx', 'nginx', ''],
  ['nginx:1.27', 'nginx', '1.27'],
  ['localhost:5000/a/b', 'localhost:5000/a/b', ''],
  ['localhost:5000/a/b:c', 'localhost:5000/a/b', 'c'],
])('splits %s', (reference, repository, tag) => expect(splitReference(reference)).toEqual({ repository, tag }));

it('pulls latest when no tag is said', () => {
  expect(pullTarget(' nginx ')).toEqual({ image: 'nginx', tag: 'latest' });
  expect(pullTarget('a:5000/x@sha256:abc')).toEqual({ image: 'a:5000/x', tag: 'sha256:abc' });
});

const image = (id: string, tags: string[] | null) => ({
  Id: id, ParentId: '', RepoTags: tags, RepoDigests: null, Created: 1, Size: 1, Labels: null,
});

it('has a row for each tag, dangling images last', () => {
  const lines = toLines([image('sha256:1', null), image('sha256:2', ['b:1', 'a:1'])], []);
  expect(lines.map((l) => l.reference)).toEqual(['a:1', 'b:1', undefined]);
});

it('follows the layers of a pull', () => {
  const pull = new Pull('x');
  pull.note({ id: 'latest', status: 'Pulling from library/x' });
  expect(pull.part).toBeUndefined();
  pull.note({ id: 'aa', status: 'Downloading', progressDetail: { current: 50, total: 100 } });
  pull.note({ id: 'bb', status: 'Already exists' });
  expect(pull.part).toBeCloseTo((0.25 + 1) / 2);
  pull.note({ id: 'aa', status: 'Pull complete' });
  expect(pull.part).toBe(1);
  pull.note({ error: 'no space' });
  expect(pull.failure).toBe('no space');
});

it('follows the layers of a push', () => {
  const push = new Pull('x', 'push');
  push.note({ status: 'The push refers to repository [x]' });
  push.note({ id: 'aa', status: 'Pushing', progressDetail: { current: 50, total: 100 } });
  push.note({ id: 'bb', status: 'Layer already exists' });
  expect(push.part).toBeCloseTo(0.75);
  push.note({ id: 'aa', status: 'Pushed' });
  expect(push.part).toBe(1);
});

it.each([['nginx', 'Docker Hub'], ['team/box:1', 'Docker Hub'], ['ghcr.io/a/b', 'ghcr.io'], ['localhost:5000/x', 'localhost:5000']])('pushes %s to %s', (reference, registry) =>
  expect(registryOf(reference)).toBe(registry),
);
