// Words and figures in the reader's language. Texts come from the same locale files as those of the command line.
import { signal, computed } from "./html.js";
import { get } from "./api.js";

export const LANGUAGES = { id: "Bahasa Indonesia", en: "English" };

const wanted = localStorage.getItem("language") ?? navigator.languages.map((each) => each.slice(0, 2)).find((each) => each in LANGUAGES);
export const language = signal(wanted in LANGUAGES ? wanted : "id");
const texts = signal({});

export async function speak(chosen) {
  texts.value = await get(`locales/${chosen}`);
  language.value = chosen;
  document.documentElement.lang = chosen;
}

export function choose(chosen) {
  localStorage.setItem("language", chosen);
  return speak(chosen);
}

/** The text of a key of any section, with its facts; a key that nobody wrote is shown as it is. `{count:run|runs}` is the
 *  word that fits the count. */
export function word(key, facts) {
  const template = texts.value[key];
  if (template === undefined) return key;
  const filled = (whole, name, one, many) => {
    if (!(name in facts)) return whole;
    return many === undefined ? facts[name] : String(facts[name]) === "1" ? one : many;
  };
  return facts ? template.replace(/\{(\w+)(?::([^|}]*)\|([^}]*)|[^}]*)\}/g, filled) : template;
}

/** A text of this page: section [studio]. */
export const t = (key, facts) => word(`studio.${key}`, facts);
export const has = (key) => key in texts.value;

/** The text of a key if there is one, else what is given. */
export const wordOr = (key, other) => texts.value[key] ?? other;

const formats = new Map();
const locale = computed(() => (language.value === "id" ? "id-ID" : "en-GB"));

function formatted(options, value) {
  const key = locale.value + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(locale.value, options));
  return formats.get(key).format(value);
}

const missing = (value) => value === null || value === undefined || Number.isNaN(value);
export const whole = (value) => (missing(value) ? "–" : formatted({ maximumFractionDigits: 0 }, value));
export const decimal = (value, digits = 3) =>
  missing(value) ? "–" : formatted({ minimumFractionDigits: digits, maximumFractionDigits: digits }, value);
export const percent = (value, digits = 0) =>
  missing(value) ? "–" : formatted({ style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits }, value);
export const rupiah = (value) => (missing(value) ? "–" : `Rp\u00a0${new Intl.NumberFormat("id-ID").format(value)}`);
export const signed = (value, digits = 3) =>
  missing(value) ? "–" : formatted({ minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: "exceptZero" }, value);

/** Any figure in few characters: 0,861 · 1.320 · 6,2e-4. */
export function figure(value) {
  if (missing(value)) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return whole(value);
  const size = Math.abs(value);
  if (size < 0.01 || size >= 1e6) {
    const [head, tail] = value.toExponential(1).split("e");
    return `${decimal(Number(head), 1)}e${Number(tail)}`;
  }
  return decimal(value, size >= 100 ? 1 : size >= 10 ? 2 : 3);
}

export function bytes(value) {
  if (missing(value)) return "–";
  const steps = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (value >= 1000 && step < steps.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${decimal(value, value < 10 && step ? 1 : 0)}\u00a0${steps[step]}`;
}

/** 310 → "5 menit 10 detik"; `brief`: "5 menit". */
export function duration(seconds, brief = false) {
  if (missing(seconds)) return "–";
  const rest = Math.max(0, Math.round(seconds));
  const parts = [["days", 86400], ["hours", 3600], ["minutes", 60], ["seconds", 1]];
  const from = parts.findIndex(([, size]) => rest >= size);
  if (from < 0) return t("time.seconds", { count: 0 });
  const [name, size] = parts[from];
  const next = brief ? undefined : parts[from + 1];
  const first = t(`time.${name}`, { count: Math.floor(rest / size) });
  const second = next && Math.floor((rest % size) / next[1]);
  return second ? `${first} ${t(`time.${next[0]}`, { count: second })}` : first;
}

/** A moment in local time; `timeStyle` "medium": with seconds. */
export function moment(value, timeStyle = "short") {
  if (!value) return "–";
  return new Intl.DateTimeFormat(locale.value, { dateStyle: "medium", timeStyle }).format(new Date(value));
}

export function ago(value) {
  const seconds = (Date.now() - new Date(value)) / 1000;
  return t("time.ago", { time: duration(seconds) });
}

/** A value of the configuration, as people read it. */
export function plain(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "boolean") return value ? t("yes") : t("no");
  if (Array.isArray(value)) return value.length ? value.map(plain).join(", ") : "–";
  if (typeof value === "object") return value.use && !Object.keys(value.options ?? {}).length ? value.use : JSON.stringify(value); // a callback is its name
  return typeof value === "number" ? number(value) : String(value);
}

/** A number written out as it is, with the language's comma. */
export const number = (value) => (language.value === "id" ? String(value).replace(".", ",") : String(value));

/** "0,001", "0.001", "1e-3" → 0.001; anything else → NaN. */
export const parsed = (entry) => (/^[-+]?[\d.,]*\d(e[-+]?\d+)?$/i.test(entry.trim()) ? Number(entry.trim().replace(",", ".")) : NaN);
