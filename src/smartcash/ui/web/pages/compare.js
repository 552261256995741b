// Compare: what differs in the configuration, by how much the figures do, the curves over each other, the same pictures.
import { html, useEffect, useState } from "../html.js";
import { at, get, query as asQuery } from "../api.js";
import { bytes, decimal, duration, percent, signed, t, whole, word, wordOr } from "../words.js";
import { Chart, DASHES } from "../chart.js";
import { go, link, remember, route } from "../router.js";
import { Choice, Empty, Failure, Head, Lacking, Loaded, Picture, Sheet, Swatch, className, fieldName, fieldValue, metricName, runName, useLoad } from "../parts.js";

const COLOURS = ["var(--accent)", "var(--rp100000)", "var(--rp50000)", "var(--rp5000)", "var(--rp10000)", "var(--rp75000)", "var(--rp1000)", "var(--rp2000)"];
const ASK_AGAIN_MS = 2000;
const MOST = 8;

export default function Compare() {
  const runs = (route.value.query.get("runs") ?? "").split(",").filter(Boolean);
  const from = useLoad(() => get("runs?sort=-id&limit=100"));
  const trained = from.data?.runs.filter((each) => each.epochs_done > 0);
  const few = !runs.length && trained?.length < 2;
  return html`<${Head} title=${t("nav.compare")} />
    ${few ? html`<${Empty} title=${t("compare.least")}><p>${t("compare.none_text")}</p><p><a class="button primary" href=${link("train")}>${t("home.train")}</a></p><//>` : html`<${Chooser} chosen=${runs} from=${from} trained=${trained} />`}
    ${runs.length >= 2 ? html`<${Comparison} key=${runs.join()} runs=${runs} />` : !few && html`<${Empty} title=${t("compare.none")}><p>${t("compare.none_text")}</p><//>`}`;
}

function Chooser({ chosen, from, trained }) {
  const choose = (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    const runs = [...new Set([...chosen, given.get("run")])].filter(Boolean);
    go(`${link("compare")}${asQuery({ runs: runs.join(",") })}`);
  };
  const without = (run) => go(`${link("compare")}${asQuery({ runs: chosen.filter((each) => each !== run).join(",") })}`);
  const others = trained?.filter((each) => !chosen.includes(each.id)) ?? [];
  const named = (id) => {
    const run = from.data?.runs.find((each) => each.id === id);
    return run ? runName(run) : id;
  };
  return html`<form class="row low" onSubmit=${choose}>
    ${chosen.map((run, place) => html`<span key=${run} class="row chosen"><${Key} place=${place} /><span>${named(run)}</span><button type="button" class="link" aria-label=${t("compare.without", { run: named(run) })} onClick=${() => without(run)}>×</button></span>`)}
    <${Loaded} from=${from}>${() => (others.length
      ? html`<label class="stacked">${t("compare.add")}<select name="run">${others.map((each) => html`<option key=${each.id} value=${each.id}>${runName(each)} · ${each.id}</option>`)}</select></label>`
      : html`<p class="quiet" id="no-other">${t("compare.no_other")} <a href=${link("train")}>${t("home.train")}</a></p>`)}<//>
    <button type="submit" disabled=${!others.length || chosen.length >= MOST}>${t("compare.add_it")}</button></form>`;
}

const Key = ({ place }) => html`<svg width="26" height="8" viewBox="0 0 26 8" aria-hidden="true"><path d="M0 4H26" stroke=${COLOURS[place]} stroke-width="2.5" stroke-dasharray=${DASHES[place % DASHES.length].join(" ")} /></svg>`;

function Comparison({ runs }) {
  const split = route.value.query.get("on") ?? "";
  const data = route.value.query.get("data") ?? "";
  const [again, setAgain] = useState(0);
  const from = useLoad(() => get(`compare${asQuery({ runs: runs.join(","), split, data })}`), [runs.join(), split, data, again]);
  const working = from.data?.judged.state === "working";
  useEffect(() => {
    if (!working) return undefined;
    const timer = setTimeout(() => setAgain((each) => each + 1), ASK_AGAIN_MS);
    return () => clearTimeout(timer);
  }, [working, again]);
  if (from.error?.code === "run_not_found") return html`<${Lacking} says=${t("run.absent", { run: from.error.params.name })} list="runs" all=${t("runs.all")} />`;
  return html`<${Loaded} from=${from}>${(found) => html`<${Models} of=${found} />
    <${Config} of=${found} /><${Curves} of=${found} runs=${runs} /><${Judged} of=${found} />`}<//>`;
}

const nameOf = (model) => model.title || model.name;

function Heads({ of, first }) {
  return html`<thead><tr><th scope="col">${first}</th>${of.models.map((each, place) => html`<th key=${each.name} scope="col" class="num"><${Key} place=${place} /> ${nameOf(each)}</th>`)}</tr></thead>`;
}

function Models({ of }) {
  const rows = [
    [t("column.backbone"), (each) => each.backbone],
    [t("column.state"), (each) => wordOr(`runs.state.${each.state}`, each.state)],
    [t("progress.epoch"), (each) => `${each.epoch ?? "–"} ${t("of")} ${each.epochs_done ?? "–"}`],
    [t("column.elapsed"), (each) => duration(each.elapsed_s)],
    [t("column.size"), (each) => bytes(each.size_bytes)],
    [t("fact.parameters"), (each) => whole(each.parameters)],
  ];
  return html`<section><${Sheet} kind="compared" role="region" label=${t("compare.models")}><table style=${{ "--models": of.models.length }}><${Heads} of=${of} first=${t("compare.models")} /><tbody>${rows.map(([name, show]) => html`<tr key=${name}><th scope="row">${name}</th>${of.models.map((each) => html`<td key=${each.name} class="num">${show(each)}</td>`)}</tr>`)}
    <tr><th scope="row">${t("column.run")}</th>${of.models.map((each) => html`<td key=${each.name} class="num">${each.run ? html`<a href=${link("runs", each.run)}>${each.run}</a>` : "–"}</td>`)}</tr></tbody></table><//></section>`;
}

function Config({ of }) {
  const rows = [
    ...of.config.map((each) => ({ ...each, name: fieldName(each.field), why: each.why && word(`changes.why.${each.why}`) })),
    ...of.data.differences.map((each) => ({ ...each, field: each.what, name: wordOr(`studio.differs.${each.what.replace(".", "_")}`, each.what), why: word("changes.why.data") })),
  ];
  return html`<section><div class="title"><h2>${t("compare.config")}</h2><small class="quiet">${t("compare.config_note")}</small></div>
    ${rows.length ? html`<${Sheet} kind="compared" role="region" label=${t("compare.config")}><table style=${{ "--models": of.models.length }}><${Heads} of=${of} first=${t("changes.what")} /><tbody>${rows.map((each) => html`<tr key=${each.field}><th scope="row">${each.name}${each.why && html`<br /><span class="warn">⚠ ${each.why}</span>`}</th>${each.values.map((value, place) => html`<td key=${place} class="num">${each.field === "content_hash" ? String(value ?? "–").slice(0, 12) : fieldValue(each.field, value)}</td>`)}</tr>`)}</tbody></table><//>` : html`<p class="quiet">${t("compare.same")}</p>`}</section>`;
}

function Curves({ of, runs }) {
  const axis = ["step", "elapsed_s"].includes(route.value.query.get("x")) ? route.value.query.get("x") : "epoch";
  const shown = Object.entries(of.curves).filter(([, curves]) => curves.some(Boolean));
  if (!shown.length) return null;
  const first = ["mAP50_95", "accuracy", "train_loss", "loss", "mAP50", "exact_sum"];
  const ordered = shown.sort(([a], [b]) => (first.indexOf(a) + 1 || 99) - (first.indexOf(b) + 1 || 99));
  const charts = ordered.slice(0, 4).map(([metric, curves]) => [metric, curves.flatMap((curve, place) => (curve ? [{ label: nameOf(of.models[place]), colour: COLOURS[place], dash: DASHES[place % DASHES.length], x: curve[axis], y: curve.value, points: true, better: metric.includes("loss") ? "less" : "more" }] : []))]);
  return html`<section><div class="title"><h2>${t("compare.curves")}</h2><span class="spring" /><${Choice} label=${t("chart.x")} value=${axis} options=${[["epoch", t("chart.epoch")], ["step", t("chart.step")], ["elapsed_s", t("chart.time")]]} onChoose=${(key) => remember({ x: key === "epoch" ? "" : key })} /></div>
    <div class="cols">${charts.map(([metric, lines]) => html`<${Chart} key=${metric} title=${metricName(metric)} axis=${axis === "elapsed_s" ? "time" : axis} lines=${lines} stamp=${runs.join() + axis} name=${`compare-${metric}`} />`)}</div></section>`;
}

function Judged({ of }) {
  const judged = of.judged;
  if (judged.state === "none") return html`<section><p class="notice">${t(`compare.${judged.reason}`)}</p><${OtherData} /></section>`;
  if (judged.state === "failed") return html`<section><${Failure} error=${{ message: `${t("failed")}\n${judged.error}` }} /></section>`;
  if (judged.state === "working") return html`<section><p role="status" class="quiet">${t("compare.working")}</p></section>`;
  return html`<section><div class="title"><h2>${t("compare.figures")}</h2><small class="quiet">${t("compare.figures_note", { count: whole(judged.images), split: t(`split.${judged.split}`), confidence: percent(judged.confidence) })}</small></div>
      ${judged.chosen_on && html`<p class="notice warned">${t("compare.chosen_on")}</p>`}
      ${judged.seen_in_training.some((each) => each > 0) && html`<p class="notice warned">${t("compare.seen", { counts: judged.seen_in_training.map((each) => each ?? "?").join(", ") })}</p>`}
      <${Deltas} of=${of} rows=${judged.metrics.map((each) => ({ ...each, shown: metricName(each.name) }))} label=${t("compare.figures")} /></section>
    <section><div class="title"><h2>${t("class.title")}</h2></div><${Deltas} of=${of} rows=${judged.classes.flatMap((one, place) => one.metrics.slice(0, 1).map((each) => ({ ...each, key: one.name, shown: html`<${Swatch} value=${one.value} place=${place} />${className(one.name, one.value)} <span class="quiet">${wordOr(`tables.${each.name}`, each.name)}</span>` })))} label=${t("class.title")} first=${word(judged.classes.some((each) => each.value) ? "tables.denomination" : "tables.class")} /></section>
    <${Pictures} of=${of} judged=${judged} />`;
}

function OtherData() {
  const set = (event) => {
    event.preventDefault();
    remember({ data: new FormData(event.target).get("data") });
  };
  return html`<form class="row low" onSubmit=${set}><label class="stacked">${t("compare.data")}<input name="data" size="40" required /></label><button type="submit">${t("compare.judge")}</button></form>`;
}

const VERDICTS = { better: "▲", worse: "▼", undecided: "≈", too_few: "?" };

function Deltas({ of, rows, label, first = t("compare.figure") }) {
  return html`<${Sheet} kind="compared" role="region" label=${label}><table style=${{ "--models": of.models.length }}><${Heads} of=${of} first=${first} /><tbody>${rows.map((row) => html`<tr key=${row.key ?? row.name}><th scope="row">${row.shown}</th>${row.values.map((value, place) => {
    const delta = row.deltas[place];
    return html`<td key=${place} class="num">${value ? html`<b>${decimal(value.value)}</b> <span class="quiet">${decimal(value.low)}–${decimal(value.high)}</span>` : "–"}
      ${delta && html`<br /><span class=${delta.verdict === "worse" ? "bad" : delta.verdict === "better" ? "" : "quiet"}>${VERDICTS[delta.verdict]} ${signed(delta.value)} ${t(`compare.${delta.verdict}`)}</span>`}</td>`;
  })}</tr>`)}</tbody></table><//>`;
}

function Pictures({ of, judged }) {
  const values = Object.fromEntries(judged.classes.map((each) => [each.name, each.value]));
  const classes = judged.classes.map((each) => each.name);
  if (!judged.pictures.length) return null;
  return html`<section><div class="title"><h2>${t("compare.pictures")}</h2><small class="quiet">${t("compare.pictures_note", { right: judged.agreement.all_right, wrong: judged.agreement.all_wrong })}</small></div>
    ${judged.pictures.slice(0, 12).map((picture) => html`<div key=${picture.file} class="stack"><h3>${picture.source.split("/").pop()}</h3><div class="prints large">${picture.models.map((each, place) => html`<${Picture} key=${place} url=${at(`compare/${judged.key}/${picture.file}`)} width=${picture.width} height=${picture.height} truth=${picture.truth} found=${each.found} values=${values} classes=${classes} caption=${`${nameOf(of.models[place])}: ${t("compare.counts", each)}`} />`)}</div></div>`)}</section>`;
}
