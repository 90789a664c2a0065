// Health in words: what the figures of a report say, as sentences.  No figures are asked for here.
import { count, percent, plural, words } from "./format.js";

export const HEALTHY_MATCH_RATE = 0.9;
export const HEALTHY_DELIVERIES = 0.95;
const WAIT_FOR_NO_GOOD = 10;
const SAYS_SOMETHING = 20;  // fewer postbacks with a click id prove nothing

const carried = (of) => of.postbacks.total - WITHOUT_ID.reduce((sum, word) => sum + (of.postbacks.by_reason[word] ?? 0), 0);
const WITHOUT_ID = ["click_id_missing", "click_id_empty", "test_event", "body_malformed"];

// report: /report with by=network; `reasons`: word -> { cause, fix }; `alarms`: those that are open, urgent ones first.
// Gives { level, headline, points: [{ text, about }] }.
export function judge(report, period, reasons = {}, alarms = []) {
  const urgent = alarms.some((one) => one.urgent);
  const points = sayAlarms(alarms);
  points.push(...[...report.groups].filter((group) => isLow(group)).map((group) => sayLow(group, reasons)));
  points.push(...report.deliveries.by_source.filter(isFailing).map(sayFailing), ...report.deliveries.by_source.filter(isStuck).map(sayStuck));
  const busy = report.refusals.busy ?? 0;
  if (busy) points.push({ text: `${plural(busy, "request")} found the server busy and ${busy === 1 ? "was" : "were"} asked to come again.` });
  if (report.postbacks.total === 0) return { level: urgent ? "bad" : points.length ? "warn" : "calm", headline: sayQuiet(report, period), points };
  const rate = report.match_rate;
  const low = rate !== null && rate < HEALTHY_MATCH_RATE;
  const isBad = low && carried(report) >= SAYS_SOMETHING;
  const level = isBad || urgent ? "bad" : points.length ? "warn" : low ? "calm" : "good";
  return { level, headline: urgent && !isBad ? `Something urgent is wrong, see below. ${sayShare(rate, period, report)}.` : sayRate(level, rate, period, report), points };
}

const ALARMS_NAMED = 3;

function sayAlarms(alarms) {
  const named = alarms.slice(0, ALARMS_NAMED).map((one) => ({ text: `${one.urgent ? "Urgent alarm" : "Alarm"}: ${one.title}.`, about: "alarm", id: one.id }));
  const rest = alarms.length - named.length;
  return rest > 0 ? [...named, { text: `${plural(rest, "more alarm")} ${rest === 1 ? "is" : "are"} open.`, about: "alarms" }] : named;
}

const isLow = (group) => group.match_rate !== null && group.match_rate < HEALTHY_MATCH_RATE && carried(group) >= SAYS_SOMETHING;
const isFailing = (one) => one.success_rate !== null && one.success_rate < HEALTHY_DELIVERIES;

// None came through and some wait: the target is down, or was set up wrongly.  A few wait for a moment as a matter of course.
const isStuck = (one) => one.success_rate === null && one.by_state.waiting >= WAIT_FOR_NO_GOOD;

function sayQuiet(report, period) {
  const clicks = report.clicks ? ` ${plural(report.clicks, "click")} came in` : " No click came in either";
  return `No postback arrived in the last ${period}.${clicks}.`;
}

function sayShare(rate, period, report) {
  if (rate === null) return `${plural(report.postbacks.total, "postback")} arrived in the last ${period}, none with a click id`;
  return `${percent(rate)} of postbacks with a click id matched in the last ${period}`;
}

function sayRate(level, rate, period, report) {
  const share = sayShare(rate, period, report);
  if (rate === null) return `${share}.`;
  if (level === "calm") return `Too few postbacks to judge tracking by: ${share}.`;
  if (level === "good") return `Tracking is healthy: ${share}.`;
  if (level === "warn") return `Tracking works, with something to look at: ${share}.`;
  return `Tracking is not healthy: only ${share}, below the 90% line.`;
}

function sayLow(group, reasons) {
  const [word, number] = Object.entries(group.postbacks.unmatched_by_reason)[0] ?? [];
  const cause = reasons[word]?.cause ?? (word && words(word));
  const most = word ? ` Most often (${count(number)}): ${cause.replace(/\.$/, "")}.` : "";
  return { text: `Match rate of network ${group.network ?? "(removed)"} is ${percent(group.match_rate)}, below the 90% line.${most}`, about: "match", network: group.network, reason: word };
}

function sayFailing(one) {
  return { text: `Of deliveries to source ${one.source ?? "(removed)"}, ${percent(one.success_rate)} came through.`, about: "deliveries", source: one.source };
}

function sayStuck(one) {
  return { text: `None of ${plural(one.by_state.waiting, "delivery", "deliveries")} to source ${one.source ?? "(removed)"} came through yet; they wait and are tried again.`, about: "waiting", source: one.source };
}
