// The engine's options as somebody types them.

export type Options = Record<string, unknown>;

/** The options that a text holds, or what keeps it from being some. Which options there are, the host service knows. */
export function optionsOf(text: string): { options?: Options; wrong?: string } {
  if (text.trim() === '') return { options: {} };
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { options: value as Options };
    return { wrong: 'This is not a JSON object: write { "name": value }.' };
  } catch (error) {
    return { wrong: `This is not JSON yet: ${error instanceof Error ? error.message : String(error)}` };
  }
}
