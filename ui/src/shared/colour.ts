// The tokens' colours for what draws by itself, a chart or a terminal, and cannot follow the style sheet.

/** A token as it looks now, as `#rrggbb`: one that is opaque. */
export function colour(token: string): string {
  // A token is text until a property of an element is made of it.
  const probe = document.createElement('i');
  probe.style.color = `var(${token})`;
  document.body.append(probe);
  const [red, green, blue] = getComputedStyle(probe).color.match(/\d+/g) ?? [];
  probe.remove();
  return `#${[red, green, blue].map((part) => Number(part ?? 0).toString(16).padStart(2, '0')).join('')}`;
}

/** A token that is no colour, such as a list of fonts. */
export function token(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
