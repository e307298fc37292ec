// Images as rows, and the pulls under way; both live longer than the view.
import { docker } from '../api';
import { Failure, isAbort } from '../api/backend';
import type { ContainerRow, ImageRow, PullProgress } from '../api/docker';
import { Live } from '../shared/live.svelte';

export const images = new Live<ImageRow>(
  () => docker.images(),
  (event) => event.Type === 'image',
);

export interface ImageLine {
  key: string;
  id: string;
  /** `REPOSITORY:TAG`; undefined for a dangling image. */
  reference: string | undefined;
  repository: string;
  tag: string;
  created: number;
  size: number;
  usedBy: ContainerRow[];
}

/** A row for each tag, and one for an image without. */
export function toLines(list: ImageRow[], containers: ContainerRow[]): ImageLine[] {
  const users = new Map<string, ContainerRow[]>();
  for (const container of containers) users.set(container.ImageID, [...(users.get(container.ImageID) ?? []), container]);
  const lines = list.flatMap((image): ImageLine[] => {
    const tags = (image.RepoTags ?? []).filter((tag) => tag !== '<none>:<none>');
    const base = { id: image.Id, created: image.Created, size: image.Size, usedBy: users.get(image.Id) ?? [] };
    if (tags.length === 0) {
      const digest = image.RepoDigests?.[0]?.split('@')[0];
      return [{ ...base, key: image.Id, reference: undefined, repository: digest && digest !== '<none>' ? digest : '<none>', tag: '<none>' }];
    }
    return tags.map((reference) => ({ ...base, key: `${image.Id} ${reference}`, reference, ...splitReference(reference) }));
  });
  return lines.sort((a, b) => Number(!a.reference) - Number(!b.reference) || (a.key.split(' ')[1] ?? '').localeCompare(b.key.split(' ')[1] ?? ''));
}

/** A colon after the last slash begins the tag; one before it, a port. */
export function splitReference(reference: string): { repository: string; tag: string } {
  const at = reference.lastIndexOf(':');
  if (at > reference.lastIndexOf('/')) return { repository: reference.slice(0, at), tag: reference.slice(at + 1) };
  return { repository: reference, tag: '' };
}

/** Where a push goes: the registry that the name begins with. */
export function registryOf(reference: string): string {
  const [first = '', ...rest] = reference.split('/');
  return rest.length && (/[.:]/.test(first) || first === 'localhost') ? first : 'Docker Hub';
}

/** What the engine wants for a pull: `NAME`, `NAME:TAG`, `NAME@sha256:…`. */
export function pullTarget(reference: string): { image: string; tag: string } {
  const text = reference.trim();
  const at = text.indexOf('@');
  if (at > 0) return { image: text.slice(0, at), tag: text.slice(at + 1) };
  const { repository, tag } = splitReference(text);
  return { image: repository, tag: tag || 'latest' };
}

export interface Layer {
  id: string;
  status: string;
  current: number;
  total: number;
}

export type Direction = 'pull' | 'push';

export class Pull {
  layers = $state<Layer[]>([]);
  status = $state('Asking the registry');
  failure = $state<string>();
  state = $state<'running' | 'done' | 'failed' | 'cancelled'>('running');
  #controller = new AbortController();

  constructor(
    readonly reference: string,
    readonly direction: Direction = 'pull',
  ) {}

  async run() {
    try {
      const ask = this.direction === 'pull' ? docker.pull.bind(docker) : docker.push.bind(docker);
      for await (const progress of await ask(pullTarget(this.reference), this.#controller.signal)) this.note(progress);
      if (this.state === 'running') this.state = this.failure ? 'failed' : 'done';
    } catch (error) {
      if (isAbort(error)) return;
      this.failure = Failure.of(error).message;
      this.state = 'failed';
    }
  }

  cancel() {
    this.state = 'cancelled';
    this.#controller.abort();
  }

  note(progress: PullProgress) {
    if (progress.error) {
      this.failure = progress.error;
      return;
    }
    const { id, status = '', progressDetail } = progress;
    if (!id || status.startsWith('Pulling from') || /: digest: /.test(status)) {
      this.status = status;
      return;
    }
    let layer = this.layers.find((l) => l.id === id);
    if (!layer) {
      this.layers.push({ id, status, current: 0, total: 0 });
      layer = this.layers.at(-1)!;
    }
    layer.status = status;
    if (progressDetail?.total) [layer.current, layer.total] = [progressDetail.current ?? 0, progressDetail.total];
    else if (/complete|exists|^Pushed|^Mounted/i.test(status)) layer.current = layer.total = layer.total || 1;
  }

  /** From 0 to 1; undefined while no size is known. */
  get part(): number | undefined {
    const sized = this.layers.filter((l) => l.total > 0);
    if (sized.length === 0) return undefined;
    if (this.direction === 'push') return this.layers.reduce((sum, l) => sum + (l.total ? l.current / l.total : 0), 0) / this.layers.length;
    // Downloading is half of a layer's way, unpacking the other.
    const parts = this.layers.map((l) => (l.total === 0 ? 0 : /complete$|exists/i.test(l.status) && !/Download/.test(l.status) ? 1 : (/Extract/i.test(l.status) ? 0.5 : 0) + (0.5 * l.current) / l.total));
    return parts.reduce((a, b) => a + b, 0) / parts.length;
  }
}

class Pulls {
  list = $state<Pull[]>([]);

  begin(reference: string, direction: Direction = 'pull'): Pull {
    this.list = [new Pull(reference.trim(), direction), ...this.list.filter((p) => p.state === 'running' || p.state === 'failed')].slice(0, 8);
    const pull = this.list[0]!;
    void pull.run().then(() => {
      if (pull.state === 'done') void images.refresh();
    });
    return pull;
  }

  drop(pull: Pull) {
    this.list = this.list.filter((p) => p !== pull);
  }
}

export const pulls = new Pulls();
