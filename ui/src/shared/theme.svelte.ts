// Light, dark, or as the system has it; remembered by this browser.

export type Theme = 'system' | 'light' | 'dark';

class ThemeChoice {
  chosen = $state<Theme>(read());

  choose(theme: Theme) {
    this.chosen = theme;
    try {
      localStorage.setItem('theme', theme);
    } catch {
      // Without storage the choice lasts as long as the page.
    }
    this.apply();
  }

  apply() {
    if (this.chosen === 'system') delete document.documentElement.dataset['theme'];
    else document.documentElement.dataset['theme'] = this.chosen;
  }
}

function read(): Theme {
  try {
    const stored = localStorage.getItem('theme');
    return stored === 'light' || stored === 'dark' ? stored : 'system';
  } catch {
    return 'system';
  }
}

export const theme = new ThemeChoice();
