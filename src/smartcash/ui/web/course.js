// The course of a run as columns: fetched once, thinned by the server, then lengthened by what the stream brings.
import { get } from "./api.js";

const POINTS = 2000;
const empty = () => ({ step: [], epoch: [], time: [], series: {}, epochs: {}, began: 0, seq: 0, thinned: false });

export async function fetchCourse(run, keys = "") {
  const [metrics, epochs] = await Promise.all([
    get(`runs/${run}/metrics?max_points=${POINTS}${keys && `&keys=${keys}`}`),
    get(`runs/${run}/epochs`),
  ]);
  const { seq, step, epoch, time, series, began, thinned } = metrics;
  return { ...empty(), seq: Math.min(seq, epochs.seq), step, epoch, time, series, began, thinned, epochs: epochs.columns };
}

/** Lengthen `course` by a batch of the stream, in place. */
export function lengthen(course, batch) {
  for (const event of batch.events) {
    if (event.type === "RunResumed" || event.type === "RolledBack") cut(course, event.step);
    if (event.type === "EpochEnded") addEpoch(course, event);
  }
  const steps = batch.steps;
  if (!steps.seq?.length) return;
  course.began ||= steps.time[0];
  const first = course.step.length;
  steps.step_in_run.forEach((step, index) => {
    if (step <= (course.step[course.step.length - 1] ?? 0)) return; // it came with the columns already
    course.step.push(step);
    course.epoch.push(steps.epoch[index] - 1 + steps.step[index] / steps.steps[index]);
    course.time.push(steps.time[index] - course.began);
    for (const [key, values] of Object.entries(steps)) {
      if (["seq", "time", "epoch", "step", "steps", "step_in_run", "eta_s"].includes(key)) continue;
      const columns = (course.series[key] ??= { mean: new Array(first).fill(null) });
      while (columns.mean.length < course.step.length - 1) columns.mean.push(null);
      columns.mean.push(values[index]);
      if (columns.low) {
        columns.low.push(values[index]);
        columns.high.push(values[index]);
      }
    }
  });
}

/** What was logged beyond `step` counts no more: the run went on from there. */
function cut(course, step) {
  const length = course.step.findIndex((each) => each > step);
  if (length < 0) return;
  for (const name of ["step", "epoch", "time"]) course[name].length = length;
  for (const columns of Object.values(course.series))
    for (const values of Object.values(columns)) values.length = Math.min(values.length, length);
}

function addEpoch(course, event) {
  const columns = course.epochs;
  const known = columns.epoch ?? [];
  const place = known.findIndex((each) => each >= event.epoch);
  const length = place < 0 ? known.length : place; // an epoch that is done again replaces what was said of it
  const row = { ...event.row, epoch: event.epoch, step: course.step[course.step.length - 1] ?? null, is_best: event.is_best };
  for (const key of new Set([...Object.keys(columns), ...Object.keys(row)])) {
    const values = (columns[key] ??= []);
    values.length = Math.min(values.length, length);
    while (values.length < length) values.push(null);
    values.push(row[key] ?? null);
  }
}

/** The x of what is measured at every step, and of what is measured at the end of every epoch. */
export const stepX = (course, axis) => course[axis];
export function epochX(course, axis) {
  return course.epochs[{ step: "step", epoch: "epoch", time: "elapsed_s" }[axis]] ?? [];
}
