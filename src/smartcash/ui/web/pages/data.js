// Data: the sets that are known, how they stand, their pictures with what is labelled in them, and how to get one.
import { html, signal, useEffect, useRef, useState } from "../html.js";
import { get, post, query as asQuery, uploading } from "../api.js";
import { bytes, percent, t, whole, word, wordOr } from "../words.js";
import { link, page, remember, route } from "../router.js";
import { state } from "../stream.js";
import { Choice, Empty, Failure, Head, Loaded, Modal, Picture, Sheet, Swatch, Table, attempt, className, colour, toast, useJob, useLoad } from "../parts.js";
import { Pages } from "./runs.js";

const PAGE = 24;
const AT_ONCE = 6; // findings; the pictures come after them

export default function Data() {
  const asked = route.value.query;
  const path = asked.get("path");
  const sets = useLoad(() => get("data/sets"), [path]);
  const open = (event) => {
    event.preventDefault();
    show(new FormData(event.target).get("path").trim());
  };
  const known = sets.data?.sets ?? [];
  const shown = path ?? known[0]?.path ?? "";
  return html`<${Head} title=${t("nav.data")} acts=${shown && html`<a class="button primary" href=${link("train") + asQuery({ data: shown })}>${t("data.train")}</a>`} />
    <form class="row low" onSubmit=${open}><label class="stacked">${t("data.path")}<input key=${shown} name="path" list="sets" required defaultValue=${shown} autocomplete="off" spellcheck="false" size="48" /></label>
      <datalist id="sets">${known.map((each) => html`<option key=${each.path} value=${each.path}></option>`)}</datalist>
      <button type="submit">${t("data.open")}</button></form>
    <${Loaded} from=${sets}>${({ room, room_of: folder }) => html`${!shown && html`<${Empty} title=${t("data.none")}><p>${t("data.none_text")}</p><//>`}
      <details key=${shown} class="group" id="new" open=${!shown || sending.value !== null || unsent.value !== null}><summary>${t("data.new")} <small>${t("data.new_text")}</small></summary>
        <div class="cols"><${Upload} room=${room} folder=${folder} /><${Draw} /></div></details>`}<//>
    ${shown && html`<${DataSet} key=${shown} path=${shown} />`}`;
}

const show = (path) => remember({ path, split: "", class: "", offset: "" });

const tell = ({ path }) => toast(t("data.made", { path }), link("data") + asQuery({ path }));
const lead = ({ path }) => toast(t("data.split_done", { path }), link("train") + asQuery({ data: path }));
/** A new data set is there: shown, or told of to whoever has gone on to another page. */
const made = (set) => (page.value === "data" ? show(set.path) : tell(set));

const sending = signal(null); // the zip that is on its way: {name, share, cancel}; it goes on while other pages are open
const unsent = signal(null); // why the last one was not kept

/** What is no zip, or too large, is said at once: the server would say so too, but might have to break off for it. */
async function send(file, room, folder) {
  const { name, size } = file;
  unsent.value = null;
  sending.value = { name, share: 0 }; // before anything is waited for: of two files that are dropped one is taken
  try {
    const begins = await file.slice(0, 4).arrayBuffer().then((head) => new Uint8Array(head).join(), () => ""); // a folder cannot be read
    if (begins !== "80,75,3,4") throw new Error(word("errors.upload_no_zip", { name }));
    if (room !== null && size > room) throw new Error(word("errors.upload_above_room", { name, size: bytes(size), room: bytes(room), folder }));
    const { done, cancel } = uploading(`data/uploads${asQuery({ name })}`, file, (share) => (sending.value = { name, share, cancel }));
    sending.value = { name, share: 0, cancel };
    const kept = await done;
    if (kept) made(kept);
  } catch (error) {
    unsent.value = error.code === "unreachable" ? { message: t("data.broke_off", { name }) } : error;
  } finally {
    sending.value = null;
  }
}

function Upload({ room, folder }) {
  const [over, setOver] = useState(false);
  useEffect(() => () => (unsent.value = null), []);
  const take = (files) => files.length && !sending.value && send(files[0], room, folder);
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer.files);
  };
  const choose = ({ target }) => {
    take(target.files);
    target.value = ""; // the same file may be chosen again
  };
  const { name, share, cancel } = sending.value ?? {};
  return html`<div class="stack"><h2>${t("data.upload")}</h2><p class="small quiet">${t("data.upload_text")}${room !== null && ` ${t("data.upload_room", { room: bytes(room) })}`}</p>
    ${cancel
      ? html`<div class="stack" role="status"><p>${name} <b>${percent(share)}</b></p><progress max="1" value=${share} aria-label=${t("progress.label")}></progress><p><button type="button" onClick=${cancel}>${t("cancel")}</button></p></div>`
      : html`<div class=${over ? "drop over" : "drop"} onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)} onDrop=${drop}><label>${t("data.drop")}<input class="unseen" type="file" accept=".zip" id="upload" onChange=${choose} /></label></div>`}
    ${unsent.value && html`<${Failure} error=${unsent.value} />`}</div>`;
}

const untold = new Set(); // ids of jobs that were followed here and whose end nobody was told of yet

/** A job about data, begun here, found going on, or ended while another page was shown. `mine`: whether a job is one. */
function useWork(mine) {
  const { job, setJob, busy, share } = useJob();
  const [error, setError] = useState(null);
  const begun = useRef("");
  const found = state.value?.jobs.find((each) => (each.state === "running" || untold.has(each.id)) && mine(each));
  useEffect(() => {
    if (found && !busy) setJob({ ...found, state: "running" }); // if it is over, its result is fetched as of any other
  }, [found?.id]);
  useEffect(() => {
    if (job) untold[busy ? "add" : "delete"](job.id);
  }, [job?.id, busy]);
  const clear = () => {
    setError(null);
    setJob(null);
  };
  const begin = (path, body) => {
    clear();
    post(path, body).then((own) => {
      begun.current = own.id;
      setJob(own);
    }, setError);
  };
  return { job, busy, share, error, begun, begin, clear };
}

/** A job of this kind that makes a data set. Its end leads to the set where it was begun; who looks at something else is
 *  only told. */
function useMaking(kind, then = () => {}) {
  const work = useWork((each) => each.kind === kind);
  const { job, begun } = work;
  useEffect(() => {
    if (job?.state !== "done") return;
    if (job.id !== begun.current) return tell(job.result);
    made(job.result);
    then(job.result);
  }, [job?.state]);
  return work;
}

/** How far a job is, and a way to end it; what went wrong with it. */
function Making({ of, first, then }) {
  const { job, busy, share, error } = of;
  return html`${busy && html`<div class="stack" role="status"><p>${share ? html`${then} <b>${percent(share)}</b>` : first}</p><progress max="1" value=${share || undefined} aria-label=${t("progress.label")}></progress><p><button type="button" onClick=${() => attempt(() => post(`jobs/${job.id}/stop`))}>${t("cancel")}</button></p></div>`}
    ${error && html`<${Failure} error=${error} />`}
    ${job?.state === "stopped" && html`<p role="status" class="quiet">${t("data.stopped")}</p>`}
    ${job?.state === "failed" && html`<${Failure} error=${{ problem: job.error, message: "" }} />`}`;
}

function Draw() {
  const drawing = useMaking("draw");
  const draw = (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    drawing.begin("data/samples", { name: given.get("name"), images: Number(given.get("images")), task: given.get("task") });
  };
  return html`<div class="stack"><h2>${t("data.draw")}</h2><p class="small quiet">${t("data.draw_text")}</p>
    <form class="row low" onSubmit=${draw}>
      <label class="stacked">${t("data.name")}<input name="name" required maxlength="48" defaultValue=${t("data.sample_name")} autocomplete="off" spellcheck="false" /></label>
      <label class="stacked">${t("data.pictures_count")}<input type="number" name="images" min="10" max="10000" required defaultValue="400" /></label>
      <label class="stacked">${t("column.task")}<select name="task">${["detect", "classify"].map((each) => html`<option key=${each} value=${each}>${t(`task.${each}`)}</option>`)}</select></label>
      <button type="submit" class="primary" disabled=${drawing.busy}>${t("data.draw_it")}</button></form>
    <${Making} of=${drawing} first=${t("data.drawing_begins")} then=${t("data.drawing")} /></div>`;
}

const ASKS_FOR_SPLIT = ["data_split_valid", "data_split_no_test", "data_image_leak", "data_image_leak_alike"];
const NAME_LONGEST = 48; // of a folder, as the server cuts it

/** What a split copy of the set is called at first: like the set, its ending never cut off; a `data.yaml` is called like its
 *  folder. */
function splitName(path) {
  const parts = path.split(/[\\/]/).filter(Boolean).map((each) => each.replace(/\.(zip|ya?ml|json)$/i, ""));
  const ending = t("data.split_ending");
  const stem = parts.findLast((each, index) => each !== "data" || !index) ?? "";
  return stem.slice(0, NAME_LONGEST - ending.length) + ending;
}

/** What splits the set at `path`: the look at it, then the writing. Both go on while the page reads the set. */
function useSplit(path) {
  const plan = useWork((each) => each.kind === "plan" && JSON.parse(each.subject).path === path);
  const writing = useMaking("split", lead);
  const look = (asked) => {
    writing.clear();
    plan.begin("data/splits/plans", { path, ...asked });
  };
  const write = () => {
    writing.begin("data/splits", { plan: plan.job.id });
    plan.clear();
  };
  return { plan, writing, look, write };
}

/** A copy of the set with splits of its own: what it would be is shown before it is written. Open where one is missing. */
function Split({ path, of, by }) {
  const look = (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    by.look({ name: given.get("name"), ...Object.fromEntries(["valid", "test", "seed"].map((each) => [each, Number(given.get(each))])) });
  };
  const percents = (name, least) => html`<${Entry} name=${name} help=${t(`data.split_${name}_text`)} label=${`${t(`split.${name}`)} (%)`}><input id=${`split-${name}`} aria-describedby=${`split-${name}-help`} type="number" name=${name} min=${least} max="45" step="1" required defaultValue="15" /><//>`;
  const open = of.split_seed !== null || ASKS_FOR_SPLIT.some((each) => each in of.counts);
  return html`<details class="group" id="split" open=${open}><summary>${t("data.split")} <small>${t("data.split_note")}</small></summary>
    <div class="fields stack"><p class="small quiet">${t(of.split_seed !== null ? "data.split_missing" : "data.split_text")}</p>
      <form onSubmit=${look}>
        <${Entry} name="name" label=${t("data.name")} help=${t("data.split_name_text")}><input id="split-name" aria-describedby="split-name-help" name="name" required maxlength=${NAME_LONGEST} defaultValue=${splitName(path)} autocomplete="off" spellcheck="false" /><//>
        ${percents("valid", 1)}${percents("test", 0)}
        <${Entry} name="seed" label="Seed" help=${t("data.split_seed_text")}><input id="split-seed" aria-describedby="split-seed-help" type="number" name="seed" min="0" max="2147483647" step="1" required defaultValue="0" /><//>
        <p><button type="submit" class="primary" disabled=${by.plan.busy || by.writing.busy}>${t("data.split_look")}</button></p></form></div></details>`;
}

/** How far the split is and what became of it: beside the panel, which may be closed. */
const Splitting = ({ by: { plan, writing, write } }) => html`<div id="splitting">
  <${Making} of=${{ ...plan, share: 0 }} first=${t("data.split_looking")} />
  <${Making} of=${writing} first=${t("data.split_looking")} then=${t("data.split_writing")} />
  ${plan.job?.state === "done" && html`<${Plan} of=${plan.job.result} onWrite=${write} onClose=${plan.clear} />`}</div>`;

const Entry = ({ name, label, help, children }) => html`<div class="field"><label for=${`split-${name}`}>${label}</label><div class="entry">${children}</div><div class="help" id=${`split-${name}-help`}>${help}</div></div>`;

/** What would be written, and where. */
function Plan({ of, onWrite, onClose }) {
  const splits = Object.entries(of.splits);
  const columns = [
    { key: "name", title: word(Object.values(of.values).some(Boolean) ? "tables.denomination" : "tables.class"), show: (row) => (row.whole ? html`<b>${row.name}</b>` : html`<${Swatch} value=${of.values[row.name]} place=${row.place} />${className(row.name, of.values[row.name])}`) },
    ...splits.map(([name]) => ({ key: name, title: wordOr(`studio.split.${name}`, name), num: true, show: (row) => (row.whole ? html`<b>${whole(row[name])}</b>` : row[name] ? whole(row[name]) : html`<span class="bad">0</span>`) })),
  ];
  const rows = [
    { name: t("data.pictures_count"), whole: true, ...Object.fromEntries(splits.map(([name, split]) => [name, split.images])) },
    ...of.classes.map((each, place) => ({ name: each, place, ...Object.fromEntries(splits.map(([name, split]) => [name, split.labels[each]])) })),
  ];
  return html`<${Modal} title=${t("data.split_plan")} onClose=${onClose}>
    <p>${t("data.split_where", { images: whole(of.images), size: bytes(of.bytes) })}<br /><b class="mono">${of.folder}</b></p>
    <${Table} columns=${columns} rows=${rows} id=${(row) => row.name} label=${t("data.split_plan")} />
    <p class="small quiet">${t("data.split_labels")}</p>
    ${of.left_out > 0 && html`<p class="notice warned small">${t("data.split_left_out", { count: of.left_out })}</p>`}
    ${of.findings.map((each, index) => html`<p key=${index} class="notice warned small">${each.message}</p>`)}
    <div class="acts"><button type="button" autofocus onClick=${onClose}>${t("cancel")}</button><button type="button" class="primary" onClick=${onWrite}>${t("data.split_write")}</button></div>
  <//>`;
}

function DataSet({ path }) {
  const split = useSplit(path);
  const { job, setJob, busy } = useJob();
  const [refused, setRefused] = useState(null);
  useEffect(() => {
    post("data/check", { path }).then(setJob, setRefused);
  }, [path]);
  const error = refused ?? (job?.state === "failed" && { problem: job.error, message: "" });
  const of = job?.state === "done" && job.result;
  return html`${error && html`<${Failure} error=${error} />`}
    ${!error && (busy || !job) && html`<p role="status" class="quiet">${t("data.checking")}</p>`}
    ${of && html`<section><${Health} of=${of} /></section><${Split} path=${path} of=${of} by=${split} />`}
    <${Splitting} by=${split} />
    ${of && html`<${Pictures} path=${path} of=${of} />`}`;
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

const Findings = ({ of }) => html`<${Sheet} kind="told" label=${t("data.findings")}><table><tbody>${of.map((each, index) => html`<tr key=${index}><th scope="row" class=${each.severity === "error" ? "bad nowrap" : each.severity === "warning" ? "warn nowrap" : "quiet nowrap"}>${t(`severity.${each.severity}`)}</th><td>${each.message}${each.file && each.file !== "." && html`<br /><span class="quiet mono">${each.file}${each.line ? `:${each.line}` : ""}</span>`}</td></tr>`)}</tbody></table><//>`;

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
