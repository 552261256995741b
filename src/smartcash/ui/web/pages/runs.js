// History: every run, found by state, words and figures; tags, notes, lock, and to the trash without harming good ones.
import { html, useState } from "../html.js";
import { duration, figure, moment, plain, t, wordOr } from "../words.js";
import { get, patch, post, query as asQuery, remove } from "../api.js";
import { go, link, remember, route } from "../router.js";
import { active, state } from "../stream.js";
import { ask, attempt, confirmed, Empty, Head, Loaded, Modal, State, Table, Tags, metricName, runLink, runName, useLoad } from "../parts.js";

const PAGE = 25;
const STATES = ["running", "paused", "queued", "ready", "finished", "stopped", "preempted", "failed", "crashed", "broken"];

export default function Runs() {
  const asked = route.value.query;
  const sort = asked.get("sort") ?? "-id";
  const offset = Number(asked.get("offset") ?? 0);
  const filters = { state: asked.get("state"), search: asked.get("search"), tag: asked.get("tag"), task: asked.get("task") };
  const ended = state.value?.ended.map((run) => run.run + run.state).join();
  const trashed = asked.get("trash") !== null;
  const from = useLoad(() => get(`runs${asQuery({ ...filters, sort, offset, limit: PAGE })}`), [asked.toString(), ended, active.value?.run]);
  const [chosen, setChosen] = useState(new Set());
  const [edited, setEdited] = useState(null);
  if (trashed) return html`<${Trash} />`;

  const toggle = (id) => setChosen((before) => (before.has(id) ? new Set([...before].filter((each) => each !== id)) : new Set([...before, id])));
  const bin = async () => {
    const ids = [...chosen];
    const sure = await ask({ title: t("runs.bin_title", { count: ids.length }), text: t("runs.bin_text"), yes: t("runs.bin"), grave: true });
    if (!sure) return;
    await attempt(() => post("runs/trash", { runs: ids }), (answer) => `${t("runs.binned", { count: answer.moved.length })} ${answer.refused.map((each) => each.detail).join(" ")}`);
    setChosen(new Set());
    from.reload();
  };
  const search = (event) => {
    event.preventDefault();
    remember({ search: new FormData(event.target).get("search"), offset: "" });
  };
  const columns = [
    { key: "pick", title: html`<span class="unseen">${t("runs.pick")}</span>`, show: (run) => html`<input type="checkbox" aria-label=${t("runs.pick_one", { run: runName(run) })} checked=${chosen.has(run.id)} onChange=${() => toggle(run.id)} />` },
    { key: "name", sort: "name", title: t("column.run"), show: (run) => html`<a href=${runLink(run)}>${runName(run)}</a>${run.locked && html` <span class="tag" title=${t("runs.locked")}>${t("runs.locked")}</span>`}<small class="quiet mono wide"><br />${run.id}</small>` },
    { key: "state", sort: "state", title: t("column.state"), show: (run) => html`<${State} of=${run.state} />` },
    { key: "backbone", wide: true, sort: "backbone", title: t("column.backbone") },
    { key: "dataset", wide: true, sort: "dataset", title: t("column.dataset"), show: (run) => html`<span class="cut" title=${run.dataset}>${plain(run.dataset)}</span>` },
    { key: "epochs", wide: true, sort: "epochs", title: t("column.epochs"), num: true, show: (run) => `${run.epochs_done}/${run.epochs ?? "–"}` },
    { key: "best", sort: "best", title: t("column.best"), num: true, show: (run) => html`${figure(run.best_value)}${run.monitor && html`<br /><small class="quiet">${metricName(run.monitor)}</small>`}` },
    { key: "started", wide: true, sort: "started", title: t("column.started"), show: (run) => html`<span class="nowrap">${moment(run.started)}</span>` },
    { key: "elapsed", wide: true, sort: "elapsed", title: t("column.elapsed"), num: true, show: (run) => duration(run.elapsed_s) },
    { key: "tags", title: t("column.tags"), show: (run) => html`<${Tags} of=${run.tags} /> <button type="button" class="link" onClick=${() => setEdited(run)}>${t("runs.edit")}<span class="unseen"> ${runName(run)}</span></button>${run.notes && html`<br /><small class="quiet">${run.notes.slice(0, 80)}</small>`}` },
  ];
  const filtered = Object.values(filters).some(Boolean);
  const begun = from.data?.total !== 0 || filtered;
  const acts = html`${begun && html`<button type="button" disabled=${chosen.size < 2} onClick=${() => go(`${link("compare")}?runs=${[...chosen].join(",")}`)}>${t("runs.compare")}</button>
    <button type="button" disabled=${!chosen.size} onClick=${bin}>${t("runs.bin")}</button>`}
    <a class="button" href=${`${link("runs")}?trash=1`}>${t("runs.trash")}</a>`;
  return html`<${Head} title=${t("nav.runs")} acts=${acts} />
    ${begun && html`<form class="row low" role="search" onSubmit=${search}>
      <label class="stacked">${t("runs.search")}<input type="search" name="search" defaultValue=${asked.get("search") ?? ""} /></label>
      <label class="stacked">${t("column.state")}<select value=${asked.get("state") ?? ""} onChange=${(event) => remember({ state: event.target.value, offset: "" })}>
        <option value="">${t("runs.every")}</option>${STATES.map((each) => html`<option key=${each} value=${each}>${wordOr(`runs.state.${each}`, each)}</option>`)}</select></label>
      <label class="stacked">${t("column.task")}<select value=${asked.get("task") ?? ""} onChange=${(event) => remember({ task: event.target.value, offset: "" })}>
        <option value="">${t("runs.every")}</option>${["detect", "classify"].map((each) => html`<option key=${each} value=${each}>${t(`task.${each}`)}</option>`)}</select></label>
      <button type="submit">${t("runs.find")}</button>
    </form>`}
    <section><${Loaded} from=${from}>${(found) => {
      if (!found.total) {
        return filtered
          ? html`<${Empty} title=${t("runs.none_match")}><p><a class="button" href=${link("runs")}>${t("runs.all")}</a></p><//>`
          : html`<${Empty} title=${t("runs.none")}><p>${t("runs.none_text")}</p><p><a class="button primary" href=${link("train")}>${t("home.train")}</a></p><//>`;
      }
      return html`<${Table} columns=${columns} rows=${found.runs} sort=${sort} onSort=${(by) => remember({ sort: by, offset: "" })} label=${t("nav.runs")} />
        <${Pages} offset=${offset} limit=${PAGE} total=${found.total} />`;
    }}<//></section>
    ${edited && html`<${Labels} run=${edited} onClose=${(changed) => { setEdited(null); if (changed) from.reload(); }} />`}`;
}

/** Forth and back through what the server pages. */
export function Pages({ offset, limit, total }) {
  if (total <= limit) return html`<p class="small quiet">${t("runs.count", { count: total })}</p>`;
  return html`<nav class="row" aria-label=${t("runs.pages")}>
    <button type="button" disabled=${offset === 0} onClick=${() => remember({ offset: Math.max(0, offset - limit) || "" })}>${t("before")}</button>
    <span class="small quiet">${t("runs.shown", { from: offset + 1, to: Math.min(total, offset + limit), total })}</span>
    <button type="button" disabled=${offset + limit >= total} onClick=${() => remember({ offset: offset + limit })}>${t("next")}</button>
  </nav>`;
}

/** Tags, notes and lock of one run. */
export function Labels({ run, onClose }) {
  const save = async (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    const tags = given.get("tags").split(",").map((each) => each.trim()).filter(Boolean);
    const kept = await attempt(() => patch(`runs/${run.id}`, { tags, notes: given.get("notes"), locked: given.get("locked") !== null }), t("saved"));
    if (kept) onClose(true);
  };
  return html`<${Modal} title=${runName(run)} onClose=${() => onClose(false)}><form class="stack" onSubmit=${save}>
    <label class="stacked">${t("runs.tags")}<input name="tags" autofocus defaultValue=${run.tags.join(", ")} /></label>
    <label class="stacked">${t("column.notes")}<textarea name="notes" rows="4">${run.notes}</textarea></label>
    <label class="tick"><input type="checkbox" name="locked" defaultChecked=${run.locked} />${t("runs.lock")}</label>
    <div class="acts"><button type="button" onClick=${() => onClose(false)}>${t("cancel")}</button><button type="submit" class="primary">${t("save")}</button></div>
  </form><//>`;
}

function Trash() {
  const from = useLoad(() => get("trash"));
  const restore = async (run) => {
    await attempt(() => post(`trash/${run.id}/restore`), t("runs.restored", { run: runName(run) }));
    from.reload();
  };
  const empty = async () => {
    await attempt(() => confirmed(remove, "trash", {}, { title: t("runs.empty_title"), grave: true, yes: t("runs.empty") }), t("runs.emptied"));
    from.reload();
  };
  const columns = [
    { key: "name", title: t("column.run"), show: runName },
    { key: "id", title: "id", show: (run) => html`<span class="mono">${run.id}</span>` },
    { key: "best", title: t("column.best"), num: true, show: (run) => figure(run.best_value) },
    { key: "back", title: html`<span class="unseen">${t("runs.restore")}</span>`, show: (run) => html`<button type="button" onClick=${() => restore(run)}>${t("runs.restore")}<span class="unseen"> ${runName(run)}</span></button>` },
  ];
  return html`<${Head} title=${t("runs.trash")} acts=${html`<a class="button" href=${link("runs")}>${t("nav.runs")}</a>`} />
    <${Loaded} from=${from}>${(found) => (found.runs.length
      ? html`<${Table} columns=${columns} rows=${found.runs} label=${t("runs.trash")} /><p class="row"><button type="button" class="grave" onClick=${empty}>${t("runs.empty")}</button></p>`
      : html`<${Empty} title=${t("runs.trash_none")} />`)}<//>`;
}
