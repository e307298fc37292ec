import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { record, tarOf } from './tar';

it('counts itself in the length of a record', () => {
  expect(record('path', 'a')).toBe('9 path=a\n');
  expect(record('path', 'ä')).toBe('11 path=ä\n');
  const long = record('path', 'x'.repeat(90));
  expect(long).toMatch(new RegExp(`^${long.length} path=x{90}\\n$`));
});

it('makes archives that tar unpacks', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tar-'));
  try {
    const long = `${'ö'.repeat(120)}.txt`;
    const files = [new File(['hello'], 'a b.txt', { lastModified: 1e12 }), new File([], 'empty'), new File(['x'.repeat(1024)], 'block'), new File(['long'], long)];
    const deep = `${'long-folder-name/'.repeat(8)}end`;
    const archive = tarOf([...files.map((file) => ({ path: file.name, file })), { path: 'top' }, { path: 'top/inner/file', file: files[0]! }, { path: deep }]);
    expect(archive.size % 512).toBe(0);
    writeFileSync(join(folder, 'a.tar'), new Uint8Array(await archive.arrayBuffer()));
    execFileSync('tar', ['-xf', 'a.tar'], { cwd: folder });
    for (const file of files) expect(readFileSync(join(folder, file.name), 'utf8')).toBe(await file.text());
    expect(readFileSync(join(folder, 'top/inner/file'), 'utf8')).toBe('hello');
    expect(statSync(join(folder, deep)).isDirectory()).toBe(true);
    expect(statSync(join(folder, 'top')).mode & 0o777).toBe(0o755);
    const listed = execFileSync('tar', ['-tvf', 'a.tar', '--utc'], { cwd: folder, encoding: 'utf8' });
    expect(listed).toMatch(/-rw-r--r-- 0\/0\s+5 2001-09-09 01:46 a b\.txt/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
