// What a user does with the window and its tray: the real program on a screen of its own.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Driver, until } from './driver';
import { Longshore } from './longshore';

const run = promisify(execFile);
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const longshore = new Longshore();
let screen: ChildProcess;
let desktop: ChildProcess;
let window: Driver;
/** Where the user has put the window, and how large: what the window manager made of it. */
let placed = '';
/** Every notification that was asked for. */
let news = '';
let monitor: ChildProcess;

/** What a shell prints on the test's screen. */
const shell = async (command: string, ...words: string[]) => (await run(command, words, { env: longshore.env })).stdout.trim();
const pids = async () => (await shell('pgrep', '-f', `longshore-desktop.*--home ${longshore.home}`).catch(() => '')).split('\n').filter(Boolean);
const visible = async () => (await shell('xdotool', 'search', '--onlyvisible', '--name', '^Longshore$').catch(() => '')).split('\n').filter(Boolean);

/** The window's place on the screen and its size, within the frame. */
const place = async () => (await shell('xdotool', 'getwindowgeometry', '--shell', (await visible())[0]!)).match(/^(X|Y|WIDTH|HEIGHT)=.*$/gm)!.join(' ');

/** The window manager moves a new window once it is there. */
const isInPlace = () => until('the window is where it was', async () => (await place()) === placed, 10_000, place);

async function open() {
  window = await Driver.open(longshore.program('longshore-desktop'), ['--home', longshore.home], longshore.env);
}

const bus = (...words: string[]) => shell('gdbus', 'call', '--session', '--dest', ...words);
const daemon = (method: string, ...words: string[]) => bus('org.freedesktop.DBus', '--object-path', '/org/freedesktop/DBus', '--method', `org.freedesktop.DBus.${method}`, ...words);

/** Clicks an item of the tray's menu, which the tray's host would draw from D-Bus. */
async function tray(label: string) {
  const [pid] = await pids();
  for (const [name] of (await daemon('ListNames')).matchAll(/:[\d.]+/g)) {
    if (!(await daemon('GetConnectionUnixProcessID', name).catch(() => '')).includes(` ${pid},`)) continue;
    const menu = (method: string, ...words: string[]) =>
      bus(name, '--timeout', '5', '--object-path', '/org/ayatana/NotificationItem/tray_icon_tray_app_longshore/Menu', '--method', `com.canonical.dbusmenu.${method}`, ...words);
    const layout = await menu('GetLayout', '--', '0', '-1', '["label", "enabled"]').catch(() => '');
    const item = new RegExp(`\\((\\d+), \\{[^}]*'label': <'${label}'>`).exec(layout);
    if (item) return menu('Event', item[1]!, 'clicked', '<int32 0>', '0');
  }
  throw new Error(`no tray has an item ${label}`);
}

/** The last click in a window that ends before it can say that it was clicked. */
async function quit(answer: string) {
  await tray('Quit Longshore');
  await window.shows('Quit Longshore?');
  await window.click('dialog button', answer).catch(() => {});
  await until('the window has ended', async () => (await pids()).length === 0, 60_000);
}

async function picture(name: string) {
  const folder = process.env['LONGSHORE_SCREENSHOTS'];
  if (folder) writeFileSync(`${folder}/${name}.png`, await window.picture());
}

beforeAll(async () => {
  screen = spawn('Xvfb', ['-displayfd', '3', '-screen', '0', '1280x800x24', '-nolisten', 'tcp'], { stdio: ['ignore', 'ignore', 'inherit', 'pipe'] });
  const display = await new Promise((found) => (screen.stdio[3] as NodeJS.ReadableStream).once('data', found));
  Object.assign(longshore.env, { DISPLAY: `:${String(display).trim()}`, GDK_BACKEND: 'x11', NO_AT_BRIDGE: '1' });
  // A window manager, for the keys that close a window, and for what becomes of its place.
  desktop = spawn('openbox', { env: longshore.env, stdio: 'ignore' });
  monitor = spawn('dbus-monitor', ["interface='org.freedesktop.Notifications',member='Notify'"], { env: longshore.env });
  monitor.stdout!.on('data', (data) => (news += String(data)));
  await longshore.longshore('settings', 'set', 'cpus=1', 'memory=1g', 'disk=8g', 'docker_context=false');
});

afterAll(async () => {
  if (window) await picture('last-window').catch(() => {});
  await window?.end();
  await longshore.end();
  monitor?.kill();
  desktop?.kill();
  screen?.kill();
});

describe('the window', () => {
  it('opens with the first run', async () => {
    const began = Date.now();
    await open();
    expect(await window.title()).toBe('Longshore');
    await window.shows('Welcome to Longshore');
    console.log(`the window shows its page after ${Date.now() - began} ms, driver included`);
    expect(await visible()).toHaveLength(1);
    await picture('window-first-run');
  });

  it('holds its pages to their policy and their commands', async () => {
    expect(await window.evaluate('fetch("http://127.0.0.1:9").then(() => "reached", (e) => e.name)')).toBe('TypeError');
    expect(await window.evaluate('Promise.resolve().then(() => eval("1")).then(() => "ran", (e) => e.name)')).toBe('EvalError');
    for (const command of ['plugin:shell|execute', 'plugin:fs|read_file', 'plugin:window|close', 'plugin:window-state|save_window_state', 'plugin:webview|create_webview'])
      expect(await window.evaluate(`window.__TAURI_INTERNALS__.invoke(${JSON.stringify(command)}, {})`), command).toMatch(/^failed: .*(not allowed|not found)/);
    const ask = (path: string, body: unknown) => window.evaluate(`window.__TAURI_INTERNALS__.invoke('ask', { request: { method: 'POST', path: '${path}', body: '${JSON.stringify(body)}' } })`);
    expect(await ask('/api/v1/settings', { assignments: ['shares+=/srv'] })).toMatch(/403.*in a terminal/);
    expect(await ask('/api/v1/shutdown', null)).toContain('404');
  });

  it('starts the engine', async () => {
    await window.click('button', 'Start Longshore');
    await window.shows('Engine running', 120_000);
    await window.shows('No containers yet');
  }, 150_000);

  it('shows what the docker command does, without being asked', async () => {
    await longshore.load('busybox');
    await longshore.docker('run', '-d', '--name', 'from-cli', '--restart', 'always', 'busybox', 'sleep', '100000');
    await window.shows('from-cli');
    await window.shows(/Up \d/);
    await picture('window-containers');
  });

  it('has terminals', async () => {
    await window.click('a', 'from-cli');
    await window.click('[role=tab]', 'Terminal');
    await window.shows(/[#$] *$/m);
    await window.type('echo answer $((6*7)); echo ü\n');
    await window.shows(/answer 42\s+ü/);
    await picture('window-terminal');
  });

  it('follows logs', async () => {
    await longshore.docker('run', '-d', '--name', 'talker', 'busybox', 'sh', '-c', 'seq 1 50000; while true; do date +said-%s; sleep 1; done');
    await window.evaluate('void (location.hash = "#/containers")');
    await window.click('a', 'talker');
    await window.shows(/said-\d+/);
    await window.shows(/50,0\d\d lines/);
    await longshore.docker('rm', '-f', 'talker');
  });

  it('changes what the engine is given', async () => {
    await window.evaluate('void (location.hash = "#/settings")');
    const set = (label: string, value: string) =>
      window.evaluate(`((e) => { e.value = '${value}'; e.dispatchEvent(new Event('input', { bubbles: true })); })(document.querySelector('[aria-label="${label}"]'))`);
    await window.shows('Shared folders');
    await set('CPUs', '2');
    await set('Memory in gibibytes', '1.5');
    await window.click('button', 'Apply and restart');
    await window.shows('Restart the engine?');
    await window.click('dialog button', 'Apply and restart');
    await window.shows('Applied; the engine has restarted', 120_000);
    expect(await longshore.longshore('shell', 'nproc')).toBe('2');
    const total = Number(/MemTotal:\s+(\d+)/.exec(await longshore.longshore('shell', 'cat', '/proc/meminfo'))?.[1]);
    expect(total).toBeGreaterThan(1.2 * 1024 * 1024);
  }, 180_000);

  it('saves files, tells how far it is, and leaves nothing of what is given up', async () => {
    const folder = `${longshore.env['HOME']}/Downloads`;
    await longshore.docker('run', '--rm', '-v', 'much:/v', 'busybox', 'sh', '-c', 'echo small > /v/small; dd if=/dev/zero of=/v/large bs=1M count=600');
    await window.evaluate('void (location.hash = "#/volumes/much")');
    await window.click('button', 'Download small');
    await window.shows('Saved as');
    expect(readFileSync(`${folder}/small`, 'utf8')).toBe('small\n');
    await window.click('button', 'Download large');
    await window.shows(/large\s+[\d.]+% of 629 MB/);
    expect(readdirSync(folder).sort()).toEqual(['large', 'large.part', 'small']);
    await picture('window-download');
    await window.click('.downloads button', 'Cancel');
    await until('nothing is left of it', async () => readdirSync(folder).join() === 'small');
    await window.evaluate('void (location.hash = "#/containers")');
  });

  it('keeps its list when the daemon dies', async () => {
    await window.evaluate('void (location.hash = "#/containers")');
    await window.shows(/Up \d/);
    await longshore.longshore('shell', 'sh', '-c', 'kill -9 $(pidof longshore-daemon)');
    await longshore.docker('rename', 'from-cli', 'renamed');
    await window.shows('renamed');
  });

  it('is the only one', async () => {
    const before = await pids();
    expect(before).toHaveLength(1);
    await run(longshore.program('longshore-desktop'), ['--home', longshore.home], { env: longshore.env, timeout: 20_000 });
    expect(await pids()).toEqual(before);
  });

  it('closes to the tray, and comes back in its place', async () => {
    const [id] = await visible();
    await shell('xdotool', 'windowmove', id!, '60', '40', 'windowsize', id!, '1000', '640');
    await until('the page has the new size', async () => (await window.evaluate('innerWidth')) === 1000);
    placed = await place();
    expect(placed).toMatch(/WIDTH=1000 HEIGHT=640$/);
    await shell('xdotool', 'windowactivate', '--sync', id!, 'key', 'alt+F4');
    await until('the window is gone', async () => (await visible()).length === 0);
    expect(await pids()).toHaveLength(1);
    expect(JSON.parse(readFileSync(`${longshore.home}/window.json`, 'utf8')).main).toMatchObject({ width: 1000, height: 640 });
    await longshore.longshore('app');
    await until('the window is back', async () => (await visible()).length === 1);
    await isInPlace();
  });

  it('is told by the tray and a notification when the engine fails', async () => {
    const { vm } = JSON.parse(await longshore.longshore('status', '--json')) as { vm: { qemu_pid: number } };
    process.kill(vm.qemu_pid, 'SIGKILL');
    await window.shows('The engine has failed');
    await until('there is a notification', async () => news.includes('engine has failed'));
    await tray('Start');
    await window.shows(/Up \d/, 120_000);
  }, 150_000);

  it('asks what becomes of the engine, and leaves it running', async () => {
    await tray('Quit Longshore');
    await window.shows('Quit Longshore?');
    expect(await window.text()).toContain('renamed');
    // Half faded in, a text has less contrast.
    await until('the dialog is there', () => window.evaluate<boolean>('document.getAnimations().every((it) => it.playState === "finished" || it.effect.getTiming().iterations === Infinity)'));
    await picture('window-quit');
    expect(await window.evaluate(`(() => { ${axe}\n return window.axe.run(document, { resultTypes: ['violations'] }) })().then((r) => r.violations.filter((v) => v.impact === 'serious' || v.impact === 'critical').map((v) => v.id + ': ' + v.nodes[0].html).join('; '))`)).toBe('');
    await window.click('dialog button', 'Cancel');
    await quit('Leave the engine running');
    expect(await longshore.docker('ps', '--format', '{{.Names}}')).toBe('renamed');
    await window.end();
  });

  it('crashes, and the containers live on', async () => {
    await open();
    await window.shows('renamed');
    expect(await window.evaluate('[innerWidth, innerHeight].join()'), 'its size is remembered').toBe('1000,640');
    await isInPlace();
    process.kill(Number((await pids())[0]), 'SIGKILL');
    await until('the window has ended', async () => (await pids()).length === 0);
    expect(await longshore.docker('exec', 'renamed', 'echo', 'alive')).toBe('alive');
    await window.end();
  });

  it('quits and stops the engine', async () => {
    await open();
    await window.shows('renamed');
    await isInPlace();
    await quit('Stop the engine and quit');
    expect(await longshore.longshore('status').catch((e: { stdout: string }) => e.stdout)).toMatch(/^state +stopped/);
    expect(existsSync(`${longshore.home}/host.sock`)).toBe(false);
  }, 90_000);

  it('starts at login where it was told to: engine and tray, no window', async () => {
    const folder = `${longshore.env['HOME']}/.config/autostart`;
    await longshore.longshore('settings', 'set', 'start_at_login=true');
    const [entry] = readdirSync(folder);
    const command = /^Exec=(.*)$/m.exec(readFileSync(`${folder}/${entry}`, 'utf8'))![1]!;
    const session = spawn('sh', ['-c', `exec ${command}`], { env: longshore.env, stdio: 'inherit' });
    await until('the engine runs', async () => (await longshore.longshore('status')).includes('running'), 120_000);
    expect(await visible()).toEqual([]);
    await longshore.longshore('app');
    await until('the window is there', async () => (await visible()).length === 1);
    await longshore.longshore('settings', 'set', 'start_at_login=false');
    expect(readdirSync(folder)).toEqual([]);
    session.kill();
  }, 150_000);
});
