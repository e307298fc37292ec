// Which view is shown: `#/containers`, `#/containers/ID/logs`.

class Route {
  parts = $state<string[]>([]);

  constructor() {
    const read = () => {
      const path = location.hash.replace(/^#\/?/, '');
      this.parts = path.split('/').filter(Boolean).map(decode);
    };
    addEventListener('hashchange', read);
    read();
  }

  get view(): string {
    return this.parts[0] ?? 'containers';
  }

  go(...parts: string[]) {
    location.hash = link(...parts);
  }
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function link(...parts: string[]): string {
  return `#/${parts.map(encodeURIComponent).join('/')}`;
}

export const route = new Route();
