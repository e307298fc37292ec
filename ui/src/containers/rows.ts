// The rows of the list: compose projects as groups, everything else by itself.
import type { ContainerRow, Port } from '../api/docker';

export const PROJECT = 'com.docker.compose.project';
export const SERVICE = 'com.docker.compose.service';

export interface Group {
  kind: 'group';
  project: string;
  members: ContainerRow[];
  running: number;
  folded: boolean;
}

export interface Single {
  kind: 'container';
  container: ContainerRow;
  /** It stands below its group. */
  inGroup: boolean;
}

export type Row = Group | Single;
export type Filter = 'all' | 'running' | 'stopped';

export function nameOf(container: ContainerRow): string {
  // A container has one name, and one more for each link to it, which has a slash inside.
  const name = container.Names.find((n) => n.indexOf('/', 1) < 0) ?? container.Names[0];
  return name?.replace(/^\//, '') ?? container.Id.slice(0, 12);
}

/** The name below its group: the service, without what the group has said already. */
export function shortName(container: ContainerRow): string {
  const project = container.Labels?.[PROJECT];
  const name = nameOf(container);
  return project && name.startsWith(`${project}-`) ? name.slice(project.length + 1) : name;
}

export function isRunning(container: ContainerRow): boolean {
  return container.State === 'running' || container.State === 'paused' || container.State === 'restarting';
}

export function keyOf(row: Row): string {
  return row.kind === 'group' ? `group/${row.project}` : row.container.Id;
}

export function matches(container: ContainerRow, query: string): boolean {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [
    nameOf(container),
    container.Image,
    container.Id.slice(0, 12),
    container.Labels?.[PROJECT] ?? '',
    container.Labels?.[SERVICE] ?? '',
    ...(container.Ports ?? []).map((p) => String(p.PublicPort ?? p.PrivatePort)),
  ]
    .join('\n')
    .toLowerCase();
  return words.every((word) => text.includes(word));
}

export interface View {
  query: string;
  filter: Filter;
  folded: ReadonlySet<string>;
}

/** Groups first, by name; a search opens them. */
export function toRows(containers: ContainerRow[], view: View): Row[] {
  const shown = containers
    .filter((c) => view.filter === 'all' || isRunning(c) === (view.filter === 'running'))
    .filter((c) => matches(c, view.query));
  const groups = new Map<string, ContainerRow[]>();
  const singles: ContainerRow[] = [];
  for (const container of shown) {
    const project = container.Labels?.[PROJECT];
    if (project) groups.set(project, [...(groups.get(project) ?? []), container]);
    else singles.push(container);
  }
  const rows: Row[] = [];
  for (const project of [...groups.keys()].sort(byText)) {
    const members = groups.get(project)!.sort((a, b) => byText(nameOf(a), nameOf(b)));
    const folded = view.folded.has(project) && view.query === '';
    rows.push({ kind: 'group', project, members, running: members.filter(isRunning).length, folded });
    if (!folded) rows.push(...members.map((container): Single => ({ kind: 'container', container, inGroup: true })));
  }
  singles.sort((a, b) => Number(isRunning(b)) - Number(isRunning(a)) || byText(nameOf(a), nameOf(b)));
  rows.push(...singles.map((container): Single => ({ kind: 'container', container, inGroup: false })));
  return rows;
}

function byText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Each published port once: the engine tells one for each address. */
export function publishedPorts(ports: Port[] | null | undefined): Port[] {
  const seen = new Map<string, Port>();
  for (const port of ports ?? []) {
    if (port.PublicPort) seen.set(`${port.PublicPort}/${port.Type}`, seen.get(`${port.PublicPort}/${port.Type}`) ?? port);
  }
  return [...seen.values()].sort((a, b) => a.PublicPort! - b.PublicPort!);
}

/** Where a browser finds a published port. */
export function portUrl(port: Port): string | undefined {
  if (port.Type !== 'tcp' || !port.PublicPort) return undefined;
  const secure = port.PrivatePort === 443 || port.PrivatePort === 8443;
  // An address of its own is where it listens; all of them, and the loopback, are best known by their name.
  const all = ['', '0.0.0.0', '::', '127.0.0.1', '::1'].includes(port.IP ?? '');
  const address = all ? 'localhost' : port.IP!.includes(':') ? `[${port.IP}]` : port.IP;
  return `${secure ? 'https' : 'http'}://${address}:${port.PublicPort}`;
}
