// What the pages and the window around them tell each other; a browser has no such window.
import { invoke, isTauri } from '@tauri-apps/api/core';
import { listen } from '@tauri-apps/api/event';
import { Failure } from './backend';
import type { ApiError } from './types';

export const shell = {
  /** The user wants to quit: `ask` what becomes of the engine. */
  onQuit(ask: () => void): () => void {
    if (!isTauri()) return () => {};
    const listening = listen('quit-asked', ask);
    return () => void listening.then((end) => end());
  },

  /** The user wants to see a container: `show` it. */
  onContainer(show: (id: string) => void): () => void {
    if (!isTauri()) return () => {};
    const listening = listen<string>('container-asked', ({ payload }) => show(payload));
    return () => void listening.then((end) => end());
  },

  /** Quits; `stop` takes the engine along. Throws a Failure. */
  async quit(stop: boolean) {
    try {
      await invoke('quit', { stop });
    } catch (error) {
      throw Failure.from(error as ApiError);
    }
  },

  /** The user stays after all. */
  stay() {
    void invoke('stay');
  },
};
