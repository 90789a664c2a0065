// Live log: every postback (or click) as it is stored.  Rows are gathered and shown once a frame, and only so many are
// kept, so that the page stays smooth whatever comes; the server limits what it sends and says how much there was.
import { html, useEffect, useMemo, useRef, useState } from "../app/html.js";
import { addressHere, call, useAsk } from "../app/api.js";
import { compact, count, money, plural, titled, words } from "../app/format.js";
import { ask, link } from "../app/router.js";
import { useList } from "../parts/catalog.js";
import { Dialog } from "../parts/messages.js";
import { Asked, Bones, Button, Empty, Head, Icon, Notice, Pill, Segments, Select, Table, Time } from "../parts/parts.js";
import { useReasons } from "../parts/reasons.js";
import { Story } from "../parts/story.js";

const MOST_ROWS = 400;
const FIRST_ROWS = 100;
const VERDICTS = ["accepted", "duplicate", "updated", "held", "unmatched", "rejected"];

export default function Live({ query }) {
  const kind = query.kind === "clicks" ? "clicks" : "postbacks";
  const filter = { network: query.network, campaign: query.campaign, verdict: query.verdict, reason: query.reason };
  return html`<${Head} title="Live log" lead="What arrives, within half a second. Choose a row to see its whole story: the click, every postback, the conversion, the deliveries.">
      <${Find} />
    <//>
    <div class="stack">
      <${Filters} kind=${kind} filter=${filter} />
      <${Stream} key=${JSON.stringify([kind, filter])} kind=${kind} filter=${kind === "clicks" ? { campaign: filter.campaign } : filter} />
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
  const choose = (name, options) => html`<${Select} label=${titled(name)} value=${filter[name]} onValue=${(value) => ask({ [name]: value })} any=${`${titled(name)}: any`} options=${options} />`;
  const named = (list) => (list.data.value?.items ?? []).map((one) => [one.name, one.name]);
  const set = Object.values(filter).some(Boolean);
  return html`<div class="toolbar" role="group" aria-label="Filter">
    <${Segments} label="What is shown" options=${[["postbacks", "Postbacks"], ["clicks", "Clicks"]]} value=${kind} onValue=${(value) => ask({ kind: value })} />
    ${kind === "postbacks" && html`${choose("network", named(networks))}${choose("verdict", VERDICTS)}${choose("reason", Object.keys(reasons.value))}`}
    ${choose("campaign", named(campaigns))}
    ${set && html`<${Button} kind="quiet" icon="cross" onClick=${() => ask({ network: null, campaign: null, verdict: null, reason: null })}>Clear<//>`}
  </div>`;
}

const keyOf = (row) => row.request ?? row.click_id;

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
    source.addEventListener(kind === "clicks" ? "click" : "postback", add);
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
  const open = (row) => ask({ why: keyOf(row) });
  return html`<section class="card" aria-label=${kind === "clicks" ? "Clicks" : "Postbacks"}>
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
      : kind === "clicks" ? html`<${Clicks} rows=${rows} open=${open} />` : html`<${Postbacks} rows=${rows} open=${open} />`}
  </section>`;
}

function Nothing({ kind, filtered }) {
  if (filtered) return html`<${Empty} icon="live" title="Nothing of this kind yet">Rows that fit the filter show here as they arrive.<//>`;
  if (kind === "clicks") return html`<${Empty} icon="live" title="Waiting for clicks" actions=${html`<${Button} href=${link("campaigns")}>Open a campaign's link<//>`}>New clicks show here as they arrive.<//>`;
  return html`<${Empty} icon="live" title="No postback yet" actions=${html`<${Button} href=${link("networks")}>Set up a network<//>`}>Paste a network's postback URL into the network and send a test: it shows here within half a second.<//>`;
}

const amount = (row) => (row.sent?.value === undefined ? "" : /^-?\d+(\.\d+)?$/.test(row.sent.value) ? money(row.sent.value, row.sent.currency ?? "") : row.sent.value);

function Postbacks({ rows, open }) {
  const reasons = useReasons();
  const columns = useMemo(() => [
    { head: "Time", cell: (row) => html`<button type="button" class="link plain" onClick=${() => open(row)}><${Time} at=${row.time} as="clock" /><span class="unseen">, its story</span></button>` },
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
    { head: "Time", cell: (row) => html`<button type="button" class="link plain" onClick=${() => open(row)}><${Time} at=${row.time} as="clock" /><span class="unseen">, its story</span></button>` },
    { head: "Campaign", lead: true, cell: (row) => html`<span class="main-text">${row.campaign ?? "(removed)"}</span>` },
    { head: "Offer", cell: (row) => row.offer },
    { head: "Kind", cell: (row) => (row.kind === "counted" ? "" : html`<${Pill}>${words(row.kind)}<//>`) },
    { head: "Country", cell: (row) => row.country },
    { head: "Click id", break: true, cell: (row) => html`<span class="mono small">${row.click_id}</span>` },
  ]} /></div>`;
}

function Why({ id }) {
  const story = useAsk(`/why/${encodeURIComponent(id)}`);
  return html`<${Asked} of=${story} lines=${6}>${(document) => html`<${Story} of=${document} />`}<//>`;
}
