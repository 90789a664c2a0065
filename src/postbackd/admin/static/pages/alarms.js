// Alarms: what is wrong by itself, what is normal, what to do, and who was told.
import { html, useState } from "../app/html.js";
import { call, dataSet, look, useAsk } from "../app/api.js";
import { count, plural, titled, words } from "../app/format.js";
import { ask, link } from "../app/router.js";
import { may } from "../app/session.js";
import { attempt, Dialog, say } from "../parts/messages.js";
import { More, usePages } from "../parts/paging.js";
import { Asked, Button, Card, Empty, Facts, Field, Form, Head, Icon, Notice, Pill, Segments, Table, Time } from "../parts/parts.js";

export default function Alarms({ rest, query }) {
  if (dataSet.value === "demo") return html`<${Simulated} />`;
  return rest[0] === undefined ? html`<${List} state=${query.state === "all" ? "all" : "raised"} />` : html`<${One} id=${rest[0]} />`;
}

function Simulated() {
  return html`<${Head} title="Alarms" /><section class="card" aria-label="Alarms"><${Empty} icon="flask" title="Simulated data are not watched" actions=${html`<${Button} onClick=${() => look("real")}>Show the real data<//>`}>Alarms watch real traffic alone, so that nobody is told of what is not real. What is wrong in the simulated data stands in the <a href=${link("doctor")}>doctor</a>.<//></section>`;
}

function State({ of }) {
  if (of.state === "ended") return html`<${Pill} kind="calm">over<//>`;
  return html`<${Pill} kind=${of.urgent ? "bad" : "warn"}>${of.urgent ? "urgent" : "open"}<//>${of.quiet && html` <${Pill} kind="calm">quiet<//>`}`;
}

function List({ state }) {
  const alarms = usePages("/alarms", { state, limit: 100 }, (row) => row.id, { every: 30 });
  const open = alarms.items.filter((one) => one.state === "raised");
  const over = alarms.items.filter((one) => one.state !== "raised");
  return html`<${Head} title="Alarms" lead="What is not as it usually is, found by itself; places outside are told of it, once when it begins and once when it is over.">
      <${Segments} label="Which alarms" options=${[["raised", "Open"], ["all", "All"]]} value=${state} onValue=${(value) => ask({ state: value === "all" ? value : null })} /><${Test} />
    <//>
    <section class="card" aria-label="Alarms"><${Asked} of=${alarms.first} lines=${4}>${() => (alarms.items.length === 0
      ? html`<${Empty} icon="check" title=${state === "all" ? "There never was an alarm" : "Nothing is wrong"} actions=${state === "all" ? null : html`<${Button} onClick=${() => ask({ state: "all" })}>Show those that are over<//>`}>Match rates, traffic, deliveries and this server are watched all the time.<//>`
      : html`<ul class="checks">${[...open, ...over].map((one) => html`<li key=${one.id} class=${one.state}><div class="row"><a class="main-text" href=${link("alarms", one.id)}>${one.title}</a><${State} of=${one} /><span class="soft small push">since <${Time} at=${one.raised} />${one.ended && html`, over <${Time} at=${one.ended} as="since" />`}</span></div><p class="soft">${one.seen}</p></li>`)}</ul>`)}<//>
      <${More} of=${alarms} /></section>`;
}

const about = ({ type, name }) => (type === "server" ? "This server" : type === "network" ? html`<a href=${link("doctor", { network: name })}>Network ${name ?? "(removed)"}</a>` : type === "target" ? html`<a href=${link("deliveries", { target: name })}>Target ${name ?? "(removed)"}</a>` : type === "campaign" ? html`<a href=${link("reports", { by: "day", where: `campaign=${name}` })}>Campaign ${name ?? "(removed)"}</a>` : `${words(type)} ${name ?? ""}`);

function One({ id }) {
  const alarm = useAsk(`/alarms/${encodeURIComponent(id)}`, {}, { every: 30 });
  const [quieting, setQuieting] = useState(false);
  const unquiet = async () => { await attempt(() => call("POST", `/alarms/${encodeURIComponent(id)}/unquiet`), "Notices of it are sent again"); alarm.again(); };
  const one = alarm.data.value;
  return html`<${Head} title=${one ? titled(one.title) : "Alarm"} back=${["Alarms", link("alarms")]}>${one && may("operate") && (one.quiet ? html`<${Button} icon="alarms" onClick=${unquiet}>Send notices again<//>` : one.state === "raised" && html`<${Button} icon="pause" onClick=${() => setQuieting(true)}>Quiet …<//>`)}<//>
    <${Asked} of=${alarm} lines=${6}>${(row) => html`<div class="stack">
      <section class=${`health ${row.state === "ended" ? "calm" : row.urgent ? "bad" : "warn"}`} aria-label="What is seen"><span class="dot"><${Icon} name=${row.state === "ended" ? "check" : "warn"} /></span><div><strong>${row.seen}</strong><p class="soft">Normal is: ${row.normal}</p></div><span class="push"><${State} of=${row} /></span></section>
      ${row.quiet && html`<${Notice}>Quiet ${row.quiet.until ? html`until <${Time} at=${row.quiet.until} />` : "until it is over"}, said ${row.quiet.who}${row.quiet.why && `: ${row.quiet.why}`}<//>`}
      <${Card} title="What to do"><p class="break">${row.todo}</p><//>
      <${Card} title="What it is"><${Facts} of=${[["About", about(row.subject)], ["Kind", words(row.kind)], ["Began", html`<${Time} at=${row.raised} />`], ["Last seen", html`<${Time} at=${row.last_seen} />`], row.ended && ["Over", html`<${Time} at=${row.ended} />`]]} /><//>
      <${Card} title="Who was told" bare><${Table} caption="Notices of this alarm" rows=${row.notices} keyOf=${(told) => `${told.place} ${told.said} ${told.at}`} folds
        empty=${html`<${Empty} icon="send" title="Nobody was told">${row.quiet ? "It is quiet." : "No place is configured: set alarm_webhook with alarm_webhook_secret, or alarm_email_to with smtp_host."}<//>`} columns=${[
          { head: "Place", lead: true, cell: (told) => html`<span class="main-text">${told.place}</span>` }, { head: "Said", cell: (told) => words(told.said) }, { head: "What became of it", cell: (told) => html`<${Pill} kind=${told.error ? "bad" : /sent|deliver|told/.test(told.state) ? "good" : "calm"}>${words(told.state)}<//>` },
          { head: "Attempts", num: true, cell: (told) => count(told.attempts) }, { head: "When", cell: (told) => html`<${Time} at=${told.at} />` }, { head: "Error", break: true, cell: (told) => told.error && html`<span class="small">${told.error}</span>` }]} /><//>
    </div>`}<//>
    ${quieting && html`<${Dialog} title="Send no notices of it" onClose=${() => setQuieting(false)}><${Quiet} id=${id} onClose=${() => setQuieting(false)} then=${alarm.again} /><//>`}`;
}

const TIMES = [["1h", "1 hour"], ["8h", "8 hours"], ["1d", "1 day"], ["3d", "3 days"], ["7d", "7 days"], ["", "Until it is over"]];

function Quiet({ id, onClose, then }) {
  const [time, setTime] = useState("8h");
  const [why, setWhy] = useState("");
  const send = async () => {
    await call("POST", `/alarms/${encodeURIComponent(id)}/quiet`, { body: { why: why.trim(), ...(time ? { for: time } : {}) } });
    say("It is quiet; it is shown here all the same");
    onClose();
    then();
  };
  return html`<${Form} send="Quiet" onSend=${send} onCancel=${onClose} fields=${["for", "why"]}>${(wrong) => html`<${Field} label="For how long" kind="select" options=${TIMES} value=${time} onValue=${setTime} wrong=${wrong("for")} />
    <${Field} label="Why" hint="For whoever looks later: what is known of it, and who works at it." value=${why} onValue=${setWhy} wrong=${wrong("why")} maxlength="300" />`}<//>`;
}

const placesOf = (settings) => settings.filter((one) => ["alarm_webhook", "alarm_email_to"].includes(one.name) && one.given);

// Whether a notice would arrive.
function Test() {
  const settings = useAsk(may("operate") ? "/settings" : null);
  const [told, setTold] = useState(null);
  const [busy, setBusy] = useState(false);
  if (!may("operate")) return null;
  const test = async () => {
    setBusy(true);
    try { setTold({ places: await call("POST", "/alarms/test") }); } catch (problem) { setTold({ problem }); }
    setBusy(false);
  };
  const known = settings.data.value;
  if (known && placesOf(known).length === 0) return html`<span class="soft small">Nobody outside is told: set <code>alarm_webhook</code> or <code>alarm_email_to</code>.</span>`;
  return html`<${Button} icon="send" busy=${busy} onClick=${test}>Test notice<//>
    ${told && html`<${Dialog} title="Test notice" onClose=${() => setTold(null)}>${told.problem ? html`<${Notice} kind="warn">${told.problem.detail}<//>` : html`<p>Sent to ${plural(told.places.length, "place")}.</p><ul class="stack tight">${told.places.map((one) => html`<li class="row" key=${one.place}><${Pill} kind=${one.ok ? "good" : "bad"}>${one.ok ? "arrived" : "failed"}<//><strong>${one.place}</strong><span class="soft break">${one.detail}</span></li>`)}</ul>`}<//>`}`;
}
