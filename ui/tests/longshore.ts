// A Longshore of its own for a test: programs, home, docker command, registry.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const root = resolve(import.meta.dirname, '../..');
const target = resolve(root, process.env['CARGO_TARGET_DIR'] ?? 'target');

export class Longshore {
  readonly folder = mkdtempSync(join(tmpdir(), 'longshore-ui-'));
  readonly home = join(this.folder, 'home');
  #registry: ChildProcess | undefined;
  #dead: Server | undefined;

  readonly env: NodeJS.ProcessEnv;

  constructor() {
    const user = join(this.folder, 'user');
    mkdirSync(user);
    this.env = {
      ...process.env,
      HOME: user,
      LONGSHORE_HOME: this.home,
      LONGSHORE_UI: resolve(import.meta.dirname, '../dist'),
      DOCKER_HOST: `unix://${this.home}/docker.sock`,
    };
  }

  /** The path of a program of ours. */
  program(name: string): string {
    return join(target, 'release', name);
  }

  /** Runs `longshore` and gives what it printed. */
  async longshore(...words: string[]): Promise<string> {
    return (await run(this.program('longshore'), words, { env: this.env })).stdout.trim();
  }

  /** Runs `docker` and gives what it printed. */
  async docker(...words: string[]): Promise<string> {
    return (await run('docker', words, { env: this.env, maxBuffer: 64 << 20 })).stdout.trim();
  }

  async load(image: string) {
    const folders = [process.env['LONGSHORE_TEST_IMAGES'], join(target, 'test-images')].filter((f) => f !== undefined);
    const file = folders.map((f) => join(f, `${image}.tar`)).find(existsSync);
    if (!file) throw new Error(`${image}.tar is missing: scripts/images ${image}`);
    await this.docker('load', '-q', '-i', file);
  }

  /** A registry on this machine's loopback; its name as the VM sees it. */
  async registry(): Promise<string> {
    const port = await freePort();
    const config = join(this.folder, 'registry.yml');
    const lines = ['version: 0.1', 'storage:', '  filesystem:', `    rootdirectory: ${join(this.folder, 'registry')}`, 'http:', `  addr: 127.0.0.1:${port}`];
    writeFileSync(config, `${lines.join('\n')}\n`);
    this.#registry = spawn('docker-registry', ['serve', config], { stdio: 'ignore' });
    // QEMU's user network has the host's loopback at this address.
    return `10.0.2.2:${port}`;
  }

  /** A registry that takes requests and never answers; its name as the VM sees it. */
  async deadRegistry(): Promise<string> {
    const port = await freePort();
    this.#dead = createServer((socket) => socket.on('error', () => {})).listen(port, '127.0.0.1');
    return `10.0.2.2:${port}`;
  }

  async end() {
    this.#dead?.close();
    this.#registry?.kill();
    await this.longshore('stop').catch(() => {});
    const pid = JSON.parse(await this.longshore('status', '--json').catch((e: { stdout?: string }) => e.stdout ?? '{}')) as { host_pid?: number };
    if (pid.host_pid) process.kill(pid.host_pid, 'SIGTERM');
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export function freePort(): Promise<number> {
  return new Promise((found) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => found(typeof address === 'object' && address ? address.port : 0));
    });
  });
}
