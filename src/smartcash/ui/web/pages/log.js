// The operation log: who changed what, when, and on whose word; and the proof that nothing in it was altered.
import { html, useState } from "../html.js";
import { at, get, post, query as asQuery } from "../api.js";
import { moment, plain, t, whole } from "../words.js";
import { link, remember, route } from "../router.js";
import { state } from "../stream.js";
import { Empty, Head, Loaded, Table, attempt, fieldName, fieldValue, useLoad } from "../parts.js";
import { Pages } from "./runs.js";

const PAGE = 50;

export default function Log() {
  const asked = route.value.query;
  const filters = { run: asked.get("run"), operation: asked.get("operation"), search: asked.get("search"), since: asked.get("since") };
  const offset = Number(asked.get("offset") ?? 0);
  const from = useLoad(() => get(`operations${asQuery({ ...filters, offset, limit: PAGE })}`), [asked.toString(), state.value?.operations]);
  const [proof, setProof] = useState(null);
  const verify = async () => setProof(await attempt(() => post("operations/verify")));
  const search = (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    remember({ search: given.get("search"), since: given.get("since"), offset: "" });
  };
  const columns = [
    { key: "seq", wide: true, title: t("column.number"), num: true },
    { key: "time", title: t("column.time"), show: (each) => html`<span class="nowrap">${moment(each.time)}</span>` },
    { key: "who", wide: true, title: t("column.who"), show: (each) => html`${each.who.user}<br /><span class="quiet nowrap">${each.who.host} · ${each.who.interface}</span>` },
    { key: "text", title: t("column.operation") },
    { key: "run", title: t("column.about"), show: (each) => html`${each.run && html`<a class="mono" href=${link("runs", each.run)}>${each.run}</a>`} ${each.version?.slice(0, 12)}` },
    { key: "changes", title: t("changes.title"), show: (each) => each.changes.map((change) => html`<div key=${change.field}><span title=${change.field}>${fieldName(change.field)}</span>: <del>${fieldValue(change.field, change.old)}</del> → <ins>${fieldValue(change.field, change.new)}</ins></div>`) },
    { key: "confirmed_text", wide: true, title: t("column.confirmed"), show: (each) => html`<span class="nowrap">${plain(each.confirmed_text)}</span>` },
    { key: "result", title: t("column.result"), show: (each) => (each.result === "done" ? html`<span class="wide">${t("log.done")}</span>` : html`<span class="bad" title=${each.result}>${t("log.refused")}</span>`) },
  ];
  const acts = html`<button type="button" onClick=${verify}>${t("log.verify")}</button><a class="button" href=${at("operations/export?format=csv")} download>CSV</a><a class="button" href=${at("operations/export")} download>JSON Lines</a>`;
  return html`<${Head} title=${t("nav.log")} acts=${acts} />
    <div role="status">${proof && html`<div class=${proof.sound ? "notice" : "failure"}><p><b>${proof.sound ? t("log.sound", { count: whole(proof.entries) }) : t("log.altered")}</b></p>${proof.alteration && html`<p>${proof.alteration.message}</p>`}${proof.last_sha256 && html`<p class="small quiet mono">SHA-256 ${proof.last_sha256}</p>`}</div>`}</div>
    <form class="row low" role="search" onSubmit=${search}>
      <label class="stacked">${t("runs.search")}<input type="search" name="search" defaultValue=${asked.get("search") ?? ""} /></label>
      <label class="stacked">${t("column.operation")}<select value=${asked.get("operation") ?? ""} onChange=${(event) => remember({ operation: event.target.value, offset: "" })}><option value="">${t("runs.every")}</option>${(from.data?.kinds ?? []).map((each) => html`<option key=${each.operation} value=${each.operation}>${each.text}</option>`)}</select></label>
      <label class="stacked">${t("log.since")}<input type="date" name="since" defaultValue=${asked.get("since") ?? ""} /></label>
      <button type="submit">${t("runs.find")}</button></form>
    <section><${Loaded} from=${from}>${(found) => (found.total ? html`<${Table} columns=${columns} rows=${found.operations} id=${(each) => each.seq} label=${t("nav.log")} stacked=${true} /><${Pages} offset=${offset} limit=${PAGE} total=${found.total} />` : html`<${Empty} title=${Object.values(filters).some(Boolean) ? t("log.none_match") : t("log.none")}><p>${t("log.none_text")}</p><//>`)}<//></section>`;
}
