// Train: the configuration as a form, what would change, the data, and on to a run.
import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { Refusal, get, post, put } from "../api.js";
import { language, t } from "../words.js";
import { go, link, remember, route } from "../router.js";
import { active } from "../stream.js";
import { ESSENTIAL, Field, GROUPS, draft, groupOf, merged, typed, valueAt, write } from "../form.js";
import { Against, Choice, Failure, Head, Loaded, Picture, agreed, ask, attempt, fieldName, fieldValue, runName, toast, useJob, useLoad } from "../parts.js";
import { Health } from "./data.js";

const CHECK_AFTER_MS = 250;

export default function Train() {
  const from = useLoad(() => Promise.all([get("config"), get("config/schema"), get("config/presets"), get("data/sets")]));
  const backbones = useLoad(() => get("backbones")); // asks a worker: the form does not wait for it
  return html`<${Loaded} from=${from}>${([config, schema, presets, sets]) => html`<${Form} config=${config} fields=${schema.fields} backbones=${backbones.data} presets=${presets.presets} sets=${sets.sets} reload=${from.reload} />`}<//>`;
}

function Form({ config, fields, backbones, presets, sets, reload }) {
  const base = config.config;
  const [review, setReview] = useState(null);
  const [error, setError] = useState(null);
  const [tried, setTried] = useState(false);
  const [preset, setPreset] = useState("");
  const form = useRef();
  const values = useMemo(() => merged(base, draft.value, fields), [base, draft.value]);
  const written = JSON.stringify(values);

  useFrom(route.value.query.get("from"), base, fields, () => setTried(true));
  useEffect(() => {
    const path = route.value.query.get("data");
    if (!path) return;
    write({ field: "data.path" }, path, base);
    remember({ data: "" });
  }, []);
  useEffect(() => {
    let current = true;
    const timer = setTimeout(() => post("config/check", { values }).then((found) => current && (setReview(found), setError(null)), (refused) => current && setError(refused)), CHECK_AFTER_MS);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [written, language.value, config.etag]);

  const problems = review?.problems ?? [];
  const seen = (field) => problems.filter((each) => (each.field === field || each.field.startsWith(`${field}.`)) && (tried || field in draft.value));
  const elsewhere = tried ? problems.filter((each) => !fields.some((field) => each.field === field.field || each.field.startsWith(`${field.field}.`))) : [];
  const options = { "data.path": sets.map((each) => each.path), "model.backbone": backbones && [...backbones.short.map((each) => each.name), ...backbones.names] };
  const shown = (field) => html`<${Field} key=${field.field} field=${field} base=${base} problems=${seen(field.field)} options=${options[field.field]} />`;

  const toFirst = () => {
    requestAnimationFrame(() => {
      const first = form.current.querySelector("[aria-invalid=true]");
      first?.closest("details")?.setAttribute("open", "");
      first?.focus();
    });
  };
  const done = () => {
    draft.value = {};
    setTried(false);
    setPreset("");
  };
  const refused = (failure) => {
    if (!(failure instanceof Refusal)) throw failure;
    if (failure.problem.problems) setReview({ changes: [], ...review, problems: failure.problem.problems });
    else setError(failure);
    toFirst();
  };
  /** What the server answered once everything is right and confirmed; undefined when it is not. */
  const submit = async (send) => {
    setTried(true);
    setError(null);
    try {
      const found = await post("config/check", { values }); // what stands there now: the last check may be older
      setReview(found);
      if (found.problems.length) return toFirst();
      const token = found.changes.length ? await agreed(found) : {};
      const answer = token && (await send(token));
      if (answer) done();
      return answer;
    } catch (failure) {
      return refused(failure);
    }
  };
  const save = async () => {
    const headers = { "If-Match": config.etag };
    if (await submit((token) => put("config", { values, ...token }, headers))) reload();
  };
  const prepare = async (event) => {
    event.preventDefault();
    let queue = false;
    if (active.value) {
      queue = await ask({ title: t("train.busy_title"), text: t("train.busy_text", { run: runName(active.value) }), yes: t("train.queue") });
      if (!queue) return;
    }
    const made = await submit((token) => post("runs", { values, queue, ...token }));
    if (made) go(link("runs", made.run));
  };
  const choosePreset = (name) => {
    setPreset(name);
    const chosen = presets.find((each) => each.name === name);
    const entries = { ...draft.value };
    for (const field of fields) {
      const value = valueAt(chosen.values, field.field);
      if (value !== undefined) entries[field.field] = typed(field, value);
    }
    draft.value = Object.fromEntries(Object.entries(entries).filter(([name, entry]) => entry !== typed(fields.find((each) => each.field === name) ?? {}, valueAt(base, name))));
  };

  return html`<${Head} title=${t("nav.train")} />
    <form class="split" ref=${form} onSubmit=${prepare} novalidate>
      <div>
        ${presets.length > 0 && html`<div class="title"><h2>${t("train.presets")}</h2><${Choice} label=${t("train.presets")} value=${preset} options=${presets.map((each) => [each.name, each.title])} onChoose=${choosePreset} /></div>
          ${preset && html`<p class="small quiet">${presets.find((each) => each.name === preset).text}</p>`}`}
        <section><div>${ESSENTIAL.map((name) => fields.find((each) => each.field === name)).filter(Boolean).map(shown)}</div></section>
        ${GROUPS.map((group) => html`<${Group} key=${group} group=${group} fields=${fields.filter((each) => groupOf(each.field) === group)} wrong=${(field) => seen(field).length > 0} shown=${shown} />`)}
        <${DataOf} values=${values} />
        <${Augmented} values=${values} />
      </div>
      <aside class="stack">
        <div class="title"><h2>${t("changes.title")}</h2><small class="quiet">${t("train.changes", { count: problems.length ? Object.keys(draft.value).length : (review?.changes.length ?? 0) })}</small></div>
        ${!problems.length && html`<${Differences} of=${review?.changes ?? []} first=${review?.first} against=${review?.against} />`}
        <div aria-live="polite">${tried && problems.length > 0 && html`<div class="failure" id="problems"><p><b>${t("run.problems", { count: problems.length })}</b></p><ul>${problems.slice(0, 6).map((each) => html`<li key=${each.field + each.code}>${fieldName(each.field)}</li>`)}</ul>${elsewhere.map((each) => html`<p key=${each.code}>${each.message}</p>`)}</div>`}
        ${error && html`<${Failure} error=${error} />`}</div>
        <div class="row"><button type="submit" class="primary">${t("train.prepare")}</button><button type="button" onClick=${save} disabled=${!review?.changes.length}>${t("train.save")}</button></div>
        ${Object.keys(draft.value).length > 0 && html`<p class="small quiet">${t("train.draft")} <button type="button" class="link" onClick=${done}>${t("train.discard")}</button></p>`}
        <p class="small quiet">${t("train.then")}</p>
      </aside>
    </form>`;
}

/** A run to train like: what it was asked for becomes the draft. */
function useFrom(run, base, fields, then) {
  useEffect(() => {
    if (!run) return;
    attempt(() => get(`runs/${run}`)).then((found) => {
      remember({ from: "" });
      if (!found) return; // and why has been said
      if (!found.asked) return toast(t("train.from_none", { run }));
      const entries = fields.map((field) => [field.field, typed(field, valueAt(found.asked, field.field))]);
      draft.value = Object.fromEntries(entries.filter(([name, entry]) => entry !== typed(fields.find((each) => each.field === name), valueAt(base, name))));
      if (found.problems.length) then();
    });
  }, [run]);
}

function Group({ group, fields, wrong, shown }) {
  const changed = fields.filter((each) => each.field in draft.value).length;
  const bad = fields.filter((each) => wrong(each.field)).length;
  return html`<details class="group"><summary>${t(`group.${group}`)} <small>${t(`group.${group}_text`)}</small>
    ${changed > 0 && html`<small>${t("train.changed", { count: changed })}</small>`}${bad > 0 && html`<small class="bad">${t("train.wrong", { count: bad })}</small>`}</summary>
    <div>${fields.map(shown)}</div></details>`;
}

function Differences({ of, first, against }) {
  return html`<${Against} first=${first} run=${against} />${of.length ? html`<ul class="differences">${of.map((each) => html`<li key=${each.field}><span>${fieldName(each.field)}</span> <del>${fieldValue(each.field, each.old)}</del> → <ins>${fieldValue(each.field, each.new)}</ins>${each.significant && html` <span class="warn" title=${each.why_text}>⚠ ${each.why_text}</span>`}</li>`)}</ul>` : html`<p class="quiet small">${t("changes.none")}</p>`}`;
}

function DataOf({ values }) {
  const { job, setJob, busy } = useJob();
  const path = values.data.path;
  const look = () => attempt(async () => setJob(await post("data/check", { path, format: values.data.format })));
  useEffect(() => setJob(null), [path]);
  return html`<section><div class="title"><h2>${t("train.data")}</h2><span class="spring" /><button type="button" onClick=${look} disabled=${busy || !path}>${t("data.check")}</button></div>
    ${!job && html`<p class="quiet">${path ? t("train.data_text") : html`${t("train.data_first")} <a href=${link("data")}>${t("data.new")}</a>`}</p>`}
    ${busy && html`<p role="status" class="quiet">${t("data.checking")}</p>`}
    ${job?.state === "failed" && html`<${Failure} error=${{ problem: job.error, message: "" }} />`}
    ${job?.state === "done" && html`<${Health} of=${job.result} brief=${path} />`}</section>`;
}

function Augmented({ values }) {
  const [found, setFound] = useState(null);
  const [busy, setBusy] = useState(false);
  const [epoch, setEpoch] = useState(0);
  const look = async (next) => {
    setBusy(true);
    setEpoch(next);
    setFound((await attempt(() => post("data/augmented", { values, count: 8, epoch: next }))) ?? null);
    setBusy(false);
  };
  return html`<section><div class="title"><h2>${t("train.augmented")}</h2><span class="spring" /><button type="button" disabled=${busy || !values.data.path} onClick=${() => look(found ? epoch + 1 : 0)}>${found ? t("train.other") : t("train.show")}</button></div>
    ${!found && !busy && html`<p class="quiet">${t("train.augmented_text")}</p>`}${busy && html`<p role="status" class="quiet">${t("wait")}</p>`}
    ${found && html`<div class="prints">${found.pictures.map((each) => html`<${Picture} key=${each.url} url=${new URL(each.url, document.baseURI).href} width=${each.width} height=${each.height} found=${each.boxes} values=${found.values ?? {}} classes=${found.classes ?? []} caption=${each.name} />`)}</div>`}</section>`;
}
