// Short notes about what has no row to stand on.

export interface Toast {
  id: number;
  kind: 'info' | 'good' | 'bad';
  text: string;
  hint?: string;
}

const LIFE = { info: 3500, good: 3500, bad: 12_000 };

class Toasts {
  list = $state<Toast[]>([]);
  #next = 1;

  say(kind: Toast['kind'], text: string, hint?: string) {
    const id = this.#next++;
    this.list.push({ id, kind, text, hint });
    if (this.list.length > 4) this.list.shift();
    setTimeout(() => this.drop(id), LIFE[kind]);
  }

  drop(id: number) {
    this.list = this.list.filter((toast) => toast.id !== id);
  }
}

export const toasts = new Toasts();

export async function copy(text: string, what: string) {
  try {
    await navigator.clipboard.writeText(text);
    toasts.say('good', `${what} copied`);
  } catch {
    toasts.say('bad', `The browser does not let ${what.toLowerCase()} be copied`);
  }
}
