// The engine's life: its state as it changes, and the start or stop that this page has asked for.
import { host } from '../api';
import { Failure } from '../api/backend';
import type { Progress, State, StartRequest, Status } from '../api/types';
import { keep } from './retry';

export interface Stage {
  name: string;
  text: string;
  at: number;
}

class Engine {
  state = $state<State | 'unknown'>('unknown');
  detail = $state<string>();
  status = $state<Status>();
  /** The host service itself does not answer. */
  lost = $state<Failure>();
  /** What the start or stop under way has told. */
  stages = $state<Stage[]>([]);
  notices = $state<string[]>([]);
  failure = $state<Failure>();
  working = $state<'start' | 'stop' | 'move'>();

  get running(): boolean {
    return this.state === 'running';
  }

  watch(signal: AbortSignal) {
    void keep(
      signal,
      async (alive) => {
        for await (const now of await host.watch(signal)) {
          alive();
          this.lost = undefined;
          const changed = this.state !== now.state;
          this.state = now.state;
          this.detail = now.detail;
          if (changed || now.state === 'running') void this.refresh();
        }
      },
      (why) => {
        this.lost = why;
        this.state = 'unknown';
      },
    );
  }

  async refresh() {
    try {
      this.status = await host.status();
    } catch {
      // The watch tells when the service is gone.
    }
  }

  start(request: Partial<StartRequest> = {}) {
    return this.#work('start', () => host.start(request));
  }

  stop() {
    return this.#work('stop', () => host.stop());
  }

  /** Whether it has come back as it was asked to; else `failure` says why not. */
  async restart(): Promise<boolean> {
    return (await this.stop()) && (await this.start());
  }

  /** Whether the data is in `folder` now and the engine is as it was; else `failure` says why not. */
  moveData(folder: string) {
    return this.#work('move', () => host.moveData(folder));
  }

  async #work(kind: 'start' | 'stop' | 'move', begin: () => Promise<AsyncGenerator<Progress>>): Promise<boolean> {
    if (this.working) return false;
    this.working = kind;
    this.stages = [];
    this.notices = [];
    this.failure = undefined;
    try {
      for await (const event of await begin()) this.#note(event);
    } catch (error) {
      this.failure = Failure.of(error);
    } finally {
      this.working = undefined;
    }
    return this.failure === undefined;
  }

  #note(event: Progress) {
    if (event.event === 'stage') this.stages.push({ name: event.name, text: event.text, at: event.elapsed_ms });
    else if (event.event === 'notice') this.notices.push(event.text);
    else if (event.event === 'done') this.status = event.status;
    else this.failure = Failure.from(event.error);
  }
}

export const engine = new Engine();
