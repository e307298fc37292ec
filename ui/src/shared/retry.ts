// Keeps a stream open for as long as somebody wants it.
import { Failure, isAbort } from '../api/backend';

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 8000;

/**
 * Runs `follow` again and again until the signal aborts; it returns or throws when its stream has ended. `lost` is told why
 * after each end.
 */
export async function keep(signal: AbortSignal, follow: (alive: () => void) => Promise<void>, lost?: (why: Failure) => void) {
  let pause = FIRST_PAUSE;
  while (!signal.aborted) {
    try {
      await follow(() => (pause = FIRST_PAUSE));
      lost?.(new Failure('unreachable', 'The connection was closed.'));
    } catch (error) {
      if (signal.aborted || isAbort(error)) return;
      lost?.(Failure.of(error));
    }
    await sleep(pause, signal);
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  }
}

export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
