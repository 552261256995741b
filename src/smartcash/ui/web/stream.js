// What happens, as it happens. One tab of the browser holds the stream (browsers allow six connections to a host) and
// tells the others; where no byte of it arrives within three seconds, as behind some proxies, it asks again and again.
import { signal, computed } from "./html.js";
import { at, get, root } from "./api.js";

const SILENCE_MS = 3000;
const RETRY_MS = 500;
const GATHER_MS = 30; // the wishes of several tabs come together
const SLOWEST_RETRY_MS = 2000;

/** {active, ended, jobs, confirmed, operations, now} as the server last said it. */
export const state = signal(null);
/** "live", "poll" or "lost". */
export const connection = signal("lost");
const LESS = ["queued", "checking"];

/** The run at work that the chip shows: one that trains before one that waits for its turn or is only prepared. */
export const active = computed(() => {
  const all = state.value?.active ?? [];
  return all.find((each) => !LESS.includes(each.state)) ?? all.find((each) => each.state === "queued") ?? all[0] ?? null;
});

const tab = Math.random().toString(36).slice(2);
const name = `smartcash ${new URL(root).pathname}`;
const channel = "BroadcastChannel" in window ? new BroadcastChannel(name) : null;
const mine = new Map(); // run → {seq, hear}
const wants = new Map(); // tab → {run: seq}; only the leader's is used
let leading = false;
let link = null; // what the leader holds: {runs, close}
let silent = false; // a stream was tried, and nothing came
let retry = RETRY_MS;
let gathering = 0;

/** Hear every batch of a run's events beyond number `seq`, each once; returns what ends it. */
export function follow(run, seq, hear) {
  mine.set(run, { seq, hear });
  want();
  return () => {
    mine.delete(run);
    want();
  };
}

function want() {
  const runs = Object.fromEntries([...mine].map(([run, each]) => [run, each.seq]));
  if (leading) wanted(tab, runs);
  else channel?.postMessage({ kind: "want", tab, runs });
}

function wanted(whose, runs) {
  wants.set(whose, runs);
  if (!leading) return;
  clearTimeout(gathering);
  gathering = setTimeout(open, GATHER_MS);
}

/** The runs that any tab wants, each from the least number that one of them still needs. */
function needed() {
  const runs = new Map();
  for (const each of wants.values())
    for (const [run, seq] of Object.entries(each)) runs.set(run, Math.min(seq, runs.get(run) ?? Infinity));
  return runs;
}

const written = (runs) => [...runs].map(([run, seq]) => `${run}:${seq}`).join(",");

function open() {
  const runs = needed();
  const known = link?.runs;
  if (known && runs.size === known.size && [...runs].every(([run, seq]) => known.has(run) && known.get(run) <= seq)) return;
  link?.close();
  link = silent || !("EventSource" in window) ? poll(runs) : stream(runs);
}

function stream(runs) {
  const source = new EventSource(at(`events?after=${written(runs)}`));
  const timer = setTimeout(() => {
    silent = true;
    reopen(0);
  }, SILENCE_MS);
  const heard = () => {
    clearTimeout(timer);
    retry = RETRY_MS;
    tell({ kind: "connection", value: "live" });
  };
  source.addEventListener("state", (event) => {
    heard();
    tell({ kind: "state", value: JSON.parse(event.data) });
  });
  source.addEventListener("run", (event) => tell({ kind: "batch", value: JSON.parse(event.data) }));
  source.addEventListener("bye", () => lost());
  source.onerror = () => lost();
  const close = () => {
    clearTimeout(timer);
    source.close();
  };
  const lost = () => {
    close();
    tell({ kind: "connection", value: "lost" });
    reopen();
  };
  return { runs: new Map(runs), close };
}

function poll(runs) {
  let going = true;
  const held = { runs: new Map(runs), close: () => (going = false) };
  (async () => {
    let after = written(runs);
    let wait = 0;
    while (going) {
      try {
        const answer = await get(`events?mode=poll&after=${after}&wait=${wait}`);
        if (!going) return;
        after = answer.after;
        wait = 10;
        retry = RETRY_MS;
        tell({ kind: "connection", value: "poll" });
        tell({ kind: "state", value: answer.state });
        for (const batch of answer.batches) tell({ kind: "batch", value: batch });
      } catch {
        if (!going) return;
        tell({ kind: "connection", value: "lost" });
        return reopen();
      }
    }
  })();
  return held;
}

function reopen(wait = retry) {
  link?.close();
  link = null;
  retry = Math.min(SLOWEST_RETRY_MS, retry * 2);
  setTimeout(() => leading && !link && open(), wait);
}

function tell(message) {
  hear(message);
  channel?.postMessage(message);
}

function hear({ kind, value, tab: whose, runs }) {
  if (kind === "state") state.value = value;
  else if (kind === "connection") connection.value = value;
  else if (kind === "batch") pass(value);
  else if (kind === "want" && leading) {
    wanted(whose, runs);
    channel.postMessage({ kind: "connection", value: connection.value });
  }
  else if (kind === "who") want();
}

/** Hand a batch on without what was heard before: a stream that is opened anew for another tab may repeat. */
function pass(batch) {
  if (link?.runs.has(batch.run)) link.runs.set(batch.run, Math.max(batch.seq, link.runs.get(batch.run)));
  const known = mine.get(batch.run);
  for (const runs of wants.values()) if (batch.run in runs) runs[batch.run] = Math.max(batch.seq, runs[batch.run]);
  if (!known || batch.seq <= known.seq) return;
  const from = batch.steps.seq?.findIndex((seq) => seq > known.seq) ?? 0;
  const steps = from > 0 ? Object.fromEntries(Object.entries(batch.steps).map(([key, each]) => [key, each.slice(from)])) : batch.steps;
  const events = batch.events.filter((each) => each.seq > known.seq);
  known.seq = batch.seq;
  known.hear({ ...batch, steps: from < 0 ? {} : steps, events });
}

function lead() {
  leading = true;
  wants.clear();
  want();
  channel?.postMessage({ kind: "who" });
}

export function begin() {
  channel?.addEventListener("message", (event) => hear(event.data));
  addEventListener("pagehide", () => channel?.postMessage({ kind: "want", tab, runs: {} }));
  if (navigator.locks && channel) {
    get("events?mode=poll&wait=0").then((answer) => (state.value ??= answer.state), () => {});
    want(); // whoever leads answers how it is connected
    navigator.locks.request(name, () => {
      lead();
      return new Promise(() => {}); // until this tab is closed
    });
    return;
  }
  // A plain http address other than this machine's own has no locks: each tab for itself, and only while it is seen.
  const look = () => {
    if (document.hidden) {
      clearTimeout(gathering);
      leading = false;
      link?.close();
      link = null;
    } else lead();
  };
  document.addEventListener("visibilitychange", look);
  look();
}
