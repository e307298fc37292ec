// Downloads under way: how far each is, and a way to end it. A browser has its own list of them.
import { Failure, type Following, isAbort } from '../api/backend';
import type { Saving } from '../api/types';
import { toasts } from './toasts.svelte';

export class Download {
  saving = $state.raw<Saving>({ bytes: 0 });
  #controller = new AbortController();

  constructor(readonly name: string) {}

  get following(): Following {
    return { signal: this.#controller.signal, onProgress: (saving) => (this.saving = saving) };
  }

  cancel() {
    this.#controller.abort();
  }
}

class Downloads {
  list = $state.raw<Download[]>([]);

  /** Saves by `begin`, and says where. Throws a Failure. */
  async save(name: string, begin: (following: Following) => Promise<string | undefined>) {
    const download = new Download(name);
    this.list = [...this.list, download];
    try {
      const saved = await begin(download.following);
      if (saved) toasts.say('good', `Saved as ${saved}`);
    } catch (error) {
      if (!isAbort(error)) throw Failure.of(error);
    } finally {
      this.list = this.list.filter((other) => other !== download);
    }
  }
}

export const downloads = new Downloads();
