// What the Layers view follows while somebody sees it.
import { host } from '../api';
import { Failure, isAbort } from '../api/backend';
import type { Layers, TraceSpan } from '../api/types';
import { sleep } from '../shared/retry';
import { type Chain, chainOf } from './chain';

const PERIOD = 2000;

export class Following {
  now = $state.raw<Layers>();
  chain = $state.raw<Chain>();
  requests = $state.raw<TraceSpan[]>([]);
  failure = $state<Failure>();

  /** Looks every two seconds while the page is seen; less often when the answers are slow. */
  async follow(signal: AbortSignal) {
    while (!signal.aborted) {
      const began = performance.now();
      if (document.visibilityState === 'visible') await this.look(signal);
      else await seen(signal);
      await sleep(Math.max(PERIOD, 2 * (performance.now() - began)), signal);
    }
  }

  async look(signal?: AbortSignal) {
    try {
      const [now, requests] = await Promise.all([host.layers(signal), host.requests(signal)]);
      this.chain = chainOf(now, this.now);
      this.now = now;
      // What looks the same is not drawn again.
      if (requests[0]?.span_id !== this.requests[0]?.span_id || requests.length !== this.requests.length) this.requests = requests;
      this.failure = undefined;
    } catch (error) {
      if (!isAbort(error)) this.failure = Failure.of(error);
    }
  }
}

function seen(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    document.addEventListener('visibilitychange', () => resolve(), { once: true, signal });
    signal.addEventListener('abort', () => resolve());
  });
}
