// Light, dark, or as the machine has it.
import { signal, effect } from "./html.js";

export const THEMES = ["auto", "light", "dark"];
const kept = localStorage.getItem("theme");
export const theme = signal(THEMES.includes(kept) ? kept : "auto");
const machine = matchMedia("(prefers-color-scheme: dark)");
/** Counts every change of what colours are: what is painted and not styled is painted anew. */
export const painted = signal(0);

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  localStorage.setItem("theme", theme.value);
  painted.value = painted.peek() + 1;
});
machine.addEventListener("change", () => (painted.value += 1));

const probe = document.createElement("span");
probe.hidden = true;
document.body.append(probe);

/** A colour as the canvas understands it: var(--accent) → rgb(…), with an opacity. */
export function ink(colour, opacity = 1) {
  probe.style.color = colour;
  const [red, green, blue] = getComputedStyle(probe).color.match(/[\d.]+/g);
  return `rgb(${red} ${green} ${blue} / ${opacity})`;
}
