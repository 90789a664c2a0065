// Addresses are #/page/part?name=text.  A page reads `route` and changes it with `go`.
import { signal } from "./html.js";

function read() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/").filter(Boolean).map(decode);
  return { page: parts[0] || "overview", rest: parts.slice(1), query: Object.fromEntries(new URLSearchParams(query)) };
}

function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

export const route = signal(read());

addEventListener("hashchange", () => { route.value = read(); });

// link("campaigns", "Summer sale") -> "#/campaigns/Summer%20sale"; the last argument may hold query parameters.
export function link(...parts) {
  const query = typeof parts.at(-1) === "object" ? parts.pop() : {};
  const given = Object.entries(query).filter(([, text]) => text !== undefined && text !== null && text !== "");
  const tail = given.length ? "?" + new URLSearchParams(given) : "";
  return "#/" + parts.map((part) => encodeURIComponent(part)).join("/") + tail;
}

export function go(...parts) {
  location.hash = link(...parts);
}

// The same, and the page that was left is not in the history: nobody comes back to it.
export function goInstead(...parts) {
  location.replace(link(...parts));
}

// Change the query parameters of the page that is shown, without a step in the history.  The address is asked, which is ahead
// of `route` by a moment: a dialog that closes late must not take back where somebody has gone meanwhile.
export function ask(query) {
  const { page, rest, query: old } = read();
  history.replaceState(null, "", link(page, ...rest, { ...old, ...query }));
  route.value = read();
}
