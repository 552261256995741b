// One chart: lines over a smoothed or raw course, its band, what it says in words, and its figures as a table.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import uPlot from "./vendor/uplot.js";
import { ink, painted } from "./look.js";
import { t, decimal, figure, duration, whole } from "./words.js";
import { Sheet, download } from "./parts.js";

const HEIGHT = 250;
const TABLE_ROWS = 200;
export const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [14, 4]];

/** Exponential smoothing without the bias towards the first value; `weight` 0 leaves it as it is. */
export function smoothed(values, weight) {
  if (!weight) return values;
  const out = new Array(values.length);
  let sum = 0;
  let scale = 0;
  for (let index = 0; index < values.length; index += 1) {
    const value = values[index];
    if (value === null || value === undefined) {
      out[index] = null;
      continue;
    }
    sum = sum * weight + value * (1 - weight);
    scale = scale * weight + (1 - weight);
    out[index] = sum / scale;
  }
  return out;
}

/** Lines → uPlot's columns over one x, and what each column is. On a logarithmic scale nothing is zero. */
function columns(lines, weight, log) {
  const tables = new Map();
  const plan = [];
  for (const line of lines) {
    if (!tables.has(line.x)) tables.set(line.x, [line.x]);
    const add = (values, what) => {
      tables.get(line.x).push(log ? values.map((each) => (each > 0 ? each : null)) : values);
      plan.push({ ...what, line, x: line.x });
    };
    const weighed = line.smooth ? weight : 0;
    if (line.low) {
      add(line.high, { role: "high" });
      add(line.low, { role: "low" });
    } else if (weighed) add(line.y, { role: "raw" });
    add(smoothed(line.y, weighed), { role: "line" });
  }
  const ordered = [...tables.keys()].flatMap((x) => plan.filter((each) => each.x === x));
  const joined = tables.size > 1 ? uPlot.join([...tables.values()]) : ([...tables.values()][0] ?? [[]]);
  return { data: joined, plan: ordered };
}

function drawn({ role, line }) {
  const stroke = ink(line.colour);
  const dots = { show: line.points || line.y.length === 1, size: 5, fill: stroke };
  if (role === "line") return { stroke, width: 2, dash: line.dash, spanGaps: true, points: dots };
  if (role === "raw") return { stroke: ink(line.colour, 0.28), width: 1, spanGaps: true, points: { show: false } };
  return { stroke: "transparent", width: 0, spanGaps: true, points: { show: false } };
}

const xText = (axis, value) => (axis === "time" ? duration(value) : whole(value));

/** A figure on an axis with as many digits as its `step` from the next has: 2.5 needs one more than 2 or 5. */
export function ticked(value, step) {
  if (step < 1e-3 && value) return figure(value);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const split = Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6;
  return decimal(value, Math.min(3, digits + Number(split)));
}

/** From where to where the horizontal axis goes: in the first epoch too it has two figures, and one point has a place. */
export const reach = (axis) => (_, low, high) => {
  if (low === null) return [low, high];
  if (low === high) return [0, high || 1];
  return axis === "epoch" && Math.floor(high) - Math.ceil(low) < 1 ? [Math.floor(low), Math.ceil(high)] : [low, high];
};

function options({ axis, log, plan, width, onCursor }) {
  const quiet = ink("var(--ink-2)");
  const grid = { stroke: ink("var(--line)"), width: 1 };
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const bands = plan.flatMap((each, index) =>
    each.role === "high" ? [{ series: [index + 1, index + 2], fill: ink(each.line.colour, 0.16) }] : [],
  );
  const clock = (values) => values.map((value) => `${Math.floor(value / 60)}:${String(Math.round(value % 60)).padStart(2, "0")}`);
  return {
    width, height: HEIGHT, legend: { show: false }, bands,
    padding: [10, 8, 0, 0],
    cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false } },
    scales: { x: { time: false, range: reach(axis) }, y: log ? { distr: 3 } : { range: (_, low, high) => (low === high && !low ? [0, 1] : uPlot.rangeNum(low, high, 0.1, true)) } },
    axes: [
      { stroke: quiet, font, grid: { show: false }, ticks: { show: false }, size: 30, values: (_, splits) => (axis === "time" ? clock(splits) : splits.map((each) => (Number.isInteger(each) ? whole(each) : ""))) },
      { stroke: quiet, font, grid, ticks: { show: false }, size: 56, values: (_, splits, __, ___, step) => splits.map((each) => (each === null ? "" : log ? figure(each) : ticked(each, step))) },
    ],
    series: [{}, ...plan.map(drawn)],
    hooks: { setCursor: [(plot) => onCursor(plot.cursor.idx)] },
  };
}

const Key = ({ line }) => html`<svg viewBox="0 0 24 8" aria-hidden="true"><path d="M0 4H24" fill="none" stroke=${line.colour} stroke-width="2.5" stroke-dasharray=${line.dash?.join(" ")} /></svg>`;

/** `lines`: [{label, colour, dash, x, y, low?, high?, smooth?, points?, better?}]; `axis`: step, epoch or time; `stamp`
 *  changes whenever the figures in `lines` do. */
export function Chart({ title, note, lines, axis, log = false, smooth = 0, stamp, name }) {
  const place = useRef();
  const plot = useRef(null);
  const shown = useRef({});
  const [at, setAt] = useState(null);
  const [tabled, setTabled] = useState(false);
  const full = useMemo(() => lines.filter((line) => line.y.length), [lines]);
  const { data, plan } = useMemo(() => columns(full, smooth, log), [full, smooth, log]);
  const shape = `${axis} ${log} ${plan.map((each) => each.role + each.line.label + each.line.colour).join()} ${painted.value}`;
  shown.current = { data, plan };

  useLayoutEffect(() => {
    const width = place.current.clientWidth;
    const made = new uPlot(options({ axis, log, plan, width, onCursor: setAt }), data, place.current);
    plot.current = made;
    const seen = new ResizeObserver(([{ contentRect: { width: now } }]) => now !== made.width && made.setSize({ width: now, height: HEIGHT }));
    seen.observe(place.current);
    return () => {
      seen.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape]);

  useEffect(() => {
    const request = requestAnimationFrame(() => plot.current && plot.current.data !== shown.current.data && plot.current.setData(shown.current.data)); // none in a hidden tab
    return () => cancelAnimationFrame(request);
  }, [stamp, smooth, shape]);

  const columnOf = (line) => data[1 + plan.findIndex((each) => each.line === line && each.role === "line")];
  const rows = () => data[0].map((x, index) => [x, ...full.map((line) => columnOf(line)?.[index] ?? null)]);
  const csv = () => [[axis, ...full.map((line) => line.label)], ...rows()].map((row) => row.map((each) => (each === null ? "" : typeof each === "string" ? `"${each.replaceAll('"', '""')}"` : each)).join(",")).join("\n");

  return html`<figure class="chart">
    <div class="title"><h2>${title}</h2>${note && html`<small class="quiet">${note}</small>`}<span class="spring" />
      <span class="acts">
        <button type="button" class="link" aria-pressed=${String(tabled)} onClick=${() => setTabled(!tabled)}>${t("chart.table")}<span class="unseen"> ${title}</span></button>
        <button type="button" class="link" onClick=${() => download(`${name}.csv`, csv())}>CSV<span class="unseen"> ${title}</span></button>
        <button type="button" class="link" onClick=${() => picture(plot.current, title, full, `${name}.png`)}>PNG<span class="unseen"> ${title}</span></button>
      </span></div>
    <div class="plot" ref=${place} hidden=${tabled} aria-hidden="true" onDblClick=${() => setAt(null)}></div>
    ${tabled && html`<${Figures} axis=${axis} lines=${full} rows=${rows()} title=${title} />`}
    <figcaption>
      <div class="legend">${full.map((line) => html`<span key=${line.label}><${Key} line=${line} />${line.label} <b>${figure(at === null ? last(line.y) : columnOf(line)?.[at])}</b></span>`)}
        ${at !== null && data[0][at] !== undefined && html`<span>${t(`chart.${axis}`)} <b>${xText(axis, data[0][at])}</b></span>`}</div>
      <p class="unseen">${full.map((line) => told(line, axis)).join(" ")}</p>
    </figcaption>
  </figure>`;
}

function last(values) {
  for (let index = values.length - 1; index >= 0; index -= 1) if (values[index] !== null && values[index] !== undefined) return values[index];
  return null;
}

/** The course of a line in a sentence. */
function told(line, axis) {
  let best = null;
  const above = line.better === "more";
  line.y.forEach((value, index) => {
    if (value !== null && (best === null || (above ? value > line.y[best] : value < line.y[best]))) best = index;
  });
  if (best === null) return "";
  const facts = { line: line.label, now: figure(last(line.y)), best: figure(line.y[best]), at: xText(axis, line.x[best]), x: t(`chart.${axis}`) };
  return t(above ? "chart.told_highest" : "chart.told_lowest", facts);
}

function Figures({ axis, lines, rows, title }) {
  const every = Math.ceil(rows.length / TABLE_ROWS);
  const shown = rows.filter((_, index) => index % every === 0 || index === rows.length - 1);
  return html`<${Sheet} role="region" label=${title}><table>
    <thead><tr><th scope="col">${t(`chart.${axis}`)}</th>${lines.map((line) => html`<th key=${line.label} scope="col" class="num">${line.label}</th>`)}</tr></thead>
    <tbody>${shown.map((row) => html`<tr key=${row[0]}><th scope="row">${xText(axis, row[0])}</th>${row.slice(1).map((value, index) => html`<td key=${index} class="num">${figure(value)}</td>`)}</tr>`)}</tbody>
  </table><//>`;
}

/** The chart as a picture that explains itself. */
function picture(plot, title, lines, name) {
  const source = plot.ctx.canvas;
  const scale = devicePixelRatio;
  const canvas = Object.assign(document.createElement("canvas"), { width: source.width, height: source.height + 52 * scale });
  const context = canvas.getContext("2d");
  context.fillStyle = ink("var(--paper)");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 28 * scale);
  context.scale(scale, scale);
  const family = getComputedStyle(document.body).fontFamily;
  context.fillStyle = ink("var(--ink)");
  context.font = `600 14px ${family}`;
  context.fillText(title, 12, 20);
  context.font = `12px ${family}`;
  let left = 56;
  const base = source.height / scale + 44;
  for (const line of lines) {
    context.strokeStyle = ink(line.colour);
    context.lineWidth = 2;
    context.setLineDash(line.dash ?? []);
    context.beginPath();
    context.moveTo(left, base - 4);
    context.lineTo(left + 22, base - 4);
    context.stroke();
    context.fillText(line.label, left + 28, base);
    left += 48 + context.measureText(line.label).width;
  }
  canvas.toBlob((blob) => download(name, blob));
}
