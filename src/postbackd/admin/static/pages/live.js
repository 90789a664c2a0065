// Live log: every postback (or click, or attempt to deliver) as it is stored.  Rows are gathered and shown once a frame, and only so many are
// kept, so that the page stays smooth whatever comes; the server limits what it sends and says how much there was.
import { html, useEffect, useMemo, useRef, useState } from "../app/html.js";
import { addressHere, call, useAsk } from "../app/api.js";
import { compact, count, milliseconds, money, plural, titled, words } from "../app/format.js";
import { ask, link } from "../app/router.js";
import { useList } from "../parts/catalog.js";
import { Dialog } from "../parts/messages.js";
import { Asked, Bones, Button, Empty, Head, Icon, Notice, Pill, Segments, Select, Table, Time } from "../parts/parts.js";
import { useReasons } from "../parts/reasons.js";
import { Story } from "../parts/story.js";

const MOST_ROWS = 400;
const FIRST_ROWS = 100;
const KINDS = [["postbacks", "Postbacks"], ["clicks", "Clicks"], ["deliveries", "Deliveries"]];
const FILTERS = { postbacks: ["network", "verdict", "reason", "campaign"], clicks: ["campaign"], deliveries: ["outcome"] };
const OUTCOMES = ["delivered", "failed"];
const VERDICTS = ["accepted", "duplicate", "updated", "held", "unmatched", "rejected"];

export default function Live({ query }) {
  const kind = query.kind in FILTERS ? query.kind : "postbacks";
  const filter = Object.fromEntries(FILTERS[kind].map((name) => [name, query[name]]));
  return html`<${Head} title="Live log" lead="What arrives, within half a second. Choose a row to see its whole story: the click, every postback, the conversion, the deliveries.">
      <${Find} />
    <//>
    <div class="stack">
      <${Filters} kind=${kind} filter=${filter} />
      <${Stream} key=${JSON.stringify([kind, filter])} kind=${kind} filter=${filter} />
    </div>
    ${query.why && html`<${Dialog} wide title="What became of it" onClose=${() => ask({ why: null })}><${Why} id=${query.why} /><//>`}`;
}

function Find() {
  const [id, setId] = useState("");
  const send = (event) => { event.preventDefault(); if (id.trim()) ask({ why: id.trim() }); };
  return html`<form class="toolbar find" onSubmit=${send} role="search"><input type="search" aria-label="Find by an id" placeholder="Click, request, transaction …" value=${id} onInput=${(event) => setId(event.currentTarget.value)} /><button class="button" type="submit"><${Icon} name="search" />Find</button></form>`;
}

function Filters({ kind, filter }) {
  const networks = useList("network");
  const campaigns = useList("campaign");
  const reasons = useReasons();
  const choose = (name) => html`<${Select} key=${name} label=${titled(name)} value=${filter[name]} onValue=${(value) => ask({ [name]: value })} any=${`${titled(name)}: any`} options=${of[name]()} />`;
  const of = { network: () => named(networks), campaign: () => named(campaigns), verdict: () => VERDICTS, reason: () => Object.keys(reasons.value), outcome: () => OUTCOMES };
  const named = (list) => (list.data.value?.items ?? []).map((one) => [one.name, one.name]);
  const set = Object.values(filter).some(Boolean);
  return html`<div class="toolbar" role="group" aria-label="Filter">
    <${Segments} label="What is shown" options=${KINDS} value=${kind} onValue=${(value) => ask({ kind: value })} />
    ${FILTERS[kind].map(choose)}
    ${set && html`<${Button} kind="quiet" icon="cross" onClick=${() => ask(Object.fromEntries(FILTERS[kind].map((name) => [name, null])))}>Clear<//>`}
  </div>`;
}

const keyOf = (row) => (row.delivery ? `${row.delivery} ${row.last.attempt}` : row.request ?? row.click_id);

// What is shown: gathered rows, newest first.  Follows the server until paused; a pause keeps counting.
function useStream(kind, filter, paused) {
  const [shown, setShown] = useState({ rows: null, state: "connecting", rate: null, waiting: 0, note: null });
  const held = useRef([]);
  const pausing = useRef(paused);
  pausing.current = paused;
  const flush = useRef(() => {});
  useEffect(() => {
    let frame = 0;
    let gone = false;
    let quiet = 0;
    const put = (change) => { if (!gone) setShown((old) => ({ ...old, ...(typeof change === "function" ? change(old) : change) })); };
    const draw = () => {
      frame = 0;
      if (pausing.current) { put({ waiting: held.current.length }); return; }
      const fresh = held.current.splice(0).reverse();
      if (fresh.length) put((old) => ({ rows: merge(fresh, old.rows ?? []), waiting: 0 }));
    };
    flush.current = draw;
    const later = () => { frame ||= requestAnimationFrame(draw); };
    const add = (event) => {
      held.current.push(JSON.parse(event.data));
      if (held.current.length > MOST_ROWS) held.current.shift();
      later();
    };
    if (kind === "postbacks") {
      call("GET", "/log", { query: { ...filter, limit: FIRST_ROWS } }).then(({ items }) => put((old) => ({ rows: merge(old.rows ?? [], items) })), (problem) => put({ note: problem.detail, rows: [] }));
    } else put({ rows: [] });
    const source = new EventSource(addressHere("/log/live", { kind, ...filter }));
    source.onopen = () => put({ state: "live" });
    source.onerror = () => put({ state: source.readyState === EventSource.CLOSED ? "closed" : "connecting" });
    source.addEventListener({ postbacks: "postback", clicks: "click", deliveries: "delivery" }[kind], add);
    source.addEventListener("rate", (event) => {
      const rate = JSON.parse(event.data);
      put({ rate });
      clearTimeout(quiet);
      quiet = setTimeout(() => put({ rate: null }), 3000);
    });
    source.addEventListener("lost", (event) => put({ note: `This page was too slow for ${plural(JSON.parse(event.data).count, "row")}; the stored log has them.` }));
    source.addEventListener("resumed", (event) => { const { shown: some, matched, complete } = JSON.parse(event.data); if (!complete || some < matched) put({ note: "Some rows that came while the connection was lost are not shown here; the stored log has them." }); });
    source.addEventListener("away", () => put({ state: "away" }));
    source.addEventListener("back", () => put({ state: "live" }));
    return () => { gone = true; source.close(); cancelAnimationFrame(frame); clearTimeout(quiet); };
  }, []);
  useEffect(() => { if (!paused) flush.current(); }, [paused]);
  return shown;
}

function merge(fresh, old) {
  const seen = new Set();
  const rows = [];
  for (const row of [...fresh, ...old]) {
    if (rows.length === MOST_ROWS) break;
    if (seen.has(keyOf(row))) continue;
    seen.add(keyOf(row));
    rows.push(row);
  }
  return rows;
}

const STATES = { connecting: "connecting …", live: "live", away: "the database does not answer; waiting", closed: "not connected" };

function Stream({ kind, filter }) {
  const [paused, setPaused] = useState(false);
  const { rows, state, rate, waiting, note } = useStream(kind, filter, paused);
  const sampled = rate && rate.shown < rate.matched;
  const open = (row) => ask({ why: row.delivery ?? keyOf(row) });
  const Rows = { postbacks: Postbacks, clicks: Clicks, deliveries: Deliveries }[kind];
  return html`<section class="card" aria-label=${titled(kind)}>
    <header>
      <h2 class="row"><span class=${`pulse ${state === "live" && !paused ? "" : "off"}`}></span><span role="status">${paused ? `paused${waiting ? `, ${plural(waiting, "new row")}` : ""}` : STATES[state]}</span></h2>
      <span class="soft small">${rate ? `${compact(rate.matched)} a second${sampled ? `, ${count(rate.shown)} of them shown` : ""}` : ""}</span>
      ${sampled && html`<${Pill} kind="warn">sampled<//>`}
      <${Button} kind="low" icon=${paused ? "play" : "pause"} onClick=${() => setPaused(!paused)}>${paused ? "Go on" : "Pause"}<//>
    </header>
    ${note && html`<div class="in"><${Notice} kind="warn">${note}<//></div>`}
    ${sampled && html`<p class="in small soft">More arrives than anybody reads: a fair sample is shown. The stored log has every row.</p>`}
    ${rows === null ? html`<${Bones} lines=${3} />`
      : rows.length === 0 ? html`<${Nothing} kind=${kind} filtered=${Object.values(filter).some(Boolean)} />`
      : html`<${Rows} rows=${rows} open=${open} />`}
  </section>`;
}

function Nothing({ kind, filtered }) {
  if (filtered) return html`<${Empty} icon="live" title="Nothing of this kind yet">Rows that fit the filter show here as they arrive.<//>`;
  if (kind === "clicks") return html`<${Empty} icon="live" title="Waiting for clicks" actions=${html`<${Button} href=${link("campaigns")}>Open a campaign's link<//>`}>New clicks show here as they arrive.<//>`;
  if (kind === "deliveries") return html`<${Empty} icon="live" title="Waiting for deliveries" actions=${html`<${Button} href=${link("deliveries")}>Queue and history<//>`}>Each attempt to tell a source of a conversion shows here when it has ended.<//>`;
  return html`<${Empty} icon="live" title="No postback yet" actions=${html`<${Button} href=${link("networks")}>Set up a network<//>`}>Paste a network's postback URL into the network and send a test: it shows here within half a second.<//>`;
}

const At = ({ row, at = row.time, open }) => html`<button type="button" class="link plain" onClick=${() => open(row)}><${Time} at=${at} as="clock" /><span class="unseen">, its story</span></button>`;

const amount = (row) => (row.sent?.value === undefined ? "" : /^-?\d+(\.\d+)?$/.test(row.sent.value) ? money(row.sent.value, row.sent.currency ?? "") : row.sent.value);

function Postbacks({ rows, open }) {
  const reasons = useReasons();
  const columns = useMemo(() => [
    { head: "Time", cell: (row) => html`<${At} row=${row} open=${open} />` },
    { head: "Verdict", lead: true, cell: (row) => html`<${Pill} word=${row.verdict} />${row.first_verdict && html` <span class="soft tiny">was ${words(row.first_verdict)}</span>`}` },
    { head: "Why", cell: (row) => row.reason && html`<span title=${reasons.value[row.reason]?.cause}>${words(row.reason)}</span>` },
    { head: "Network", cell: (row) => row.network ?? "(removed)" },
    { head: "Campaign", cell: (row) => row.campaign },
    { head: "Click id", break: true, cell: (row) => row.click_id && html`<span class="mono small">${row.click_id}</span>` },
    { head: "Transaction", break: true, cell: (row) => row.sent.transaction_id && html`<span class="mono small">${row.sent.transaction_id}</span>` },
    { head: "Value", num: true, cell: amount },
  ], [reasons.value]);
  return html`<div class="live-rows"><${Table} caption="Postbacks, newest first" columns=${columns} rows=${rows} keyOf=${keyOf} onRow=${open} /></div>`;
}

function Clicks({ rows, open }) {
  return html`<div class="live-rows"><${Table} caption="Clicks, newest first" rows=${rows} keyOf=${keyOf} onRow=${open} folds columns=${[
    { head: "Time", cell: (row) => html`<${At} row=${row} open=${open} />` },
    { head: "Campaign", lead: true, cell: (row) => html`<span class="main-text">${row.campaign ?? "(removed)"}</span>` },
    { head: "Offer", cell: (row) => row.offer },
    { head: "Kind", cell: (row) => (row.kind === "counted" ? "" : html`<${Pill}>${words(row.kind)}<//>`) },
    { head: "Country", cell: (row) => row.country },
    { head: "Click id", break: true, cell: (row) => html`<span class="mono small">${row.click_id}</span>` },
  ]} /></div>`;
}

function Deliveries({ rows, open }) {
  return html`<div class="live-rows"><${Table} caption="Attempts to deliver, newest first" rows=${rows} keyOf=${keyOf} onRow=${open} columns=${[
    { head: "Time", cell: (row) => html`<${At} row=${row} at=${row.last.time} open=${open} />` },
    { head: "Outcome", lead: true, cell: (row) => html`<${Pill} word=${row.outcome} />` },
    { head: "Target", cell: (row) => row.target ?? "(removed)" },
    { head: "Message", cell: (row) => (row.message === "conversion" ? row.type : `${row.message} of ${row.type}`) },
    { head: "Value", num: true, cell: (row) => money(row.value, row.currency) },
    { head: "Attempt", num: true, cell: (row) => count(row.last.attempt) },
    { head: "Took", num: true, cell: (row) => milliseconds(row.last.ms) },
    { head: "Told us", break: true, cell: (row) => html`<span class="small">${[row.last.error ?? `HTTP ${row.last.http_status}`, row.last.answer].filter(Boolean).join(": ")}</span>` },
  ]} /></div>`;
}

function Why({ id }) {
  const story = useAsk(`/why/${encodeURIComponent(id)}`);
  return html`<${Asked} of=${story} lines=${6}>${(document) => html`<${Story} of=${document} />`}<//>`;
}
