// A list of the engine that is asked for again when an event says that it has changed.
import { Failure } from '../api/backend';
import type { DockerEvent } from '../api/docker';
import { engine } from './engine.svelte';
import { events } from './events.svelte';

const SETTLE = 150;

export class Live<T> {
  list = $state.raw<T[]>();
  failure = $state<Failure>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asking = false;
  #again = false;

  constructor(
    readonly ask: () => Promise<T[]>,
    readonly concerns: (event: DockerEvent) => boolean,
  ) {}

  /** For an effect of the view: live until the returned function runs. */
  open(): () => void {
    if (engine.running) void this.refresh();
    return events.on(
      (event) => {
        if (this.concerns(event)) this.soon();
      },
      () => void this.refresh(),
    );
  }

  /** Many events in a row are one question. */
  soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.refresh(), SETTLE);
  }

  async refresh() {
    if (this.#asking) {
      this.#again = true;
      return;
    }
    this.#asking = true;
    try {
      this.list = await this.ask();
      this.failure = undefined;
    } catch (error) {
      this.failure = Failure.of(error);
    } finally {
      this.#asking = false;
      if (this.#again) {
        this.#again = false;
        this.soon();
      }
    }
  }
}
