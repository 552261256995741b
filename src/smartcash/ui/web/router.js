// Which page the address names. Every state of a view stands in the address, so it can be shared and gone back to.
import { signal, computed } from "./html.js";
import { root } from "./api.js";

const base = new URL(root).pathname;

function here() {
  const path = location.pathname.startsWith(base) ? location.pathname.slice(base.length) : "";
  return { path: path.split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(location.search) };
}

export const route = signal(here());
export const page = computed(() => route.value.path[0] ?? "");
export const heading = signal(""); // of the page that is shown
export const arrived = signal(0); // counts the pages gone to: each moves the focus to its heading

/** The address of a page, relative to the studio's own: link("runs", id). */
export const link = (...parts) => new URL(parts.map(encodeURIComponent).join("/") || ".", root).href;

export function go(address) {
  history.pushState(null, "", address);
  route.value = here();
  arrived.value += 1;
  scrollTo(0, 0);
}

/** Write a view's state into the address without leaving an entry in the history. */
export function remember(values) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value === "" || value === null || value === undefined || value === false) query.delete(name);
    else query.set(name, value);
  }
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
  route.value = here();
}

addEventListener("popstate", () => {
  route.value = here();
  arrived.value += 1;
});

document.addEventListener("click", (event) => {
  const anchor = event.target.closest("a[href]");
  const modified = event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
  if (!anchor || modified || event.defaultPrevented || anchor.target || anchor.hasAttribute("download")) return;
  if (anchor.origin !== location.origin || !anchor.pathname.startsWith(base) || anchor.pathname.startsWith(`${base}api/`)) return;
  event.preventDefault();
  go(anchor.href);
});
