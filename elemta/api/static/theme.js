/** Light or dark: as the system has it, unless somebody chose. */

const KEY = "elemta-theme";
const CHOICES = ["system", "light", "dark"];

/** What was chosen. */
export function chosen() {
  const found = localStorage.getItem(KEY);
  return CHOICES.includes(found) ? found : "system";
}

/** Choose, and remember it. */
export function choose(theme) {
  if (theme === "system") localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, theme);
  apply();
}

/** The one after this, in a round. */
export function next(theme) {
  return CHOICES[(CHOICES.indexOf(theme) + 1) % CHOICES.length];
}

/** Draw the page in what was chosen. */
export function apply() {
  const theme = chosen();
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

apply();
