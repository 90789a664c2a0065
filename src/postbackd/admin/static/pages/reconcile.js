// Reconcile: a partner's export beside what is counted here; what is missing can be taken in.
import { html, useEffect, useState } from "../app/html.js";
import { addressHere, call, Problem, useAsk } from "../app/api.js";
import { bytes, count, money, plural, titled, words } from "../app/format.js";
import { go, goInstead, link } from "../app/router.js";
import { may } from "../app/session.js";
import { useList } from "../parts/catalog.js";
import { FIELDS, lastFile, Mapping, send, useHeaders } from "../parts/export_file.js";
import { attempt, Dialog, say } from "../parts/messages.js";
import { Moneys } from "../parts/moneys.js";
import { More, usePages } from "../parts/paging.js";
import { Asked, Bones, Button, Card, Empty, Facts, Field, Form, Head, Notice, Pill, Table, Tiles, Time } from "../parts/parts.js";

const MARKS = { ",": "comma", ".": "point" };
const PARTED = { ",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars" };
const KINDS = { agrees: "good", value_differs: "bad", status_differs: "warn", other_day: "warn", missing_here: "bad", missing_there: "bad", duplicate: "calm", outside_window: "calm", unusable: "warn" };

export default function Reconcile({ rest, query }) {
  const [id, bucket] = rest;
  if (id === undefined) return html`<${Begin} network=${query.network} />`;
  return bucket === undefined ? html`<${Result} id=${id} />` : html`<${Bucket} key=${bucket} id=${id} bucket=${bucket} />`;
}

function Begin({ network }) {
  const kept = useAsk("/reconcile");
  const networks = useList("network");
  return html`<${Head} title="Reconcile" lead="Compare a partner's export with what is counted here: every row of the file lands in one bucket, and nothing changes until you say so." />
    <div class="stack">
      ${may("operate") ? html`<${Card} title="Compare a file"><${Asked} of=${networks} lines=${3}>${(page) => (page.items.length ? html`<${Upload} networks=${page.items} network=${network} />` : html`<${Empty} icon="networks" title="No network yet" actions=${html`<${Button} href=${link("networks", { add: 1 })}>Add a network<//>`}>A file is compared with what one network has sent.<//>`)}<//><//>` : html`<${Notice}>Uploading a file needs the role operator; you can look at what others have compared.<//>`}
      <${Card} title="Of the last day" bare><${Asked} of=${kept} lines=${2}>${(page) => html`<${Table} caption="Reconciliations of the last day" rows=${page.items} keyOf=${(row) => row.id}
        empty=${html`<${Empty} icon="reconcile" title="Nothing compared today">Ask the network for its conversions of a month as CSV, and choose the file above. What it comes to is kept for a day.<//>`} columns=${[
          { head: "File", lead: true, break: true, cell: (row) => html`<a class="main-text" href=${link("reconcile", row.id)}>${row.file}</a>` }, { head: "Network", cell: (row) => row.network },
          { head: "Rows", num: true, cell: (row) => count(row.rows) }, { head: "Compared", cell: (row) => html`<${Time} at=${row.made} as="since" />` },
          { head: "", num: true, cell: (row) => may("operate") && html`<${Button} kind="quiet square low" icon="trash" label=${`Throw ${row.file} away`} onClick=${async () => { await attempt(() => call("DELETE", `/reconcile/${row.id}`)); kept.again(); }} />` }]} />`}<//><//>
    </div>`;
}

function Upload({ networks, network }) {
  const names = networks.map((one) => one.name);
  const [chosen, setChosen] = useState(names.includes(network) ? network : names.length === 1 ? names[0] : "");
  const [file, setFile] = useState(null);
  const [given, setGiven] = useState({});
  const headers = useHeaders(file);
  const compare = async () => {
    if (!chosen) throw new Problem(400, "Choose the network whose export it is.", "network");
    if (!file) throw new Problem(400, "Choose the file.", "file");
    go("reconcile", (await send(chosen, file, given)).id);
  };
  return html`<${Form} send="Compare" onSend=${compare} fields=${["network", "file", "time_zone"]}>${(wrong, busy) => html`
    <div class="pair"><${Field} label="Network" kind="select" options=${[["", "Choose …"], ...names.map((one) => [one, one])]} value=${chosen} onValue=${setChosen} wrong=${wrong("network")} />
      <${File} file=${file} onFile=${setFile} wrong=${wrong("file")} /></div>
    <details><summary>Say how to read it</summary><p class="soft small">Columns, dates and amounts are found by themselves; say it here if that fails.</p><${Mapping} headers=${headers} given=${given} onChange=${setGiven} wrong=${wrong} /></details>
    ${busy && html`<p class="soft" role="status">The file is on its way and compared; a million rows take about half a minute.</p>`}`}<//>`;
}

function File({ file, onFile, wrong }) {
  return html`<div class="field"><label for="export">File</label><input id="export" type="file" accept=".csv,.txt,.tsv,text/csv" aria-describedby="export-hint" aria-invalid=${wrong ? "true" : undefined} onChange=${(event) => onFile(event.currentTarget.files[0] ?? null)} />
    <p class="hint" id="export-hint">${file ? bytes(file.size) : "CSV with one row a conversion, as the partner exports it; up to 512 MB."}</p>${wrong && html`<p class="wrong">${wrong}</p>`}</div>`;
}

function Result({ id }) {
  const found = useAsk(`/reconcile/${encodeURIComponent(id)}`);
  const answer = found.data.value;
  return html`<${Head} title=${answer ? `${answer.network}: ${answer.file}` : "Reconcile"} back=${["Reconcile", link("reconcile")]} />
    <${Asked} of=${found} lines=${8}>${(one) => html`<div class="stack">
      <${Tiles} of=${[
        { name: "Rows of the file", figure: count(one.rows), note: one.period.since ? html`<${Time} at=${one.period.since} /> to <${Time} at=${one.period.until} />` : "all of the time" }, { name: "Conversions here", figure: count(one.conversions), note: "of this network in that time" },
        { name: "They say", figure: html`<${Moneys} of=${one.theirs} />` }, { name: "We say", figure: html`<${Moneys} of=${one.ours} />` }]} />
      ${one.notes.map((note) => html`<${Notice} kind="warn" key=${note}>${note}<//>`)}
      <${Card} title="Buckets" bare><${Buckets} of=${one} /><//>
      ${one.buckets.some((bucket) => bucket.bucket === "missing_here" && bucket.rows > 0) && may("operate") && html`<${Import} of=${one} />`}
      ${one.unusable.length > 0 && html`<${Card} title="Rows that could not be used" bare><${Table} caption="Why rows could not be used" rows=${one.unusable} keyOf=${(row) => row.reason} columns=${[{ head: "Why", lead: true, cell: (row) => row.sentence }, { head: "Rows", num: true, cell: (row) => count(row.rows) }, { head: "First lines", cell: (row) => row.lines.slice(0, 8).join(", ") }]} /><//>`}
      <${Card} title="How the file was read"><${Read} of=${one} /><//>
    </div>`}<//>`;
}

function Buckets({ of }) {
  return html`<${Table} caption="Buckets: rows, conversions and money" rows=${of.buckets} keyOf=${(row) => row.bucket} columns=${[
    { head: "Bucket", lead: true, cell: (row) => html`<span class="row"><${Pill} kind=${row.rows || row.conversions ? KINDS[row.bucket] : "calm"}>${row.rows || row.conversions ? html`<a href=${link("reconcile", of.id, row.bucket)}>${titled(row.bucket)}</a>` : titled(row.bucket)}<//></span>` },
    { head: "What it means", cell: (row) => html`<span class="soft">${row.sentence}</span>` },
    { head: "Rows", num: true, cell: (row) => count(row.rows) }, { head: "Ours", num: true, cell: (row) => count(row.conversions) },
    { head: "They say", num: true, cell: (row) => html`<${Moneys} of=${row.theirs} />` }, { head: "We say", num: true, cell: (row) => html`<${Moneys} of=${row.ours} />` },
    { head: "", num: true, cell: (row) => (row.rows || row.conversions) > 0 && html`<${Button} kind="quiet low" icon="download" label=${`${titled(row.bucket)} as CSV`} href=${addressHere(`/reconcile/${of.id}/${row.bucket}.csv`)} download>CSV<//>` },
  ]} />`;
}

function Read({ of }) {
  const [open, setOpen] = useState(false);
  const { format } = of;
  const other = Object.entries(format.other_candidates);
  if (open) return html`<${Again} of=${of} onClose=${() => setOpen(false)} />`;
  return html`<div class="stack tight"><${Facts} of=${[...FIELDS.map(([name, label]) => [label, format.columns[name] ? html`<code>${format.columns[name]}</code>${other.find(([one]) => one === name) ? html` <span class="soft small">or perhaps ${other.find(([one]) => one === name)[1].join(", ")}</span>` : ""}` : html`<span class="soft">no column</span>`]),
      ["Clock", of.clock.sentence], ["Dates and amounts", [format.dates, format.decimal && `decimal ${MARKS[format.decimal] ?? format.decimal}`, format.encoding, `cells parted by ${PARTED[format.delimiter] ?? format.delimiter}`].filter(Boolean).join(", ")],
      of.types.length > 0 && ["Types", of.types.join(", ")], format.unused_columns.length > 0 && ["Not used", format.unused_columns.join(", ")]]} />
    ${may("operate") && html`<div class="ends"><${Button} icon="pencil" onClick=${() => setOpen(true)}>Read it in another way<//></div>`}</div>`;
}

function Again({ of, onClose }) {
  const had = lastFile.value?.id === of.id ? lastFile.value : null;
  const [file, setFile] = useState(had?.file ?? null);
  const [given, setGiven] = useState(had?.given ?? {});
  const columns = [...Object.values(of.format.columns).filter(Boolean), ...of.format.unused_columns];
  const headers = useHeaders(file, [...new Set(columns)]);
  const compare = async () => {
    if (!file) throw new Problem(400, "Choose the file.", "file");
    const answer = await send(of.network, file, given);
    try { await call("DELETE", `/reconcile/${of.id}`); } catch { /* it goes by itself within a day */ }
    say("Compared again");
    goInstead("reconcile", answer.id);
  };
  return html`<${Form} send="Compare again" onSend=${compare} onCancel=${onClose} fields=${["file", "time_zone"]}>${(wrong, busy) => html`
    ${!had && html`<${File} file=${file} onFile=${setFile} wrong=${wrong("file")} />`}<${Mapping} headers=${headers} given=${given} guessed=${of.format.columns} onChange=${setGiven} wrong=${wrong} />
    ${busy && html`<p class="soft" role="status">The file is compared again …</p>`}`}<//>`;
}

const LEFT_OUT = { no_click: "no click id, so there is nothing to credit", other_transaction: "a click that is counted under another transaction id", type_unknown: "a type that is not known here" };
const has = (rows) => (rows === 1 ? "row has" : "rows have");

function Import({ of }) {
  const [open, setOpen] = useState(false);
  const missing = of.buckets.find((bucket) => bucket.bucket === "missing_here");
  return html`<${Card} title="Take in what is missing here" aside=${html`<${Button} kind="main" icon="plus" onClick=${() => setOpen(true)}>Import …<//>`}>
    <p>${plural(missing.rows, "row")} of the file ${missing.rows === 1 ? "is" : "are"} not counted here. Importing ${missing.rows === 1 ? "it" : "them"} goes through the same checks and the same unique key as postbacks. You see what it would count first.</p>
    ${open && html`<${Dialog} title="Import what is missing here" onClose=${() => setOpen(false)}><${Wish} id=${of.id} onClose=${() => setOpen(false)} /><//>`}<//>`;
}

function Wish({ id, onClose }) {
  const [wish, setWish] = useState({ deliver: false, doubtful: false });
  const [seen, setSeen] = useState(null);
  const [done, setDone] = useState(null);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(true);
  const run = async (dry_run) => {
    setBusy(true);
    setProblem(null);
    try {
      const answer = await call("POST", `/reconcile/${encodeURIComponent(id)}/import`, { body: { ...wish, dry_run } });
      if (dry_run) setSeen(answer); else setDone(answer);
    } catch (error) { setProblem(error); }
    setBusy(false);
  };
  useEffect(() => { setSeen(null); run(true); }, [wish.deliver, wish.doubtful]);
  const answer = done ?? seen;
  return html`${!done && html`<div class="stack tight"><${Field} kind="check" label="Tell traffic sources of them, as of postbacks" value=${wish.deliver} onValue=${(deliver) => setWish({ ...wish, deliver })} />
      <${Field} kind="check" label="Also rows whose click is counted under another transaction id" hint="They may be the same conversion." value=${wish.doubtful} onValue=${(doubtful) => setWish({ ...wish, doubtful })} /></div>`}
    ${problem && html`<${Notice} kind="bad">${problem.detail}<//>`}
    ${answer === null ? !problem && html`<${Bones} lines=${3} />` : html`<div class="stack tight" aria-live="polite">
      <${Notice} kind=${answer.counted ? "good" : "warn"}><strong>${done ? `${plural(answer.counted, "conversion")} ${answer.counted === 1 ? "is" : "are"} counted now` : `${count(answer.counted)} of ${plural(answer.rows, "row")} would be counted`}</strong>${answer.counted ? html`: <${Moneys} of=${answer.value} />` : "."}<//>
      <ul class="stack tight">${Object.entries(answer.left_out).map(([why, rows]) => html`<li key=${why}>${count(rows)} ${LEFT_OUT[why] ? `${has(rows)} ${LEFT_OUT[why]}` : words(why)}.</li>`)}${Object.entries(answer.refused).map(([why, rows]) => html`<li key=${why}>${count(rows)} refused: ${words(why)}.</li>`)}</ul>
      ${!answer.transaction_ids && html`<${Notice} kind="warn">The file has no transaction ids: rows are told apart by their click alone.<//>`}</div>`}
    <div class="ends">${done ? html`<${Button} kind="main" onClick=${onClose}>Close<//>` : html`<${Button} kind="main" busy=${busy} disabled=${busy || !seen?.counted} onClick=${() => run(false)}>Import ${seen ? count(seen.counted) : ""}<//><${Button} kind="quiet" onClick=${onClose}>Cancel<//>`}</div>`;
}

const both = (theirs, ours) => (theirs === ours || ours === null ? theirs : theirs === null ? ours : html`${theirs} <span class="soft small">here: ${ours}</span>`);
const amount = (value, currency) => (value === null ? "" : money(value, currency ?? ""));

function Bucket({ id, bucket }) {
  const rows = usePages(`/reconcile/${encodeURIComponent(id)}/${encodeURIComponent(bucket)}`, {}, (row) => `${row.line} ${row.our_conversion}`);
  return html`<${Head} title=${titled(bucket)} back=${["All buckets", link("reconcile", id)]}><${Button} icon="download" href=${addressHere(`/reconcile/${id}/${bucket}.csv`)} download>CSV<//><//>
    <section class="card" aria-label="Rows"><${Asked} of=${rows.first} lines=${6}>${() => html`<${Table} caption=${`Rows: ${words(bucket)}`} folds rows=${rows.items} keyOf=${(row) => `${row.line} ${row.our_conversion}`}
      empty=${html`<${Empty} icon="reconcile" title="No rows in this bucket">Look at the other buckets.<//>`} columns=${[
        { head: "Line", num: true, cell: (row) => row.line ?? "" },
        { head: "Transaction", lead: true, break: true, cell: (row) => html`<span class="mono small">${both(row.transaction_id, row.our_transaction_id) ?? "–"}</span>` },
        { head: "Click id", break: true, cell: (row) => html`<span class="mono small">${both(row.click_id, row.our_click_id) ?? "–"}</span>` },
        { head: "They say", num: true, cell: (row) => amount(row.value, row.currency) }, { head: "We say", num: true, cell: (row) => amount(row.our_value, row.our_currency) },
        { head: "Their status", cell: (row) => row.status ?? "" }, { head: "Our status", cell: (row) => row.our_status && html`<${Pill} word=${row.our_status} />` },
        { head: "Time", cell: (row) => html`<${Time} at=${row.time ?? row.our_time} />` },
        { head: "Note", cell: (row) => html`<span class="small">${row.note ?? ""}</span>${row.our_conversion && html` <a class="small" href=${link("live", { why: row.our_conversion })}>its story</a>`}` },
      ]} /><${More} of=${rows} />`}<//></section>`;
}
