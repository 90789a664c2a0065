// The parts that pages are made of.  Texts are always text nodes: nothing here takes markup.
import { html, useId, useState } from "../app/html.js";
import { fullMoment, money, NOTHING, since, utc, words, dateSecond, dateTime, timeOfDay } from "../app/format.js";
import { Icon } from "./icon.js";
import { say } from "./messages.js";

export { Icon } from "./icon.js";

// Head of a page.  `back`: [text, address] of the page above.
export function Head({ title, lead, back, children }) {
  return html`<div class="head">
    <div class="titles">
      ${back && html`<a class="crumb" href=${back[1]}><${Icon} name="left" />${back[0]}</a>`}
      <h1>${title}</h1>
      ${lead && html`<p class="lead">${lead}</p>`}
    </div>
    ${children && html`<div class="actions">${children}</div>`}
  </div>`;
}

// `bare`: the children bring their own edges (a table).
export function Card({ title, aside, bare, children, id }) {
  return html`<section class="card" aria-label=${title} id=${id}>
    ${title && html`<header><h2>${title}</h2>${aside}</header>`}
    ${bare ? children : html`<div class="in">${children}</div>`}
  </section>`;
}

export function Button({ icon, kind = "", children, href, busy, label, ...rest }) {
  const inner = html`${icon && html`<${Icon} name=${icon} />`}${children}`;
  if (href) return html`<a class=${`button ${kind}`} href=${href} aria-label=${label} ...${rest}>${inner}</a>`;
  return html`<button type="button" class=${`button ${kind}`} disabled=${busy} aria-busy=${busy ? "true" : undefined} aria-label=${label} ...${rest}>${inner}</button>`;
}

const KINDS = {
  accepted: "good", duplicate: "calm", updated: "info", held: "warn", unmatched: "bad", rejected: "bad", queued: "info",
  approved: "good", pending: "warn", reversed: "bad", delivered: "good", skipped: "calm", failed: "bad", given_up: "bad",
  waiting: "warn", dead: "bad", active: "good", paused: "warn", broken: "bad",
};

// A verdict, a status, a state: colour and word.
export function Pill({ word, kind, children }) {
  return html`<span class=${`pill ${kind ?? KINDS[word] ?? "calm"}`}>${children ?? words(word)}</span>`;
}

// A moment in the viewer's zone, with UTC in the tooltip.  `as`: "since", "clock", "exact" (to the second) or nothing (date and time).
export function Time({ at, as }) {
  if (at === null || at === undefined || at === "") return NOTHING;
  const moment = new Date(at);
  const text = as === "since" ? since(moment) : as === "clock" ? timeOfDay(moment) : as === "exact" ? dateSecond(moment) : dateTime(moment);
  return html`<time dateTime=${moment.toISOString()} title=${`${utc(moment)} · ${fullMoment(moment)}`}>${text}</time>`;
}

export function Money({ of, currency }) {
  return html`<span class="nowrap">${money(of, currency)}</span>`;
}

// columns: [{ head, cell: (row) => …, num, lead, grow, sort }]; on phones each row of a wide table folds into a block.
// `empty`: what is shown instead of a table without rows.
export function Table({ caption, columns, rows, empty, keyOf, onRow, foot, sort, onSort, folds = columns.length > 4 }) {
  if (rows.length === 0 && empty) return empty;
  const sign = (column) => (sort && sort.by === column.sort ? (sort.down ? " ↓" : " ↑") : "");
  const order = (column) => (sort && sort.by === column.sort ? (sort.down ? "descending" : "ascending") : undefined);
  return html`<div class=${`table-wrap ${folds ? "folds" : ""}`} ...${folds ? {} : { tabindex: 0, role: "region", "aria-label": caption }}>
    <table>
      <caption class="unseen">${caption}</caption>
      <thead><tr>${columns.map((column) => html`<th scope="col" class=${column.num ? "num" : ""} aria-sort=${order(column)} title=${column.title}>
        ${column.sort && onSort ? html`<button type="button" onClick=${() => onSort(column.sort)}>${column.head}${sign(column)}</button>` : column.head || html`<span class="unseen">Actions</span>`}
      </th>`)}</tr></thead>
      <tbody>${rows.map((row, at) => html`<tr key=${keyOf ? keyOf(row) : at} onClick=${onRow && ((event) => { if (!event.target.closest("a, button")) onRow(row); })}>
        ${columns.map((column) => html`<td class=${`${column.num ? "num" : ""} ${column.lead ? "lead-cell" : ""} ${column.break ? "break" : ""}`} data-label=${column.head}>${column.cell(row)}</td>`)}
      </tr>`)}</tbody>
      ${foot && html`<tfoot>${foot}</tfoot>`}
    </table>
  </div>`;
}

// tiles: [{ name, figure, unit, note }]
export function Tiles({ of }) {
  return html`<dl class="tiles">${of.map((one) => html`<div class="tile" key=${one.name}>
    <dt>${one.name}</dt>
    <dd class="figure">${one.figure ?? NOTHING}${one.unit && html`<small>${one.unit}</small>`}</dd>
    ${one.note && html`<dd class="note">${one.note}</dd>`}
  </div>`)}</dl>`;
}

export function Facts({ of }) {
  return html`<dl class="facts">${of.filter(Boolean).map(([name, value]) => html`<dt>${name}</dt><dd>${value ?? NOTHING}</dd>`)}</dl>`;
}

// Nothing here yet, and what to do next.
export function Empty({ icon = "info", title, children, actions }) {
  return html`<div class="empty"><${Icon} name=${icon} /><h2>${title}</h2><p>${children}</p>${actions && html`<div class="row">${actions}</div>`}</div>`;
}

export function Notice({ kind = "", icon, children }) {
  const mark = icon ?? (kind === "bad" || kind === "warn" ? "warn" : kind === "good" ? "check" : "info");
  return html`<div class=${`notice ${kind}`} role=${kind === "bad" ? "alert" : undefined}><${Icon} name=${mark} /><div>${children}</div></div>`;
}

export function Bones({ lines = 4 }) {
  return html`<div class="bones" role="status"><span class="unseen">Loading…</span>${Array.from({ length: lines }, (_, at) => html`<span class="bone" style=${{ width: `${92 - ((at * 23) % 45)}%` }}></span>`)}</div>`;
}

// What an asked question gives: bones while it is on its way, the problem if it failed, else children(data).
export function Asked({ of, lines, bones, children }) {
  const data = of.data.value;
  const problem = of.problem.value;
  if (data === null && problem) return html`<div class="in"><${Failed} problem=${problem} again=${of.again} /></div>`;
  if (data === null) return bones ?? html`<${Bones} lines=${lines} />`;
  return html`${problem && html`<${Notice} kind="warn">These figures are older than they should be: ${problem.detail}<//>`}${children(data)}`;
}

export function Failed({ problem, again }) {
  return html`<${Notice} kind="bad">${problem.detail} ${again && html`<button type="button" class="link" onClick=${again}>Try again</button>`}<//>`;
}

// Text to copy.  Macros in it ({x}, ${x}, [x], __X__ …) are shown in the accent colour.
export function Copy({ text, label, macros = true }) {
  const put = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say(`${label} copied`);
    } catch {
      say("The browser does not allow copying here: mark the text and copy it yourself.", "bad");
    }
  };
  const parts = macros ? text.split(/(\{[^{}\s]+\}|\$\{[^{}\s]+\}|\[[A-Za-z_]+\]|__[A-Z_]+__|##?[A-Za-z_]+##?)/) : [text];
  return html`<div class="copy"><code>${parts.map((part, at) => (at % 2 ? html`<span class="macro">${part}</span>` : part))}</code>
    <button type="button" class="button square" aria-label=${`Copy ${label}`} title=${`Copy ${label}`} onClick=${put}><${Icon} name="copy" /></button></div>`;
}

// A choice.  options: a word, or [key, text], each; `any`: what choosing none is called.  What is chosen is offered, whether it is in the list or not.
export function Select({ label, value = "", options, any, onValue, ...rest }) {
  const all = [...(any === undefined ? [] : [["", any]]), ...options.map((one) => (Array.isArray(one) ? one : [one, words(one)]))];
  if (value && !all.some(([key]) => key === value)) all.push([value, value]);
  return html`<select aria-label=${label} value=${value} onChange=${(event) => onValue(event.currentTarget.value)} ...${rest}>${all.map(([key, text]) => html`<option value=${key} selected=${key === value}>${text}</option>`)}</select>`;
}

// One field of a form with its label, hint and error.  kind: "text", "select", "area", "check", or an input type.
export function Field({ label, hint, wrong, kind = "text", value, onValue, options = [], ...rest }) {
  const id = useId();
  const about = [hint && `${id}-hint`, wrong && `${id}-wrong`].filter(Boolean).join(" ") || undefined;
  const shared = { id, "aria-describedby": about, "aria-invalid": wrong ? "true" : undefined, ...rest };
  const read = (event) => onValue(event.currentTarget.value);
  const notes = html`${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}${wrong && html`<p class="wrong" id=${`${id}-wrong`}>${wrong}</p>`}`;
  if (kind === "check") {
    return html`<div class="field"><label class="check"><input type="checkbox" ...${shared} checked=${value} onChange=${(event) => onValue(event.currentTarget.checked)} />${label}</label>${notes}</div>`;
  }
  const control = kind === "select" ? html`<${Select} ...${shared} value=${value} options=${options} onValue=${onValue} />`
    : kind === "area" ? html`<textarea ...${shared} value=${value} onInput=${read}></textarea>`
    : html`<input type=${kind} ...${shared} value=${value} onInput=${read} />`;
  return html`<div class="field"><label for=${id}>${label}</label>${control}${notes}</div>`;
}

// One of a few: [[key, text], …]
export function Segments({ label, options, value, onValue }) {
  return html`<div class="segments" role="group" aria-label=${label}>${options.map(([key, text]) => html`<button type="button" aria-pressed=${key === value ? "true" : "false"} onClick=${() => onValue(key)}>${text}</button>`)}</div>`;
}

// A form that sends: `onSend` is a function that may throw a Problem; its words are shown at the field it names.
// children: (wrong, busy) => fields, where wrong(name) is what to pass as `wrong`.
export function Form({ onSend, send, children, onCancel, fields = [] }) {
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await onSend();
    } catch (error) {
      setProblem(error);
    } finally {
      setBusy(false);
    }
  };
  const at = problem?.field?.split(/[.[]/)[0];
  const wrong = (name) => (problem && at === name ? problem.detail : undefined);
  const shownAtField = problem && at && fields.includes(at);
  return html`<form onSubmit=${submit} noValidate>
    ${children(wrong, busy)}
    ${problem && !shownAtField && html`<${Notice} kind="bad">${problem.detail ?? String(problem)}<//>`}
    <div class="ends"><button class="button main" type="submit" disabled=${busy}>${send}</button>
    ${onCancel && html`<button class="button quiet" type="button" onClick=${onCancel}>Cancel</button>`}</div>
  </form>`;
}

export function Tabs({ label, of }) {
  return html`<nav class="tabs" aria-label=${label}>${of.map(([text, address, here]) => html`<a href=${address} aria-current=${here ? "page" : undefined}>${text}</a>`)}</nav>`;
}
