// Numbers, money and moments as people read them.  Numbers are written as the words around them and the server's
// sentences are, in English; moments in the viewer's language and zone.
const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const dayTime = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const daySecond = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const fullTime = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short" });
const ago = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

export const NOTHING = "–";
export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

const absent = (value) => value === null || value === undefined;

export const count = (number) => (absent(number) ? NOTHING : whole.format(number));
export const compact = (number) => (absent(number) ? NOTHING : Math.abs(number) < 10_000 ? whole.format(number) : short.format(number));
export const plural = (number, one, many = one + "s") => `${count(number)} ${number === 1 ? one : many}`;

// A share from 0 to 1.  Never rounded up to 100% or down to 0% when it is neither.
export function percent(share, digits = 1) {
  if (absent(share)) return NOTHING;
  if (share === 1 || share === 0) return `${share * 100}%`;
  const step = 10 ** -digits;
  const shown = Math.min(Math.max(share * 100, step), 100 - step);
  return `${shown.toFixed(digits)}%`;
}

const digitsOf = {};

// How many digits behind the point people write of a currency: 0 of JPY, 2 of most.
function digits(currency) {
  if (!(currency in digitsOf)) {
    try { digitsOf[currency] = new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions().maximumFractionDigits; } catch { digitsOf[currency] = 2; }
  }
  return digitsOf[currency];
}

// Money arrives as decimal text and is never turned into a float: digits are grouped as they are.
export function money(text, currency = "", { signed = false } = {}) {
  if (absent(text)) return NOTHING;
  const [, sign, units, fraction = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(String(text)) ?? [null, "", String(text)];
  const some = fraction.replace(/0+$/, "");
  const cents = some === "" && digits(currency) === 0 ? "" : `.${some.padEnd(2, "0")}`;
  const grouped = units.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  const mark = sign ? "\u2212" : signed ? "+" : "";
  return `${mark}${grouped}${cents}${currency ? "\u00a0" + currency : ""}`;
}

export function bytes(number) {
  if (absent(number)) return NOTHING;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (number >= 1000 && at < units.length - 1) { number /= 1000; at += 1; }
  return `${at && number < 10 ? number.toFixed(1) : Math.round(number)} ${units[at]}`;
}

export function milliseconds(number) {
  if (absent(number)) return NOTHING;
  if (number >= 1000) return `${(number / 1000).toFixed(1)} s`;
  return `${number < 10 ? number.toFixed(1) : Math.round(number)} ms`;
}

export function seconds(number) {
  if (absent(number)) return NOTHING;
  for (const [name, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (number >= size && number % size === 0) return plural(number / size, name);
  }
  if (number >= 172800) return `${(number / 86400).toFixed(1)} days`;
  if (number >= 5400) return `${(number / 3600).toFixed(1)} hours`;
  if (number >= 90) return `${(number / 60).toFixed(1)} minutes`;
  return plural(Math.round(number), "second");
}

const moment = (at) => (at instanceof Date ? at : new Date(at));
export const utc = (at) => moment(at).toISOString().replace("T", " ").replace(/\.000Z$|Z$/, " UTC");
export const timeOfDay = (at) => clock.format(moment(at));
export const hourMinute = (at) => minute.format(moment(at));
export const dateTime = (at) => dayTime.format(moment(at));
export const dateSecond = (at) => daySecond.format(moment(at));
export const fullMoment = (at) => fullTime.format(moment(at));

export function since(at, now = Date.now()) {
  const s = Math.round((moment(at) - now) / 1000);
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(s) >= size) return ago.format(Math.trunc(s / size), unit);
  }
  return Math.abs(s) < 10 ? "just now" : ago.format(s, "second");
}

// "click_id_missing" -> "click id missing"
export const words = (text) => (absent(text) ? NOTHING : String(text).replaceAll("_", " "));
export const titled = (text) => words(text)[0].toUpperCase() + words(text).slice(1);
