// One upload: how far it is, and a way to end it.

export class Sending {
  sent = $state(0);
  #controller = new AbortController();

  constructor(
    /** What is sent, for people. */
    readonly text: string,
    readonly size: number,
  ) {}

  /** For the backend. */
  get options() {
    return {
      signal: this.#controller.signal,
      // What is around the file is sent, too.
      onProgress: (sent: number) => (this.sent = Math.min(sent, this.size)),
    };
  }

  cancel() {
    this.#controller.abort();
  }
}
