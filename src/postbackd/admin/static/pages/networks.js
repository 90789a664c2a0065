// Networks: who sends postbacks, under which URL; and their offers.
import { html, useState } from "../app/html.js";
import { call, dataSet, useAsk } from "../app/api.js";
import { count, words } from "../app/format.js";
import { go, link } from "../app/router.js";
import { may } from "../app/session.js";
import { changed, nameOf, ReadOnly, readList, readLists, readPairs, Remove, save, useEntry, useList, writeLists, writePairs } from "../parts/catalog.js";
import { CheckUrl, Flaws } from "../parts/lint.js";
import { attempt, Confirm, Dialog, say } from "../parts/messages.js";
import { Asked, Button, Card, Copy, Empty, Facts, Field, Form, Head, Notice, Pill, Table } from "../parts/parts.js";
import { Choose, Known, useChoice, usePreset, usePresets } from "../parts/presets.js";
import { Rate } from "../parts/rate.js";

export default function Networks({ rest, query }) {
  return rest[0] ? html`<${One} name=${rest[0]} isNew=${query.new === "1"} />` : html`<${All} adds=${query.add === "1"} />`;
}

function All({ adds }) {
  const networks = useList("network");
  const figures = useAsk("/report", { since: "24h", by: "network" });
  const [open, setOpen] = useState(adds);
  const of = new Map((figures.data.value?.groups ?? []).map((group) => [group.network, group]));
  const add = may("catalog") && html`<${Button} kind="main" icon="plus" onClick=${() => setOpen(true)}>New network<//>`;
  return html`<${Head} title="Networks" lead="Affiliate networks and advertisers: they pay for conversions and send a postback for each.">${add}<//>
    <div class="stack"><${ReadOnly} />
      <${Card} bare><${Asked} of=${networks} lines=${6}>${({ items }) => html`<${Table} caption="Networks" rows=${items} keyOf=${(row) => row.id} onRow=${(row) => go("networks", nameOf(row))}
        empty=${html`<${Empty} icon="networks" title="No network yet" actions=${add}>Add the network that pays you. You get a postback URL to paste into it; from then on every postback is logged, judged and explained.<//>`}
        columns=${[
          { head: "Network", lead: true, cell: (row) => html`<a class="main-text" href=${link("networks", nameOf(row))}>${row.name}</a>` },
          { head: "Preset", cell: (row) => row.preset ?? html`<span class="soft">own</span>` },
          { head: "Currency", cell: (row) => row.currency },
          { head: "Postbacks, 24 h", num: true, cell: (row) => count(of.get(row.name)?.postbacks.total ?? (figures.data.value ? 0 : null)) },
          { head: "Match rate", num: true, cell: (row) => html`<${Rate} of=${of.get(row.name)?.match_rate} />` },
        ]} />`}<//><//>
    </div>
    ${open && html`<${New} onClose=${() => setOpen(false)} />`}`;
}

// --- a new one ------------------------------------------------------------------------------------------------

function New({ onClose }) {
  const presets = usePresets("network");
  const [preset, name, setName, choose] = useChoice(presets);
  const [currency, setCurrency] = useState("USD");
  const send = async () => {
    const saved = await save("network", null, { name, currency, ...(preset ? { preset } : {}) });
    say(`Network ${saved.name} is added`);
    go("networks", nameOf(saved), { new: 1 });
  };
  return html`<${Dialog} wide title="New network" onClose=${onClose}>
    <${Asked} of=${presets}>${(list) => html`<${Form} send="Add the network" onSend=${send} onCancel=${onClose} fields=${["name", "currency", "preset"]}>${(wrong) => html`
      <${Choose} presets=${list} what="network" value=${preset} onValue=${choose} wrong=${wrong("preset")} />
      <div class="pair">
        <${Field} label="Name" hint="What you call it." value=${name} onValue=${setName} wrong=${wrong("name")} autocomplete="off" />
        <${Field} label="Currency" hint="Of values that come without one." value=${currency} onValue=${setCurrency} wrong=${wrong("currency")} maxlength="3" autocapitalize="characters" autocomplete="off" spellcheck=${false} />
      </div>`}<//>`}<//>
  <//>`;
}

// --- one of them ----------------------------------------------------------------------------------------------

function One({ name, isNew }) {
  const entry = useEntry("network", name);
  const [edits, setEdits] = useState(false);
  const shown = entry.data.value;
  const saved = (one) => { setEdits(false); if (nameOf(one) !== name) go("networks", nameOf(one)); else entry.again(); };
  return html`<${Head} title=${shown?.name ?? name} back=${["Networks", link("networks")]}>
      ${may("catalog") && shown && html`<${Button} icon="pencil" onClick=${() => setEdits(true)}>Edit<//><${Remove} kind="network" row=${shown}>Its postback URL stops working at once, and what it sends is answered 404. What it sent stays in the log and the reports.<//>`}
    <//>
    <${Asked} of=${entry}>${(network) => html`<div class="stack">
      ${isNew && html`<${Notice} kind="good">The network is added. Three steps are left: its postback URL, an offer, and a test.<//>`}
      <${Url} network=${network} />
      <div class="columns"><${Test} network=${network} /><${Figures} network=${network} /></div>
      <${Offers} network=${network} />
      <${CheckUrl} about=${{ network: network.name }} hint="The postback URL as it stands at the network, or an offer link. It is not called and not stored." />
      <${Set} network=${network} onChanged=${entry.again} />
    </div>`}<//>
    ${edits && shown && html`<${Edit} entry=${shown} tag=${entry.tag.current} onClose=${() => setEdits(false)} onSaved=${saved} />`}`;
}

function Url({ network }) {
  const known = usePreset(network).data.value;
  return html`<${Card} title="Postback URL">
    <ol class="numbered">
      <li><div class="stack tight"><p>${known ? html`In ${known.name}, open the settings of your postback (also called server-to-server or global postback), choose the method GET, and paste:` : "Paste this into the network as its postback (server-to-server) URL:"}</p>
        ${network.key === null ? html`<${Notice}>The key in it is shown to operators and owners.<//>` : html`<${Copy} text=${network.postback_url} label="postback URL" />`}
        ${!network.preset && html`<p class="soft small">Replace <code>{click_id}</code>, <code>{value}</code> and <code>{txid}</code> by the network's own macros: what it calls your sub id, the payout and its transaction id. Add <code>&status=</code> if it has one.</p>`}</div></li>
      <li><p>In the offer link that the network gives you, put <code>{click_id}</code> into the sub id${known?.fields.click_id ? html` that it hands back as <code>${known.fields.click_id}</code>` : " that it hands back"}: that is how a conversion finds its click. Do it below, under Offers.</p></li>
      <li><p>Send a test, then make one real conversion or ask the network for a test conversion, and watch it in the <a href=${link("live", { network: network.name })}>live log</a>.</p></li>
    </ol>
    <${Known} of=${known} />
  <//>`;
}

function Test({ network }) {
  const [busy, setBusy] = useState(false);
  const [trial, setTrial] = useState(null);
  const send = async () => {
    setBusy(true);
    try { setTrial(await call("POST", `/networks/${encodeURIComponent(nameOf(network))}/test`)); } catch (problem) { setTrial({ arrived: false, says: problem.detail }); }
    setBusy(false);
  };
  return html`<${Card} title="Try it">
    <div class="stack tight">
      <p>Sends a postback to this URL with a test word for a click id. It goes through everything, is in the log, and is no conversion: no money and no match rate changes.</p>
      ${dataSet.value === "demo" && html`<${Notice}>This network is simulated: the server takes no postbacks for it.<//>`}
      ${may("operate") && dataSet.value !== "demo" && html`<p><${Button} icon="send" busy=${busy} onClick=${send}>${busy ? "Sending…" : "Send a test postback"}<//></p>`}
      <div role="status">${trial && html`<${Notice} kind=${trial.arrived ? "good" : "bad"}>${trial.says}${trial.request && html` <a href=${link("live", { why: trial.request })}>See it</a>`}<//>`}</div>
    </div>
  <//>`;
}

function Figures({ network }) {
  const figures = useAsk("/report", { since: "24h", by: "network" }, { every: 30 });
  return html`<${Card} title="Last 24 hours" aside=${html`<a class="small" href=${link("live", { network: network.name })}>Live log</a>`}><${Asked} of=${figures} lines=${3}>${(report) => {
    const found = report.groups.find((group) => group.network === network.name);
    if (!found) return html`<p class="soft">Nothing but tests arrived from this network yet.</p>`;
    const [reason, number] = Object.entries(found.postbacks.unmatched_by_reason)[0] ?? [];
    return html`<${Facts} of=${[
      ["Postbacks", count(found.postbacks.total)], ["Match rate", html`<${Rate} of=${found.match_rate} />`], ["Conversions", count(found.conversions?.count)],
      reason && ["Most often unmatched", html`<a href=${link("live", { network: network.name, reason })}>${words(reason)} (${count(number)})</a>`],
    ]} />`;
  }}<//><//>`;
}

// --- offers ---------------------------------------------------------------------------------------------------

function Offers({ network }) {
  const offers = useList("offer");
  const [edits, setEdits] = useState(null);
  const done = () => { setEdits(null); offers.again(); };
  const add = may("catalog") && html`<${Button} kind="low" icon="plus" onClick=${() => setEdits({})}>New offer<//>`;
  return html`<${Card} title="Offers" bare aside=${add}><${Asked} of=${offers}>${({ items }) => html`<${Table} caption="Offers of this network" rows=${items.filter((one) => one.network === network.name)} keyOf=${(row) => row.id} folds
      empty=${html`<${Empty} icon="campaigns" title="No offer yet" actions=${may("catalog") && html`<${Button} kind="main" icon="plus" onClick=${() => setEdits({})}>New offer<//>`}>An offer is the address that this network gave you for a product. Campaigns lead visitors to it.<//>`}
      columns=${[
        { head: "Offer", lead: true, cell: (row) => html`<span class="main-text">${row.name}</span>` },
        { head: "Address", break: true, cell: (row) => html`<span class="mono small">${row.url}</span><div class="stack tight">${row.warnings.map((text) => html`<${Notice} kind="warn">${text}<//>`)}</div>` },
        { head: "Counts within", cell: (row) => html`<span class="nowrap">${row.window_max}</span>` },
        ...(may("catalog") ? [{ head: "", cell: (row) => html`<span class="nowrap"><${Button} kind="quiet square low" icon="pencil" label=${`Edit ${row.name}`} onClick=${() => setEdits(row)} /><${Remove} kind="offer" row=${row} low then=${offers.again}>Campaigns must not use it any more. Clicks that were sent to it still convert.<//></span>` }] : []),
      ]} />`}<//><//>
    ${edits && html`<${EditOffer} network=${network} entry=${edits.id ? edits : null} tag=${offers.tag.current} onClose=${() => setEdits(null)} onSaved=${done} />`}`;
}

function EditOffer({ network, entry, tag, onClose, onSaved }) {
  const [name, setName] = useState(entry?.name ?? "");
  const [url, setUrl] = useState(entry?.url ?? "");
  const [window, setWindow] = useState(entry?.window_max ?? "30d");
  const send = async () => {
    const wanted = { name, url, window_max: window };
    const saved = await save("offer", entry ? nameOf(entry) : null, entry ? changed(entry, wanted) : { ...wanted, network: network.name }, tag);
    say(`Offer ${saved.name} is saved`);
    onSaved(saved);
  };
  return html`<${Dialog} title=${entry ? `Edit ${entry.name}` : `New offer of ${network.name}`} onClose=${onClose}>
    <${Form} send=${entry ? "Save" : "Add the offer"} onSend=${send} onCancel=${onClose} fields=${["name", "url", "window_max"]}>${(wrong) => html`
      <${Field} label="Name" value=${name} onValue=${setName} wrong=${wrong("name")} autocomplete="off" autofocus />
      <${Field} label="Address" kind="area" hint="The link that the network gave you, with {click_id} in one of its sub ids: https://…?aff_id=7&sub1={click_id}" value=${url} onValue=${setUrl} wrong=${wrong("url")} spellcheck=${false} />
      <${Flaws} quiet url=${url} about=${{ network: network.name, kind: "offer" }} />
      <${Field} label="Conversions count within" hint="After the click: 30d, 12h. Later ones are kept, not counted." value=${window} onValue=${setWindow} wrong=${wrong("window_max")} autocomplete="off" />`}
    <//>
  <//>`;
}

// --- what is set ----------------------------------------------------------------------------------------------

const DEDUPS = [["ignore", "ignore it: the first one counts"], ["update", "update: take its value and status"], ["add", "add: another conversion"], ["hold", "hold it until somebody decides"]];
const ANSWERS = [["json", "JSON with the verdict"], ["ok", "the word OK"], ["204", "nothing (204)"]];
const PERSONAL = [["replace", "replace it by a keyed hash"], ["drop", "leave it out"], ["refuse", "refuse the postback"]];
const wordsOf = (options, key) => options.find(([one]) => one === key)?.[1] ?? key;

function Set({ network, onChanged }) {
  const lists = (map, write) => (Object.keys(map).length ? html`<span class="mono small break">${write(map).split("\n").map((line) => html`${line}<br />`)}</span>` : "the usual names");
  return html`<${Card} title="How its postbacks are read" aside=${may("catalog") && html`<${NewKey} network=${network} onChanged=${onChanged} />`}>
    <${Facts} of=${[
      ["Preset", network.preset ?? "none"], ["Currency", network.currency],
      ["A repeat without transaction id", wordsOf(DEDUPS, network.dedup)], ["Answer", wordsOf(ANSWERS, network.answer)],
      ["What cannot be used", network.strict ? "is answered 422" : "is answered 200 with the verdict"],
      ["Personal data", wordsOf(PERSONAL, network.personal_data)],
      ["Types", network.types.length ? network.types.join(", ") : "any"],
      ["Parameter names", lists(network.fields, writeLists)],
      ["Status words", Object.keys(network.statuses).length ? lists(network.statuses, writePairs) : "approved, pending, rejected, reversed"],
      ["Sender has to show", senderWords(network.senders)],
    ]} />
  <//>`;
}

function senderWords(senders) {
  const set = Object.entries(senders).filter(([, value]) => value !== null && value !== "off" && value !== false && !(Array.isArray(value) && !value.length) && !(typeof value === "object" && !Object.keys(value).length));
  return set.length ? set.map(([name, value]) => html`${words(name)}: <span class="mono small">${typeof value === "object" ? JSON.stringify(value) : String(value)}</span><br />`) : "the key in the URL, nothing more";
}

function NewKey({ network, onChanged }) {
  const [asks, setAsks] = useState(false);
  const [busy, setBusy] = useState(false);
  const rotate = async () => {
    setBusy(true);
    await attempt(() => call("POST", `/networks/${encodeURIComponent(nameOf(network))}/rotate`, { body: { what: "key", overlap: "7d" } }), "The new URL is shown above; the former one is good for 7 more days");
    onChanged();
    setBusy(false);
    setAsks(false);
  };
  return html`<${Button} kind="low" icon="key" onClick=${() => setAsks(true)}>New key<//>
    ${asks && html`<${Confirm} title="Make a new key?" yes="Make a new key" busy=${busy} onYes=${rotate} onClose=${() => setAsks(false)}><p>The postback URL changes. The former one is still good for 7 days: paste the new one into ${network.name} before then.</p><//>`}`;
}

function Edit({ entry, tag, onClose, onSaved }) {
  const presets = usePresets("network");
  const [form, set] = useState({ name: entry.name, preset: entry.preset ?? "", currency: entry.currency, dedup: entry.dedup, answer: entry.answer, personal_data: entry.personal_data, strict: entry.strict, types: entry.types.join(", "), fields: writeLists(entry.fields), statuses: writePairs(entry.statuses) });
  const put = (name) => (value) => set({ ...form, [name]: value });
  const send = async () => {
    const wanted = { ...form, preset: form.preset || null, types: readList(form.types), fields: readLists(form.fields, "fields"), statuses: readPairs(form.statuses, "statuses") };
    const saved = await save("network", nameOf(entry), changed(entry, wanted), tag);
    say(`Network ${saved.name} is saved`);
    onSaved(saved);
  };
  const known = (presets.data.value ?? []).map((one) => [one.id, one.name]);
  return html`<${Dialog} wide title=${`Edit ${entry.name}`} onClose=${onClose}>
    <${Form} send="Save" onSend=${send} onCancel=${onClose} fields=${Object.keys(form)}>${(wrong) => html`
      <div class="pair">
        <${Field} label="Name" value=${form.name} onValue=${put("name")} wrong=${wrong("name")} autocomplete="off" />
        <${Field} label="Preset" kind="select" options=${[["", "none"], ...known]} value=${form.preset} onValue=${put("preset")} wrong=${wrong("preset")} />
        <${Field} label="Currency" value=${form.currency} onValue=${put("currency")} wrong=${wrong("currency")} maxlength="3" autocomplete="off" />
        <${Field} label="Answer" kind="select" options=${ANSWERS} value=${form.answer} onValue=${put("answer")} wrong=${wrong("answer")} />
        <${Field} label="A repeat without transaction id" kind="select" options=${DEDUPS} value=${form.dedup} onValue=${put("dedup")} wrong=${wrong("dedup")} />
        <${Field} label="Personal data in its postbacks" kind="select" options=${PERSONAL} value=${form.personal_data} onValue=${put("personal_data")} wrong=${wrong("personal_data")} />
      </div>
      <${Field} label="Answer 422 to what cannot be used" kind="check" hint="Otherwise 200 with the verdict: many networks switch a URL off after errors." value=${form.strict} onValue=${put("strict")} />
      <${Field} label="Types it may send" hint="Separated by commas; empty: any." value=${form.types} onValue=${put("types")} wrong=${wrong("types")} autocomplete="off" />
      <div class="pair">
        <${Field} label="Parameter names" kind="area" hint="One FIELD=NAME,NAME a line, such as click_id=aff_sub,sub1." value=${form.fields} onValue=${put("fields")} wrong=${wrong("fields")} spellcheck=${false} />
        <${Field} label="Status words" kind="area" hint="One WORD=STATUS a line, such as confirmed=approved." value=${form.statuses} onValue=${put("statuses")} wrong=${wrong("statuses")} spellcheck=${false} />
      </div>`}
    <//>
  <//>`;
}
