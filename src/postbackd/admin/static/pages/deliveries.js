// Deliveries: what traffic sources are told of conversions, each attempt of it, and doing it again.
import { html, useState } from "../app/html.js";
import { call, useAsk } from "../app/api.js";
import { count, milliseconds, money, plural, titled, words } from "../app/format.js";
import { ask, link } from "../app/router.js";
import { may } from "../app/session.js";
import { nameOf } from "../parts/catalog.js";
import { attempt, Confirm, Dialog, say } from "../parts/messages.js";
import { More, usePages } from "../parts/paging.js";
import { Asked, Button, Card, Copy, Empty, Facts, Field, Form, Head, Notice, Pill, Segments, Select, Table, Time } from "../parts/parts.js";

const STATES = [["", "All"], ["waiting", "Waiting"], ["dead", "Dead"], ["delivered", "Delivered"], ["cancelled", "Cancelled"]];

export default function Deliveries({ query }) {
  const state = STATES.some(([key]) => key === query.state) ? query.state : "";
  const targets = useAsk("/targets", { limit: 1000, counts: true });
  const list = usePages("/deliveries", { state, target: query.target, since: query.since, limit: 50 }, (row) => row.delivery, { every: 15 });
  const again = () => { targets.again(); list.again(); };
  return html`<${Head} title="Deliveries" lead="What traffic sources are told of their conversions: one message at a time, tried until the source takes it." />
    <div class="stack">
      <${Card} title="Targets" bare><${Asked} of=${targets} lines=${3}>${(page) => html`<${Targets} rows=${page.items} again=${again} />`}<//><//>
      <div class="toolbar" role="group" aria-label="Filter">
        <${Segments} label="State" options=${STATES} value=${state} onValue=${(value) => ask({ state: value })} />
        <${Select} label="Target" value=${query.target} onValue=${(target) => ask({ target })} options=${(targets.data.value?.items ?? []).map((one) => [one.name, one.name])} any="All targets" />
        <${Select} label="Period" value=${query.since} onValue=${(since) => ask({ since })} options=${[["24h", "Last 24 hours"], ["7d", "Last 7 days"], ["30d", "Last 30 days"]]} any="Any time" />
      </div>
      <${Card} title=${state ? `${titled(state)} deliveries` : "Queue and history"} bare aside=${may("operate") && html`<${Many} state=${state} target=${query.target} since=${query.since} again=${again} />`}>
        <${Asked} of=${list.first} lines=${6}>${() => html`<${Rows} list=${list} filtered=${Boolean(state || query.target || query.since)} hasTargets=${(targets.data.value?.items.length ?? 1) > 0} /><${More} of=${list} />`}<//><//>
    </div>
    ${query.delivery && html`<${Dialog} wide title="Delivery" onClose=${() => ask({ delivery: null })}><${One} key=${query.delivery} id=${query.delivery} again=${again} /><//>`}`;
}

function Targets({ rows, again }) {
  const [pausing, setPausing] = useState(null);
  const resume = async (row) => { await attempt(() => call("POST", `/targets/${encodeURIComponent(nameOf(row))}/resume`), `${row.name} is served again`); again(); };
  return html`<${Table} caption="Targets, whether each is served, and what waits for it" rows=${rows} keyOf=${(row) => row.id}
    empty=${html`<${Empty} icon="deliveries" title="No target yet" actions=${html`<${Button} href=${link("sources")}>Open the sources<//>`}>A target is where a traffic source is told of conversions, and a rule says of which. Add both with “postbackd target add” and “postbackd rule add”, or through the API; then each delivery shows here.<//>`}
    columns=${[
      { head: "Target", lead: true, cell: (row) => html`<span class="main-text">${row.name}</span>` },
      { head: "State", cell: (row) => html`<span class="stack tightest"><span><${Pill} word=${row.state} /></span>${row.reason && html`<span class="small soft break">${row.reason}</span>`}</span>` },
      { head: "Since", cell: (row) => row.since && html`<${Time} at=${row.since} />` },
      { head: "Tried again", cell: (row) => row.until && html`<${Time} at=${row.until} />` },
      ...["waiting", "dead"].map((state) => ({ head: titled(state), num: true, cell: (row) => (row[state] ? html`<a href=${link("deliveries", { state, target: row.name })}>${count(row[state])}</a>` : "0") })),
      { head: "", num: true, cell: (row) => may("operate") && (row.state === "active"
        ? html`<${Button} kind="low" icon="pause" label=${`Pause ${row.name}`} onClick=${() => setPausing(row)}>Pause<//>`
        : html`<${Button} kind="low" icon="play" label=${`Resume ${row.name}`} onClick=${() => resume(row)}>Resume<//>`) },
    ]} />
    ${pausing && html`<${Pause} row=${pausing} onClose=${() => setPausing(null)} again=${again} />`}`;
}

function Pause({ row, onClose, again }) {
  const [reason, setReason] = useState("");
  const send = async () => {
    await call("POST", `/targets/${encodeURIComponent(nameOf(row))}/pause`, { body: reason.trim() ? { reason: reason.trim() } : {} });
    say(`${row.name} is paused`);
    onClose();
    again();
  };
  return html`<${Dialog} title=${`Pause ${row.name}?`} onClose=${onClose}><p>Nothing is sent to it until it is resumed. What it is owed waits, and nothing of it is lost.</p>
    <${Form} send="Pause" onSend=${send} onCancel=${onClose} fields=${["reason"]}>${(wrong) => html`<${Field} label="Why" hint="For whoever looks later; may stay empty." value=${reason} onValue=${setReason} wrong=${wrong("reason")} maxlength="200" autofocus />`}<//><//>`;
}

function Rows({ list, filtered, hasTargets }) {
  const open = (row) => ask({ delivery: row.delivery });
  return html`<div class="deep"><${Table} caption="Deliveries, newest first" rows=${list.items} keyOf=${(row) => row.delivery} onRow=${open}
    empty=${filtered ? html`<${Empty} icon="deliveries" title="None of this kind" actions=${html`<${Button} onClick=${() => ask({ state: null, target: null, since: null })}>Show all<//>`}>No delivery fits the filter.<//>`
      : html`<${Empty} icon="deliveries" title="Nothing was delivered yet">${hasTargets ? "When a conversion of a rule's campaigns is counted, its message stands here at once, with each attempt to deliver it." : "There is no target yet, so nobody is told of conversions."}<//>`}
    columns=${[
      { head: "Time", cell: (row) => html`<button type="button" class="link plain" onClick=${() => open(row)}><${Time} at=${row.time} /><span class="unseen">, its attempts</span></button>` },
      { head: "Target", lead: true, cell: (row) => html`<span class="main-text">${row.target ?? "(removed)"}</span>` },
      { head: "State", cell: (row) => html`<span class="tightest"><span><${Pill} word=${row.state} /></span><${Next} of=${row} /></span>` },
      { head: "Message", cell: (row) => (row.message === "conversion" ? row.type : `${row.message} of ${row.type}`) },
      { head: "Value", num: true, cell: (row) => money(row.value, row.currency) },
      { head: "Attempts", num: true, cell: (row) => count(row.attempts) },
      { head: "Transaction", break: true, cell: (row) => html`<span class="mono small">${row.transaction_id ?? ""}</span>` },
    ]} /></div>`;
}

function Next({ of }) {
  if (of.state !== "waiting") return of.reason && html`<span class="small soft break">${of.reason}</span>`;
  if (of.target_state && of.target_state !== "active") return html`<span class="small soft">until its target is served</span>`;
  if (of.note) return html`<span class="small soft break">${words(of.note)}</span>`;
  return of.next_attempt ? html`<span class="small soft">tried next <${Time} at=${of.next_attempt} /></span>` : html`<span class="small soft">its turn comes</span>`;
}

// Sending again or cancelling all that the filter finds: how many is asked first.
function Many({ state, target, since, again }) {
  const [wish, setWish] = useState(null);
  const [busy, setBusy] = useState(false);
  const body = target || since ? { ...(target ? { target } : {}), ...(since ? { since } : {}) } : { everything: true };
  const where = target ? ` to ${target}` : "";
  const begin = async (verb) => {
    setBusy(true);
    const found = await attempt(() => call("POST", `/deliveries/${verb}`, { body: { ...body, dry_run: true } }));
    if (found) setWish({ verb, ...found });
    setBusy(false);
  };
  const run = async () => {
    setBusy(true);
    const told = ({ sent, cancelled }) => (wish.verb === "retry" ? `${plural(sent, "delivery", "deliveries")} sent again` : `${plural(cancelled, "delivery", "deliveries")} cancelled`);
    await attempt(() => call("POST", `/deliveries/${wish.verb}`, { body }), told);
    again();
    setBusy(false);
    setWish(null);
  };
  const retry = wish?.verb === "retry";
  const able = wish && (retry ? wish.found - wish.left_out : wish.found);
  return html`${(state === "" || state === "dead") && html`<${Button} kind="low" icon="again" busy=${busy} onClick=${() => begin("retry")}>Retry the dead${where}<//>`}
    ${(state === "" || state === "waiting") && html`<${Button} kind="low danger" icon="cross" busy=${busy} onClick=${() => begin("cancel")}>Cancel what waits${where}<//>`}
    ${wish && (able === 0 ? html`<${Dialog} title=${retry ? "Nothing to send again" : "Nothing to cancel"} onClose=${() => setWish(null)}><p>${retry ? `No dead delivery${where} can be sent again.${wish.left_out ? ` ${plural(wish.left_out, "delivery was", "deliveries were")} sent again before, or the conversion has changed since.` : ""}` : `No delivery${where} is waiting.`}</p><//>`
      : html`<${Confirm} title=${retry ? `Send ${plural(able, "delivery", "deliveries")} again?` : `Cancel ${plural(able, "delivery", "deliveries")}?`} yes=${retry ? `Send ${count(able)} again` : `Cancel ${count(able)}`} danger=${!retry} busy=${busy} onYes=${run} onClose=${() => setWish(null)}>
        <p>${retry ? `Dead deliveries${where} go out again, each under a new id.` : `Deliveries${where} that wait are not sent any more: the traffic source is never told of these conversions, unless you send them again later.`}</p>
        ${retry && wish.left_out > 0 && html`<p class="soft">${plural(wish.left_out, "further one")} of ${count(wish.found)} stay as they are: sent again before, or their conversion has changed since.</p>`}<//>`)}`;
}

function One({ id, again }) {
  const one = useAsk(`/deliveries/${encodeURIComponent(id)}`, {}, { every: 5 });
  const [wish, setWish] = useState(null);
  const [busy, setBusy] = useState(false);
  const run = async () => {
    setBusy(true);
    try {
      const done = await call("POST", `/deliveries/${wish}`, { body: { ids: [id] } });
      const [told] = done.deliveries;
      const worked = wish === "retry" ? told?.sent_as : told?.cancelled;
      say(worked ? (wish === "retry" ? (told.sent_as === id ? "It is sent now" : `It is sent again as ${told.sent_as}`) : "It is cancelled") : `It was left as it is: ${told?.note ?? words(told?.state ?? "gone")}`, worked ? "good" : "bad");
      again();
    } catch (problem) { say(problem.detail, "bad"); }
    setBusy(false);
    setWish(null);
    one.again();
  };
  return html`<${Asked} of=${one} lines=${6}>${(row) => html`<div class="stack">
    <div class="row"><${Pill} word=${row.state} /><strong>${row.target ?? "(removed)"}</strong>${row.target_state && row.target_state !== "active" && html`<${Pill} word=${row.target_state}>${`target ${row.target_state}`}<//>`}<strong class="push">${money(row.value, row.currency)}</strong></div>
    ${(row.reason || row.note) && html`<${Notice} kind=${row.state === "dead" ? "bad" : "warn"}>${[row.reason, row.note].filter(Boolean).map(words).join("; ")}<//>`}
    <${Copy} text=${row.delivery} label="delivery id" macros=${false} />
    <${Facts} of=${[["Message", `${row.message} of a ${row.type}, ${words(row.status)}`], ["Campaign", row.campaign], ["Rule", row.rule], ["Transaction", row.transaction_id && html`<span class="mono small">${row.transaction_id}</span>`],
      ["Conversion", html`<a href=${link("live", { why: row.conversion })} class="mono small">${row.conversion}</a>`], ["Came", html`<${Time} at=${row.time} />`],
      row.next_attempt && ["Next attempt", html`<${Time} at=${row.next_attempt} />`], row.settled && ["Settled", html`<${Time} at=${row.settled} />`], row.expires && ["Worth nothing after", html`<${Time} at=${row.expires} />`]]} />
    <section class="stack tight" aria-label="Attempts"><h3>${plural(row.attempts, "attempt")}</h3><div class="boxed"><${Table} caption="Attempts" folds rows=${row.attempt_log} keyOf=${(tried) => tried.attempt}
      empty=${html`<p class="in soft padded">${row.attempts ? "What became of its attempts is not kept any more." : "None yet."}</p>`} columns=${[
        { head: "No.", cell: (tried) => tried.attempt }, { head: "Time", lead: true, cell: (tried) => html`<${Time} at=${tried.time} />` },
        { head: "Took", num: true, cell: (tried) => milliseconds(tried.ms) }, { head: "Status", cell: (tried) => (tried.http_status === null ? html`<${Pill} kind="bad">no answer<//>` : html`<${Pill} kind=${tried.error ? "bad" : "good"}>HTTP ${tried.http_status}<//>`) },
        { head: "Told us", break: true, cell: (tried) => html`<span class="small">${[tried.error, tried.answer].filter(Boolean).join(": ")}</span>` }]} /></div></section>
    ${may("operate") && wish === null && html`<div class="ends"><${Button} icon="again" onClick=${() => setWish("retry")}>${row.state === "waiting" ? "Send now" : "Send again"}<//>
      ${row.state === "waiting" && html`<${Button} kind="danger" icon="cross" onClick=${() => setWish("cancel")}>Cancel it<//>`}</div>`}
    ${wish && html`<${Notice} kind="warn"><p>${wish === "cancel" ? "It is not sent any more: the traffic source is never told of it." : row.state === "waiting" ? "It is sent at once, under its id." : "It goes out again under a new id. A source that does not recognise the transaction counts it twice."}</p>
      <div class="ends spaced"><${Button} kind=${wish === "cancel" ? "danger" : "main"} busy=${busy} onClick=${run}>${wish === "cancel" ? "Yes, cancel it" : "Yes, send it"}<//><${Button} kind="quiet" onClick=${() => setWish(null)}>No<//></div><//>`}
  </div>`}<//>`;
}
