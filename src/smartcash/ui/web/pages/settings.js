// Settings: language, look, word at the end of a run, the machine, and how it stands.
import { html, useState } from "../html.js";
import { get, post } from "../api.js";
import { LANGUAGES, bytes, choose, language, t, whole, wordOr } from "../words.js";
import { THEMES, theme } from "../look.js";
import { Choice, Failure, Head, Loaded, Sheet, attempt, useJob, useLoad } from "../parts.js";

export default function Settings() {
  const from = useLoad(() => get("settings"));
  return html`<${Head} title=${t("nav.settings")} />
    <section><div class="title"><h2>${t("settings.page")}</h2></div><dl class="pairs">
      <dt>${t("language")}</dt><dd><${Choice} label=${t("language")} value=${language.value} options=${Object.entries(LANGUAGES)} onChoose=${choose} /></dd>
      <dt>${t("settings.theme")}</dt><dd><${Choice} label=${t("settings.theme")} value=${theme.value} options=${THEMES.map((each) => [each, t(`theme.${each}`)])} onChoose=${(each) => (theme.value = each)} /></dd>
      <dt>${t("settings.notify")}</dt><dd><${Notify} /></dd></dl></section>
    <section><div class="title"><h2>${t("home.machine")}</h2></div><${Loaded} from=${from}>${(found) => html`<dl class="pairs">
      <dt>${t("settings.version")}</dt><dd>${found.version}</dd><dt>Python</dt><dd>${found.python}</dd>
      <dt>${t("settings.cores")}</dt><dd>${found.cores}</dd><dt>${t("settings.memory")}</dt><dd>${bytes(found.memory_mb * 1e6)}</dd>
      <dt>${t("settings.disk")}</dt><dd>${t("settings.disk_free", { free: bytes(found.disk_free_mb * 1e6) })}</dd>
      <dt>${t("settings.home")}</dt><dd class="mono">${found.home}</dd><dt>${t("settings.token")}</dt><dd class="mono">${found.home}/studio.json</dd>
      <dt>${t("settings.upload")}</dt><dd>${bytes(found.limits.upload_bytes)}</dd><${Device} /></dl>`}<//></section>
    <${Doctor} />
    <section><div class="title"><h2>${t("settings.api")}</h2></div><p>${t("settings.api_text")} <a href=${new URL("api/v1/docs", document.baseURI).href}>${t("settings.api_docs")}</a></p></section>`;
}

function Notify() {
  const able = "Notification" in window;
  const [given, setGiven] = useState(able ? Notification.permission : "denied");
  if (!able) return html`<span class="quiet">${t("settings.notify_unable")}</span>`;
  if (given === "granted") return html`${t("settings.notify_on")}`;
  if (given === "denied") return html`<span class="quiet">${t("settings.notify_denied")}</span>`;
  return html`<button type="button" onClick=${async () => setGiven(await Notification.requestPermission())}>${t("settings.notify_ask")}</button>`;
}

function Device() {
  const [found, setFound] = useState(null);
  const [busy, setBusy] = useState(false);
  const look = async () => {
    setBusy(true);
    setFound(await attempt(() => get("device")));
    setBusy(false);
  };
  if (!found) return html`<dt>${t("settings.device")}</dt><dd><button type="button" onClick=${look} disabled=${busy}>${busy ? t("wait") : t("settings.device_ask")}</button></dd>`;
  return html`<dt>${t("settings.device")}</dt><dd>${found.device} · ${found.precision}</dd><dt>torch</dt><dd>${found.torch}</dd><dt>${t("settings.weights")}</dt><dd>${found.weights.join(", ") || "–"}</dd>`;
}

function Doctor() {
  const { job, setJob, busy } = useJob();
  const look = () => attempt(async () => setJob(await post("doctor", { deep: false })));
  const result = job?.state === "done" ? job.result : null;
  return html`<section><div class="title"><h2>${t("doctor.title")}</h2><span class="spring" /><button type="button" disabled=${busy} onClick=${look}>${t("doctor.look")}</button></div>
    ${!job && html`<p class="quiet">${t("doctor.text")}</p>`}<div role="status">${busy ? t("wait") : ""}</div>
    ${job?.state === "failed" && html`<${Failure} error=${{ problem: job.error, message: "" }} />`}
    ${result && html`<p><b>${result.healthy ? t("doctor.healthy") : t("doctor.ill", { count: whole(result.findings.filter((each) => each.severity === "error").length) })}</b></p>
      <${Sheet} kind="told" label=${t("doctor.title")}><table><tbody>${result.findings.map((each, index) => html`<tr key=${index}><th scope="row" class=${each.severity === "error" ? "bad" : each.severity === "warning" ? "warn" : "quiet"}>${t(`severity.${each.severity}`)}</th><td class="nowrap">${wordOr(`doctor.area.${each.area}`, each.area)}</td><td>${each.message}${each.advice && html`<br /><span class="quiet">${each.advice}</span>`}</td></tr>`)}</tbody></table><//>`}</section>`;
}
