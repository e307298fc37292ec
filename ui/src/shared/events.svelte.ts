// What happens in the engine, told to whoever shows it. One stream for the whole page.
import { docker } from '../api';
import type { DockerEvent } from '../api/docker';
import { keep } from './retry';

type Listener = (event: DockerEvent) => void;

class Events {
  #listeners = new Set<Listener>();
  #refreshers = new Set<() => void>();
  #since: string | undefined;

  /** The stream of a running engine; call it again after each start. */
  follow(signal: AbortSignal) {
    void keep(signal, async (alive) => {
      const events = await docker.events(signal, this.#since);
      // Whatever happened before the stream was open is in the lists.
      for (const refresh of this.#refreshers) refresh();
      alive();
      for await (const event of events) {
        for (const listener of this.#listeners) listener(event);
      }
    });
  }

  /** `refresh` runs whenever events may have been missed. */
  on(listener: Listener, refresh: () => void): () => void {
    this.#listeners.add(listener);
    this.#refreshers.add(refresh);
    return () => {
      this.#listeners.delete(listener);
      this.#refreshers.delete(refresh);
    };
  }
}

export const events = new Events();
