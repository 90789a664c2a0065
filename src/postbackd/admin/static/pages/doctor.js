// Doctor: what broke on the way of postbacks that were not counted, what mends it, and counting those that can be.
import { html, useState } from "../app/html.js";
import { call, useAsk } from "../app/api.js";
import { count, percent, plural, words } from "../app/format.js";
import { ask, link } from "../app/router.js";
import { may } from "../app/session.js";
import { useList } from "../parts/catalog.js";
import { Confirm, say } from "../parts/messages.js";
import { Asked, Button, Card, Copy, Empty, Head, Icon, Notice, Pill, Segments, Select, Table, Tabs, Time } from "../parts/parts.js";

const PERIODS = [["24h", "Day"], ["7d", "Week"], ["33d", "Month"]];
const SPOKEN = { "24h": "24 hours", "7d": "7 days", "33d": "33 days" };

export default function Doctor({ rest, query }) {
  const installation = rest[0] === "installation";
  const since = SPOKEN[query.since] ? query.since : "7d";
  return html`<${Head} title="Doctor" lead=${installation ? "Whether this installation is as it should be, and what to do where it is not." : "Which hop lost or changed the click id of postbacks that were not counted, and what mends it."}>
      ${!installation && html`<${Segments} label="Period" options=${PERIODS} value=${since} onValue=${(value) => ask({ since: value })} />`}
    <//>
    <${Tabs} label="What is looked at" of=${[["Postbacks", link("doctor", { since: query.since, network: query.network }), !installation], ["Installation", link("doctor", "installation"), installation]]} />
    ${installation ? html`<${Installation} />` : html`<${Postbacks} since=${since} network=${query.network} />`}`;
}

function Postbacks({ since, network }) {
  const unmatched = useAsk("/unmatched", { since, network });
  return html`<div class="stack">
    <${Network} chosen=${network} />
    <${Asked} of=${unmatched} lines=${6}>${(answer) => html`
      <${Summary} answer=${answer} since=${since} network=${network} />
      ${answer.groups.length > 0 && html`<${Repairs} since=${since} network=${network} then=${unmatched.again} />
        <${Card} title="What broke" bare><${Findings} of=${answer.groups} /><//>`}`}<//>
    <${LostIds} ready=${unmatched.data.value !== null} />
  </div>`;
}

const FIRST = 5;

// Those that happened once each are folded, once the first ones are shown.
function Findings({ of }) {
  const [all, setAll] = useState(false);
  const once = all ? [] : of.slice(FIRST).filter((group) => group.count === 1);
  return html`<div class="findings">${of.filter((group) => !once.includes(group)).map((group, at) => html`<${Group} key=${`${group.network} ${group.verdict} ${group.reason}`} of=${group} open=${at === 0} />`)}</div>
    ${once.length > 0 && html`<p class="more"><${Button} kind="low" onClick=${() => setAll(true)}>Show ${count(once.length)} more that happened once${once.length > 1 ? " each" : ""}<//></p>`}`;
}

function Network({ chosen }) {
  const list = useList("network");
  return html`<div class="toolbar"><${Select} label="Network" value=${chosen} onValue=${(network) => ask({ network })} any="All networks" options=${(list.data.value?.items ?? []).map((one) => [one.name, one.name])} /></div>`;
}

function Summary({ answer, since, network }) {
  const of = network ? ` of ${network}` : "";
  if (answer.postbacks === 0) return html`<section class="card"><${Empty} icon="doctor" title=${`No postback${of} in the last ${SPOKEN[since]}`} actions=${html`<${Button} href=${link("networks")}>Set up a network<//>`}>When a postback arrives and is not counted, this page names the hop that broke it. Send a test postback from the network's page to see one arrive.<//></section>`;
  const bad = answer.not_counted > 0;
  const lost = answer.groups.filter((group) => group.hop !== "nobody").reduce((sum, group) => sum + group.count, 0);
  return html`<section class=${`health ${!bad ? "good" : lost ? "warn" : "calm"}`} aria-label="Summary"><span class="dot"><${Icon} name=${bad ? "warn" : "check"} /></span>
    <div><strong>${bad ? `${count(answer.not_counted)} of ${plural(answer.postbacks, "postback")}${of} in the last ${SPOKEN[since]} were not counted (${percent(answer.not_counted / answer.postbacks)}).` : `All ${plural(answer.postbacks, "postback")}${of} of the last ${SPOKEN[since]} were counted.`}</strong>
    ${bad && html`<p class="soft">${lost === answer.not_counted ? "" : `${count(answer.not_counted - lost)} of them are as they should be, such as tests. `}Most often first; what is mended at the top mends the most.</p>`}</div></section>`;
}

// The way of a click id, in the words of the server.
const HOPS = [["source", "Source"], ["landing page", "Landing page"], ["advertiser", "Advertiser"], ["network", "Network"], ["us", "postbackd"]];

function Chain({ broken, name }) {
  const at = HOPS.findIndex(([hop]) => hop === broken);
  if (at < 0) return null;
  return html`<ol class="chain" aria-label="The way of the click id">${HOPS.map(([hop, title], here) => html`<li class=${here === at ? "broken" : here < at ? "" : "after"} key=${hop}>
    <span class="hop"><${Icon} name=${here === at ? "cross" : here < at ? "check" : "right"} /><span>${title}${here === at && html`<small>${hop === "network" ? `${name}: broken here` : "broken here"}</small>`}</span></span></li>`)}</ol>`;
}

function Group({ of, open }) {
  const [opened, setOpened] = useState(open);
  const arrived = Object.entries(of.arrived_as);
  const kinds = Object.entries(of.kinds);
  return html`<details class="finding" open=${open} onToggle=${(event) => setOpened(event.currentTarget.open)}>
    <summary><span class="what"><strong>${words(of.reason)}</strong><span class="soft">${of.network}${of.removed ? " (removed)" : ""}</span></span>
      <${Pill} word=${of.verdict} /><span class="figure"><strong>${count(of.count)}</strong> <span class="soft">${percent(of.share)} of its postbacks</span></span><span class="soft small since">since <${Time} at=${of.first} /></span></summary>
    ${opened && html`<div class="in stack">
      <${Chain} broken=${of.hop} name=${of.network} />
      <div class="stack tight"><p><strong>${of.cause}</strong>${of.why === of.cause ? "" : ` ${of.why}`}</p>
        ${of.hop === "nobody" && html`<p class="soft">Nothing is broken here.</p>`}
        ${kinds.length > 0 && html`<p class="row">${kinds.map(([kind, number]) => html`<${Pill} kind="calm">${words(kind)}: ${count(number)}<//>`)}</p>`}</div>
      ${of.hop !== "nobody" && html`<section class="stack tight" aria-label="What to do"><h3>What to do</h3>
        ${of.steps.length === 0 ? html`<p>${of.fix}</p>` : html`<ol class="numbered">${of.steps.map((step) => html`<li class="stack tight"><p>${step.do}</p>
          ${step.url && html`<${Copy} text=${step.url} label="postback URL" />`}${step.command && html`<${Copy} text=${step.command} label="command" />`}</li>`)}</ol>`}</section>`}
      ${of.repairable.count > 0 && html`<${Notice} kind="good">${`${count(of.repairable.count)} of the newest ${count(of.repairable.looked_at)} can be repaired and counted, see above.`}<//>`}
      ${arrived.length > 0 && html`<section class="stack tight" aria-label="What arrived"><h3>What arrived as the click id</h3>
        <ul class="arrived">${arrived.map(([text, number]) => html`<li><code class="break">${text || "(empty)"}</code> <span class="soft small nowrap">${plural(number, "time")}</span></li>`)}</ul></section>`}
      ${of.examples.length > 0 && html`<section class="stack tight" aria-label="Examples"><div class="row"><h3>Latest ones</h3><a class="small push" href=${link("live", { network: of.removed ? null : of.network, verdict: of.verdict, reason: of.reason })}>All in the live log</a></div>
        <div class="boxed"><${Table} caption=${`Latest postbacks of ${of.network}: ${words(of.reason)}`} folds rows=${of.examples} keyOf=${(row) => row.request} columns=${[
          { head: "Time", lead: true, cell: (row) => html`<a href=${link("live", { why: row.request })}><${Time} at=${row.time} /></a>` },
          { head: "Click id", break: true, cell: (row) => html`<span class="mono small">${row.click_id || "–"}</span>` },
          { head: "Transaction", break: true, cell: (row) => html`<span class="mono small">${row.sent.transaction_id ?? "–"}</span>` },
          { head: "Value", num: true, cell: (row) => `${row.sent.value ?? "–"} ${row.sent.currency ?? ""}` },
        ]} /></div></section>`}
    </div>`}
  </details>`;
}

// What can be counted after all: shown first, done when it is confirmed.
function Repairs({ since, network, then }) {
  const preview = useAsk("/unmatched/repairable", { since, network });
  const [asks, setAsks] = useState(false);
  const [busy, setBusy] = useState(false);
  const run = async () => {
    setBusy(true);
    let counted = 0;
    try {
      let after = null;
      do {
        const part = await call("POST", "/unmatched/repair", { body: { since, ...(network ? { network } : {}), ...(after ? { after } : {}) } });
        counted += part.count;
        after = part.next;
      } while (after);
      say(`${plural(counted, "postback")} repaired and replayed`);
    } catch (problem) {
      say(`${counted ? `${plural(counted, "postback")} repaired, then: ` : ""}${problem.detail}`, "bad");
    }
    setBusy(false);
    setAsks(false);
    preview.again();
    then();
  };
  const able = preview.data.value?.count ?? 0;
  const more = preview.data.value?.next ? "at least " : "";
  const what = `${more}${plural(able, "postback")}`;
  return html`<${Card} title="Repair and replay" aside=${able > 0 && may("operate") && html`<${Button} kind="main" icon="again" onClick=${() => setAsks(true)}>Repair and replay ${count(able)}<//>`} bare>
    <${Asked} of=${preview} lines=${2}>${(answer) => (able === 0
      ? html`<p class="in soft">${answer.next ? `None of the first ${count(answer.looked_at)}` : `None of ${plural(answer.looked_at, "postback")}`} can be counted safely as ${answer.looked_at === 1 ? "it stands" : "they stand"}. After a setting is mended, those that it turned away appear here.</p>`
      : html`<p class="in">${what[0].toUpperCase() + what.slice(1)} can be counted after all: the click id verifies after the repair, or today's settings take it.</p>
        <${Table} caption="Postbacks that can be repaired" rows=${answer.found.slice(0, 10)} keyOf=${(row) => row.request} columns=${[
          { head: "Time", cell: (row) => html`<a href=${link("live", { why: row.request })}><${Time} at=${row.time} /></a>` },
          { head: "Network", lead: true, cell: (row) => html`<span class="main-text">${row.network ?? "(removed)"}</span>` },
          { head: "What was wrong", cell: (row) => words(row.damage) },
          { head: "Received", break: true, cell: (row) => html`<span class="mono small">${row.received ?? "–"}</span>` },
          { head: "Campaign", cell: (row) => row.click.campaign ?? "(removed)" },
          { head: "Would be", cell: (row) => html`<${Pill} word=${row.would_be} />` },
        ]} />${able > 10 && html`<p class="more soft small">and ${count(able - 10)} more of this kind</p>`}`)}<//>
    ${asks && html`<${Confirm} title=${`Repair and replay ${what}?`} yes="Repair and replay" busy=${busy} onYes=${run} onClose=${() => setAsks(false)}>
      <p>Each goes through the same checks and the same unique key as a postback that arrives now: what is counted already is not counted twice. Conversions that this counts are told to traffic sources by your rules.</p><//>`}
  <//>`;
}

// Compares landing pages with one another, which may take seconds: asked once, when the rest is there for the first time.
function LostIds({ ready }) {
  const [asks, setAsks] = useState(ready);
  if (ready && !asks) setAsks(true);
  const lost = useAsk(asks ? "/lost-ids" : null);
  return html`<${Card} title="Ids that never came back" bare><${Asked} of=${lost} lines=${2}>${(answer) => html`<div class="in stack tight">
    ${answer.found.length > 0 ? html`<ul class="stack tight">${answer.found.map((one) => html`<li><${Notice} kind="warn">${one.sentence}<//></li>`)}</ul>`
      : html`<p>${answer.comparable < 2 ? `There are too few conversions to compare landing pages: at least two pages need ${count(answer.needed)} each.` : `No sign that a landing page loses click ids, or that they are lost with age: ${plural(answer.comparable, "landing page")} convert as one would expect.`}</p>`}
    ${answer.hosts.length > 0 && html`<details><summary class="small">${plural(answer.hosts.length, "landing page")} looked at</summary><div class="boxed"><${Table} caption="Landing pages: clicks and conversions" rows=${answer.hosts} keyOf=${(row) => row.host} columns=${[
      { head: "Landing page", lead: true, break: true, cell: (row) => row.host }, { head: "Clicks", num: true, cell: (row) => count(row.clicks) },
      { head: "Converted", num: true, cell: (row) => count(row.converted) }, { head: "Share", num: true, cell: (row) => percent(row.converted / row.clicks, 2) }]} /></div></details>`}
  </div>`}<//><//>`;
}

function Installation() {
  const [times, setTimes] = useState(0);
  const doctor = useAsk("/doctor", { max_age: times ? 0 : 60 });
  const again = () => (times ? doctor.again() : setTimes(1));
  const waiting = doctor.loading.value;
  return html`<div class="stack"><${Asked} of=${doctor} lines=${6}>${({ at, findings }) => {
    const wrong = findings.filter((one) => !one.ok);
    const hints = findings.filter((one) => one.ok && one.fix);
    const fine = findings.filter((one) => one.ok && !one.fix);
    return html`<section class=${`health ${wrong.length ? "bad" : "good"}`} aria-label="Summary"><span class="dot"><${Icon} name=${wrong.length ? "warn" : "check"} /></span>
        <div><strong>${wrong.length ? `${plural(wrong.length, "thing")} of ${findings.length} ${wrong.length === 1 ? "needs" : "need"} somebody.` : `All ${findings.length} checks are fine.`}</strong><p class="soft">Looked at <${Time} at=${at} as="since" /></p></div>
        <span class="push"><${Button} kind="low" icon="again" onClick=${again} disabled=${waiting}>Look again<//></span></section>
      ${[["What is wrong", wrong, "bad", "wrong"], ["Worth knowing", hints, "info", "to know"]].map(([title, found, kind, word]) => found.length > 0 && html`<${Card} title=${title} bare><ul class="checks">${found.map((one) => html`<li key=${one.check}>
        <div class="row"><strong>${one.check}</strong><${Pill} kind=${kind}>${word}<//></div><p>${one.detail}</p>${one.fix && html`<p class="fix">${one.fix}</p>`}</li>`)}</ul><//>`)}
      <${Card} title="What is fine" bare><${Table} caption="Checks that found nothing" rows=${fine} keyOf=${(row) => row.check} columns=${[
        { head: "Check", lead: true, cell: (row) => html`<span class="main-text">${row.check}</span>` }, { head: "", cell: () => html`<${Pill} kind="good">fine<//>` }, { head: "Found", break: true, cell: (row) => row.detail }]} /><//>`;
  }}<//></div>`;
}
