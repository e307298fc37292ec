// What a copy of a volume is called unless its user says otherwise.

/** `data-copy`, `data-copy-2`, …: the first that nobody has. */
export function copyName(name: string, taken: string[]): string {
  // A name that nobody chose is long, and says nothing.
  const stem = /^[0-9a-f]{64}$/.test(name) ? name.slice(0, 12) : name.slice(0, 240);
  let wanted = `${stem}-copy`;
  for (let number = 2; taken.includes(wanted); number++) wanted = `${stem}-copy-${number}`;
  return wanted;
}
