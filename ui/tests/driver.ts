// A window under WebDriver: WebKit's own driver starts the program and looks into it (https://www.w3.org/TR/webdriver2).
import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from './longshore';

const PATIENCE = 30_000;
const ELEMENT = 'element-6066-11e4-a52e-4f735466cecf';

export class Driver {
  #session = '';

  constructor(
    readonly process: ChildProcess,
    readonly address: string,
  ) {}

  static async open(program: string, args: string[], env: NodeJS.ProcessEnv): Promise<Driver> {
    const port = await freePort();
    const automation = { TAURI_AUTOMATION: 'true', TAURI_WEBVIEW_AUTOMATION: 'true' };
    const child = spawn('WebKitWebDriver', [`--port=${port}`], { env: { ...env, ...automation }, stdio: ['ignore', 'inherit', 'inherit'] });
    const driver = new Driver(child, `http://127.0.0.1:${port}`);
    await until('the driver serves', () => fetch(`${driver.address}/status`).then((r) => r.ok));
    const options = { alwaysMatch: { 'webkitgtk:browserOptions': { binary: program, args } } };
    driver.#session = (await driver.#ask<{ sessionId: string }>('POST', '/session', { capabilities: options })).sessionId;
    return driver;
  }

  /** The value of an expression in the page; a promise is waited for. */
  evaluate<T>(expression: string): Promise<T> {
    const script = `const done = arguments[0]; Promise.resolve(${expression}).then(done, (e) => done('failed: ' + (e?.message ?? JSON.stringify(e))))`;
    return this.#in('POST', '/execute/async', { script, args: [] });
  }

  text(): Promise<string> {
    return this.evaluate<string>('document.body.innerText');
  }

  /** Waits until the page shows a text. */
  async shows(text: string | RegExp, patience = PATIENCE) {
    await until(`the page shows ${text}`, async () => (await this.text()).search(text instanceof RegExp ? text : escaped(text)) >= 0, patience, () => this.text());
  }

  /** Waits for an element and clicks it as a user would. */
  async click(css: string, text?: string, patience = PATIENCE) {
    const label = text === undefined ? 'true' : `(e.ariaLabel ?? e.getAttribute('aria-label') ?? e.innerText).trim() === ${JSON.stringify(text)}`;
    const find = `return [...document.querySelectorAll(${JSON.stringify(css)})].find((e) => ${label} && !e.disabled && e.checkVisibility()) ?? null`;
    let found: Record<string, string> | null = null;
    await until(`there is ${css} ${text ?? ''}`, async () => (found = await this.#in('POST', '/execute/sync', { script: find, args: [] })) !== null, patience, () => this.text());
    await this.#in('POST', `/element/${found![ELEMENT]}/click`, {});
  }

  /** Types into whatever has the focus. */
  async type(text: string) {
    const keys = [...text].flatMap((value) => ['keyDown', 'keyUp'].map((type) => ({ type, value })));
    await this.#in('POST', '/actions', { actions: [{ type: 'key', id: 'keyboard', actions: keys }] });
  }

  title(): Promise<string> {
    return this.#in('GET', '/title');
  }

  async picture(): Promise<Buffer> {
    return Buffer.from(await this.#in<string>('GET', '/screenshot'), 'base64');
  }

  async end() {
    await this.#in('DELETE', '').catch(() => {});
    this.process.kill();
  }

  #in<T>(method: string, path: string, body?: unknown): Promise<T> {
    return this.#ask<T>(method, `/session/${this.#session}${path}`, body);
  }

  async #ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(this.address + path, { method, body: body === undefined ? undefined : JSON.stringify(body) });
    const { value } = (await response.json()) as { value: T & { error?: string; message?: string } };
    if (!response.ok) throw new Error(`${method} ${path}: ${value.error}: ${value.message}`);
    return value;
  }
}

/** Waits for what another process does; `shown` tells what there was instead. */
export async function until(what: string, holds: () => Promise<boolean>, patience = PATIENCE, shown?: () => Promise<string>) {
  const end = Date.now() + patience;
  while (!(await holds().catch(() => false))) {
    if (Date.now() > end) throw new Error(`waited ${patience / 1000} s in vain: ${what}\n${await shown?.().catch(String)}`);
    await sleep(100);
  }
}

function escaped(text: string): RegExp {
  return new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
}
