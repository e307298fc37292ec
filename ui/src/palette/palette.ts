// Commands found by a few letters of their words.

export interface Command {
  title: string;
  /** What kind of thing it is about, shown beside it and searched too. */
  group: string;
  run: () => void;
}

/**
 * How well the letters fit, or -1 when they do not: each word of the query has to be found in order, best at the beginning of a
 * word of the text.
 */
export function score(text: string, query: string): number {
  const lower = text.toLowerCase();
  let total = 0;
  for (const word of query.toLowerCase().split(/\s+/).filter(Boolean)) {
    const at = lower.indexOf(word);
    if (at >= 0) {
      total += at === 0 ? 100 : /[\s\-_/:.]/.test(lower[at - 1]!) ? 80 : 50;
      continue;
    }
    let from = 0;
    for (const letter of word) {
      from = lower.indexOf(letter, from) + 1;
      if (from === 0) return -1;
    }
    total += 10;
  }
  return total - Math.min(9, text.length / 20);
}

export function rank(commands: Command[], query: string, most = 60): Command[] {
  if (query.trim() === '') return commands.slice(0, most);
  return commands
    .map((command, at) => ({ command, at, score: score(`${command.title} ${command.group}`, query) }))
    .filter((c) => c.score >= 0)
    .sort((a, b) => b.score - a.score || a.at - b.at)
    .slice(0, most)
    .map((c) => c.command);
}
