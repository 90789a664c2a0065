// Questions to the API.  Every request goes through `call`: it names the data set, proves that it comes from this page,
// and turns problem documents into `Problem`.
import { signal, useEffect, useRef, useSignal } from "./html.js";

const PREFIX = "/api/v1";
const SAFE = new Set(["GET", "HEAD"]);

export const dataSet = signal(remembered());  // "real" or "demo"
export const csrf = signal("");               // of the session that is signed in
export const signedOut = signal(false);       // a request was answered 401

function remembered() {
  try { return sessionStorage.getItem("data") === "demo" ? "demo" : "real"; } catch { return "real"; }
}

export function look(at) {
  try { sessionStorage.setItem("data", at); } catch { /* kept for this page alone */ }
  dataSet.value = at;
}

export class Problem extends Error {
  constructor(status, detail, field = null) {
    super(detail);
    this.status = status;
    this.detail = detail;
    this.field = field;  // the parameter or member of the body that is meant
  }
}

// call("GET", "/report", { query: { since: "24h" } }) -> the decoded answer.  `raw`: the Response itself.
// `match`: the tag of the answer that a change is based on; if somebody changed it meanwhile, the Problem has status 412.
// `code`: of a one-time link; it must not be in an address, because proxies keep those.
export async function call(method, path, { query, body, type, match, code, signal: stop, raw } = {}) {
  const headers = { Accept: "application/json" };
  if (dataSet.value === "demo") headers["Postbackd-Data"] = "demo";
  if (!SAFE.has(method) && csrf.value) headers["Postbackd-CSRF"] = csrf.value;
  if (match) headers["If-Match"] = match;
  if (code) headers["Postbackd-Code"] = code;
  if (body !== undefined) headers["Content-Type"] = type ?? "application/json";
  let response;
  try {
    response = await fetch(address(path, query), {
      method, headers, signal: stop, credentials: "same-origin", cache: "no-store",
      body: body === undefined || type ? body : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server does not answer. Is postbackd running, and is this machine connected to it?");
  }
  if (!response.ok) throw await readProblem(response, path);
  if (raw) return response;
  return response.status === 204 ? null : response.json();
}

export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, text]) => text !== undefined && text !== null && text !== "");
  return PREFIX + path + (given.length ? "?" + new URLSearchParams(given) : "");
}

// The same for what the browser itself asks (a link, an event source): it sends no header, so the address names the data set.
export const addressHere = (path, query = {}) => address(path, dataSet.value === "demo" ? { ...query, data: "demo" } : query);

async function readProblem(response, path) {
  let document = {};
  try { document = await response.json(); } catch { /* not ours: a proxy in between answered */ }
  if (response.status === 401 && path !== "/session") signedOut.value = true;
  return new Problem(response.status, document.detail ?? `The server answered ${response.status}.`, document.field ?? null);
}

// Ask once, again every `every` seconds while the page is visible, and again when `path`, `query` or the data set changes.
// Gives signals data, problem, loading; a function again; and tag.current, the ETag of the answer.  Old data stay on the page while newer ones are asked for.
export function useAsk(path, query = {}, { every = 0 } = {}) {
  const data = useSignal(null);
  const problem = useSignal(null);
  const loading = useSignal(true);
  const again = useRef(() => {});
  const tag = useRef(null);
  const asked = path === null ? null : address(path, query);
  const of = dataSet.value;
  useEffect(() => {
    if (asked === null) { loading.value = false; return undefined; }
    const stop = new AbortController();
    let timer = 0;
    let busy = false;
    data.value = null;
    problem.value = null;
    const run = async () => {
      if (busy) return;
      busy = true;
      loading.value = true;
      try {
        const response = await call("GET", path, { query, signal: stop.signal, raw: true });
        const answer = await response.json();
        tag.current = response.headers.get("ETag");
        data.value = answer;
        problem.value = null;
      } catch (error) {
        if (error.name === "AbortError") return;
        problem.value = error instanceof Problem ? error : new Problem(0, String(error));
      } finally {
        busy = false;
        if (!stop.signal.aborted) loading.value = false;
      }
      if (every && !stop.signal.aborted) timer = setTimeout(tick, every * 1000);
    };
    const tick = () => (document.hidden ? (timer = setTimeout(tick, every * 1000)) : run());
    again.current = () => { clearTimeout(timer); run(); };
    run();
    return () => { stop.abort(); clearTimeout(timer); };
  }, [asked, of, every]);
  return { data, problem, loading, tag, again: () => again.current() };
}
