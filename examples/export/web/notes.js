// What notes.py does for the programs in Python: metadata, a picture as a file's input, its outputs as notes.

/** The metadata inside an ONNX file. The runtime does not give them out; they are pairs of strings (key 1, value 2) in
 *  field 14 of the file, which is one message of Protocol Buffers. */
export function metadata(bytes) {
  for (const [number, pair] of fields(bytes)) {
    if (number !== 14) continue;
    const { 1: key, 2: value } = Object.fromEntries(fields(pair));
    if (text(key) === "smartcash") return JSON.parse(text(value));
  }
  return null;
}

const text = (bytes) => new TextDecoder().decode(bytes);

/** [number, bytes] of every field of a message that has a length; numbers are passed over. */
function* fields(bytes) {
  let at = 0;
  const number = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (!(byte & 128)) return value;
    }
  };
  while (at < bytes.length) {
    const tag = number(), kind = tag % 8;
    if (kind === 0) number();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const end = number() + at;
      yield [Math.floor(tag / 8), bytes.subarray(at, end)];
      at = end;
    } else return; // no such message
  }
}

/** A picture (ImageData) as `images`, float32 N × 3 × side × side, and how to get back: scale and shift, each x, y. */
export function prepared(picture, about) {
  const how = about.input.preprocess, side = how.image_size, size = [picture.width, picture.height];
  const inner = size.map((length) => how.resize === "letterbox"
    ? Math.max(1, Math.min(side, toEven((length * side) / Math.max(...size)))) : side);
  const shift = inner.map((length) => Math.floor((side - length) / 2));
  const small = resized(picture, inner), plane = side * side;
  const image = new Float32Array(3 * plane);
  for (let channel = 0; channel < 3; channel++) {
    const { mean: { [channel]: mean }, std: { [channel]: std } } = how;
    image.fill((how.pad_value / 255 - mean) / std, channel * plane, (channel + 1) * plane);
    for (let y = 0; y < inner[1]; y++) {
      for (let x = 0; x < inner[0]; x++) {
        const value = Math.round(small[3 * (y * inner[0] + x) + channel]); // as 8 bits hold it
        image[channel * plane + (y + shift[1]) * side + x + shift[0]] = (value / 255 - mean) / std;
      }
    }
  }
  const batch = about.input.shape[0], count = Number.isInteger(batch) ? batch : 1; // a number, or "batch" for any
  const images = new Float32Array(count * image.length);
  for (let row = 0; row < count; row++) images.set(image, row * image.length);
  return [images, { scale: inner.map((length, axis) => length / size[axis]), shift }];
}

/** Rounds halves to the even number, as Python does. */
const toEven = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));

/** The RGB of a picture at another size, row by row: means of what a pixel covers when it shrinks, else linear. A canvas
 *  would do it too, but each browser in its own way, and not as in training. */
function resized({ data, width, height }, [toWidth, toHeight]) {
  const shrinks = [toWidth < width, toHeight < height], grows = [toWidth > width, toHeight > height];
  const kind = !shrinks.includes(true) ? linear : grows.includes(true) ? mixed : covered;
  const columns = kind(width, toWidth), rows = kind(height, toHeight);
  const wide = new Float32Array(3 * toWidth * height), small = new Float32Array(3 * toWidth * toHeight);
  for (let y = 0; y < height; y++) {
    columns.forEach((taps, x) => {
      for (const [from, weight] of taps) {
        for (let c = 0; c < 3; c++) wide[3 * (y * toWidth + x) + c] += weight * data[4 * (y * width + from) + c];
      }
    });
  }
  rows.forEach((taps, y) => {
    for (const [from, weight] of taps) {
      for (let at = 0; at < 3 * toWidth; at++) small[3 * toWidth * y + at] += weight * wide[3 * toWidth * from + at];
    }
  });
  return small;
}

/** For each of `to` pixels, which of `from` it is made of, with their weights: [[place, weight], …]. */
const covered = (from, to) => Array.from({ length: to }, (_, place) => {
  const scale = from / to, [low, high] = [place * scale, Math.min(from, (place + 1) * scale)], taps = [];
  for (let at = Math.floor(low); at < high; at++) {
    taps.push([at, (Math.min(high, at + 1) - Math.max(low, at)) / (high - low)]);
  }
  return taps;
});
const linear = (from, to) => between(from, to, (place) => ((place + 0.5) * from) / to - 0.5);
/** OpenCV's INTER_AREA where one side shrinks and the other grows, which only "stretch" can ask for. */
const mixed = (from, to) => between(from, to, (place) => {
  const low = Math.floor((place * from) / to), part = place + 1 - ((low + 1) * to) / from;
  return low + (part <= 0 ? 0 : part % 1);
});
const between = (from, to, place) => Array.from({ length: to }, (_, at) => {
  const middle = Math.max(0, Math.min(from - 1, place(at))), low = Math.floor(middle), part = middle - low;
  return part ? [[low, 1 - part], [low + 1, part]] : [[low, 1]];
});

/** The notes of the first picture, best first: class, value in Rupiah, score, box xyxy in px of the picture. `outputs`:
 *  {name: flat array}. */
export function found(outputs, about, { scale, shift }) {
  const { classes, nms: rule } = about, count = classes.length;
  const note = (label, score, box) => ({ class: classes[label], value: about.values_rupiah[label], score, box });
  const boxOf = (flat, row) => Array.from(flat.slice(4 * row, 4 * row + 4));
  if (about.task === "classify") {
    const first = Array.from(outputs.probabilities.slice(0, count)), label = first.indexOf(Math.max(...first));
    return [note(label, first[label], [])];
  }
  let kept = [];
  if (rule.inside) {
    outputs.score.forEach((score, row) => {
      const label = Number(outputs.label[row]);
      if (Number(outputs.image[row]) === 0) kept.push({ label, score, box: boxOf(outputs.box, row) });
    });
  } else {
    const candidates = about.outputs[0].shape[1];
    outputs.scores.slice(0, candidates * count).forEach((score, at) => {
      if (score > rule.threshold) kept.push({ label: at % count, score, box: boxOf(outputs.boxes, Math.floor(at / count)) });
    });
    kept.sort((one, other) => other.score - one.score);
    kept = once(kept, (one, other) => one.label === other.label && iou(one.box, other.box) > rule.iou);
    kept = once(kept, (one, other) => iou(one.box, other.box) > rule.same_note_iou);
  }
  return kept.map(({ label, score, box }) =>
    note(label, score, box.map((edge, at) => (edge - shift[at % 2]) / scale[at % 2])));
}

/** Those that no better one suppresses. */
function once(sorted, same) {
  const kept = [];
  for (const each of sorted) if (!kept.some((better) => same(better, each))) kept.push(each);
  return kept;
}

function iou([left, top, right, bottom], [left2, top2, right2, bottom2]) {
  const width = Math.min(right, right2) - Math.max(left, left2), height = Math.min(bottom, bottom2) - Math.max(top, top2);
  const inner = Math.max(0, width) * Math.max(0, height);
  return inner / ((right - left) * (bottom - top) + (right2 - left2) * (bottom2 - top2) - inner);
}
