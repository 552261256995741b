// Home: the run that is on, the last runs, the machine, and at the very first what to do first.
import { html } from "../html.js";
import { bytes, decimal, figure, moment, percent, t } from "../words.js";
import { get } from "../api.js";
import { link } from "../router.js";
import { active, state } from "../stream.js";
import { Head, Loaded, Remaining, State, Table, metricName, runLink, runName, useLoad } from "../parts.js";

export default function Home() {
  const ended = state.value?.ended.map((run) => run.run + run.state).join();
  const runs = useLoad(() => get("runs?sort=-id&limit=6"), [ended, active.value?.run, active.value?.state]);
  const settings = useLoad(() => get("settings"));
  const models = useLoad(() => get("models"), [ended]);
  return html`<${Head} title=${t("nav.home")} acts=${runs.data?.total > 0 && html`<a class="button primary" href=${link("train")}>${t("home.train")}</a>`} />
    ${active.value && html`<${Now} run=${active.value} />`}
    <${Loaded} from=${runs}>${(found) => (found.total ? html`<${Last} runs=${found.runs} total=${found.total} />` : html`<${First} />`)}<//>
    <div class="cols">
      <section><div class="title"><h2>${t("home.models")}</h2><span class="spring" /><a href=${link("models")}>${t("all")}</a></div>
        <${Loaded} from=${models}>${(found) => html`<${Served} of=${found} />`}<//></section>
      <section><div class="title"><h2>${t("home.machine")}</h2><span class="spring" /><a href=${link("settings")}>${t("home.more")}</a></div>
        <${Loaded} from=${settings}>${(found) => html`<dl class="pairs">
          <dt>${t("settings.cores")}</dt><dd>${found.cores}</dd>
          <dt>${t("settings.memory")}</dt><dd>${bytes(found.memory_mb * 1e6)}</dd>
          <dt>${t("settings.disk")}</dt><dd>${t("settings.disk_free", { free: bytes(found.disk_free_mb * 1e6) })}</dd>
          <dt>${t("settings.home")}</dt><dd class="mono">${found.home}</dd>
          <dt>${t("settings.version")}</dt><dd>${found.version}</dd>
        </dl>`}<//></section>
    </div>`;
}

function Now({ run }) {
  return html`<section class="plain"><div class="title"><h2><a href=${runLink(run)}>${runName(run)}</a></h2><${State} of=${run.state} /></div>
    <progress max="1" value=${run.share ?? 0} aria-label=${t("progress.label")}></progress>
    <div class="facts"><span><b>${percent(run.share ?? 0)}</b></span>
      ${run.epochs && html`<span>${t("progress.epoch")} <b>${run.epoch}</b> ${t("of")} ${run.epochs}</span>`}
      <span><${Remaining} of=${run} /></span>
      ${run.best_value !== null && run.best_value !== undefined && html`<span>${t("progress.best")} <b>${figure(run.best_value)}</b></span>`}</div>
  </section>`;
}

function Last({ runs, total }) {
  const columns = [
    { key: "name", title: t("column.run"), show: (run) => html`<a href=${runLink(run)}>${runName(run)}</a>` },
    { key: "state", title: t("column.state"), show: (run) => html`<${State} of=${run.state} />` },
    { key: "dataset", wide: true, title: t("column.dataset") },
    { key: "epochs", title: t("column.epochs"), num: true, show: (run) => `${run.epochs_done}/${run.epochs ?? "–"}` },
    { key: "best", title: t("column.best"), num: true, show: (run) => html`${run.best_value !== null && html`<span class="quiet wide">${metricName(run.monitor)}</span> `}${figure(run.best_value)}` },
    { key: "started", wide: true, title: t("column.started"), show: (run) => moment(run.started) },
  ];
  return html`<section><div class="title"><h2>${t("home.last")}</h2><span class="spring" /><a href=${link("runs")}>${t("home.all_runs", { count: total })}</a></div>
    <${Table} columns=${columns} rows=${runs} label=${t("home.last")} /></section>`;
}

function Served({ of }) {
  const names = Object.entries(of.aliases);
  const newest = of.versions[0];
  if (!newest) return html`<p class="quiet">${t("models.none")}</p>`;
  const shown = names.length ? names.map(([alias, number]) => [alias, of.versions.find((each) => each.number === number)]) : [[t("models.newest"), newest]];
  return html`<dl class="pairs">${shown.map(([alias, version]) => html`<dt key=${alias}>${alias}</dt>
    <dd>${version ? html`<a href=${link("models", version.name)}>${version.name}</a> <span class="quiet">${version.backbone}${score(version)}</span>` : "–"}</dd>`)}</dl>`;
}

function score(version) {
  const [key, value] = Object.entries(version.metrics.valid ?? {}).find(([name]) => name === "mAP50_95" || name === "accuracy") ?? [];
  return key ? ` · ${metricName(key)} ${decimal(value)}` : "";
}

/** What a new user does first. */
function First() {
  const sets = useLoad(() => get("data/sets"));
  const steps = ["data", "train", "watch", "use"];
  const known = sets.data?.sets.length > 0;
  const ways = [html`<a key="train" class=${known ? "button primary" : "button"} href=${link("train")}>${t("home.train")}</a>`, html`<a key="data" class=${known ? "button" : "button primary"} href=${link("data")}>${t(known ? "first.look" : "first.get")}</a>`];
  return html`<section class="plain"><div class="empty"><h2>${t("first.title")}</h2><p>${t("first.text")}</p>
    <ol class="stack">${steps.map((each) => html`<li key=${each}><b>${t(`first.${each}`)}</b><br /><span class="quiet">${t(`first.${each}_text`)}</span></li>`)}</ol>
    <p class="row">${(sets.data || sets.error) && (known ? ways : ways.reverse())}</p>
  </div></section>`;
}
