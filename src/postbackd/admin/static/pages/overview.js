// Overview: is tracking healthy, and what flows.
import { html, useMemo } from "../app/html.js";
import { useAsk } from "../app/api.js";
import { compact, count, milliseconds, NOTHING, percent, seconds, titled } from "../app/format.js";
import { HEALTHY_DELIVERIES, HEALTHY_MATCH_RATE, judge } from "../app/health.js";
import { alarmsOpen } from "../app/open_alarms.js";
import { ask, link } from "../app/router.js";
import { Asked, Bones, Button, Card, Empty, Head, Icon, Money, Pill, Segments, Table, Tiles } from "../parts/parts.js";
import { Chart } from "../parts/chart.js";
import { Rate } from "../parts/rate.js";
import { useReasons } from "../parts/reasons.js";

const PERIODS = [["1h", "Hour"], ["24h", "Day"], ["7d", "Week"]];
const SPOKEN = { "1h": "hour", "24h": "24 hours", "7d": "7 days" };

export default function Overview({ query }) {
  const since = SPOKEN[query.since] ? query.since : "24h";
  const networks = useAsk("/report", { since, by: "network" }, { every: 20 });
  const live = useAsk("/report", { since: "5m" }, { every: 5 });
  return html`<${Head} title="Overview" lead="What arrives, what is counted, and whether anything is lost on the way.">
      <${Segments} label="Period" options=${PERIODS} value=${since} onValue=${(value) => ask({ since: value })} />
    <//>
    <div class="stack">
      <${Health} of=${networks} period=${SPOKEN[since]} />
      <${Asked} of=${networks} bones=${html`<${WaitingTiles} />`}>${(report) => html`<${Figures} report=${report} live=${live.data.value} />`}<//>
      <${Charts} since=${since} />
      <div class="columns">
        <${Card} title="Money by currency" bare><${Asked} of=${networks}>${(report) => html`<${Value} report=${report} />`}<//><//>
        <${Card} title="Networks" bare aside=${html`<a class="small" href=${link("networks")}>All networks</a>`}><${Asked} of=${networks}>${(report) => html`<${Networks} report=${report} />`}<//><//>
      </div>
      <div class="columns">
        <${Card} title="Verdicts" bare><${Asked} of=${networks}>${(report) => html`<${Verdicts} report=${report} since=${since} />`}<//><//>
        <${Card} title="Deliveries to sources" bare><${Asked} of=${networks}>${(report) => html`<${Deliveries} report=${report} />`}<//><//>
      </div>
    </div>`;
}

const MARKS = { good: "check", warn: "warn", bad: "warn", calm: "info" };

function Health({ of, period }) {
  const reasons = useReasons();
  const report = of.data.value;
  if (report === null) return of.problem.value ? html`<${Asked} of=${of} />` : html`<div class="health"><${Bones} lines=${1} /></div>`;
  const { level, headline, points } = judge(report, period, reasons.value, alarmsOpen.value);
  return html`<section class=${`health ${level}`} aria-label="Health" aria-live="polite">
    <span class="dot"><${Icon} name=${MARKS[level]} /></span>
    <div><strong>${headline}</strong>
      ${points.length > 0 && html`<ul>${points.map((point) => html`<li>${point.text} <${Next} point=${point} /></li>`)}</ul>`}
      ${report.postbacks.total === 0 && report.clicks === 0 && html`<p class="soft">Set up a <a href=${link("networks")}>network</a> and a <a href=${link("campaigns")}>campaign</a>, then open the campaign's link: the click shows here within seconds.</p>`}
    </div>
  </section>`;
}

const NEXT = {
  alarm: ({ id }) => ["See what to do", link("alarms", id)],
  alarms: () => ["See them", link("alarms")],
  match: ({ network }) => ["See the doctor", link("doctor", { network })],
  waiting: () => ["See them", link("deliveries", { state: "waiting" })],
  deliveries: () => ["See them", link("deliveries", { state: "dead" })],
};

function Next({ point }) {
  const [text, to] = NEXT[point.about]?.(point) ?? [];
  return to && html`<a href=${to}>${text}</a>`;
}

function perSecond(number, over) {
  const rate = number / over;
  return rate === 0 ? "0" : rate < 10 ? rate.toFixed(rate < 1 ? 2 : 1) : compact(Math.round(rate));
}

function Figures({ report, live }) {
  const times = report.response_ms;
  const low = report.match_rate !== null && report.match_rate < HEALTHY_MATCH_RATE;
  return html`<${Tiles} of=${[
    { name: "Clicks now", figure: live && perSecond(live.clicks, 300), unit: "/s", note: "over the last 5 minutes" },
    { name: "Postbacks now", figure: live && perSecond(live.postbacks.total, 300), unit: "/s", note: "over the last 5 minutes" },
    { name: "Match rate", figure: percent(report.match_rate), note: report.match_rate === null ? "no click ids yet" : low ? html`<${Pill} kind="bad">below the 90% line<//>` : html`<${Pill} kind="good">above the 90% line<//>` },
    { name: "Success rate", figure: percent(report.postback_success_rate), note: `of ${compact(report.postbacks.total)} postbacks` },
    { name: "Response time", figure: milliseconds(times.p50), note: `p95 ${milliseconds(times.p95)} · p99 ${milliseconds(times.p99)}` },
    { name: "Clicks", figure: compact(report.clicks), note: "in the period" },
    { name: "Conversions", figure: compact(stand(report.conversions)), note: sayStanding(report) },
    { name: "Duplicates", figure: percent(report.duplicate_rate), note: "recognised, counted once" },
  ]} />`;
}

// Conversions that stand: not those that were rejected or reversed.
const stand = (of) => (of ? of.by_status.pending + of.by_status.approved : null);

function sayStanding({ conversions, clicks }) {
  const gone = conversions.count - stand(conversions);
  const share = clicks ? `${percent(stand(conversions) / clicks, 2)} of clicks` : "in the period";
  return gone ? `${share} · ${count(gone)} taken back` : share;
}

function WaitingTiles() {
  return html`<div class="tiles" role="status"><span class="unseen">Loading…</span>${Array.from({ length: 8 }, () => html`<div class="tile"><span class="bone"></span><span class="bone tall"></span></div>`)}</div>`;
}

function Charts({ since }) {
  const by = since === "7d" ? "day" : "hour";
  const series = useAsk("/report", { since: since === "1h" ? "24h" : since, by }, { every: 60 });
  return html`<div class="columns">
    <${Card} title=${by === "day" ? "Traffic by day" : "Traffic by hour"}><${Asked} of=${series} bones=${html`<span class="bone chart"></span>`}>${(report) => html`<${Traffic} report=${report} by=${by} />`}<//><//>
    <${Card} title="Match rate"><${Asked} of=${series} bones=${html`<span class="bone chart"></span>`}>${(report) => html`<${Matching} report=${report} by=${by} />`}<//><//>
  </div>`;
}

const startOf = (group, by) => Date.parse(by === "day" ? `${group.day}T00:00Z` : group.hour.replace("Z", ":00Z")) / 1000;

// Hours without a row are hours without traffic, not gaps.
function fill(report, by, read) {
  const step = by === "day" ? 86400 : 3600;
  const found = new Map(report.groups.map((group) => [startOf(group, by), group]));
  const last = Math.floor(Date.now() / 1000 / step) * step;
  const first = last - (by === "day" ? 6 : 23) * step;
  const times = [];
  for (let at = first; at <= last; at += step) times.push(at);
  return [times, ...read.map((one) => times.map((at) => (found.has(at) ? one(found.get(at)) : one(null))))];
}

function Traffic({ report, by }) {
  const [times, series] = useMemo(() => {
    const [at, clicks, postbacks, conversions] = fill(report, by, [(g) => g?.clicks ?? 0, (g) => g?.postbacks.total ?? 0, (g) => stand(g?.conversions) ?? 0]);
    return [at, [
      { name: "Clicks", values: clicks, colour: 1, fill: true }, { name: "Postbacks", values: postbacks, colour: 2 }, { name: "Conversions", values: conversions, colour: 3 },
    ]];
  }, [report]);
  if (report.groups.length === 0) return html`<${Empty} icon="overview" title="No traffic in this period">Clicks and postbacks are drawn here as they arrive.<//>`;
  return html`<${Chart} times=${times} series=${series} summary=${`${count(report.clicks)} clicks, ${count(report.postbacks.total)} postbacks and ${count(stand(report.conversions))} conversions over the period`} />`;
}

function Matching({ report, by }) {
  const [times, series] = useMemo(() => {
    const [at, rates] = fill(report, by, [(g) => (g === null || g.match_rate === null ? null : g.match_rate * 100)]);
    return [at, [{ name: "Match rate", values: rates, colour: 2, fill: true, show: (value) => `${value.toFixed(1)}%` }]];
  }, [report]);
  if (report.match_rate === null) return html`<${Empty} icon="doctor" title="Nothing to match yet">As soon as postbacks arrive, their match rate is drawn against the 90% line.<//>`;
  return html`<${Chart} times=${times} series=${series} top=${100} lines=${[{ at: 90 }]} show=${(value) => `${value}%`} summary=${`Match rate ${percent(report.match_rate)}; the line of health is 90%`} />`;
}

function Value({ report }) {
  const rows = Object.entries(report.conversions.value);
  return html`<${Table} caption="Value of conversions by currency and status" folds keyOf=${([currency]) => currency} rows=${rows}
    empty=${html`<${Empty} icon="info" title="No conversions yet">Values appear by currency; currencies are never added up.<//>`}
    columns=${[
      { head: "Currency", lead: true, cell: ([currency]) => html`<span class="main-text">${currency}</span>` },
      ...["approved", "pending", "rejected", "reversed"].map((status) => ({ head: titled(status), num: true, cell: ([currency, by]) => html`<${Money} of=${by[status]} currency=${currency} />` })),
    ]} />`;
}

function Networks({ report }) {
  return html`<${Table} caption="Postbacks, match rate and conversions by network" rows=${report.groups} keyOf=${(row) => row.network}
    empty=${html`<${Empty} icon="networks" title="No postbacks yet" actions=${html`<${Button} href=${link("networks")} icon="plus">Set up a network<//>`}>Networks that send postbacks are listed here with their match rate.<//>`}
    columns=${[
      { head: "Network", lead: true, cell: (row) => (row.network ? html`<a class="main-text" href=${link("networks", row.network)}>${row.network}</a>` : "(removed)") },
      { head: "Postbacks", num: true, cell: (row) => count(row.postbacks.total) },
      { head: "Match rate", num: true, cell: (row) => html`<${Rate} of=${row.match_rate} />` },
      { head: "Conversions", num: true, cell: (row) => count(stand(row.conversions)) },
    ]} />`;
}

function Verdicts({ report, since }) {
  const rows = Object.entries(report.postbacks.by_verdict).filter(([, number]) => number > 0);
  return html`<${Table} caption="Postbacks by verdict" rows=${rows} keyOf=${([word]) => word}
    empty=${html`<${Empty} icon="live" title="No postbacks in this period">Each postback gets a verdict and a reason; see them arrive in the <a href=${link("live")}>live log</a>.<//>`}
    columns=${[
      { head: "Verdict", lead: true, cell: ([word]) => html`<a href=${link("live", { verdict: word, since })}><${Pill} word=${word} /></a>` },
      { head: "Postbacks", num: true, cell: ([, number]) => count(number) },
      { head: "Share", num: true, cell: ([, number]) => percent(number / report.postbacks.total) },
    ]} />`;
}

const waiting = (row) => (row.by_state.waiting ? html`<${Pill} kind="warn">${count(row.by_state.waiting)} waiting<//>` : NOTHING);

function Deliveries({ report }) {
  return html`<${Table} caption="Deliveries by source" rows=${report.deliveries.by_source} keyOf=${(row) => row.source}
    empty=${html`<${Empty} icon="deliveries" title="Nothing to deliver yet">When a rule tells a source of its conversions, each delivery and its attempts are counted here.<//>`}
    columns=${[
      { head: "Source", lead: true, cell: (row) => html`<span class="main-text">${row.source ?? "(removed)"}</span>` },
      { head: "Deliveries", num: true, cell: (row) => count(row.total) },
      { head: "Came through", num: true, cell: (row) => (row.success_rate === null ? waiting(row) : html`<${Rate} of=${row.success_rate} line=${HEALTHY_DELIVERIES} />`) },
      { head: "Usual time", num: true, cell: (row) => (row.seconds.p50 === null ? NOTHING : row.seconds.p50 < 60 ? milliseconds(row.seconds.p50 * 1000) : seconds(row.seconds.p50)) },
    ]} />`;
}
