// One run: live while it is at work, and afterwards all that is known of it.
import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { at, get, post, query as asQuery } from "../api.js";
import { ago, bytes, decimal, duration, figure, has, moment, number, percent, plain, signed, t, whole, word, wordOr } from "../words.js";
import { Chart, DASHES } from "../chart.js";
import { epochX, fetchCourse, lengthen, stepX } from "../course.js";
import { go, link, remember, route } from "../router.js";
import { follow, state } from "../stream.js";
import { Changes, Choice, Failure, Head, Lacking, Loaded, Modal, Picture, Remaining, Sheet, State, Swatch, Table, Tags, Wait, attempt, className, confirmed, fieldName, fieldValue, metricName, runLink, runName, toast, useJob, useLoad } from "../parts.js";
import { Labels } from "./runs.js";

const QUALITY = { detect: ["mAP50_95", "mAP50", "exact_sum"], classify: ["accuracy", "f1", "accuracy_top5"] };
const COLOURS = ["var(--accent)", "var(--rp100000)", "var(--rp50000)", "var(--rp5000)"];
const TABS = ["watch", "result", "config", "checkpoints", "exports", "story", "files"];
const CHART_MS = 200; // figures follow at once, charts so often
const TRAINS = ["running", "paused", "stopping"];
const AT_WORK = ["checking", "queued", ...TRAINS];

export default function RunPage({ path }) {
  const id = path[1];
  const now = state.value?.active.find((each) => each.run === id);
  const ended = state.value?.ended.find((each) => each.run === id);
  const from = useLoad(() => get(`runs/${id}`), [id, now?.state, ended?.state, ended?.ended]);
  if (from.error?.code === "run_not_found") return html`<${Head} title=${id} /><${Lacking} says=${t("run.absent", { run: id })} list="runs" all=${t("runs.all")} />`;
  if (from.error && !from.data) return html`<${Head} title=${id} /><${Failure} error=${from.error} retry=${from.reload} />`;
  return html`<${Loaded} from=${from}>${(run) => html`<${Run} key=${id} id=${id} run=${run} now=${now} reload=${from.reload} />`}<//>`;
}

function Run({ id, run, now, reload }) {
  const { info } = run;
  const stands = now?.state ?? info.state;
  const asked = route.value.query.get("tab");
  const tab = TABS.includes(asked) ? asked : "watch";
  const [edited, setEdited] = useState(false);
  const progress = now ?? run.progress;
  const begun = info.epochs_done > 0 || (progress?.step_in_run ?? 0) > 0;
  return html`<${Head} title=${runName(info)} acts=${html`<${Acts} id=${id} run=${run} stands=${stands} reload=${reload} />`}>
      <span class="quiet"><${State} of=${stands} /> · ${[info.backbone, info.dataset].filter(Boolean).join(" · ")}${run.version && html` · <a href=${link("models", `v${run.version}`)}>v${run.version}</a>`}</span>
    <//>
    <${Progress} of=${progress} info=${info} stands=${stands} />
    ${stands === "ready" && html`<${Ready} run=${run} />`}
    ${stands === "queued" && html`<${Queued} id=${id} />`}
    ${run.problems.length > 0 && html`<${Problems} id=${id} of=${run.problems} />`}
    ${!run.problems.length && ["failed", "crashed", "broken"].includes(info.state) && html`<div class="failure" role="alert"><p><b>${t(`run.why_${info.state}`)}</b></p>${(info.reason_text || info.detail) && html`<pre class="log" tabindex="0">${info.reason_text || info.detail}</pre>`}<p>${run.saved && run.actions.includes("resume") ? t("run.may_resume") : t("run.see_log")}</p></div>`}
    ${run.version_kept && html`<${Kept} run=${run} />`}
    <div class="tabs" role="tablist" aria-label=${t("run.parts")}>${TABS.map((each) => html`<button key=${each} type="button" role="tab" id=${`tab-${each}`} aria-selected=${String(each === tab)} tabindex=${each === tab ? 0 : -1} onKeyDown=${(event) => walk(event, tab)} onClick=${() => remember({ tab: each === "watch" ? "" : each })}>${t(`run.tab.${each}`)}</button>`)}</div>
    <div role="tabpanel" aria-labelledby=${`tab-${tab}`}>
      ${tab === "watch" && (begun || TRAINS.includes(stands) ? html`<${Watch} id=${id} run=${run} stands=${stands} />` : stands !== "queued" && html`<p class="quiet">${t("run.not_begun")}</p>`)}
      ${tab === "result" && html`<${Result} run=${run} />`}
      ${tab === "config" && html`<${Config} run=${run} onEdit=${() => setEdited(true)} />`}
      ${tab === "checkpoints" && html`<${Checkpoints} id=${id} />`}
      ${tab === "exports" && html`<${Exports} of=${`runs/${id}`} begun=${begun} />`}
      ${tab === "story" && html`<${Story} id=${id} stands=${stands} run=${run} />`}
      ${tab === "files" && html`<${Files} id=${id} />`}
    </div>
    ${edited && html`<${Labels} run=${info} onClose=${(changed) => { setEdited(false); if (changed) reload(); }} />`}`;
}

/** Why a training that is over made no new version. */
function Kept({ run }) {
  const { info, version, version_kept: { run: best, epoch } } = run;
  return html`<div class="notice" id="kept"><p>${t("run.kept", { epoch, metric: metricName(info.monitor), value: figure(info.best_value), version: `v${version}` })}
    ${best !== info.id && html` ${t("run.kept_of")} <a href=${link("runs", best)}>${runName({ id: best })}</a>.`}</p></div>`;
}

/** Why nothing happens yet, and who is at work meanwhile. */
function Queued({ id }) {
  const others = (state.value?.active ?? []).filter((each) => each.run !== id && TRAINS.includes(each.state));
  return html`<div class="notice" id="queued"><p>${t("run.queued")}</p>
    ${others.map((each) => html`<p key=${each.run}>${t("run.working")} <a href=${runLink(each)}>${runName(each)}</a>, ${t(`chip.${each.state}`)} <${Remaining} of=${each} /></p>`)}</div>`;
}

/** Arrow keys walk along the tabs. */
function walk(event, tab) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = TABS[(TABS.indexOf(tab) + step + TABS.length) % TABS.length];
  remember({ tab: next === "watch" ? "" : next });
  requestAnimationFrame(() => document.getElementById(`tab-${next}`).focus());
}

// what can be done with it

const SHOWN = ["prepare", "start", "continue", "pause", "resume", "extend"];
const LEAST = { patience: 0, epochs: 1, threads: 1 }; // of what changes on the way
const ENDINGS = ["keep_best", "stop_after_epoch", "stop"];

function Acts({ id, run, stands, reload }) {
  const [open, setOpen] = useState("");
  const can = run.actions;
  const named = (action) => (action === "resume" && !run.saved ? "restart" : action); // it goes on from nothing
  const act = async (action, more = {}) => {
    setOpen("");
    const words = { title: t("changes.title"), yes: t(`act.${named(action)}`) };
    const answer = await attempt(() => confirmed(post, `runs/${id}/actions`, { action, ...more }, words), t(`act.${named(action)}_done`));
    if (answer && answer.run !== id) go(link("runs", answer.run));
    else if (answer) reload();
  };
  const endings = ENDINGS.filter((each) => can.includes(each));
  const numbers = Object.keys(LEAST).filter((each) => can.includes(each));
  return html`
    ${run.version && html`<a class="button primary" href=${`${link("models", `v${run.version}`)}#try`}>${t("act.try")}</a>`}
    ${numbers.length > 0 && html`<button type="button" onClick=${() => setOpen("change")}>${t("act.change")}</button>`}
    ${SHOWN.filter((each) => can.includes(each)).map((each) => html`<button key=${each} type="button" class=${["start", "continue", "resume"].includes(each) ? "primary" : ""} onClick=${() => (each === "extend" ? setOpen("extend") : act(each))}>${t(`act.${named(each)}`)}</button>`)}
    ${endings.length > 0 && html`<button type="button" class=${stands === "running" ? "primary" : ""} onClick=${() => setOpen("stop")}>${t("act.end")}</button>`}
    ${!AT_WORK.includes(stands) && run.asked && html`<a class="button" href=${`${link("train")}?from=${encodeURIComponent(id)}`}>${t("act.again")}</a>`}
    ${open === "stop" && html`<${Modal} title=${t("act.end_title")} onClose=${() => setOpen("")}>
      <div class="stack">${endings.map((each) => html`<div key=${each}><button type="button" class=${each === "keep_best" ? "primary" : ""} onClick=${() => act(each)}>${t(`act.${each}`)}</button><p class="small quiet">${t(`act.${each}_text`)}</p></div>`)}</div>
      <div class="acts"><button type="button" autofocus onClick=${() => setOpen("")}>${t("cancel")}</button></div><//>`}
    ${open === "change" && html`<${Numbers} names=${numbers} run=${run} onAct=${act} onClose=${() => setOpen("")} />`}
    ${open === "extend" && html`<${Extend} run=${run} onAct=${act} onClose=${() => setOpen("")} />`}`;
}

function Numbers({ names, run, onAct, onClose }) {
  const present = { epochs: run.config.training.epochs, patience: run.config.training.early_stopping.patience, threads: run.config.runtime.threads };
  return html`<${Modal} title=${t("act.change")} onClose=${onClose}>
    <div class="stack">${names.map((name) => html`<form key=${name} class="row low" onSubmit=${(event) => { event.preventDefault(); onAct(name, { value: Number(new FormData(event.target).get("value")) }); }}>
      <label class="stacked">${t(`act.${name}_label`)}<input type="number" name="value" min=${LEAST[name]} step="1" required defaultValue=${present[name]} /></label>
      <button type="submit">${t(`act.${name}`)}</button></form>`)}</div>
    <div class="acts"><button type="button" autofocus onClick=${onClose}>${t("cancel")}</button></div><//>`;
}

function Extend({ run, onAct, onClose }) {
  const submit = (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    onAct("extend", { value: Number(given.get("epochs")), policy: given.get("policy") });
  };
  const present = run.config.training.epochs;
  return html`<${Modal} title=${t("act.extend")} onClose=${onClose}><form class="stack" onSubmit=${submit}>
    <p>${t("act.extend_text")}</p>
    <label class="stacked">${t("act.extend_epochs")}<input type="number" name="epochs" min=${present + 1} required defaultValue=${present + Math.max(1, Math.round(present / 2))} /></label>
    <fieldset class="stack"><legend class="small quiet">${t("act.policy")}</legend>${["rescale", "continue_constant", "restart_cosine"].map((each, index) => html`<label key=${each} class="tick"><input type="radio" name="policy" value=${each} defaultChecked=${index === 0} />${t(`act.policy_${each}`)}</label>`)}</fieldset>
    <div class="acts"><button type="button" autofocus onClick=${onClose}>${t("cancel")}</button><button type="submit" class="primary">${t("act.extend")}</button></div>
  </form><//>`;
}

// how far it is

function Progress({ of, info, stands }) {
  if (stands === "checking") return html`<div role="status"><progress aria-label=${t("run.checking")}></progress><p class="facts">${t("run.checking")}</p></div>`;
  if (!of?.epochs) return info.ended ? html`<p class="facts"><${Over} info=${info} /></p>` : null;
  const at_work = AT_WORK.includes(stands);
  const share = at_work ? (of.share ?? 0) : info.state === "finished" ? 1 : (of.share ?? 0);
  return html`<div>
    <progress max="1" value=${share} aria-label=${t("progress.label")}></progress>
    <p class="unseen" role="status">${at_work ? t("progress.said", { epoch: of.epoch, epochs: of.epochs }) : ""}</p>
    <div class="facts" id="facts">
      <span><b>${percent(share)}</b></span>
      <span>${t("progress.epoch")} <b>${of.epoch}</b> ${t("of")} ${of.epochs}</span>
      ${of.total_steps ? html`<span>${t("progress.step")} <b>${whole(of.step_in_run)}</b> ${t("of")} ${whole(of.total_steps)}</span>` : null}
      ${at_work && of.phase === "validate" && html`<span><b>${t("progress.validating")}</b></span>`}
      ${at_work && of.eta_s !== null && html`<span>${t("progress.eta")} <b>${duration(of.eta_s)}</b></span>`}
      ${at_work && of.images_per_s ? html`<span><b>${decimal(of.images_per_s, 1)}</b> ${t("progress.rate")}</span>` : null}
      ${at_work && of.patience_left !== null && of.patience_left !== undefined && html`<span>${t("progress.patience")} <b>${of.patience_left}</b> ${t("of")} ${of.patience}</span>`}
      ${of.best_epoch ? html`<span>${t("progress.best_epoch")} <b>${of.best_epoch}</b></span>` : null}
      ${!at_work && html`<${Over} info=${info} />`}
    </div>
  </div>`;
}

const Over = ({ info }) => html`${info.reason && info.reason !== info.state ? html`<span>${wordOr(`studio.reason.${info.reason}`, info.reason)}</span> ` : null}${info.ended ? html`<span>${t("run.ended")} <b>${moment(info.ended)}</b></span> ` : null}${info.elapsed_s ? html`<span>${t("run.took")} <b>${duration(info.elapsed_s)}</b></span>` : null}`;

function Ready({ run }) {
  const { forecast = {}, data } = run.description;
  return html`<div class="notice" id="ready"><p><b>${t("ready.title")}</b></p>
    ${forecast.duration_s
      ? html`<div class="facts"><span>${t("ready.duration")} <b>${duration(forecast.duration_s)}</b></span><span>${t("ready.memory")} <b>${bytes(forecast.memory_mb * 1e6)}</b></span><span>${t("ready.disk")} <b>${bytes(forecast.disk_mb * 1e6)}</b></span><span>${t("ready.batch")} <b>${forecast.batch_size}</b></span><span>${t("ready.checkpoints")} <b>${forecast.checkpoints}</b></span></div>`
      : html`<p>${t("ready.unmeasured")}</p>`}
    ${data?.images && html`<p class="small quiet">${Object.entries(data.images).map(([split, count]) => `${wordOr(`studio.split.${split}`, split)} ${whole(count)}`).join(" · ")}</p>`}
    <p>${t("ready.go")}</p></div>`;
}

function Problems({ id, of }) {
  return html`<div class="failure" role="alert"><p><b>${t("run.problems", { count: of.length })}</b></p>
    <ul>${of.map((each) => html`<li key=${each.field + each.code}><b>${fieldName(each.field)}</b>: ${each.message}</li>`)}</ul>
    <p><a class="button" href=${`${link("train")}?from=${encodeURIComponent(id)}`}>${t("run.mend")}</a></p></div>`;
}

// charts, previews, figures

function Watch({ id, run, stands }) {
  const course = useRef(null);
  const [stamp, setStamp] = useState(0);
  const [drawn, setDrawn] = useState(0);
  const [error, setError] = useState(null);
  const [previewed, setPreviewed] = useState(0);
  useEffect(() => {
    let leave = () => {};
    let over = false;
    fetchCourse(id).then((found) => {
      if (over) return;
      course.current = found;
      setStamp(1);
      leave = follow(id, found.seq, (batch) => {
        lengthen(course.current, batch);
        if (batch.events.some((event) => event.type === "PreviewsWritten")) setPreviewed((before) => before + 1);
        for (const event of batch.events) if (event.type === "Warned" && has(`warnings.${event.code}`)) toast(word(`warnings.${event.code}`, event.facts));
        redraw();
      });
    }, setError);
    let timer = 0;
    const redraw = () => {
      if (document.hidden) return; // what nobody sees costs the training time
      setStamp((before) => before + 1);
      timer ||= setTimeout(() => {
        timer = 0;
        setDrawn((before) => before + 1);
      }, CHART_MS);
    };
    document.addEventListener("visibilitychange", redraw);
    return () => {
      over = true;
      leave();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", redraw);
    };
  }, [id]);
  if (error) return html`<${Failure} error=${error} retry=${() => location.reload()} />`;
  if (!course.current) return html`<${Wait} />`;
  return html`<${Figures} course=${course.current} run=${run} stamp=${stamp} />
    <${Charts} id=${id} course=${course.current} run=${run} stamp=${drawn} />
    <${Previews} id=${id} stamp=${`${previewed} ${stands}`} />
    ${run.report?.valid && html`<${PerClass} of=${run.report.test ?? run.report.valid} split=${run.report.test ? "test" : "valid"} />`}`;
}

const lastOf = (values) => values?.findLast((each) => each !== null && each !== undefined) ?? null;
const before = (values) => {
  const known = (values ?? []).filter((each) => each !== null);
  return known.length > 1 ? known[known.length - 1] - known[known.length - 2] : null;
};
const taskOf = (run) => (run.description.data?.task === "classify" || run.info.task === "classify" ? "classify" : "detect");

function Figures({ course, run }) {
  const { epochs, series } = course;
  const epoch = lastOf(epochs.epoch);
  const since = (key) => (before(epochs[key]) === null ? "" : t("figure.since", { change: signed(before(epochs[key])), epoch: epoch - 1 }));
  const [first, , third] = QUALITY[taskOf(run)];
  const share = taskOf(run) === "detect" && third in epochs ? third : QUALITY[taskOf(run)][1];
  const lr = lastOf(series.lr?.mean) ?? lastOf(epochs.lr);
  return html`<dl class="kpis" id="figures" data-step=${lastOf(course.step) ?? 0}>
    <div><dt>${metricName(first)} (${t("split.valid")})</dt><dd class="big">${decimal(lastOf(epochs[first]))}</dd><dd class="note">${since(first)}</dd></div>
    <div><dt>${metricName(share)}</dt><dd class="big">${share === "exact_sum" ? percent(lastOf(epochs[share]), 1) : decimal(lastOf(epochs[share]))}</dd><dd class="note">${t("split.valid")}</dd></div>
    <div><dt>${t("figure.loss")}</dt><dd class="big" id="loss-now">${figure(lastOf(series.loss?.mean) ?? lastOf(epochs.train_loss))}</dd><dd class="note">${epochs.loss ? t("figure.loss_valid", { value: figure(lastOf(epochs.loss)) }) : ""}</dd></div>
    <div><dt>Learning rate</dt><dd class="big">${figure(lr)}</dd><dd class="note">${run.config.schedule.name}</dd></div>
  </dl>`;
}

function Charts({ id, course, run, stamp }) {
  const asked = route.value.query;
  const axis = ["step", "epoch", "time"].includes(asked.get("x")) ? asked.get("x") : "epoch";
  const smooth = Number(asked.get("smooth") ?? 0.6);
  const log = asked.get("log") === "1";
  const [quality, loss, rates, speed] = useMemo(() => {
    const steps = stepX(course, axis);
    const ends = epochX(course, axis);
    const ofSteps = (key, label, place) => {
      const each = course.series[key];
      return each ? [{ label, colour: COLOURS[place], dash: DASHES[place], x: steps, y: each.mean, low: each.low, high: each.high, smooth: true }] : [];
    };
    const ofEpochs = (key, label, place, better) => (course.epochs[key]?.some((each) => each !== null) ? [{ label, colour: COLOURS[place], dash: DASHES[place], x: ends, y: course.epochs[key], points: true, better }] : []);
    return [
      QUALITY[taskOf(run)].flatMap((key, place) => ofEpochs(key, metricName(key), place, "more")),
      [...ofSteps("losses.loss", t("figure.loss_train"), 0), ...ofEpochs("loss", t("figure.loss_valid_name"), 1)],
      [...ofSteps("lr", "head", 0), ...ofEpochs("lr_backbone", "backbone", 1)],
      ofSteps("images_per_s", t("progress.rate"), 0),
    ];
  }, [stamp, axis]);
  const shared = { axis, stamp };
  return html`<section><div class="title"><h2>${t("chart.title")}</h2><span class="spring" />
      <${Choice} label=${t("chart.x")} value=${axis} onChoose=${(key) => remember({ x: key === "epoch" ? "" : key })} options=${["epoch", "step", "time"].map((each) => [each, t(`chart.${each}`)])} />
      <label class="row small">${t("chart.smooth")} <input type="range" min="0" max="0.98" step="0.02" value=${smooth} onInput=${(event) => remember({ smooth: event.target.value })} /></label>
      <label class="tick small"><input type="checkbox" checked=${log} onChange=${(event) => remember({ log: event.target.checked ? "1" : "" })} />${t("chart.log")}</label></div>
    <div class="cols">
      <${Chart} ...${shared} title="Loss" note=${t("chart.loss_note")} lines=${loss} log=${log} smooth=${smooth} name=${`${id}-loss`} />
      <${Chart} ...${shared} title=${taskOf(run) === "detect" ? "mAP" : t("chart.accuracy")} note=${t("split.valid")} lines=${quality} name=${`${id}-quality`} />
      <${Chart} ...${shared} title="Learning rate" lines=${rates} log=${log} name=${`${id}-lr`} />
      <${Chart} ...${shared} title=${t("chart.speed")} lines=${speed} smooth=${smooth} name=${`${id}-speed`} />
    </div></section>`;
}

function Previews({ id, stamp }) {
  const from = useLoad(() => get(`runs/${id}/previews`), [id, stamp]);
  const epochs = from.data?.epochs ?? [];
  const [chosen, setChosen] = useState(null);
  const [least, setLeast] = useState(0.3);
  const epoch = chosen !== null && epochs.includes(chosen) ? chosen : epochs[epochs.length - 1];
  const found = useLoad(() => (epoch ? get(`runs/${id}/previews/${epoch}`) : Promise.resolve(null)), [id, epoch]);
  if (!epochs.length) return html`<section><div class="title"><h2>${t("preview.title")}</h2></div><p class="quiet">${t("preview.none")}</p></section>`;
  const { pictures, values = {}, classes } = from.data;
  return html`<section><div class="title"><h2>${t("preview.title")}</h2><small class="quiet">${t("preview.note")}</small><span class="spring" />
      <label class="row small">${t("progress.epoch")} <input type="range" id="preview-epoch" min="0" max=${epochs.length - 1} step="1" value=${epochs.indexOf(epoch)} aria-valuetext=${String(epoch)} onInput=${(event) => setChosen(epochs[Number(event.target.value)])} /> <b>${epoch}</b></label>
      <label class="row small">${t("preview.least")} <input type="range" min="0.05" max="0.95" step="0.05" value=${least} onInput=${(event) => setLeast(Number(event.target.value))} /> <b>${percent(least)}</b></label></div>
    <div class="prints">${pictures.map((picture, index) => {
      const boxes = found.data?.pictures[index]?.found ?? [];
      const whatFor = t(`preview.${picture.why}`);
      const guess = boxes[0] && !boxes[0].box_xyxy ? ` · ${className(boxes[0].class, values[boxes[0].class])} ${percent(boxes[0].score)}` : "";
      return html`<${Picture} key=${picture.file} url=${at(`runs/${id}/previews/pictures/${picture.file}`)} width=${picture.width} height=${picture.height} found=${boxes} truth=${picture.truth} values=${values} classes=${classes} least=${least} caption=${`${whatFor} · ${picture.source.split("/").pop()}${guess}`} />`;
    })}</div>
    <p class="small quiet">${t("preview.legend")}</p></section>`;
}

function PerClass({ of, split }) {
  const classes = of.classes ?? of.per_class ?? [];
  const detect = classes.some((each) => "ap50_95" in each);
  const keys = detect ? ["ap50", "ap50_95", "precision", "recall", "f1"] : ["precision", "recall", "f1"];
  const columns = [
    { key: "name", title: word(classes.some((each) => each.value) ? "tables.denomination" : "tables.class"), show: (row) => html`<span class="nowrap"><${Swatch} value=${row.value} place=${row.place} />${className(row.name, row.value)}</span>` },
    ...keys.map((key) => ({ key, title: word(`tables.${key}`), num: true, show: (row) => decimal(row[key]) })),
    { key: "support", title: word("tables.support"), num: true, show: (row) => whole(row.support) },
  ];
  return html`<section><div class="title"><h2>${t("class.title")}</h2><small class="quiet">${t("class.note", { split: t(`split.${split}`), count: whole(of.images) })}</small></div>
    <${Table} columns=${columns} rows=${classes.map((each, place) => ({ ...each, place }))} id=${(row) => row.name} label=${t("class.title")} /></section>`;
}

function Result({ run }) {
  const { report } = run;
  const asked = route.value.query.get("split");
  const splits = ["test", "valid"].filter((each) => report?.[each]);
  if (!splits.length) return html`<p class="quiet">${t("result.none")}</p>`;
  const split = splits.includes(asked) ? asked : splits[0];
  const of = report[split];
  const scalars = Object.entries(of).filter(([key, value]) => typeof value === "number" && !["images", "support", "best_threshold"].includes(key));
  return html`<div class="title"><h2>${t("result.title", { epoch: report.best_epoch })}</h2><span class="spring" /><${Choice} label=${t("result.split")} value=${split} options=${splits.map((each) => [each, t(`split.${each}`)])} onChoose=${(each) => remember({ split: each })} /></div>
    <dl class="kpis">${scalars.map(([key, value]) => html`<div key=${key}><dt>${metricName(key)}</dt><dd class="big">${key.startsWith("exact") ? percent(value, 1) : decimal(value)}</dd></div>`)}</dl>
    <${PerClass} of=${of} split=${split} />
    <${Confusion} of=${of} />`;
}

function Confusion({ of }) {
  const classes = of.classes ?? of.per_class ?? [];
  const matrix = of.confusion ?? [];
  const names = [...classes.map((each) => className(each.name, each.value)), ...(matrix.length > classes.length ? [t("confusion.background")] : [])];
  const highest = Math.max(1, ...matrix.flat());
  if (!matrix.length) return null;
  return html`<section><div class="title"><h2>${t("confusion.title")}</h2><small class="quiet">${t("confusion.note")}</small></div>
    <${Sheet} role="region" label=${t("confusion.title")}><table class="matrix">
      <thead><tr><th scope="col">${t("confusion.truth")}</th>${names.map((name) => html`<th key=${name} scope="col">${name}</th>`)}</tr></thead>
      <tbody>${matrix.map((row, truth) => html`<tr key=${truth}><th scope="row" class="nowrap">${names[truth]}</th>${row.map((count, guess) => html`<td key=${guess} style=${count ? { background: `color-mix(in oklab, var(${truth === guess ? "--accent" : "--bad"}) ${8 + Math.round((32 * count) / highest)}%, transparent)` } : {}}>${count || html`<span class="quiet">·</span>`}</td>`)}</tr>`)}</tbody>
    </table><//></section>`;
}

// everything else that is known

function Config({ run, onEdit }) {
  const leaves = (values, prefix = "") => Object.entries(values).flatMap(([key, value]) => (value && typeof value === "object" && !Array.isArray(value) ? leaves(value, `${prefix}${key}.`) : [[prefix + key, value]]));
  const groups = new Map();
  for (const [field, value] of leaves(run.config)) {
    const group = field.includes(".") ? field.split(".")[0] : "";
    groups.set(group, [...(groups.get(group) ?? []), [field, value]]);
  }
  const { choices = {}, parameters, smartcash, python, host, git, packages } = run.description;
  const facts = { ...choices, parameters, smartcash, python, host, git, ...packages };
  const changes = run.operations.filter((each) => each.changes.length);
  return html`<div class="title"><h2>${t("run.labels")}</h2><span class="spring" /><button type="button" onClick=${onEdit}>${t("runs.edit")}</button></div>
    <p>${run.info.tags.length ? html`<${Tags} of=${run.info.tags} />` : html`<span class="quiet">${t("run.no_tags")}</span>`} ${run.info.notes}</p>
    ${run.info.parent && html`<p>${t("run.parent")} <a href=${link("runs", run.info.parent)}>${run.info.parent}</a></p>`}
    ${run.children.length > 0 && html`<p>${t("run.children")} ${run.children.map((each) => html`<a key=${each} href=${link("runs", each)}>${each}</a> `)}</p>`}
    <div class="cols">${[...groups].map(([group, fields]) => html`<section key=${group}><div class="title"><h2>${t(`group.${group || "top"}`)}</h2></div>
      <dl class="pairs">${fields.map(([field, value]) => html`<dt key=${field} title=${field}>${fieldName(field)}</dt><dd>${fieldValue(field, value)}</dd>`)}</dl></section>`)}
      <section><div class="title"><h2>${t("run.environment")}</h2></div><dl class="pairs">${Object.entries(facts).filter(([, value]) => value !== undefined && value !== null).map(([key, value]) => html`<dt key=${key}>${wordOr(`studio.fact.${key}`, key)}</dt><dd>${typeof value === "number" ? number(value) : plain(value)}</dd>`)}</dl></section>
    </div>
    <section class="apart"><div class="title"><h2>${t("run.changes")}</h2></div>
      ${changes.length ? changes.map((each) => html`<div key=${each.seq}><p class="small quiet">${moment(each.time)} · ${each.who.user} · ${each.text} · ${each.confirmed_text}</p><${Changes} of=${each.changes} /></div>`) : html`<p class="quiet">${t("changes.none")}</p>`}</section>`;
}

function Checkpoints({ id }) {
  const from = useLoad(() => get(`runs/${id}/checkpoints`), [id]);
  const columns = [
    { key: "kind", title: t("column.kind"), show: (each) => wordOr(`studio.checkpoint.${each.kind}`, each.kind) },
    { key: "epoch", title: t("progress.epoch"), num: true },
    { key: "value", title: t("column.value"), num: true, show: (each) => html`${figure(each.value)} <span class="quiet">${each.monitor ? metricName(each.monitor) : ""}</span>` },
    { key: "timestamp", wide: true, title: t("column.created"), show: (each) => moment(each.timestamp) },
    { key: "size", title: t("column.size"), num: true, show: (each) => bytes(each.size) },
    { key: "name", wide: true, title: t("column.file"), show: (each) => html`<span class="mono">${each.name}</span>` },
  ];
  return html`<${Loaded} from=${from}>${(found) => (found.checkpoints.length ? html`<${Table} columns=${columns} rows=${found.checkpoints} id=${(each) => each.name} label=${t("run.tab.checkpoints")} />` : html`<p class="quiet">${t("checkpoint.none")}</p>`)}<//>`;
}

/** Exported files of a run or a version (`of`: "runs/ID" or "models/v3"), each with what proves it; and a new one. */
export function Exports({ of, begun = true }) {
  const { job, setJob, busy } = useJob();
  const from = useLoad(() => get(`${of}/exports`), [of, job?.state]);
  const formats = useLoad(() => get("exports/formats"));
  const [format, setFormat] = useState("");
  const kinds = formats.data?.formats ?? [];
  const kind = kinds.find((each) => each.name === format) ?? kinds.find((each) => each.installed);
  const begin = async (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    const wanted = { format: kind.name, precision: given.get("precision"), nms: given.get("nms") !== null };
    const made = await attempt(() => post(`${of}/exports`, wanted));
    if (made) setJob(made);
  };
  const columns = [
    { key: "file", title: t("column.file"), show: (each) => (each.url ? html`<a href=${new URL(each.url, document.baseURI).href} download>${each.file}</a> <span class="quiet">zip</span>` : each.file) },
    { key: "format", title: t("export.format"), show: (each) => `${each.format} · ${each.precision}${each.nms ? " · NMS" : ""}` },
    { key: "size", title: t("column.size"), num: true, show: (each) => bytes(each.size_bytes) },
    { key: "state", title: t("export.proof"), show: (each) => html`<b class=${each.state === "failed" ? "bad" : each.state === "verified" ? "" : "warn"}>${t(`export.${each.state}`)}</b>${each.reason_text && html`<br /><span class="quiet">${each.reason_text}</span>`}` },
    { key: "count", title: t("export.pictures"), num: true, show: (each) => whole(each.proof?.count) },
    { key: "box", title: t("export.box"), num: true, show: (each) => figure(each.proof?.box_px) },
    { key: "score", title: t("export.score"), num: true, show: (each) => figure(each.proof?.score) },
    { key: "metric", title: t("export.metric"), num: true, show: (each) => (each.proof?.metric_torch === null || each.proof?.metric_torch === undefined ? "–" : `${figure(each.proof.metric_torch)} → ${figure(each.proof.metric_file)}`) },
  ];
  return html`<${Loaded} from=${from}>${(found) => (found.exports.length ? html`<${Table} columns=${columns} rows=${found.exports} id=${(each) => each.file} label=${t("run.tab.exports")} />` : html`<p class="quiet">${t("export.none")}</p>`)}<//>
    ${begun && html`<section class="apart"><div class="title"><h2>${t("export.new")}</h2></div><${Loaded} from=${formats}>${() => html`<form class="row low" onSubmit=${begin}>
      <label class="stacked">${t("export.format")}<select value=${kind?.name} onChange=${(event) => setFormat(event.target.value)}>${kinds.map((each) => html`<option key=${each.name} value=${each.name} disabled=${!each.installed}>${each.name}${each.installed ? "" : ` (${t("export.extra", { extra: each.extra })})`}</option>`)}</select></label>
      <label class="stacked">${t("export.precision")}<select name="precision">${(kind?.precisions ?? []).map((each) => html`<option key=${each}>${each}</option>`)}</select></label>
      ${kind?.nms && html`<label class="tick"><input type="checkbox" name="nms" />${t("export.nms")}</label>`}
      <button type="submit" class="primary" disabled=${busy || !kind}>${busy ? t("export.busy") : t("export.begin")}</button></form>`}<//>
    ${busy && html`<p role="status" class="quiet">${t("export.busy_text")}</p>`}
    ${job?.state === "failed" && html`<${Failure} error=${{ problem: job.error, message: "" }} />`}</section>`}`;
}

/** An event in words; null for one that people need not hear of. */
function said(event) {
  const { type, row, ...facts } = event;
  if (event.text) return event.text;
  if (type === "RunChecked") return event.problems.length ? t("run.problems", { count: event.problems.length }) : t("story.ready");
  if (type === "RunStarted") return event.resumed ? null : t("story.started");
  if (type === "EpochEnded") return t(event.is_best ? "story.epoch_best" : "story.epoch", { ...facts, loss: figure(row.train_loss), time: duration(row.train_s) });
  if (type === "RunFinished") return `${wordOr(`studio.reason.${event.reason}`, event.reason)}; ${t("story.best", { epoch: event.best_epoch, metric: metricName(event.monitor), value: figure(event.best_value) })}`;
  if (type === "DataFound") return t("story.found", { count: event.count, what: word(`problems.${event.code}`).split(/[.:;] /)[0].replaceAll(/\{[^}]*\}/g, "…") });
  const key = { CheckpointSaved: "story.checkpoint", RunResumed: "story.resumed", VersionKept: "story.version_kept", RolledBack: "story.rolled_back", EarlyStopped: "story.early", RunFailed: "story.failed" }[type];
  return key ? t(key, facts) : null;
}

function Story({ id, stands, run }) {
  const [seq, setSeq] = useState(0);
  useEffect(() => (AT_WORK.includes(stands) ? follow(id, run.seq, (batch) => batch.events.length && setSeq(batch.seq)) : undefined), [id, stands]);
  const story = useLoad(() => get(`runs/${id}/events${asQuery({ limit: 2000 })}`), [id, seq, stands]);
  const log = useLoad(() => get(`runs/${id}/log?lines=200`), [id, seq, stands]);
  return html`<div class="cols"><section class="plain"><div class="title"><h2>${t("story.title")}</h2></div>
      <${Loaded} from=${story}>${(found) => html`<${Sheet} kind="told" label=${t("story.title")}><table><tbody>${found.events.map((each) => [each.saved_at ?? each.time, each, said(each)]).filter(([, , words]) => words).sort(([one, a], [other, b]) => other - one || b.seq - a.seq).slice(0, 300).map(([time, each, words]) => html`<tr key=${each.seq}><th scope="row" class="nowrap quiet">${moment(time * 1000, "medium")}</th><td>${words}</td></tr>`)}</tbody></table><//>`}<//></section>
    <section class="plain"><div class="title"><h2>train.log</h2><span class="spring" /><a href=${at(`runs/${id}/files/train.log`)} download>${t("download")}</a></div>
      <${Loaded} from=${log}>${(found) => html`<pre class="log" tabindex="0" aria-label="train.log">${found.lines.join("\n") || t("story.no_log")}</pre>`}<//></section></div>`;
}

function Files({ id }) {
  const from = useLoad(() => get(`runs/${id}/files`), [id]);
  const columns = [
    { key: "path", title: t("column.file"), show: (each) => html`<a class="mono" href=${new URL(each.url, document.baseURI).href} download>${each.path}</a>` },
    { key: "size", title: t("column.size"), num: true, show: (each) => bytes(each.size) },
    { key: "modified", title: t("column.modified"), show: (each) => ago(each.modified * 1000) },
  ];
  return html`<${Loaded} from=${from}>${(found) => html`<${Table} columns=${columns} rows=${found.files} id=${(each) => each.path} label=${t("run.tab.files")} />`}<//>`;
}
