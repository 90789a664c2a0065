// A question to the reports as it stands in the address, and as the server takes it.
import { zone as here } from "../app/format.js";

export const DIMENSIONS = ["campaign", "offer", "source", "network", "type", "status", "country", "day", "hour", "weekday", "sub1", "sub2", "sub3", "sub4", "sub5", "sub6", "sub7", "sub8", "sub9", "sub10"];
export const PERIODS = [["today", "Today"], ["yesterday", "Yesterday"], ["7d", "Last 7 days"], ["30d", "Last 30 days"], ["month", "This month"], ["last-month", "Last month"], ["90d", "Last 90 days"], ["own", "Choose days"]];
const DEEPER = ["campaign", "country", "offer", "day", "source", "network", "sub1", "weekday"];

// The address holds only what differs from the ordinary question.
export function read(query) {
  const by = (query.by ?? "campaign").split(",").filter((name) => DIMENSIONS.includes(name)).slice(0, 3);
  return {
    by: by.length ? by : ["campaign"], clock: query.clock === "click" ? "click" : "conversion", zone: query.zone || here, sort: query.sort || undefined,
    period: PERIODS.some(([key]) => key === query.period) ? query.period : "7d", from: query.from ?? "", to: query.to ?? "",
    where: (query.where ?? "").split("\n").filter((line) => line.includes("=")).map((line) => line.split(/=(.*)/s, 2)),
    show: query.show === "quality" ? "quality" : "money", draw: query.draw || undefined,
  };
}

export const writeWhere = (where) => where.map(([name, value]) => `${name}=${value}`).join("\n");

function today(zone) {
  try { return new Intl.DateTimeFormat("en-CA", { timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit" }).format(new Date()); } catch { return new Date().toISOString().slice(0, 10); }
}

export const nextDay = (day) => { const at = new Date(`${day}T00:00Z`); at.setUTCDate(at.getUTCDate() + 1); return at.toISOString().slice(0, 10); };

function monthBefore(day) {
  const at = new Date(`${day.slice(0, 7)}-01T00:00Z`);
  at.setUTCMonth(at.getUTCMonth() - 1);
  return at.toISOString().slice(0, 10);
}

// [since, until] in the words of the server; null: the days that are chosen by hand are not complete.
function bounds({ period, from, to, zone }) {
  if (period === "today") return ["0d"];
  if (period === "yesterday") return ["1d", "0d"];
  if (period === "month") return [`${today(zone).slice(0, 7)}-01`];
  if (period === "last-month") return [monthBefore(today(zone)), `${today(zone).slice(0, 7)}-01`];
  if (period === "own") return from && to && from <= to ? [from, nextDay(to)] : null;
  return [period];
}

// What is asked; null: nothing can be asked yet.  A line break at the end says that line breaks part the filters.
export function toAsk(question, limit) {
  const span = bounds(question);
  if (span === null) return null;
  const where = question.where.length ? writeWhere(question.where) + "\n" : "";
  return { by: question.by.join(","), clock: question.clock, zone: question.zone, since: span[0], until: span[1], where, sort: question.sort, limit };
}

// The filters of a row, and what to group by then.
export function deeper(question, line) {
  const shown = line.key.map((key, at) => [question.by[at], key === null ? "" : ["campaign", "offer", "source", "network"].includes(question.by[at]) ? line.label[at] : String(key)]);
  const added = shown.filter(([name, value]) => !question.where.some((one) => one[0] === name && one[1] === value));
  const where = [...question.where.filter(([name]) => !shown.some((one) => one[0] === name)), ...shown];
  const next = DEEPER.find((name) => !where.some((one) => one[0] === name));
  return added.length && next ? { where: writeWhere(where), by: next, sort: null } : null;
}

export const canGoDeeper = (line) => line.key.every((key, at) => key !== "(other)" && line.label[at] !== "(unknown)");
