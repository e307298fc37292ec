// A way into a volume: a container that is never started and has it mounted, as Docker's API reads and writes files of containers only.
import { docker } from '../api';
import { abort, Failure } from '../api/backend';
import type { ContainerRow, ImageRow } from '../api/docker';

/** Where the volume is in it: a path that no image has. */
export const PLACE = '/.longshore-volume';
/** The label of such a container. */
export const HELPER = 'dev.longshore.helper';

/** One that was left behind, by a page that ended in the middle, is this old (seconds). */
const LEFT_BEHIND = 3600;
/** Images that are looked at to find one that fits. */
const MOST_TRIED = 20;

export interface Helper {
  id: string;
  close(): Promise<void>;
}

/** The engine reads the volume through it until it is closed. Throws a Failure. */
export async function openVolume(name: string, readOnly: boolean, signal?: AbortSignal): Promise<Helper> {
  const image = await fitting();
  // Whoever has left may have removed the volume, and a container would make it anew.
  if (signal?.aborted) throw abort();
  const { Id } = await docker.create('', request(image, name, readOnly));
  return { id: Id, close: () => docker.remove(Id) };
}

export function request(image: string, volume: string, readOnly: boolean) {
  return {
    Image: image,
    Cmd: ['true'],
    Entrypoint: [],
    Labels: { [HELPER]: 'volume' },
    NetworkDisabled: true,
    HostConfig: {
      NetworkMode: 'none',
      // What the image has at that path is not copied into an empty volume.
      Mounts: [{ Type: 'volume', Source: volume, Target: PLACE, ReadOnly: readOnly, VolumeOptions: { NoCopy: true } }],
    },
  };
}

/** The smallest image that brings no volumes of its own. */
async function fitting(): Promise<string> {
  for (const { Id } of bySize(await docker.images()).slice(0, MOST_TRIED)) {
    const details = await docker.image(Id);
    if (Object.keys(details.Config?.Volumes ?? {}).length === 0) return Id;
  }
  throw new Failure('conflict', 'There is no image to look into the volume with: any one will do.', 'Pull busybox, for example.');
}

export function bySize(images: ImageRow[]): ImageRow[] {
  return [...images].sort((a, b) => a.Size - b.Size || (a.Id < b.Id ? -1 : 1));
}

/** No list shows one of ours. An image may bring the label along: what runs, or ran, is never ours. */
export function isHelper({ Labels, State, Mounts }: Pick<ContainerRow, 'Labels' | 'State' | 'Mounts'>): boolean {
  return Labels?.[HELPER] !== undefined && State === 'created' && !!Mounts?.some((mount) => mount.Destination === PLACE);
}

/** Removes what earlier pages have left behind. */
export async function sweep(now = Date.now() / 1000) {
  for (const container of await docker.labelled(HELPER)) if (isHelper(container) && now - container.Created > LEFT_BEHIND) await docker.remove(container.Id);
}
