// Sources: where visitors come from, and what they call things.
import { html, useState } from "../app/html.js";
import { count } from "../app/format.js";
import { go, link } from "../app/router.js";
import { may } from "../app/session.js";
import { changed, nameOf, ReadOnly, readLists, Remove, save, useEntry, useList, writeLists } from "../parts/catalog.js";
import { CheckUrl } from "../parts/lint.js";
import { Dialog, say } from "../parts/messages.js";
import { Asked, Button, Card, Copy, Empty, Field, Form, Head, Notice, Table } from "../parts/parts.js";
import { Choose, Known, useChoice, usePreset, usePresets } from "../parts/presets.js";

export default function Sources({ rest, query }) {
  return rest[0] ? html`<${One} name=${rest[0]} isNew=${query.new === "1"} />` : html`<${All} adds=${query.add === "1"} />`;
}

function All({ adds }) {
  const sources = useList("source");
  const campaigns = useList("campaign");
  const [open, setOpen] = useState(adds);
  const used = (row) => (campaigns.data.value?.items ?? []).filter((one) => one.source === row.name).length;
  const add = may("catalog") && html`<${Button} kind="main" icon="plus" onClick=${() => setOpen(true)}>New source<//>`;
  return html`<${Head} title="Sources" lead="Where your visitors come from: ad networks, newsletters, partners. A source can be told of the conversions that it brought.">${add}<//>
    <div class="stack"><${ReadOnly} />
      <${Card} bare><${Asked} of=${sources} lines=${6}>${({ items }) => html`<${Table} caption="Sources" rows=${items} keyOf=${(row) => row.id} onRow=${(row) => go("sources", nameOf(row))}
        empty=${html`<${Empty} icon="sources" title="No source yet" actions=${add}>Add the place that sends you visitors. With a preset, its campaign links are ready to paste, macros and all.<//>`}
        columns=${[
          { head: "Source", lead: true, cell: (row) => html`<a class="main-text" href=${link("sources", nameOf(row))}>${row.name}</a>` },
          { head: "Preset", cell: (row) => row.preset ?? html`<span class="soft">own</span>` },
          { head: "Campaigns", num: true, cell: (row) => (campaigns.data.value ? count(used(row)) : "–") },
        ]} />`}<//><//>
    </div>
    ${open && html`<${New} onClose=${() => setOpen(false)} />`}`;
}

function New({ onClose }) {
  const presets = usePresets("source");
  const [preset, name, setName, choose] = useChoice(presets);
  const send = async () => {
    const saved = await save("source", null, { name, ...(preset ? { preset } : {}) });
    say(`Source ${saved.name} is added`);
    go("sources", nameOf(saved), { new: 1 });
  };
  return html`<${Dialog} wide title="New source" onClose=${onClose}>
    <${Asked} of=${presets}>${(list) => html`<${Form} send="Add the source" onSend=${send} onCancel=${onClose} fields=${["name", "preset"]}>${(wrong) => html`
      <${Choose} presets=${list} what="source" value=${preset} onValue=${choose} wrong=${wrong("preset")} />
      <${Field} label="Name" hint="What you call it." value=${name} onValue=${setName} wrong=${wrong("name")} autocomplete="off" />`}<//>`}<//>
  <//>`;
}

function One({ name, isNew }) {
  const entry = useEntry("source", name);
  const [edits, setEdits] = useState(false);
  const shown = entry.data.value;
  const saved = (one) => { setEdits(false); if (nameOf(one) !== name) go("sources", nameOf(one)); else entry.again(); };
  return html`<${Head} title=${shown?.name ?? name} back=${["Sources", link("sources")]}>
      ${may("catalog") && shown && html`<${Button} icon="pencil" onClick=${() => setEdits(true)}>Edit<//><${Remove} kind="source" row=${shown}>Campaigns must not use it any more. What it brought stays in the reports.<//>`}
    <//>
    <${Asked} of=${entry}>${(source) => html`<div class="stack">
      ${isNew && html`<${Notice} kind="good">The source is added. Next: a <a href=${link("campaigns", { add: 1, source: source.name })}>campaign</a>, which is the link that you give to it.<//>`}
      <${Links} source=${source} />
      <${Steps} source=${source} />
      <${CheckUrl} about=${{ source: source.name }} hint="The link as it stands at the source, or the URL where it is told of conversions. It is not called and not stored." />
      <${Parameters} source=${source} />
    </div>`}<//>
    ${edits && shown && html`<${Edit} entry=${shown} tag=${entry.tag.current} onClose=${() => setEdits(false)} onSaved=${saved} />`}`;
}

function Links({ source }) {
  const campaigns = useList("campaign");
  return html`<${Card} title="Links to give to this source"><${Asked} of=${campaigns} lines=${2}>${({ items }) => {
    const used = items.filter((one) => one.source === source.name);
    if (!used.length) return html`<p class="soft">No campaign uses this source yet. ${may("catalog") && html`<a href=${link("campaigns", { add: 1, source: source.name })}>Add one</a>`}</p>`;
    return html`<div class="stack">${used.map((one) => html`<div class="stack tight" key=${one.id}><h3><a href=${link("campaigns", one.slug)}>${one.name}</a></h3><${Copy} text=${one.click_url} label=${`link of ${one.name}`} /></div>`)}</div>`;
  }}<//><//>`;
}

function Steps({ source }) {
  const preset = usePreset(source);
  if (!source.preset) return null;
  return html`<${Card} title="At the source"><${Asked} of=${preset} lines=${3}>${(known) => html`<ol class="numbered">
    <li><p>Create a campaign there and paste a link from above as its target address. Its macros are filled by ${known.name} for each visitor.</p></li>
    ${known.target_url && html`<li><p>To tell it of conversions, postbackd calls <span class="mono small break">${known.target_url}</span>${known.fill.length > 0 && html`; your account fills ${known.fill.map((one, at) => html`${at ? ", " : ""}<code>${one}</code>`)}`}. Set it up with <code>postbackd target add</code> and <code>postbackd rule add</code>.</p></li>`}
    ${!known.target_url && known.target_kind && html`<li><p>It takes conversions by an API (<code>${known.target_kind}</code>): <code>postbackd target add --preset ${known.id}</code>.</p></li>`}
  </ol><${Known} of=${known} />`}<//><//>`;
}

function Parameters({ source }) {
  return html`<${Card} title="What its links carry" bare><${Table} caption="Parameters of clicks" rows=${Object.entries(source.parameters)} keyOf=${([field]) => field} columns=${[
    { head: "Kept as", lead: true, cell: ([field]) => html`<code>${field}</code>` },
    { head: "Names that are accepted", break: true, cell: ([, names]) => html`<span class="mono small">${names.join(", ")}</span>` },
  ]} /><//>`;
}

function Edit({ entry, tag, onClose, onSaved }) {
  const presets = usePresets("source");
  const [form, set] = useState({ name: entry.name, preset: entry.preset ?? "", fields: writeLists(entry.fields) });
  const put = (name) => (value) => set({ ...form, [name]: value });
  const send = async () => {
    const wanted = { name: form.name, preset: form.preset || null, fields: readLists(form.fields, "fields") };
    const saved = await save("source", nameOf(entry), changed(entry, wanted), tag);
    say(`Source ${saved.name} is saved`);
    onSaved(saved);
  };
  return html`<${Dialog} title=${`Edit ${entry.name}`} onClose=${onClose}>
    <${Form} send="Save" onSend=${send} onCancel=${onClose} fields=${Object.keys(form)}>${(wrong) => html`
      <${Field} label="Name" value=${form.name} onValue=${put("name")} wrong=${wrong("name")} autocomplete="off" />
      <${Field} label="Preset" kind="select" options=${[["", "none"], ...(presets.data.value ?? []).map((one) => [one.id, one.name])]} value=${form.preset} onValue=${put("preset")} wrong=${wrong("preset")} hint="Another preset replaces its parameter names." />
      <${Field} label="Parameter names" kind="area" hint="One FIELD=NAME,NAME a line, such as sub1=zone,zoneid." value=${form.fields} onValue=${put("fields")} wrong=${wrong("fields")} spellcheck=${false} />`}
    <//>
  <//>`;
}
