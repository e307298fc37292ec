// All containers, kept true by the engine's events: each changed one is asked for again, never the whole list.
import { docker } from '../api';
import { Failure } from '../api/backend';
import type { ContainerRow } from '../api/docker';
import { events } from '../shared/events.svelte';
import { SvelteMap, SvelteSet } from 'svelte/reactivity';
import { isHelper } from '../volumes/helper';
import { nameOf } from './rows';

const SETTLE = 80;
/** More at once are asked for as a whole: their ids would not fit into an address. */
const MOST_ASKED = 50;
/** Events that change nothing that a list shows. */
const SILENT = /^(exec_|top|resize|attach|detach|copy|archive-path|extract-to-dir|export)/;

export type Verb = 'start' | 'stop' | 'restart' | 'pause' | 'unpause' | 'kill' | 'delete';

class Containers {
  /** Undefined until the engine has answered once. */
  all = $state.raw<ContainerRow[]>();
  failure = $state<Failure>();
  /** What is under way, by container. */
  busy = new SvelteMap<string, Verb>();
  /** What went wrong with a container; it stays on its row until it is dismissed or tried again. */
  errors = new SvelteMap<string, string>();
  selected = new SvelteSet<string>();

  #seen = new WeakMap<ContainerRow, number>();
  #changed = new Set<string>();
  /** Counts events, so that a list that was asked for before one of them is known to be old. */
  #touched = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  open(): () => void {
    return events.on(
      (event) => {
        if (event.Type === 'container' && !SILENT.test(event.Action)) this.#touch(event.Actor.ID);
        if (event.Type === 'network' && event.Actor.Attributes['container']) this.#touch(event.Actor.Attributes['container']);
      },
      () => void this.refresh(),
    );
  }

  #touch(id: string) {
    this.#touched += 1;
    this.#changed.add(id);
    this.#timer ??= setTimeout(() => void this.#update(), SETTLE);
  }

  async #update() {
    this.#timer = undefined;
    const ids = [...this.#changed];
    this.#changed.clear();
    if (ids.length > MOST_ASKED) return this.refresh();
    try {
      const found = await docker.containers(ids);
      const known = new Map(this.all?.map((c) => [c.Id, c]));
      for (const id of ids) known.delete(id);
      for (const container of found) known.set(container.Id, container);
      this.#set([...known.values()]);
    } catch (error) {
      this.failure = Failure.of(error);
    }
  }

  async refresh(): Promise<void> {
    const before = this.#touched;
    try {
      this.#set(await docker.containers());
      this.failure = undefined;
      if (this.#touched !== before) setTimeout(() => void this.refresh(), SETTLE);
    } catch (error) {
      this.failure = Failure.of(error);
    }
  }

  /** When the engine told what we know of it; seconds since 1970. */
  seen(container: ContainerRow): number {
    return this.#seen.get(container) ?? 0;
  }

  #set(told: ContainerRow[]) {
    const list = told.filter((container) => !isHelper(container));
    const now = Date.now() / 1000;
    for (const container of list) if (!this.#seen.has(container)) this.#seen.set(container, now);
    this.all = list;
    const ids = new Set(list.map((c) => c.Id));
    for (const id of this.selected) if (!ids.has(id)) this.selected.delete(id);
    for (const id of this.errors.keys()) if (!ids.has(id)) this.errors.delete(id);
  }

  /** The engine has stopped: what was seen last is no longer true. */
  forget() {
    this.all = undefined;
    this.busy.clear();
    this.errors.clear();
  }

  find(id: string): ContainerRow | undefined {
    return this.all?.find((c) => c.Id === id || c.Id.startsWith(id) || nameOf(c) === id);
  }

  /** Does the same to each; a failure stays on its row and does not stop the others. */
  async act(ids: string[], verb: Verb, volumes = false): Promise<void> {
    await Promise.all(
      ids.map(async (id) => {
        this.busy.set(id, verb);
        this.errors.delete(id);
        try {
          if (verb === 'delete') await docker.remove(id, volumes);
          else await docker.act(id, verb);
        } catch (error) {
          this.errors.set(id, Failure.of(error).message);
        } finally {
          this.busy.delete(id);
        }
      }),
    );
  }
}

export const containers = new Containers();
