// The studio: the frame around every page, and which page is in it.
import { html, render, effect, useEffect, useState } from "./html.js";
import { LANGUAGES, choose, language, percent, speak, t } from "./words.js";
import { Failure, Question, Remaining, Toasts, Wait, runLink, runName, toast } from "./parts.js";
import { Refusal } from "./api.js";
import { heading, link, page, route } from "./router.js";
import { THEMES, theme } from "./look.js";
import { active, begin, connection, state } from "./stream.js";

const NAMES = ["", "train", "runs", "compare", "models", "data", "log", "settings"];
const FILES = { "": "home", train: "train", compare: "compare", models: "models", data: "data", log: "log", settings: "settings" };
const FETCH_PAGES_AFTER_MS = 1000;
const fileOf = ({ path }) => (path[0] === "runs" ? (path[1] ? "run" : "runs") : (FILES[path[0] ?? ""] ?? "lost"));

function Page() {
  const name = fileOf(route.value);
  const [found, setFound] = useState({});
  useEffect(() => {
    let current = true;
    import(`./pages/${name}.js`).then((module) => current && setFound({ name, Shown: module.default }), () => current && setFound({ name, error: new Refusal(0, {}) }));
    return () => (current = false);
  }, [name]);
  if (found.name !== name) return html`<${Wait} />`;
  if (found.error) return html`<${Failure} error=${found.error} retry=${() => location.reload()} />`;
  return html`<${found.Shown} key=${route.value.path.join("/")} path=${route.value.path} query=${route.value.query} />`;
}

const Mark = () => html`<svg viewBox="0 0 28 18" fill="none" stroke="currentColor" stroke-width="1.6" aria-hidden="true"><rect x="1" y="1" width="26" height="16" rx="2.6" /><circle cx="14" cy="9" r="4.4" /><path d="M5 5v8M23 5v8" stroke-linecap="round" /></svg>`;

function Chip() {
  const run = active.value;
  if (!run) return null;
  const share = run.share ?? 0;
  return html`<a class="chip" href=${runLink(run)} id="chip">
    <b>${runName(run)}</b>
    <progress max="1" value=${share} aria-label=${t("progress.label")}></progress>
    <span><span>${["running", "stopping"].includes(run.state) ? percent(share) : t(`chip.${run.state}`)}</span><span><${Remaining} of=${run} /></span></span>
  </a>`;
}

function Frame() {
  const toMain = (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  };
  return html`<a class="skip" href="#main" onClick=${toMain}>${t("skip")}</a>
    <div class="app">
      <header class="side">
        <a class="brand" href=${link()}><${Mark} />SmartCash</a>
        <${Chip} />
        <nav aria-label=${t("nav.label")}>${NAMES.map((name) => html`<a key=${name} href=${link(...(name ? [name] : []))} aria-current=${page.value === name ? "page" : undefined}>${t(`nav.${name || "home"}`)}</a>`)}</nav>
        <div class="foot">
          <div class=${`dot ${connection.value}`} role="status" title=${t(`connection.${connection.value}`)}><span>${t(`connection.${connection.value}`)}</span></div>
          <span class="choice" role="group" aria-label=${t("language")}>${Object.entries(LANGUAGES).map(([key, name]) => html`<button key=${key} type="button" lang=${key} title=${name} aria-label=${name} aria-pressed=${String(language.value === key)} onClick=${() => choose(key)}>${key.toUpperCase()}</button>`)}</span>
          <${Theme} />
        </div>
      </header>
      <main id="main" tabindex="-1"><${Page} /></main>
    </div>
    <${Question} /><${Toasts} />`;
}

function Theme() {
  const next = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length];
  return html`<button type="button" class="link" onClick=${() => (theme.value = next)} title=${t("theme.change")}><span class="what">${t("settings.theme")}: </span>${t(`theme.${theme.value}`)}</button>`;
}

// The title of the window goes on telling in the background.
effect(() => {
  const run = active.value;
  const before = run ? (run.state === "running" ? `${percent(run.share ?? 0)} · ` : `${t(`chip.${run.state}`)} · `) : "";
  document.title = `${before}${run ? runName(run) : heading.value} · SmartCash`;
});

// Word that a run has ended: once, whoever looks. What had ended before this page was opened is not news.
let known = null;
effect(() => {
  const ended = state.value?.ended;
  if (!ended) return;
  const fresh = known ? ended.filter((run) => !known.has(`${run.run} ${run.ended}`)) : [];
  known = new Set([...(known ?? []), ...ended.map((run) => `${run.run} ${run.ended}`)]);
  for (const run of fresh) {
    if (run.state === "ready") continue;
    const text = t("ended", { run: runName(run), state: t(`chip.${run.state}`) });
    toast(text, runLink(run));
    if ("Notification" in window && Notification.permission === "granted" && document.hidden) new Notification("SmartCash", { body: text, tag: run.run });
  }
});

/** The other pages are fetched while nobody waits for them, so that they open even when the server is away. */
const fetchPages = () => Object.values({ ...FILES, runs: "runs", run: "run", lost: "lost" }).reduce((before, name) => before.then(() => import(`./pages/${name}.js`)), Promise.resolve()).catch(() => {});

begin();
speak(language.value).then(
  () => {
    render(html`<${Frame} />`, document.getElementById("app"));
    setTimeout(fetchPages, FETCH_PAGES_AFTER_MS);
  },
  () => setTimeout(() => location.reload(), 2000), // not even its words could be fetched
);
