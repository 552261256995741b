// Models: versions and which of them is served under which name; one version with its making, its exports, and a try.
import { html, useEffect, useRef, useState } from "../html.js";
import { at, get, patch, post, query as asQuery, remove, upload } from "../api.js";
import { bytes, decimal, duration, figure, moment, percent, plain, rupiah, t, whole, word, wordOr } from "../words.js";
import { go, link } from "../router.js";
import { state } from "../stream.js";
import { ask, Empty, Failure, Head, Lacking, Loaded, Picture, Sheet, Swatch, Table, Tags, attempt, className, confirmed, metricName, runName, useLoad } from "../parts.js";
import { Exports } from "./run.js";

const ASK_AGAIN_MS = 2000;
const SHOWN_DOUBTS = 5; // of one photo, as the command line shows
const FIRST = ["mAP50_95", "accuracy"];
const main = (metrics) => FIRST.map((key) => [key, metrics?.[key]]).find(([, value]) => value !== undefined) ?? ["", null];

function Score({ of }) {
  const [key, value] = main(of);
  return html`${decimal(value)} ${key && html`<br /><small class="quiet">${metricName(key)}</small>`}`;
}

/** The run that a version comes from, by its name. */
const Origin = ({ of }) => (of.run ? html`<a href=${link("runs", of.run)}>${runName({ id: of.run, name: of.config?.name })}</a>` : "–");

export default function Models({ path }) {
  return path[1] ? html`<${Version} name=${path[1]} />` : html`<${Versions} />`;
}

/** Give a version a name that programs ask for, after a look at what changes. */
async function promote(version, aliases) {
  const known = Object.keys(aliases);
  const input = { label: t("models.alias"), value: known[0] ?? t("models.alias_first"), options: known };
  const alias = await ask({ title: t("models.promote_title", { version: version.name }), text: t("models.promote_text"), input, yes: t("next") });
  if (!alias) return undefined;
  const wanted = { operation: "promote", version: version.number };
  return attempt(() => confirmed(post, `aliases/${encodeURIComponent(alias)}`, wanted, { title: t("models.promote_title", { version: version.name }), yes: t("models.promote") }), t("models.promoted", { alias, version: version.name }));
}

async function rollBack(alias) {
  const words = { title: t("models.back_title", { alias }), text: word("models.ask.roll-back"), acknowledge: t("models.back_understood"), yes: t("models.back"), grave: true };
  return attempt(() => confirmed(post, `aliases/${encodeURIComponent(alias)}`, { operation: "roll-back" }, words), (version) => t("models.rolled_back", { alias, version: version.name }));
}

function Versions() {
  const from = useLoad(() => get("models"), [state.value?.operations]);
  const columns = [
    { key: "name", title: t("column.version"), show: (each) => html`<a href=${link("models", each.name)}>${each.name}</a> <${Tags} of=${each.aliases} />` },
    { key: "backbone", wide: true, title: t("column.backbone") },
    { key: "valid", title: t("split.valid"), num: true, show: (each) => html`<${Score} of=${each.metrics.valid} />` },
    { key: "test", wide: true, title: t("split.test"), num: true, show: (each) => html`<${Score} of=${each.metrics.test} />` },
    { key: "sum", wide: true, title: metricName("exact_sum"), num: true, show: (each) => percent(each.metrics.test?.exact_sum ?? each.metrics.valid?.exact_sum, 1) },
    { key: "run", title: t("column.run"), show: (each) => html`<${Origin} of=${each} />` },
    { key: "created", wide: true, title: t("column.created"), show: (each) => html`<span class="nowrap">${moment(each.created)}</span>` },
    { key: "act", num: true, title: html`<span class="unseen">${t("models.promote")}</span>`, show: (each) => html`<button type="button" onClick=${async () => (await promote(each, from.data.aliases)) && from.reload()}>${t("models.promote")}<span class="unseen"> ${each.name}</span></button>` },
  ];
  return html`<${Head} title=${t("nav.models")} />
    <${Loaded} from=${from}>${(found) => (found.versions.length
      ? html`<${Served} aliases=${found.aliases} versions=${found.versions} reload=${from.reload} /><section><div class="title"><h2>${t("models.versions")}</h2></div><${Table} columns=${columns} rows=${found.versions} id=${(each) => each.name} label=${t("models.versions")} stacked=${true} /></section>`
      : html`<${Empty} title=${t("models.none")}><p>${t("models.none_text")}</p><p><a class="button primary" href=${link("train")}>${t("home.train")}</a></p><//>`)}<//>`;
}

function Served({ aliases, versions, reload }) {
  const names = Object.entries(aliases);
  return html`<section><div class="title"><h2>${t("models.served")}</h2></div>
    ${names.length ? names.map(([alias, number]) => html`<${Alias} key=${alias + number} alias=${alias} version=${versions.find((each) => each.number === number)} reload=${reload} />`) : html`<p class="quiet">${t("models.served_none")}</p>`}</section>`;
}

function Alias({ alias, version, reload }) {
  const history = useLoad(() => get(`aliases/${encodeURIComponent(alias)}/history`));
  const back = history.data?.back_to;
  return html`<div class="row"><b>${alias}</b> → ${version ? html`<a href=${link("models", version.name)}>${version.name}</a> <span class="quiet">${version.backbone} · ${metricName(main(version.metrics.valid)[0])} ${decimal(main(version.metrics.valid)[1])}</span>` : "–"}
      ${back && html`<button type="button" onClick=${async () => (await rollBack(alias)) && reload()}>${t("models.back_to", { version: `v${back}` })}</button>`}</div>
    <details><summary class="small">${t("models.history")}</summary><${Loaded} from=${history}>${(found) => html`<${Sheet} label=${t("chart.table")}><table><tbody>${[...found.events].reverse().map((each) => html`<tr key=${each.seq}><th scope="row" class="nowrap quiet">${moment(each.time)}</th><td>v${each.version}</td><td>${wordOr(`operations.${each.operation}`, each.operation)}</td><td class="num quiet">#${each.seq}</td></tr>`)}</tbody></table><//>`}<//></details>`;
}

function Version({ name }) {
  const from = useLoad(() => get(`models/${encodeURIComponent(name)}`), [name, state.value?.operations]);
  const aliases = useLoad(() => get("models"), [state.value?.operations]);
  if (from.error?.code === "version_not_found") return html`<${Head} title=${name} /><${Lacking} says=${t("models.absent", { version: name })} list="models" all=${t("models.all")} />`;
  if (from.error && !from.data) return html`<${Head} title=${name} /><${Failure} error=${from.error} retry=${from.reload} />`;
  return html`<${Loaded} from=${from}>${(found) => {
    const act = async (work) => (await work()) && from.reload();
    const bin = async () => {
      const words = { title: t("models.delete_title", { version: found.name }), text: word("models.ask.delete"), acknowledge: t("models.delete_understood"), yes: t("models.delete"), grave: true };
      if (await attempt(() => confirmed(remove, `models/${found.name}`, {}, words), t("models.deleted", { version: found.name }))) go(link("models"));
    };
    const lock = () => attempt(() => patch(`models/${found.name}`, { locked: !found.locked }), t("saved"));
    const acts = html`<button type="button" class="primary" disabled=${!aliases.data} onClick=${() => act(() => promote(found, aliases.data.aliases))}>${t("models.promote")}</button>
      <button type="button" onClick=${() => act(lock)}>${found.locked ? t("models.unlock") : t("models.lock")}</button>
      <button type="button" onClick=${bin} disabled=${found.locked || found.aliases.length > 0}>${t("models.delete")}</button>`;
    const scores = ["valid", "test"].flatMap((split) => Object.entries(found.metrics[split] ?? {}).filter(([key]) => [...FIRST, "exact_sum", "f1"].includes(key)).map(([key, value]) => [split, key, value]));
    return html`<${Head} title=${found.name} acts=${acts}><span class="quiet"><${Tags} of=${found.aliases} /> ${found.backbone} · ${t(`task.${found.task}`)}</span><//>
      <dl class="kpis">${scores.slice(0, 6).map(([split, key, value]) => html`<div key=${split + key}><dt>${metricName(key)} (${t(`split.${split}`)})</dt><dd class="big">${key === "exact_sum" ? percent(value, 1) : decimal(value)}</dd></div>`)}</dl>
      <section><div class="title"><h2>${t("try.title")}</h2><small class="quiet">${t("try.note")}</small></div><${Try} model=${found.name} threshold=${found.threshold} /></section>
      <section><div class="title"><h2>${t("report.title")}</h2><small class="quiet">${t("report.note")}</small></div><${Report} of=${found} /></section>
      <section><div class="title"><h2>${t("run.tab.exports")}</h2></div><${Exports} of=${`models/${found.name}`} /></section>
      <div class="cols"><section><div class="title"><h2>${t("models.made")}</h2></div><dl class="pairs">
        <dt>${t("column.run")}</dt><dd><${Origin} of=${found} /></dd>
        <dt>${t("column.dataset")}</dt><dd>${found.data.path ?? "–"}</dd>
        <dt>${t("progress.epoch")}</dt><dd>${found.epoch}</dd>
        <dt>${t("column.elapsed")}</dt><dd>${duration(found.elapsed_s)}</dd>
        <dt>${t("models.threshold")}</dt><dd>${figure(found.threshold)}</dd>
        <dt>${t("column.size")}</dt><dd>${bytes(found.size)}</dd>
        <dt>${t("column.created")}</dt><dd>${moment(found.created)}</dd>
        <dt>SHA-256</dt><dd class="mono">${found.sha256}</dd>
        <dt>${t("models.code")}</dt><dd class="mono">${plain(found.code)}</dd></dl></section>
      <section><div class="title"><h2>${t("models.lineage")}</h2></div>${found.lineage.length ? html`<ol>${found.lineage.map((each) => html`<li key=${each.run}>${each.version ? `${each.version} · ` : ""}<a href=${link("runs", each.run)}>${each.run}</a></li>`)}</ol>` : html`<p class="quiet">${t("models.no_lineage")}</p>`}
        <h3>${t("models.classes")}</h3><p class="row">${found.classes.map((each, place) => html`<span key=${each} class="nowrap"><${Swatch} value=${found.values?.[each]} place=${place} />${className(each, found.values?.[each])} </span>`)}</p></section></div>`;
  }}<//>`;
}

/** How good the version is and where it gives way, as a page of its own; made on request, which takes minutes. */
function Report({ of }) {
  const path = `models/${of.name}/report`;
  const from = useLoad(() => get(path), [of.name]);
  const working = from.data?.state === "working";
  useEffect(() => {
    if (!working) return undefined;
    const timer = setTimeout(from.reload, ASK_AGAIN_MS);
    return () => clearTimeout(timer);
  }, [working, from.data]);
  const make = () => attempt(() => post(path, {})).then(from.reload);
  return html`<${Loaded} from=${from}>${(found) => html`<div class="row" role="status" id="report">
    ${found.state === "ready" && html`<a class="button" href=${at(`${path}/page${asQuery({ lang: document.documentElement.lang })}`)} target="_blank" rel="noopener">${t("report.open")}</a>`}
    ${found.state === "working" && html`<span class="quiet">${t("report.working")}</span>`}
    ${(found.state === "none" || found.state === "failed") && html`<button type="button" onClick=${make}>${t("report.make")}</button>`}</div>
    ${found.state === "failed" && html`<p class="notice warned">${found.error}</p>`}`}<//>`;
}

/** What makes a count unsure, and whether it was ever measured what being sure means, as `smartcash count` says it. */
function Sureness({ of }) {
  const doubts = [...of.doubts].sort((one, other) => other.score - one.score);
  const more = doubts.length - SHOWN_DOUBTS;
  return html`${!of.sure && html`<div class="notice warned" id="doubts"><p>${t("try.unsure")}</p>
      <ul>${doubts.slice(0, SHOWN_DOUBTS).map((each, place) => html`<li key=${place}>${className(each.class, each.value)} <b>${percent(each.score)}</b></li>`)}</ul>
      ${more > 0 && html`<p class="quiet">${t("try.more_doubts", { count: more })}</p>`}</div>`}
    ${!of.measured && html`<p class="notice warned" id="unmeasured">${t("try.unmeasured", { abstain: percent(of.abstain) })}</p>`}`;
}

/** Drop a picture, see the notes and what they are worth together. */
function Try({ model, threshold }) {
  const [shown, setShown] = useState(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const [over, setOver] = useState(false);
  const input = useRef();
  useEffect(() => {
    if (location.hash !== "#try") return; // else a run has led here
    input.current.focus({ preventScroll: true });
    input.current.closest("section").scrollIntoView();
  }, []);
  const [least, setLeast] = useState(null); // until it is moved: what was chosen for the model, class by class
  const look = async (file) => {
    if (!file) return;
    setBusy(true);
    setError(null);
    try {
      const result = await upload(`predict${asQuery({ model, name: file.name, threshold: least })}`, file);
      setShown({ file, url: URL.createObjectURL(file), result });
    } catch (refused) {
      setShown(null); // an answer about another picture
      setError(refused);
    }
    if (shown) URL.revokeObjectURL(shown.url);
    setBusy(false);
  };
  const choose = ({ target }) => {
    look(target.files[0]);
    target.value = ""; // the same file may be chosen again
  };
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    look(event.dataTransfer.files[0]);
  };
  const result = shown?.result;
  return html`<div class="cols"><div class="stack">
    <div class=${over ? "drop over" : "drop"} onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)} onDrop=${drop}>
      <label>${t("try.drop")}<input class="unseen" type="file" accept="image/*" id="try" ref=${input} onChange=${choose} /></label></div>
    ${threshold !== null && html`<label class="row small">${t("preview.least")} <input type="range" min="0.05" max="0.95" step="0.01" value=${least ?? threshold ?? 0.5} onInput=${(event) => setLeast(Number(event.target.value))} onChange=${() => shown && look(shown.file)} /> <b>${percent(least ?? threshold ?? 0.5)}</b></label>`}
    <div role="status">${busy ? t("try.busy") : ""}</div>${error && html`<${Failure} error=${error} />`}
    ${result && html`<dl class="kpis" id="sum"><div><dt>${t("try.sum")}</dt><dd class="big">${rupiah(result.total_rupiah)}</dd><dd class="note">${t("try.took", { ms: whole(result.ms) })}</dd></div></dl>
      <${Table} label=${t("try.notes")} id=${(row) => row.class} rows=${result.counts.map((each, place) => ({ ...each, place }))} columns=${[
        { key: "class", title: word("tables.denomination"), show: (row) => html`<${Swatch} value=${row.value} place=${row.place} />${className(row.class, row.value)}` },
        { key: "notes", title: t("try.notes"), num: true },
        { key: "worth", title: t("try.worth"), num: true, show: (row) => rupiah(row.value === null ? null : row.value * row.notes) },
      ]} />
      <${Sureness} of=${result} />`}
    </div>
    <div>${result && html`<${Picture} whole=${true} url=${shown.url} width=${result.width} height=${result.height} found=${result.found} values=${result.values} classes=${Object.keys(result.values)} caption=${shown.file.name} />`}</div></div>`;
}
