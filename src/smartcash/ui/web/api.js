// Talking to the server. Every address is relative to the page's own, so it works beneath any path.
export const root = document.baseURI;
export const at = (path) => new URL(`api/v1/${path}`, root).href;

/** What the server refused, or that it could not be reached (`code` "unreachable"). */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || String(status));
    this.status = status;
    this.code = problem.code ?? "unreachable";
    this.params = problem.params ?? {};
    this.problem = problem;
  }
}

const isProblem = (kind) => (kind ?? "").includes("json");

async function answered(response) {
  if (response.ok) return response;
  throw new Refusal(response.status, isProblem(response.headers.get("content-type")) ? await response.json() : { title: response.statusText });
}

async function send(method, path, body, headers = {}) {
  const isFile = body instanceof Blob || body instanceof FormData;
  const sent = body === undefined || isFile ? body : JSON.stringify(body);
  const told = { "Accept-Language": document.documentElement.lang, ...headers };
  if (sent !== undefined && !isFile) told["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(at(path), { method, body: sent, headers: told, credentials: "same-origin" });
  } catch (error) {
    if (error instanceof TypeError) throw new Refusal(0, {}); // what fetch throws when nobody answers
    throw error;
  }
  return answered(response);
}

async function json(method, path, body, headers) {
  const response = await send(method, path, body, headers);
  return response.status === 204 ? null : response.json();
}

/** `query({a: 1, b: ""})` → "?a=1": what is empty is left out. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined && value !== false);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

export const get = (path) => json("GET", path);
export const post = (path, body = {}, headers) => json("POST", path, body, headers);
export const put = (path, body, headers) => json("PUT", path, body, headers);
export const patch = (path, body) => json("PATCH", path, body);
export const remove = (path, body) => json("DELETE", path, body);
export const raw = (path) => send("GET", path);
export const upload = (path, file) => json("POST", path, file, file instanceof FormData ? {} : { "Content-Type": file.type });

/** Send a file and hear how much of it is sent, 0 to 1: {done, cancel}. `done` resolves to the answer, or to undefined
 *  when it was cancelled. (fetch cannot tell.) */
export function uploading(path, file, hear) {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.onload = () => resolve(true);
    request.onerror = () => reject(new Refusal(0, {}));
    request.onabort = () => resolve(false);
  }).then((whole) => {
    if (!whole) return undefined;
    if (request.status < 300) return JSON.parse(request.response);
    throw new Refusal(request.status, isProblem(request.getResponseHeader("content-type")) ? JSON.parse(request.response) : { title: request.statusText });
  });
  request.upload.onprogress = (event) => hear(event.loaded / event.total);
  request.open("POST", at(path));
  request.setRequestHeader("Accept-Language", document.documentElement.lang);
  request.setRequestHeader("Content-Type", "application/zip");
  request.send(file);
  return { done, cancel: () => request.abort() };
}
