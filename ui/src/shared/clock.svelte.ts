// The time for ages on the page: moves every few seconds while somebody looks.

const PERIOD = 5000;

class Clock {
  /** Seconds since 1970. */
  now = $state(Date.now() / 1000);

  constructor() {
    const tick = () => {
      if (document.visibilityState === 'visible') this.now = Date.now() / 1000;
    };
    setInterval(tick, PERIOD);
    document.addEventListener('visibilitychange', tick);
  }
}

export const clock = new Clock();
