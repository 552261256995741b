// Data: the sets that are known, how they stand, and their pictures with what is labelled in them.
import { html, useEffect, useState } from "../html.js";
import { get, post, query as asQuery } from "../api.js";
import { t, whole, wordOr } from "../words.js";
import { link, remember, route } from "../router.js";
import { Choice, Empty, Failure, Head, Loaded, Picture, Sheet, Swatch, className, colour, useJob, useLoad } from "../parts.js";
import { Pages } from "./runs.js";

const PAGE = 24;
const AT_ONCE = 6; // findings; the pictures come after them

export default function Data() {
  const asked = route.value.query;
  const path = asked.get("path");
  const sets = useLoad(() => get("data/sets"));
  const open = (event) => {
    event.preventDefault();
    remember({ path: new FormData(event.target).get("path").trim(), split: "", class: "", offset: "" });
  };
  const known = sets.data?.sets ?? [];
  const shown = path ?? known[0]?.path ?? "";
  return html`<${Head} title=${t("nav.data")} acts=${shown && html`<a class="button" href=${`${link("train")}`}>${t("home.train")}</a>`} />
    <form class="row low" onSubmit=${open}><label class="stacked">${t("data.path")}<input name="path" list="sets" required defaultValue=${shown} autocomplete="off" spellcheck="false" size="48" /></label>
      <datalist id="sets">${known.map((each) => html`<option key=${each.path} value=${each.path}></option>`)}</datalist>
      <button type="submit">${t("data.open")}</button></form>
    ${shown ? html`<${Set} key=${shown} path=${shown} />` : html`<${Loaded} from=${sets}>${() => html`<${Empty} title=${t("data.none")}><p>${t("data.none_text")}</p><p><code>smartcash data sample --out sample-notes</code></p><//>`}<//>`}`;
}

function Set({ path }) {
  const { job, setJob, busy } = useJob();
  const [error, setError] = useState(null);
  useEffect(() => {
    post("data/check", { path }).then(setJob, setError);
  }, [path]);
  if (error) return html`<${Failure} error=${error} />`;
  if (job?.state === "failed") return html`<${Failure} error=${{ problem: job.error, message: "" }} />`;
  if (busy || !job) return html`<p role="status" class="quiet">${t("data.checking")}</p>`;
  return html`<section><${Health} of=${job.result} /></section><${Pictures} path=${path} of=${job.result} />`;
}

/** Splits, class balance and findings of a checked set; `brief`: its path, to show errors and warnings alone. */
export function Health({ of, brief = "" }) {
  const splits = Object.entries(of.splits);
  const values = of.values ?? {};
  const totals = of.classes.map((name) => [name, splits.reduce((sum, [, split]) => sum + (split.labels[name] ?? 0), 0)]);
  const most = Math.max(1, ...totals.map(([, count]) => count));
  const errors = of.findings.filter((each) => each.severity !== "note");
  const findings = brief ? errors.slice(0, AT_ONCE) : of.findings;
  return html`<div class="facts"><span><b>${t(`task.${of.task}`)}</b></span><span>${t("data.format")} <b>${of.format}</b></span>${splits.map(([name, split]) => html`<span key=${name}>${wordOr(`studio.split.${name}`, name)} <b>${whole(split.images)}</b></span>`)}</div>
    <div class="cols"><section><div class="title"><h2>${t("data.balance")}</h2><small class="quiet">${t("data.balance_note")}</small></div>
      <div class="bars">${totals.map(([name, count], place) => html`<span key=${name}><${Swatch} value=${values[name]} place=${place} />${className(name, values[name])}</span><i style=${{ "--own": colour(values[name], place), width: `${(100 * count) / most}%` }}></i><span class="num">${whole(count)}</span>`)}</div></section>
    <section><div class="title"><h2>${t("data.findings")}</h2><small class="quiet">${whole(of.findings_total)}</small></div>
      ${findings.length ? html`<${Findings} of=${findings.slice(0, AT_ONCE)} />` : html`<p class="quiet">${of.findings_total ? t("data.nothing_grave") : t("data.sound")}</p>`}
      ${brief && of.findings_total > findings.length && html`<p class="small"><a href=${link("data") + asQuery({ path: brief })}>${t("data.more", { count: whole(of.findings_total) })}</a></p>`}
      ${!brief && findings.length > AT_ONCE && html`<details><summary class="small">${t("data.more", { count: whole(of.findings_total) })}</summary><${Findings} of=${findings.slice(AT_ONCE, 100)} /></details>`}</section></div>`;
}

const Findings = ({ of }) => html`<${Sheet} kind="told" label=${t("data.findings")}><table><tbody>${of.map((each, index) => html`<tr key=${index}><th scope="row" class=${each.severity === "error" ? "bad nowrap" : each.severity === "warning" ? "warn nowrap" : "quiet nowrap"}>${word(each.severity)}</th><td>${each.message}${each.file && each.file !== "." && html`<br /><span class="quiet mono">${each.file}${each.line ? `:${each.line}` : ""}</span>`}</td></tr>`)}</tbody></table><//>`;

const word = (severity) => t(`severity.${severity}`);

function Pictures({ path, of }) {
  const asked = route.value.query;
  const splits = Object.keys(of.splits);
  const split = splits.includes(asked.get("split")) ? asked.get("split") : splits[0];
  const chosen = asked.get("class") ?? "";
  const offset = Number(asked.get("offset") ?? 0);
  const from = useLoad(() => get(`data/pictures${asQuery({ path, split, class: chosen, offset, limit: PAGE })}`), [path, split, chosen, offset]);
  return html`<section><div class="title"><h2>${t("data.pictures")}</h2><span class="spring" />
      <${Choice} label=${t("result.split")} value=${split} options=${splits.map((each) => [each, wordOr(`studio.split.${each}`, each)])} onChoose=${(each) => remember({ split: each, offset: "" })} />
      <label class="row small">${t("data.class")} <select value=${chosen} onChange=${(event) => remember({ class: event.target.value, offset: "" })}><option value="">${t("runs.every")}</option>${of.classes.map((each) => html`<option key=${each} value=${each}>${className(each, of.values?.[each])}</option>`)}</select></label></div>
    <${Loaded} from=${from}>${(found) => html`<div class="prints">${found.pictures.map((each) => html`<${Picture} key=${each.url} url=${new URL(each.url, document.baseURI).href} width=${each.width} height=${each.height} found=${each.boxes} values=${of.values ?? {}} classes=${of.classes} caption=${each.name} />`)}</div><${Pages} offset=${offset} limit=${PAGE} total=${found.total} />`}<//></section>`;
}
