// Reports: any one to three dimensions, as a table and a picture.  The whole question stands in the address.
import { html, useMemo, useState } from "../app/html.js";
import { addressHere, call, dataSet, useAsk } from "../app/api.js";
import { count, dateTime, plural, titled, words, zone as here } from "../app/format.js";
import { ask, go, goInstead, link, route } from "../app/router.js";
import { Asked, Button, Card, Empty, Field, Form, Head, Icon, Notice, Segments, Select, Table } from "../parts/parts.js";
import { Chart } from "../parts/chart.js";
import { attempt, Dialog, say } from "../parts/messages.js";
import { canGoDeeper, deeper, DIMENSIONS, nextDay, PERIODS, read, toAsk, writeWhere } from "../parts/question.js";
import { columnsOf, drawable, saysSomething } from "../parts/table_measures.js";

const LIMIT = 1000;
const FIRST_ROWS = 100;

export default function Reports({ query }) {
  const question = read(query);
  const asked = toAsk(question, LIMIT);
  const report = useAsk(asked && "/reports/explore", asked ?? {}, { every: 60 });
  return html`<${Head} title="Reports" lead="What campaigns, countries, days bring, by any three of them. A row opens what is behind it.">
      ${asked && html`<${Button} icon="download" href=${addressHere("/reports/explore.csv", { ...asked, limit: 100000 })} download>CSV<//>`}
      <${Views} />
    <//>
    <div class="stack">
      <${Asks} question=${question} />
      ${asked === null ? html`<${Notice} kind="info">Choose the first and the last day.<//>` : html`<${Asked} of=${report} lines=${7}>${(table) => html`<${Answer} table=${table} question=${question} />`}<//>`}
    </div>`;
}

function Asks({ question }) {
  const { by, where } = question;
  const setBy = (at, name) => { const next = [...by]; if (name) next[at] = name; else next.splice(at, 1); ask({ by: [...new Set(next)].join(","), sort: null }); };
  const left = (at) => DIMENSIONS.filter((name) => name === by[at] || !by.includes(name));
  return html`<section class="card" aria-label="Question"><div class="in stack tight">
    <div class="toolbar asks" role="group" aria-label="Group by">${[...by, ...(by.length < 3 ? [""] : [])].map((name, at) => html`
      <${Select} key=${at} label=${at === 0 ? "Group by" : `and by, ${at + 1}`} value=${name} onValue=${(value) => setBy(at, value)}
        any=${at > 0 || by.length > 1 ? (name ? "(leave it out)" : "and by …") : undefined} options=${left(at).map((one) => [one, at === 0 ? `By ${words(one)}` : words(one)])} />`)}
      <${Select} label="Period" value=${question.period} onValue=${(period) => ask({ period })} options=${PERIODS} />
      ${question.period === "own" && html`<input type="date" aria-label="First day" value=${question.from} onChange=${(event) => ask({ from: event.currentTarget.value })} /><input type="date" aria-label="Last day" min=${question.from || undefined} value=${question.to} onChange=${(event) => ask({ to: event.currentTarget.value })} />`}
      <${Zones} chosen=${question.zone} />
      <${Segments} label="By which time conversions count" options=${[["conversion", "By conversion"], ["click", "By click"]]} value=${question.clock} onValue=${(value) => ask({ clock: value === "click" ? value : null })} />
    </div>
    <div class="row">${where.map(([name, value], at) => html`<span class="chip" key=${name + value}><span class="soft">${words(name)}</span> ${value || "(none)"}<button type="button" aria-label=${`Leave out the filter ${words(name)} ${value}`} onClick=${() => ask({ where: writeWhere(where.filter((_, other) => other !== at)) })}><${Icon} name="cross" /></button></span>`)}
      <${NewFilter} where=${where} />${where.length > 1 && html`<button type="button" class="link small" onClick=${() => ask({ where: null })}>Leave out all</button>`}</div>
  </div></section>`;
}

// The whole list is long: it is there once somebody asks for it.
function Zones({ chosen }) {
  const [all, setAll] = useState(false);
  const zones = useMemo(() => [...new Set([here, "UTC", chosen, ...(all ? Intl.supportedValuesOf("timeZone") : [])])], [chosen, all]);
  const choose = (zone) => { if (zone === "") setAll(true); else ask({ zone: zone === here ? null : zone }); };
  return html`<${Select} label="Time zone of days and hours" value=${chosen} onValue=${choose} options=${all ? zones : [...zones, ["", "Other time zones …"]]} />`;
}

function NewFilter({ where }) {
  const [open, setOpen] = useState(false);
  const [name, setName] = useState("country");
  const [value, setValue] = useState("");
  const add = (event) => { event.preventDefault(); ask({ where: writeWhere([...where, [name, value.trim()]]) }); setOpen(false); setValue(""); };
  if (!open) return html`<${Button} kind="quiet low" icon="plus" onClick=${() => setOpen(true)}>Filter<//>`;
  return html`<form class="toolbar" onSubmit=${add} aria-label="New filter"><${Select} label="Dimension" value=${name} onValue=${setName} options=${DIMENSIONS} />
    <input aria-label="Value" placeholder=${EXAMPLES[name] ?? "its name; empty: none"} value=${value} onInput=${(event) => setValue(event.currentTarget.value)} autofocus />
    <button class="button" type="submit">Add</button><${Button} kind="quiet" onClick=${() => setOpen(false)}>Cancel<//></form>`;
}

const EXAMPLES = { country: "DE", type: "sale", status: "approved", day: "2026-11-23", hour: "0 to 23", weekday: "monday" };

function Answer({ table, question }) {
  if (table.lines.length === 0) return html`<section class="card"><${Empty} icon="reports" title="Nothing in this period" actions=${question.where.length ? html`<${Button} onClick=${() => ask({ where: null })}>Leave out the filters<//>` : html`<${Button} onClick=${() => ask({ period: "30d" })}>Look at 30 days<//>`}>${question.where.length ? "No click and no conversion fits the filters." : "As soon as clicks and conversions come in they are added up here, within seconds."}<//></section>`;
  return html`${table.notes.map((note) => html`<${Notice} kind="info" key=${note}>${note}<//>`)}
    <${Picture} table=${table} question=${question} />
    <${Lines} table=${table} question=${question} />`;
}

function Picture({ table, question }) {
  const figures = drawable(table);
  const chosen = figures.find(([key]) => key === question.draw) ?? figures.find(([key]) => key === "conversions") ?? figures[0];
  const byDay = table.by.includes("day");
  const pick = html`<${Select} class="narrow" label="What is drawn" value=${chosen[0]} onValue=${(draw) => ask({ draw })} options=${figures} />`;
  return html`<${Card} title=${chosen[1]} aside=${pick}>${byDay ? html`<${Days} table=${table} figure=${chosen} />` : html`<${Bars} table=${table} figure=${chosen} />`}<//>`;
}

const MOST_LINES = 4;

// A line for each of the largest groups beside the day; days without a row are days with nothing, not gaps.
function Days({ table, figure: [key, name, readFigure, show] }) {
  const [times, series] = useMemo(() => {
    const at = table.by.indexOf("day");
    const groups = new Map();
    for (const line of table.lines) {
      const label = line.label.filter((_, place) => place !== at).join(" · ") || name;
      const group = groups.get(label) ?? { sum: 0, days: new Map() };
      const value = readFigure(line.measures);
      group.sum += line.measures.conversions + (line.measures.clicks ?? 0) / 1000;
      group.days.set(line.key[at], value);
      groups.set(label, group);
    }
    const all = table.lines.map((line) => line.key[at]).sort();
    const days = [];
    for (let day = all[0]; day <= all.at(-1) && days.length < 1000; day = nextDay(day)) days.push(day);
    const rest = key.endsWith("_rate") ? null : 0;
    const largest = [...groups].sort((one, other) => other[1].sum - one[1].sum).slice(0, MOST_LINES);
    return [days.map((day) => new Date(`${day}T00:00`).getTime() / 1000), largest.map(([label, group], place) => ({ name: label, colour: place + 1, fill: largest.length === 1, show, values: days.map((day) => group.days.get(day) ?? rest) }))];
  }, [table, key]);
  return html`<${Chart} times=${times} series=${series} show=${show} summary=${`${name} by day, ${plural(series.length, "line")}; the figures stand in the table`} />`;
}

const MOST_BARS = 12;

function Bars({ table, figure: [, name, readFigure, show] }) {
  const timed = table.by.length === 1 && ["hour", "weekday"].includes(table.by[0]);
  const drawn = table.lines.map((line) => [line.label.join(" · "), readFigure(line.measures) ?? 0]);
  const shown = timed ? drawn : drawn.sort((one, other) => other[1] - one[1]).slice(0, MOST_BARS);
  const most = Math.max(...shown.map(([, value]) => value), 0) || 1;
  return html`<ul class="bars" aria-label=${name}>${shown.map(([label, value]) => html`<li key=${label}><span class="label" title=${label}>${label}</span><span class="track"><span class="bar" style=${{ width: `${Math.max((value / most) * 100, value ? 0.5 : 0)}%` }}></span></span><span class="num">${show(value)}</span></li>`)}</ul>
    ${drawn.length > shown.length && html`<p class="soft small spaced">The ${MOST_BARS} largest of ${plural(drawn.length, "group")}.</p>`}`;
}

function Lines({ table, question }) {
  const [all, setAll] = useState(false);
  const lines = table.lines.filter((line) => saysSomething(question.show, line.measures));
  const rows = all ? lines : lines.slice(0, FIRST_ROWS);
  const measures = columnsOf(question.show, table);
  const open = (line) => { const next = canGoDeeper(line) && deeper(question, line); if (next) go("reports", { ...route.value.query, ...next }); };  // a step in the history: back leads up again
  const columns = [
    ...table.by.map((name, at) => ({
      head: titled(name), lead: at === 0, sort: name,
      cell: (line) => (at === 0 && canGoDeeper(line) && deeper(question, line) ? html`<button type="button" class=${`link ${name === "day" ? "nowrap" : ""}`} onClick=${() => open(line)}>${line.label[at]}<span class="unseen">, what is behind it</span></button>` : html`<span class=${name === "day" ? "nowrap" : ""}>${line.label[at]}</span>`),
    })),
    ...measures.map(([name, head, cell, title]) => ({ head, num: true, sort: name, title, cell: (line) => cell(line.measures, table.currency) })),
  ];
  const sorted = question.sort ?? table.by.find((name) => ["day", "hour", "weekday"].includes(name)) ?? "conversions";
  const foot = html`<tr><td class="lead-cell" colspan=${table.by.length}>Total</td>${measures.map(([name, head, cell]) => html`<td class="num" data-label=${head} key=${name}>${cell(table.total, table.currency)}</td>`)}</tr>`;
  return html`<${Card} title=${`By ${table.by.map(words).join(", ")}`} bare aside=${html`<span class="soft small">${dateTime(table.since)} to ${dateTime(table.until)}</span>
      <${Segments} label="Columns" options=${[["money", "Money"], ["quality", "Quality"]]} value=${question.show} onValue=${(value) => ask({ show: value === "quality" ? value : null })} />`}>
    <div class="deep"><${Table} caption=${`Report by ${table.by.map(words).join(", ")}`} rows=${rows} columns=${columns} keyOf=${(line) => line.key.join("\n")} onRow=${open} foot=${foot}
      sort=${{ by: sorted, down: !table.by.includes(sorted) }} onSort=${(name) => ask({ sort: name })} folds /></div>
    ${rows.length < lines.length && html`<p class="more"><${Button} onClick=${() => setAll(true)}>Show all ${count(lines.length)}<//></p>`}
    ${table.left_out > 0 && html`<p class="more soft small">${plural(table.left_out, "more group")} not shown; the CSV has them all.</p>`}
    ${table.complete_to && html`<p class="more soft tiny">Added up to ${dateTime(table.complete_to)}; what is younger may still grow.</p>`}
  <//>`;
}

// Questions that somebody keeps; they are of the person, not of the data.
function Views() {
  const kept = useAsk(dataSet.value === "demo" ? null : "/views", { page: "reports" });
  const [open, setOpen] = useState(null);
  const [name, setName] = useState("");
  const views = kept.data.value ?? [];
  if (dataSet.value === "demo") return null;
  const here = new URLSearchParams(route.value.query).toString();
  const save = async () => { await call("POST", "/views", { body: { name, page: "reports", query: here } }); say(`View ${name} is saved`); setOpen(null); kept.again(); };
  const remove = async (view) => { await attempt(() => call("DELETE", `/views/${view.id}`), `View ${view.name} is removed`); kept.again(); };
  const show = (view) => { setOpen(null); goInstead("reports", Object.fromEntries(new URLSearchParams(view.query))); };
  return html`<${Button} onClick=${() => setOpen("list")}>Views${views.length > 0 && html` <span class="soft">${count(views.length)}</span>`}<//>
    ${open && html`<${Dialog} title="Saved views" onClose=${() => setOpen(null)}>
      ${views.length === 0 ? html`<p class="soft">None yet. Put a question together, then save it here under a name.</p>` : html`<ul class="stack tight">${views.map((view) => html`<li class="row" key=${view.id}><a href=${link("reports", Object.fromEntries(new URLSearchParams(view.query)))} onClick=${(event) => { event.preventDefault(); show(view); }}>${view.name}</a>
        <span class="push"><${Button} kind="quiet square low" icon="trash" label=${`Remove the view ${view.name}`} onClick=${() => remove(view)} /></span></li>`)}</ul>`}
      <${Form} send="Save this question" onSend=${save} fields=${["name"]}>${(wrong) => html`<${Field} label="Name" hint="Such as “Germany by day”; a view of the same name is replaced." value=${name} onValue=${setName} wrong=${wrong("name")} maxlength="64" />`}<//>
    <//>`}`;
}
