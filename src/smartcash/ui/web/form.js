// The configuration as a form: a draft of what was typed, kept in this browser until it is saved or thrown away.
import { html, signal, effect } from "./html.js";
import { figure, t, whole, wordOr } from "./words.js";
import { root } from "./api.js";
import { fieldName } from "./parts.js";

const KEPT = `draft ${new URL(root).pathname}`;

/** field → what was typed; a field that is not in it is as it was last confirmed. */
export const draft = signal(JSON.parse(localStorage.getItem(KEPT) ?? "{}"));
effect(() => localStorage.setItem(KEPT, JSON.stringify(draft.value)));

export const ESSENTIAL = ["data.path", "name", "model.backbone", "training.epochs", "data.batch_size", "optimizer.name", "optimizer.lr", "training.early_stopping.patience", "augment.preset"];
const GROUP = { data: "data", model: "model", optimizer: "optimization", schedule: "optimization", augment: "augmentation", training: "training", checkpoint: "checkpoint", notify: "callbacks", runtime: "machine" };
export const GROUPS = ["data", "model", "optimization", "training", "augmentation", "callbacks", "checkpoint", "machine", "about"];

export function groupOf(field) {
  if (ESSENTIAL.includes(field)) return "essential";
  if (field === "training.callbacks") return "callbacks";
  return field.includes(".") ? (GROUP[field.split(".")[0]] ?? "machine") : "about";
}

/** The value of a field in nested values. */
export const valueAt = (values, field) => field.split(".").reduce((inner, name) => inner?.[name], values);

/** Nested values with every entry of the draft in its place. */
export function merged(values, entries, fields) {
  const out = structuredClone(values);
  for (const [name, entry] of Object.entries(entries)) {
    const field = fields.find((each) => each.field === name);
    if (!field) continue; // a draft of another version of SmartCash
    const path = name.split(".");
    const inner = path.slice(0, -1).reduce((part, key) => (part[key] ??= {}), out);
    inner[path[path.length - 1]] = understood(field, entry);
  }
  return out;
}

/** What was typed → the value that is sent. Numbers go as they were typed: the server knows 0,001 and 0.001. */
function understood(field, entry) {
  if (typeof entry !== "string") return entry;
  const typed = entry.trim();
  if (field.kind === "list" || field.kind === "object") {
    if (/^[[{]/.test(typed)) {
      try {
        return JSON.parse(typed);
      } catch (error) {
        if (error instanceof SyntaxError) return typed; // the server says what is wrong with it
        throw error;
      }
    }
    return typed ? typed.split(",").map((each) => (field.field === "optimizer.betas" ? Number(each) : each.trim())) : [];
  }
  if (typed === "" && field.auto) return "auto";
  if (typed === "" && field.nullable) return null;
  return typed;
}

/** A value → what stands in the field. */
export function typed(field, value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) {
    const names = value.map((each) => (each && typeof each === "object" && !Object.keys(each.options ?? {}).length && each.on_error !== "skip" ? each.use : each));
    return names.some((each) => each && typeof each === "object") ? JSON.stringify(value) : names.join(", ");
  }
  return typeof value === "boolean" ? value : String(value);
}

export function write(field, entry, base) {
  const { [field.field]: _, ...others } = draft.value;
  draft.value = entry === typed(field, valueAt(base, field.field)) ? others : { ...others, [field.field]: entry };
}

const bounds = (field) => {
  const low = field.minimum ?? field.exclusive_minimum;
  const high = field.maximum ?? field.exclusive_maximum;
  return high === null ? "" : t("train.bounds", { low: whole(low), high: figure(high) });
};

/** One field with its words, what may stand in it, and what is wrong with what does. */
export function Field({ field, base, problems, options }) {
  const id = `f-${field.field.replaceAll(".", "-")}`;
  const changed = field.field in draft.value;
  const entry = changed ? draft.value[field.field] : typed(field, valueAt(base, field.field));
  const wrong = problems.length > 0;
  const shared = { id, name: field.field, "aria-invalid": wrong ? "true" : undefined, "aria-describedby": `${id}-help${wrong ? ` ${id}-wrong` : ""}` };
  const change = (event) => write(field, event.target.type === "checkbox" ? event.target.checked : event.target.value, base);
  const numeric = field.kind === "number" || field.kind === "integer";
  let entered;
  if (field.kind === "boolean") entered = html`<input ...${shared} type="checkbox" checked=${entry === true} onChange=${change} />`;
  else if (field.kind === "choice") entered = html`<select ...${shared} value=${entry} onChange=${change}>${field.nullable && html`<option value="">–</option>`}${field.choices.map((each) => html`<option key=${each} value=${each}>${wordOr(`studio.choice.${each}`, each)}</option>`)}</select>`;
  else if (field.field === "notes") entered = html`<textarea ...${shared} rows="3" value=${entry} onInput=${change}></textarea>`;
  else entered = html`<input ...${shared} type="text" class=${numeric ? "figure" : ""} inputmode=${numeric ? "decimal" : undefined} autocomplete="off" spellcheck="false" list=${options ? `${id}-list` : undefined} placeholder=${field.auto ? "auto" : field.nullable ? t("train.of_preset") : ""} value=${entry} onInput=${change} />${options && html`<datalist id=${`${id}-list`}>${options.map((each) => html`<option key=${each} value=${each}></option>`)}</datalist>`}`;
  return html`<div class=${changed ? "field changed" : "field"}>
    <label for=${id}>${fieldName(field.field)}</label><div class="entry">${entered}</div>
    <div class="help" id=${`${id}-help`}>${wordOr(`config.${field.field}`, field.text)} ${bounds(field)}</div>
    ${wrong && html`<div class="said" id=${`${id}-wrong`}>${problems.map((each) => html`<p key=${each.code}>${each.message}</p>`)}</div>`}
  </div>`;
}
