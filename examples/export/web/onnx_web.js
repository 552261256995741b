// The notes in a picture, in a browser: onnxruntime-web runs an exported ONNX file, which knows the rest.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { found, metadata, prepared } from "./notes.js";

/** Reads an ONNX file (a Blob): {about, session}, or null for one that SmartCash did not write. */
export async function opened(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const about = metadata(bytes);
  return about && { about, session: await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] }) };
}

/** The pixels of a picture (a Blob) as they are stored, upright, on white where it is transparent. */
export async function pixels(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), pen = canvas.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, bitmap.width, bitmap.height);
  pen.drawImage(bitmap, 0, 0);
  return pen.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** What the file says of a picture: its input and its outputs, as {name: flat array}. */
export async function asked({ about, session }, picture) {
  const [images, back] = prepared(picture, about), { name, shape } = about.input;
  const count = images.length / (shape[1] * shape[2] * shape[3]);
  const answer = await session.run({ [name]: new ort.Tensor("float32", images, [count, ...shape.slice(1)]) });
  const outputs = Object.fromEntries(Object.entries(answer).map(([output, tensor]) => [output, tensor.data]));
  return { images, outputs, notes: found(outputs, about, back) };
}
