// Health in words: what the figures of a report say, as sentences.  No figures are asked for here.
import { count, percent, plural, words } from "./format.js";

export const HEALTHY_MATCH_RATE = 0.9;
const HEALTHY_DELIVERIES = 0.95;
const WAIT_FOR_NO_GOOD = 10;
const SAYS_SOMETHING = 20;  // fewer postbacks with a click id prove nothing

const carried = (of) => of.postbacks.total - WITHOUT_ID.reduce((sum, word) => sum + (of.postbacks.by_reason[word] ?? 0), 0);
const WITHOUT_ID = ["click_id_missing", "click_id_empty", "test_event", "body_malformed"];

// report: /report with by=network; `reasons`: word -> { cause, fix }.  Gives { level, headline, points: [{ text, href }] }.
export function judge(report, period, reasons = {}) {
  const points = [...report.groups].filter((group) => isLow(group)).map((group) => sayLow(group, reasons));
  points.push(...report.deliveries.by_source.filter(isFailing).map(sayFailing), ...report.deliveries.by_source.filter(isStuck).map(sayStuck));
  const busy = report.refusals.busy ?? 0;
  if (busy) points.push({ text: `${plural(busy, "request")} found the server busy and ${busy === 1 ? "was" : "were"} asked to come again.` });
  if (report.postbacks.total === 0) return { level: "calm", headline: sayQuiet(report, period), points };
  const rate = report.match_rate;
  const low = rate !== null && rate < HEALTHY_MATCH_RATE;
  const level = low && carried(report) >= SAYS_SOMETHING ? "bad" : points.length ? "warn" : low ? "calm" : "good";
  return { level, headline: sayRate(level, rate, period, report), points };
}

const isLow = (group) => group.match_rate !== null && group.match_rate < HEALTHY_MATCH_RATE && carried(group) >= SAYS_SOMETHING;
const isFailing = (one) => one.success_rate !== null && one.success_rate < HEALTHY_DELIVERIES;

// None came through and some wait: the target is down, or was set up wrongly.  A few wait for a moment as a matter of course.
export const isStuck = (one) => one.success_rate === null && one.by_state.waiting >= WAIT_FOR_NO_GOOD;

function sayQuiet(report, period) {
  const clicks = report.clicks ? ` ${plural(report.clicks, "click")} came in` : " No click came in either";
  return `No postback arrived in the last ${period}.${clicks}.`;
}

function sayRate(level, rate, period, report) {
  if (rate === null) return `${plural(report.postbacks.total, "postback")} arrived in the last ${period}, none with a click id.`;
  const share = `${percent(rate)} of postbacks with a click id matched in the last ${period}`;
  if (level === "calm") return `Too few postbacks to judge tracking by: ${share}.`;
  if (level === "good") return `Tracking is healthy: ${share}.`;
  if (level === "warn") return `Tracking works, with something to look at: ${share}.`;
  return `Tracking is not healthy: only ${share}, below the 90 % line.`;
}

function sayLow(group, reasons) {
  const [word, number] = Object.entries(group.postbacks.unmatched_by_reason)[0] ?? [];
  const cause = reasons[word]?.cause ?? (word && words(word));
  const most = word ? ` Most often (${count(number)}): ${cause.replace(/\.$/, "")}.` : "";
  return { text: `Match rate of network ${group.network ?? "(removed)"} is ${percent(group.match_rate)}, below the 90 % line.${most}`, about: "match", network: group.network, reason: word };
}

function sayFailing(one) {
  return { text: `Of deliveries to source ${one.source ?? "(removed)"}, ${percent(one.success_rate)} came through.`, about: "deliveries", source: one.source };
}

function sayStuck(one) {
  return { text: `None of ${plural(one.by_state.waiting, "delivery", "deliveries")} to source ${one.source ?? "(removed)"} came through yet; they wait and are tried again.`, about: "waiting", source: one.source };
}
