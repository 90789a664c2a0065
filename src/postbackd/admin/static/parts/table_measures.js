// The measures of a report: how each is headed, shown and drawn.
import { html } from "../app/html.js";
import { compact, count, money, NOTHING, percent, seconds } from "../app/format.js";

// Decimal text with so many digits behind the point; the CSV has them all.
function rounded(text, digits) {
  const [, sign, units, fraction = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text);
  if (fraction.length <= digits) return text;
  const whole = BigInt(units + fraction.slice(0, digits)) + (fraction[digits] >= "5" ? 1n : 0n);
  const shown = String(whole).padStart(digits + 1, "0");
  return `${whole ? sign : ""}${shown.slice(0, -digits)}.${shown.slice(-digits)}`;
}

const one = (text, currency, digits = 2) => (text === null ? NOTHING : money(rounded(text, digits), currency));

const several = (of, digits) => {
  const all = Object.entries(of ?? {});
  return all.length === 0 ? NOTHING : html`<span class="stacked">${all.map(([currency, text]) => html`<span class="nowrap" key=${currency}>${one(text, currency, digits)}</span>`)}</span>`;
};

const MONEY = [
  ["clicks", "Clicks", (m) => count(m.clicks)], ["conversions", "Conversions", (m) => count(m.conversions)], ["conversion_rate", "Rate", (m) => percent(m.conversion_rate, 2), "conversions of clicks"],
  ["value", "Value", (m) => several(m.value)], ["cost", "Cost", (m, currency) => one(m.cost, currency)], ["profit", "Profit", (m, currency) => one(m.profit, currency)],
  ["roi", "ROI", (m) => signedPercent(m.roi), "profit of cost"], ["epc", "EPC", (m) => several(m.epc, 4), "value of a click"],
];
const QUALITY = [
  ["postbacks", "Postbacks", (m) => count(m.postbacks)], ["match_rate", "Match rate", (m) => percent(m.match_rate)], ["duplicates", "Duplicates", (m) => count(m.duplicates)],
  ["conversions", "Conversions", (m) => count(m.conversions)], ["taken_back", "Taken back", (m) => count(m.taken_back), "rejected and reversed conversions"],
  ["convert_p50_s", "Usual time", (m) => seconds(m.convert_p50_s), "half of the conversions come within this time of their click"], ["convert_p95_s", "p95 time", (m) => seconds(m.convert_p95_s), "95% of the conversions come within this time of their click"],
  ["s2s_only", "Server only", (m) => count(m.s2s_only), "told by a postback alone"], ["pixel_only", "Pixel only", (m) => count(m.pixel_only), "told by a pixel alone"], ["both_channels", "Both", (m) => count(m.both_channels), "told by postback and pixel"],
];

const signedPercent = (share) => (share === null ? NOTHING : share < 0 ? `\u2212${(-share * 100).toFixed(1)}%` : `${(share * 100).toFixed(1)}%`);

// What does not apply to the question has no column.
export function columnsOf(show, table) {
  const all = show === "quality" ? QUALITY : MONEY;
  const applies = (name) => { const told = table.total[name]; return told !== null && (typeof told !== "object" || Object.keys(told).length > 0); };
  return all.filter(([name]) => applies(name) || table.lines.some((line) => name !== "epc" && line.measures[name] !== null && typeof line.measures[name] !== "object"));
}

// What can be drawn of a table: [key, name, (measures) => number or null, (number) => text].
export function drawable(table) {
  const { total } = table;
  const figures = [["clicks", "Clicks", (m) => m.clicks, compact], ["conversions", "Conversions", (m) => m.conversions, compact], ["conversion_rate", "Conversion rate", share("conversion_rate"), inPercent]];
  for (const currency of Object.keys(total.value)) figures.push([`value_${currency}`, `Value in ${currency}`, (m) => Number(m.value[currency] ?? 0), compact]);
  figures.push(["cost", `Cost in ${table.currency}`, (m) => (m.cost === null ? null : Number(m.cost)), compact], ["postbacks", "Postbacks", (m) => m.postbacks, compact], ["match_rate", "Match rate", share("match_rate"), inPercent]);
  return figures.filter(([, , read]) => read(total) !== null);
}

const share = (name) => (m) => (m[name] === null ? null : m[name] * 100);
const inPercent = (number) => `${number < 10 ? Number(number.toFixed(2)) : number.toFixed(0)}%`;

// Rows that have nothing to say under the columns that are shown.
export const saysSomething = (show, m) => show === "quality" || m.clicks > 0 || m.conversions > 0 || m.taken_back > 0;
