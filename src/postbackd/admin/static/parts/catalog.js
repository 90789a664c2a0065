// What the pages of the catalog share: lists, one entry, saving without losing anybody's work, removing.
import { html, useState } from "../app/html.js";
import { call, Problem, useAsk } from "../app/api.js";
import { go } from "../app/router.js";
import { may } from "../app/session.js";
import { Button, Notice } from "./parts.js";
import { Confirm, say } from "./messages.js";

export const useList = (kind, query = {}) => useAsk(`/${kind}s`, { limit: 1000, ...query });

// How an address names an entry: by its name, or by its number where the name holds a slash.
export const nameOf = (row) => (row.name.includes("/") ? `id:${row.id}` : row.name);
export const useEntry = (kind, name) => useAsk(`/${kind}s/${encodeURIComponent(name)}`);

// Add (without a name) or change an entry.  `tag`: of the answer that the form was filled from.
export async function save(kind, name, body, tag) {
  try {
    return name === null
      ? await call("POST", `/${kind}s`, { body })
      : await call("PATCH", `/${kind}s/${encodeURIComponent(name)}`, { body, match: tag });
  } catch (problem) {
    if (problem.status === 412) throw new Problem(412, "Somebody changed the catalog while this form was open. Close it, look at what is there now, and change it again.");
    throw problem;
  }
}

export function Remove({ kind, row, then = `${kind}s`, low, children }) {
  const [asks, setAsks] = useState(false);
  const [busy, setBusy] = useState(false);
  if (!may("catalog")) return null;
  const remove = async () => {
    setBusy(true);
    try {
      await call("DELETE", `/${kind}s/${encodeURIComponent(nameOf(row))}`);
      say(`${row.name} is removed`);
      if (typeof then === "function") then(); else go(then);
    } catch (problem) {
      say(problem.detail, "bad");
      setBusy(false);
      setAsks(false);
    }
  };
  return html`<${Button} kind=${low ? "quiet square low" : "danger"} icon="trash" label=${low ? `Remove ${row.name}` : undefined} onClick=${() => setAsks(true)}>${!low && "Remove"}<//>
    ${asks && html`<${Confirm} title=${`Remove ${kind} ${row.name}?`} yes="Remove" danger busy=${busy} onYes=${remove} onClose=${() => setAsks(false)}><p>${children}</p><//>`}`;
}

// "click_id=aff_sub,sub1" a line <-> { click_id: ["aff_sub", "sub1"] }
export const writeLists = (map) => Object.entries(map).map(([name, list]) => `${name}=${list.join(",")}`).join("\n");
export const writePairs = (map) => Object.entries(map).map(([name, text]) => `${name}=${text}`).join("\n");

export function readPairs(text, field) {
  const pairs = text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => line.split(/=(.*)/s, 2).map((part) => part.trim()));
  for (const [name, value] of pairs) if (!name || !value) throw new Problem(400, `Write one NAME=VALUE a line; "${name}" is none.`, field);
  return Object.fromEntries(pairs);
}

export const readLists = (text, field) => Object.fromEntries(Object.entries(readPairs(text, field)).map(([name, list]) => [name, readList(list)]));
export const readList = (text) => text.split(",").map((one) => one.trim()).filter(Boolean);

// Only what differs from what the form began with is sent.
export function changed(before, after) {
  return Object.fromEntries(Object.entries(after).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name])));
}

export function ReadOnly() {
  return may("catalog") ? null : html`<${Notice}>You can look at everything here; changing it needs the role operator.<//>`;
}
