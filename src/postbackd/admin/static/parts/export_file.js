// A partner's file: how it is to be read, and sending it.
import { html, signal, useEffect, useState } from "../app/html.js";
import { call } from "../app/api.js";
import { Field } from "./parts.js";

export const FIELDS = [["transaction_id", "Transaction id"], ["click_id", "Click id"], ["type", "Type"], ["value", "Value"], ["currency", "Currency"], ["status", "Status"], ["time", "Time"]];
const BY_ITSELF = "?";  // what the server finds itself; no header is called so often that it matters

// The file of this page's last upload, so that it can be read again in another way: { id, file, given }.
export const lastFile = signal(null);

// Sends the file; `given`: how to read it.  Answers what it came to.
export async function send(network, file, given) {
  const said = Object.fromEntries(Object.entries(given).filter(([, text]) => text !== BY_ITSELF && text !== undefined));
  const query = new URLSearchParams({ network, name: file.name.slice(-255), ...said });  // an empty column is said, too: there is none
  const answer = await call("POST", `/reconcile?${query}`, { body: file, type: "text/csv" });
  lastFile.value = { id: answer.id, file, given };
  return answer;
}

// The headers as far as a browser can tell; the server looks more closely.
async function readHeaders(file) {
  const [line] = (await file.slice(0, 65536).text()).replace(/^\ufeff/, "").split(/\r?\n/, 1);
  if (!line || line.includes("\0")) return [];
  const count = (mark) => line.split(mark).length;
  const delimiter = [",", ";", "\t", "|"].sort((one, other) => count(other) - count(one))[0];
  const cells = line.match(new RegExp(`("(?:[^"]|"")*"|[^${delimiter === "|" ? "\\|" : delimiter}]*)`, "g")) ?? [];
  return [...new Set(cells.map((cell) => cell.replace(/^"|"$/g, "").replaceAll('""', '"').trim()).filter(Boolean))].slice(0, 200);
}

export function useHeaders(file, known = []) {
  const [headers, setHeaders] = useState(known);
  useEffect(() => {
    let gone = false;
    if (file) readHeaders(file).then((found) => { if (!gone && found.length) setHeaders([...new Set([...known, ...found])]); }, () => {});
    return () => { gone = true; };
  }, [file]);
  return headers;
}

// `given`: field -> header, "" (there is none) or BY_ITSELF; `guessed`: what the server found.
export function Mapping({ headers, given, guessed = {}, onChange, wrong }) {
  const put = (name) => (value) => onChange({ ...given, [name]: value });
  const column = ([name, label]) => {
    const found = guessed[name];
    const options = [[BY_ITSELF, found ? `${found} (found)` : found === null ? "none found" : "find it"], ...headers.filter((header) => header !== found).map((header) => [header, header]), ["", "there is none"]];
    return html`<${Field} key=${name} label=${label} kind="select" options=${options} value=${given[name] ?? BY_ITSELF} onValue=${put(name)} wrong=${wrong(name)} />`;
  };
  const choice = (name, label, options) => html`<${Field} label=${label} kind="select" options=${options} value=${given[name] ?? ""} onValue=${put(name)} wrong=${wrong(name)} />`;
  return html`<div class="pair">${FIELDS.map(column)}
    ${choice("dates", "Dates", [["", "find it"], ["ymd", "2026-11-23"], ["dmy", "23.11.2026"], ["mdy", "11/23/2026"], ["epoch", "1764000000"]])}
    ${choice("decimal", "Decimal mark", [["", "find it"], [".", "1,234.50"], [",", "1.234,50"]])}
    <${Field} label="Time zone of its clock" placeholder="found by itself" hint="UTC, +02:00 or -5" value=${given.time_zone ?? ""} onValue=${(text) => put("time_zone")(text || undefined)} wrong=${wrong("time_zone")} />
    <${Field} label="Their types = ours" placeholder="Sale=sale,Lead=lead" hint="Or one word for all rows." value=${given.types ?? ""} onValue=${(text) => put("types")(text || undefined)} wrong=${wrong("types")} /></div>`;
}
