// The page: two files to choose, the picture with its boxes, the notes and their sum.

import { asked, opened, pixels } from "./onnx_web.js";

const WORDS = {
  id: {
    title: "Uang di dalam gambar", lead: "Model berjalan di peramban ini; gambar tidak dikirim ke mana pun.",
    model: "Model (.onnx)", picture: "Gambar", ready: "{count} kelas, {side} px", waiting: "Sedang dibaca …",
    foreign: "{name} bukan berkas ONNX hasil ekspor SmartCash. Buat dengan: smartcash export RUN --format onnx",
    refused: "{name} tidak dapat dibuka: {reason}", none: "Tidak ada uang yang ditemukan.",
    column: ["Kelas", "Nilai", "Skor"], sum: "Jumlah", notes: "Hasil",
  },
  en: {
    title: "Notes in a picture", lead: "The model runs in this browser; no picture is sent anywhere.",
    model: "Model (.onnx)", picture: "Picture", ready: "{count} classes, {side} px", waiting: "Reading …",
    foreign: "{name} is no ONNX file exported by SmartCash. Make one with: smartcash export RUN --format onnx",
    refused: "{name} cannot be opened: {reason}", none: "No notes found.",
    column: ["Class", "Value", "Score"], sum: "Sum", notes: "Result",
  },
};
const language = navigator.language.startsWith("id") ? "id" : "en", words = WORDS[language];
const filled = (sentence, facts) => sentence.replace(/{(\w+)}/g, (_, name) => facts[name]);
const place = (name) => document.getElementById(name);
const rupiah = new Intl.NumberFormat(language, { style: "currency", currency: "IDR", maximumFractionDigits: 0 });
const money = (value) => (value === null ? "–" : rupiah.format(value));

const chosen = { model: null, picture: null };  // what was read last of each; null while there is nothing to use
const problems = { model: "", picture: "" };
let reading = 0;

document.documentElement.lang = language;
document.title = words.title;
for (const each of document.querySelectorAll("[data-word]")) each.textContent = words[each.dataset.word];
place("model").addEventListener("change", ({ target }) => choose(target, async (file) => {
  const model = await opened(file);
  if (!model) throw new Error(filled(words.foreign, file));
  return model;
}));
place("picture").addEventListener("change", ({ target }) => choose(target, pixels));

/** Reads one of the two files and answers when both are there, whichever is read first; a later choice of the same file
 *  overtakes an earlier one. */
async function choose(target, read) {
  const [file] = target.files;
  if (!file) return;
  let used = chosen; // what an answer is made of
  const overtaken = () => target.files[0] !== file || used.model !== chosen.model || used.picture !== chosen.picture;
  reading += 1;
  chosen[target.id] = null;
  tell(target.id, "");
  place("state").textContent = words.waiting;
  try {
    const value = await read(file);
    if (overtaken()) return;
    chosen[target.id] = value;
    used = { ...chosen };
    const answer = used.model && used.picture && (await asked(used.model, used.picture));
    if (answer && !overtaken()) show(answer.notes);
  } catch (error) {
    if (overtaken()) return;
    const known = error.message.startsWith(file.name);
    tell(target.id, known ? error.message : filled(words.refused, { name: file.name, reason: error.message }));
    place("answer").hidden = true;
  } finally {
    reading -= 1;
    if (!reading) place("state").textContent = ready();
  }
}

function tell(which, problem) {
  problems[which] = problem;
  place("problem").textContent = [problems.model, problems.picture].filter(Boolean).join(" ");
}

function ready() {
  if (!chosen.model) return "";
  const { classes, input } = chosen.model.about;
  return filled(words.ready, { count: classes.length, side: input.preprocess.image_size });
}

function show(notes) {
  place("answer").hidden = false;
  draw(notes);
  const rows = notes.map((note) => [note.class, money(note.value), note.score.toLocaleString(language, { style: "percent" })]);
  const sum = notes.reduce((all, note) => all + (note.value ?? 0), 0);
  const body = rows.length ? [...rows, [words.sum, money(sum), ""]] : [[words.none, "", ""]];
  place("notes").replaceChildren(...[words.column, ...body].map((cells, row) => {
    const line = document.createElement("tr");
    line.append(...cells.map((cell) => {
      const made = document.createElement(row ? "td" : "th");
      made.textContent = cell;
      return made;
    }));
    return line;
  }));
}

function draw(notes) {
  const canvas = place("drawn"), pen = canvas.getContext("2d"), { picture } = chosen;
  [canvas.width, canvas.height] = [picture.width, picture.height];
  pen.putImageData(picture, 0, 0);
  pen.lineWidth = Math.max(2, picture.width / 200);
  pen.strokeStyle = "#0a7";
  for (const { box: [left, top, right, bottom] } of notes.filter((note) => note.box.length)) {
    pen.strokeRect(left, top, right - left, bottom - top);
  }
  canvas.setAttribute("aria-label", notes.map((note) => note.class).join(", ") || words.none);
}
