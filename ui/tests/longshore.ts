// A Longshore of its own for a test: programs, home, docker command, registry.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const root = resolve(import.meta.dirname, '../..');
const guestArchitecture = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
const target = resolve(root, process.env['CARGO_TARGET_DIR'] ?? 'target');

export class Longshore {
  readonly folder = mkdtempSync(join(tmpdir(), 'longshore-ui-'));
  readonly home = join(this.folder, 'home');
  /** A folder of the path. */
  readonly tools = join(this.folder, 'tools');
  #registries: ChildProcess[] = [];
  #dead: Server | undefined;
  #slow: Server | undefined;

  readonly env: NodeJS.ProcessEnv;

  constructor() {
    const user = join(this.folder, 'user');
    mkdirSync(user);
    mkdirSync(this.tools);
    this.env = {
      ...process.env,
      HOME: user,
      PATH: `${this.tools}:${process.env['PATH']}`,
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
    await this.docker('load', '-q', '-i', this.archive(image));
  }

  /** A registry on this machine's loopback; its name as the VM sees it. A closed one wants `me` with the password `secret`. */
  async registry(closed = false): Promise<string> {
    const port = await freePort();
    const place = join(this.folder, `registry-${port}`);
    const config = `${place}.yml`;
    const lines = ['version: 0.1', 'storage:', '  filesystem:', `    rootdirectory: ${place}`, 'http:', `  addr: 127.0.0.1:${port}`];
    if (closed) {
      writeFileSync(`${place}.users`, 'me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n');
      lines.push('auth:', '  htpasswd:', '    realm: test', `    path: ${place}.users`);
    }
    writeFileSync(config, `${lines.join('\n')}\n`);
    this.#registries.push(spawn('docker-registry', ['serve', config], { stdio: 'ignore' }));
    // QEMU's user network has the host's loopback at this address.
    return `10.0.2.2:${port}`;
  }

  /** Signs in to a registry, as `docker login` does with a credential helper: the secret is in the helper alone. */
  signIn(registry: string) {
    const helper = join(this.tools, 'docker-credential-test');
    writeFileSync(helper, `#!/bin/sh\nread server\n[ "$1 $server" = "get ${registry}" ] || { echo "credentials not found in native keychain"; exit 1; }\necho '{"ServerURL":"${registry}","Username":"me","Secret":"secret"}'\n`);
    chmodSync(helper, 0o755);
    const folder = join(this.folder, 'user', '.docker');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ auths: { [registry]: {} }, credHelpers: { [registry]: 'test' } }));
  }

  /** A way to a registry that lets a few megabytes through in a second, in either direction; its name as the VM sees it. */
  async slowRegistry(registry: string, bytesPerSecond = 4 << 20): Promise<string> {
    const port = await freePort();
    const slowly = (from: Socket, to: Socket) => {
      from.on('data', (piece) => {
        to.write(piece);
        from.pause();
        setTimeout(() => from.resume(), (piece.length / bytesPerSecond) * 1000);
      });
      from.on('end', () => to.end());
      from.on('close', () => to.destroy());
      from.on('error', () => to.destroy());
    };
    this.#slow = createServer((client) => {
      const server = connect(Number(registry.split(':')[1]), '127.0.0.1');
      slowly(client, server);
      slowly(server, client);
    }).listen(port, '127.0.0.1');
    return `10.0.2.2:${port}`;
  }

  /** The archive of a test image. */
  archive(image: string): string {
    const folders = [process.env['LONGSHORE_TEST_IMAGES'], join(target, 'test-images')].filter((f) => f !== undefined);
    const file = folders.map((f) => join(f, `${image}.tar`)).find(existsSync);
    if (!file) throw new Error(`${image}.tar is missing: scripts/images ${image}`);
    return file;
  }

  /** A guest image of its own, which `updateImage` may change. */
  installImage() {
    const image = join(this.folder, 'guest-image');
    cpSync(join(target, 'guest-image', guestArchitecture), image, { recursive: true });
    this.env['LONGSHORE_GUEST_IMAGE'] = image;
  }

  /** An update of the guest image with this in place of one of its files, and the manifest that goes with it. */
  updateImage(name: string, content: Buffer) {
    const image = this.env['LONGSHORE_GUEST_IMAGE']!;
    writeFileSync(join(image, name), content);
    const path = join(image, 'manifest.json');
    const manifest = JSON.parse(readFileSync(path, 'utf8')) as { files: { name: string; size: number; sha256: string }[] };
    Object.assign(manifest.files.find((file) => file.name === name)!, { size: content.length, sha256: createHash('sha256').update(content).digest('hex') });
    writeFileSync(path, JSON.stringify(manifest));
  }

  /** A registry that takes requests and never answers; its name as the VM sees it. */
  async deadRegistry(): Promise<string> {
    const port = await freePort();
    this.#dead = createServer((socket) => socket.on('error', () => {})).listen(port, '127.0.0.1');
    return `10.0.2.2:${port}`;
  }

  async end() {
    this.#dead?.close();
    this.#slow?.close();
    for (const registry of this.#registries) registry.kill();
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
