// What the run dialog makes: the body for the engine, and the `docker run` line that does the same.
import { parseSize } from '../shared/format';

export interface RunSpec {
  image: string;
  name: string;
  command: string;
  ports: { host: string; container: string; protocol: 'tcp' | 'udp' }[];
  mounts: { source: string; target: string; readOnly: boolean }[];
  env: { name: string; value: string }[];
  restart: 'no' | 'on-failure' | 'unless-stopped' | 'always';
  memory: string;
  cpus: string;
  remove: boolean;
  terminal: boolean;
}

export function emptySpec(image: string): RunSpec {
  return { image, name: '', command: '', ports: [], mounts: [], env: [], restart: 'no', memory: '', cpus: '', remove: false, terminal: false };
}

/** Splits a command as a shell does: quotes and backslashes, and nothing that a shell would run. */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let i = 0; i < text.length; i++) {
    const character = text[i]!;
    if (quote === "'") {
      if (character === "'") quote = '';
      else word += character;
    } else if (character === '\\' && i + 1 < text.length && (quote === '' || '"\\$`'.includes(text[i + 1]!))) {
      word = (word ?? '') + text[++i]!;
    } else if (quote === '"') {
      if (character === '"') quote = '';
      else word += character;
    } else if (character === '"' || character === "'") {
      quote = character;
      word ??= '';
    } else if (/\s/.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = (word ?? '') + character;
    }
  }
  if (word !== undefined) words.push(word);
  return words;
}

/** One word for a POSIX shell, whatever it holds. */
export function quoted(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** What is wrong with it, as a sentence; undefined when it can be run. */
export function problem(spec: RunSpec): string | undefined {
  const port = (text: string) => /^\d+$/.test(text) && Number(text) >= 1 && Number(text) <= 65535;
  const hostPort = (text: string) => text === '' || port(text) || (/^[\d.]+:\d+$/.test(text) && port(text.split(':')[1]!));
  if (spec.name && !/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(spec.name)) return 'A name has letters, digits, dots, dashes and underscores, and begins with a letter or digit.';
  for (const { host, container } of spec.ports) {
    if (!port(container)) return `“${container}” is no port of the container: a number from 1 to 65535.`;
    if (!hostPort(host)) return `“${host}” is no port of this machine: a number from 1 to 65535, or ADDRESS:PORT.`;
  }
  for (const { source, target } of spec.mounts) {
    if (!target.startsWith('/')) return `“${target}” is no path in the container: it begins with /.`;
    if (source.includes(':') || target.includes(':')) return 'A path with a colon cannot be mounted this way.';
  }
  for (const { name } of spec.env) if (name === '' || name.includes('=')) return 'A variable needs a name without “=”.';
  if (spec.memory && (parseSize(spec.memory) ?? 0) < 6 << 20) return 'The memory limit is a size such as 512m, and at least 6m.';
  if (spec.cpus && !(Number(spec.cpus) > 0)) return 'The CPU limit is a number such as 1.5.';
  if (spec.remove && spec.restart !== 'no') return 'A container that is removed when it ends cannot be restarted.';
  return undefined;
}

export function runLine(spec: RunSpec): string {
  const words = ['docker', 'run', spec.terminal ? '-dit' : '-d'];
  const option = (...parts: string[]) => words.push(...parts);
  if (spec.name) option('--name', spec.name);
  if (spec.remove) option('--rm');
  if (spec.restart !== 'no') option('--restart', spec.restart);
  for (const { host, container, protocol } of spec.ports)
    option('-p', `${host === '' ? '' : `${host}:`}${container}${protocol === 'udp' ? '/udp' : ''}`);
  for (const { source, target, readOnly } of spec.mounts) option('-v', `${source ? `${source}:` : ''}${target}${readOnly && source ? ':ro' : ''}`);
  for (const { name, value } of spec.env) option('-e', `${name}=${value}`);
  if (spec.memory) option('--memory', spec.memory.trim().replace(/\s+/g, '').toLowerCase());
  if (spec.cpus) option('--cpus', spec.cpus);
  words.push(spec.image, ...splitWords(spec.command));
  return words.map(quoted).join(' ');
}

/** The body of `POST /containers/create`. */
export function createBody(spec: RunSpec): unknown {
  const exposed: Record<string, object> = {};
  const bindings: Record<string, { HostIp: string; HostPort: string }[]> = {};
  for (const { host, container, protocol } of spec.ports) {
    const key = `${container}/${protocol}`;
    const [address, port] = host.includes(':') ? (host.split(':') as [string, string]) : ['', host];
    exposed[key] = {};
    (bindings[key] ??= []).push({ HostIp: address, HostPort: port });
  }
  const command = splitWords(spec.command);
  const anonymous = spec.mounts.filter((m) => !m.source);
  return {
    Image: spec.image,
    Cmd: command.length ? command : undefined,
    Env: spec.env.map(({ name, value }) => `${name}=${value}`),
    Tty: spec.terminal,
    OpenStdin: spec.terminal,
    ExposedPorts: exposed,
    Volumes: Object.fromEntries(anonymous.map((m) => [m.target, {}])),
    HostConfig: {
      PortBindings: bindings,
      Binds: spec.mounts.filter((m) => m.source).map((m) => `${m.source}:${m.target}${m.readOnly ? ':ro' : ''}`),
      RestartPolicy: { Name: spec.restart },
      AutoRemove: spec.remove,
      Memory: spec.memory ? parseSize(spec.memory) : undefined,
      NanoCpus: spec.cpus ? Math.round(Number(spec.cpus) * 1e9) : undefined,
    },
  };
}
