// What several pages are made of.
import { html, signal, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { t, word, wordOr, plain, moment, percent, rupiah, duration, decimal, signed } from "./words.js";
import { get } from "./api.js";
import { arrived, heading, link } from "./router.js";
import { state, connection } from "./stream.js";

/** Load with `load` when the page opens and whenever one of `deps` changes; what is shown stays until the new comes. */
export function useLoad(load, deps = []) {
  const [found, setFound] = useState({ data: null, error: null });
  const [round, setRound] = useState(0);
  useEffect(() => {
    let current = true;
    load().then(
      (data) => current && setFound({ data, error: null }),
      (error) => current && setFound((before) => ({ data: before.data, error })),
    );
    return () => (current = false);
  }, [...deps, round]);
  const back = connection.value !== "lost";
  useEffect(() => {
    if (back && found.error?.code === "unreachable") setRound((each) => each + 1); // the server is there again
  }, [back]);
  return { ...found, reload: () => setRound((each) => each + 1) };
}

/** The first line of a page. Its heading gets the focus when the page is gone to. */
export function Head({ title, children, acts }) {
  const line = useRef();
  useLayoutEffect(() => {
    if (arrived.peek()) line.current.focus({ preventScroll: true });
  }, []);
  useEffect(() => {
    heading.value = title;
  }, [title]);
  return html`<header class="head">
    <h1 tabindex="-1" ref=${line}>${title}</h1>
    ${children}<span class="spring" />
    ${acts && html`<div class="acts">${acts}</div>`}
  </header>`;
}

export const Empty = ({ title, children }) => html`<div class="empty"><h2>${title}</h2>${children}</div>`;
export const Wait = ({ what }) => html`<p class="quiet" role="status">${what ?? t("wait")}</p>`;

/** What went wrong, and the way out. */
export function Failure({ error, retry, children }) {
  const detail = error.code === "unreachable" ? `${t("unreachable.title")}\n${t("unreachable.text")}` : (error.problem?.detail ?? error.message);
  const [title, ...lines] = detail.split("\n");
  const unsaid = (error.problem?.problems ?? []).filter((each) => !detail.includes(each.message));
  return html`<div class="failure" role="alert">
    <p><b>${title}</b></p>
    ${lines.map((each) => html`<p key=${each}>${each}</p>`)}
    ${unsaid.map((each) => html`<p key=${each.field}><code>${each.field}</code> ${each.message}</p>`)}
    ${children}${retry && html`<p><button type="button" class="link" onClick=${retry}>${t("again")}</button></p>`}
  </div>`;
}

/** What an address names and is not there: said for the page, where the server names a command; the way out is `list`. */
export const Lacking = ({ says, list, all }) => html`<${Failure} error=${{ message: says }}><p><a class="button" href=${link(list)}>${all}</a></p><//>`;

/** A page's content once it is there; else what keeps it. */
export function Loaded({ from, children, what }) {
  if (from.data) return html`${from.error && html`<${Failure} error=${from.error} retry=${from.reload} />`}${children(from.data)}`;
  return from.error ? html`<${Failure} error=${from.error} retry=${from.reload} />` : html`<${Wait} what=${what} />`;
}

export const State = ({ of }) => html`<span class="state ${of}">${wordOr(`runs.state.${of}`, of)}</span>`;
export const Tags = ({ of }) => of.map((each) => html`<span class="tag" key=${each}>${each}</span>`);
export const Time = ({ at, children }) => html`<time datetime=${at}>${children}</time>`;
/** What a run is called: its own name, else when it was made (which its id says, in UTC). */
export function runName(run) {
  const id = run.id ?? run.run;
  const [, ...parts] = /^(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)-/.exec(id) ?? [];
  if (run.name || !parts.length) return run.name || id;
  const [year, month, day, hour, minute, second] = parts.map(Number);
  return moment(Date.UTC(year, month - 1, day, hour, minute, second));
}
export const metricName = (key) => wordOr(`metrics.${key}`, wordOr(`studio.metric.${key.replaceAll(".", "_")}`, key));

// the notes' own colours, and for other classes ones that colour-blind eyes tell apart
const NOTES = [1000, 2000, 5000, 10000, 20000, 50000, 75000, 100000];
const OTHERS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#3a93c4"];
export function colour(value, place = 0) {
  return NOTES.includes(value) ? `var(--rp${value})` : OTHERS[place % OTHERS.length];
}
export const className = (name, value) => (value ? rupiah(value) : name);
export const Swatch = ({ value, place }) => html`<span class="swatch" style=${{ "--own": colour(value, place) }}></span>`;

/** A picture with what was found in it, and dashed what is true. Everything in px of the picture. */
export function Picture({ url, width, height, found = [], truth, values = {}, classes = [], caption, least = 0, whole }) {
  const size = Math.sqrt(width * height);
  const line = size / (whole ? 260 : 130);
  const letter = size / (whole ? 32 : 16); // as large on a small print as on a whole picture
  const place = (box) => classes.indexOf(box.class);
  const shown = found.filter((box) => box.box_xyxy && (box.score ?? 1) >= least);
  const name = (box) => className(box.class, box.value ?? values[box.class]);
  const label = (box) => `${name(box)}${box.score === undefined ? "" : ` ${percent(box.score)}`}`;
  const alt = `${caption ?? ""}: ${shown.map(label).join(", ") || t("picture.nothing")}`;
  return html`<figure class=${whole ? "print whole" : "print"}>
    <svg viewBox="0 0 ${width} ${height}" role="img" aria-label=${alt}>
      <image href=${url} width=${width} height=${height} />
      ${(truth ?? []).filter((box) => box.box_xyxy).map((box, index) => {
        const [x0, y0, x1, y1] = box.box_xyxy;
        const shape = { x: x0, y: y0, width: x1 - x0, height: y1 - y0, fill: "none" };
        return html`<g key=${`t${index}`}>
          <rect ...${shape} stroke="#fff" stroke-width=${line * 1.1} />
          <rect ...${shape} stroke="#000" stroke-width=${line * 1.1} stroke-dasharray="${line * 3} ${line * 3}" />
        </g>`;
      })}
      ${[...shown].reverse().map((box, index) => {
        const [x0, y0, x1, y1] = box.box_xyxy;
        const own = colour(box.value ?? values[box.class], Math.max(0, place(box)));
        const words = label(box);
        const wide = words.length * letter * 0.56 + letter * 0.6;
        const top = Math.max(0, y0 - letter * 1.35);
        const left = Math.max(0, Math.min(x0, width - wide));
        return html`<g key=${index}>
          <rect x=${x0} y=${y0} width=${x1 - x0} height=${y1 - y0} fill="none" stroke=${own} stroke-width=${line * 1.5} />
          <rect x=${left} y=${top} width=${wide} height=${letter * 1.35} fill=${own} />
          <text x=${left + letter * 0.3} y=${top + letter} font-size=${letter} fill="var(--sheet)">${words}</text>
        </g>`;
      })}
    </svg>
    ${caption && html`<figcaption>${caption}</figcaption>`}
  </figure>`;
}

/** One choice of a few, as words side by side. */
export function Choice({ label, options, value, onChoose }) {
  return html`<span class="choice" role="group" aria-label=${label}>
    ${options.map(([key, text]) => html`<button key=${key} type="button" aria-pressed=${String(key === value)} onClick=${() => onChoose(key)}>${text}</button>`)}
  </span>`;
}

/** A table whose columns know how they are shown: {key, title, show, num, sort, wide}; wide: not on a telephone. `stacked`:
 *  there, each row is a paragraph. */
const place = (column) => [column.num && "num", column.wide && "wide"].filter(Boolean).join(" ");

/** Around a table, which may be wider than its place: its edge fades where it goes on. */
export function Sheet({ label, role = "group", kind = "", children }) {
  const box = useRef();
  const look = () => {
    const { scrollWidth, scrollLeft, clientWidth, classList } = box.current;
    classList.toggle("on", scrollWidth - Math.ceil(scrollLeft) - clientWidth > 1);
  };
  useLayoutEffect(() => {
    const seen = new ResizeObserver(look);
    for (const each of [box.current, box.current.firstElementChild]) seen.observe(each);
    return () => seen.disconnect();
  }, []);
  return html`<div class="table ${kind}" tabindex="0" role=${role} aria-label=${label} ref=${box} onScroll=${look}>${children}</div>`;
}

export function Table({ columns, rows, id = (row) => row.id, sort, onSort, label, mark, stacked }) {
  const order = (key) => (sort === key ? "ascending" : sort === `-${key}` ? "descending" : "none");
  return html`<${Sheet} role="region" label=${label}><table class=${stacked ? "stacked" : undefined}>
    <thead><tr>${columns.map((column) => {
      const title = column.sort && onSort ? html`<button type="button" onClick=${() => onSort(sort === `-${column.sort}` ? column.sort : `-${column.sort}`)}>${column.title}</button>` : column.title;
      const sorted = column.sort && onSort ? { "aria-sort": order(column.sort) } : {};
      return html`<th key=${column.key} scope="col" class=${place(column)} ...${sorted}>${title}</th>`;
    })}</tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${id(row)} class=${mark?.(row) ?? ""}>
      ${columns.map((column) => html`<td key=${column.key} class=${place(column)}>${column.show ? column.show(row) : plain(row[column.key])}</td>`)}
    </tr>`)}</tbody>
  </table><//>`;
}

export function Modal({ title, onClose, children }) {
  const dialog = useRef();
  useLayoutEffect(() => {
    const shown = dialog.current;
    shown.showModal();
    return () => shown.close(); // which gives the focus back
  }, []);
  return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onCancel=${(event) => { event.preventDefault(); onClose(); }}>
    <h2 id="dialog-title">${title}</h2>${children}
  </dialog>`;
}

// Questions: one at a time, asked with `ask` or `confirmed`, shown by <Question /> at the end of the page.
const question = signal(null);

/** Ask; resolves true or false, or to what was typed if there is an `input` {label, value, options}. `review`: the changes
 *  to show; `grave`: the button says that it is serious. */
export const ask = (asked) =>
  new Promise((resolve) => {
    question.value = { ...asked, key: Math.random(), answer: (said) => { question.value = null; resolve(said); } };
  });

/** Show what would change; resolves to what confirms exactly that, or to undefined. */
export async function agreed(review, words = {}) {
  const sure = await ask({ title: t("changes.title"), yes: t("changes.apply"), ...words, review });
  return sure ? { confirm_token: review.confirm_token, significant: Boolean(review.significant) } : undefined;
}

/** Do what may need a confirmation: ask for its review, which does at once what needs none, and send it again with the
 *  token. `send`: post or remove. Resolves to the answer, or undefined when it was not confirmed. */
export async function confirmed(send, path, body, words) {
  const answer = await send(`${path}?review=1`, body);
  if (!answer.review) return answer;
  const token = await agreed(answer.review, words);
  return token && send(path, { ...body, ...token });
}

export const Question = () => question.value && html`<${Asked} key=${question.value.key} asked=${question.value} />`;

function Asked({ asked }) {
  const [understood, setUnderstood] = useState(false);
  const review = asked.review;
  const held = Boolean(review?.significant) && !understood;
  const typed = useRef();
  const agree = (event) => {
    event.preventDefault();
    if (!held) asked.answer(asked.input ? typed.current.value.trim() : true);
  };
  return html`<${Modal} title=${asked.title} onClose=${() => asked.answer(false)}>
    ${asked.text && html`<p>${asked.text}</p>`}
    ${review && html`<${Changes} of=${review.changes} first=${review.first} against=${review.against} />`}
    ${review?.weighing && html`<${Weighing} of=${review.weighing} />`}
    ${review?.significant && html`<label class="tick notice warned"><input type="checkbox" checked=${understood} onChange=${(event) => setUnderstood(event.target.checked)} /><span>${asked.acknowledge ?? t("changes.understood")}</span></label>`}
    <form onSubmit=${agree}>
      ${asked.input && html`<label class="stacked">${asked.input.label}<input ref=${typed} required list="asked" autocomplete="off" defaultValue=${asked.input.value} /></label><datalist id="asked">${asked.input.options.map((each) => html`<option key=${each} value=${each}></option>`)}</datalist>`}
      <div class="acts">
        <button type="button" autofocus onClick=${() => asked.answer(false)}>${t("cancel")}</button>
        <button type="submit" class=${asked.grave ? "grave" : "primary"} disabled=${held}>${asked.yes ?? t("yes")}</button>
      </div>
    </form>
  <//>`;
}

/** A field of the configuration, a fact of an export, or an alias, as people call it. */
export const fieldName = (field) => wordOr(`studio.field.${field}`, field.startsWith("export.") ? t(field) : field.replace(/^alias\./, ""));

const TYPED = ["name", "notes", "tags", "data.path"];
/** The value of a field as people read it: of a few choices, the word of the form. */
export const fieldValue = (field, value) => (field === "export.state" && value ? t(`export.${value}`) : typeof value === "string" && !TYPED.includes(field) ? wordOr(`studio.choice.${value}`, plain(value)) : plain(value));

/** What changes are measured against: a training, or nothing yet. */
export const Against = ({ first, run }) => (first || run ? html`<p class="quiet small">${first ? t("changes.first") : html`${t("changes.against")} <a href=${link("runs", run)}>${runName({ id: run })}</a>`}</p>` : null);

/** Old → new; what matters is marked and says why. */
export function Changes({ of, first, against }) {
  if (!of.length) return html`<p class="quiet">${t("changes.none")}</p>`;
  return html`<${Against} first=${first} run=${against} />
    <${Sheet} label=${t("changes.title")}><table class="stacked changes">
    <thead><tr><th scope="col">${t("changes.what")}</th><th scope="col">${t("changes.old")}</th><th scope="col">${t("changes.new")}</th></tr></thead>
    <tbody>${of.map((change) => html`<tr key=${change.field}>
      <th scope="row">${fieldName(change.field)}${change.significant && html`<br /><span class="warn">⚠ ${t("changes.significant")}: ${change.why_text}</span>`}</th>
      <td><del>${fieldValue(change.field, change.old)}</del></td><td><ins>${fieldValue(change.field, change.new)}</ins></td>
    </tr>`)}</tbody></table><//>`;
}

/** The figures of the version that has an alias beside those of the one that is to get it. */
function Weighing({ of }) {
  return html`<${Sheet} label=${word(`models.weighing.figure_${of.split}`)}><table>
    <thead><tr><th scope="col">${word(`models.weighing.figure_${of.split}`)}</th><th scope="col" class="num">${of.old}</th><th scope="col" class="num">${of.new}</th>${!of.hindrance && html`<th scope="col" class="num">${word("models.weighing.difference")}</th>`}</tr></thead>
    <tbody>${of.figures.map((each) => html`<tr key=${each.name}><th scope="row">${metricName(each.name)}</th><td class="num">${decimal(each.old)}</td><td class="num">${decimal(each.new)}</td>${!of.hindrance && html`<td class=${each.difference < 0 ? "num bad" : "num"}>${signed(each.difference)}</td>`}</tr>`)}</tbody></table><//>
    ${of.verdict && html`<p class="notice warned">${of.verdict}</p>`}`;
}

// Word of what happened.
export const toasts = signal([]);
export function toast(text, address) {
  const own = { text, address, key: Math.random() };
  toasts.value = [...toasts.value, own];
  setTimeout(() => (toasts.value = toasts.value.filter((each) => each !== own)), 12000);
}

export const Toasts = () => html`<div class="toasts" role="status" aria-live="polite">
  ${toasts.value.map((each) => html`<div class="toast" key=${each.key}>
    ${each.address ? html`<a href=${each.address}>${each.text}</a>` : html`<span>${each.text}</span>`}
    <button type="button" aria-label=${t("close")} onClick=${() => (toasts.value = toasts.value.filter((other) => other !== each))}>×</button>
  </div>`)}
</div>`;

/** Do something and say what became of it. */
export async function attempt(work, done) {
  try {
    const answer = await work();
    if (answer !== undefined && done) toast(typeof done === "function" ? done(answer) : done);
    return answer;
  } catch (error) {
    toast(error.code === "unreachable" ? t("unreachable.title") : (error.problem?.detail ?? error.message));
    return undefined;
  }
}

/** Follow a job to its end: {job, setJob, busy, share}. Its changes come with the stream; then its result is fetched once.
 *  One that a server begun anew knows nothing of has failed. */
export function useJob() {
  const [job, setJob] = useState(null);
  const jobs = state.value?.jobs;
  const seen = jobs?.find((each) => each.id === job?.id);
  const busy = job?.state === "running";
  const over = busy && seen && seen.state !== "running";
  const gone = busy && jobs && !seen; // or too new for what was said last
  const back = connection.value !== "lost";
  useEffect(() => {
    if (!over && !gone) return undefined;
    let current = true;
    get(`jobs/${job.id}`).then(
      (found) => current && setJob(found),
      (error) => current && error.code !== "unreachable" && setJob({ ...job, state: "failed", error: error.problem }),
    );
    return () => (current = false);
  }, [over, gone, back, job?.id]);
  return { job, setJob, busy, share: seen?.share ?? 0 };
}

export const runLink = (run) => link("runs", run.id ?? run.run);
export const Remaining = ({ of }) => (of.eta_s === null || of.eta_s === undefined ? "" : t("progress.left", { time: duration(of.eta_s, true) }));
export const download = (name, content, kind = "text/csv") => {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type: kind }));
  Object.assign(document.createElement("a"), { href: address, download: name }).click();
  URL.revokeObjectURL(address);
};
