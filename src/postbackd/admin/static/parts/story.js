// The timeline of one id, as GET /why tells it: what it is, what is stored, what happened in which order.
import { html } from "../app/html.js";
import { money, words } from "../app/format.js";
import { Copy, Facts, Notice, Pill, Time } from "./parts.js";

export function Story({ of }) {
  return html`<div class="stack">
    <${Copy} text=${of.id} label="id" macros=${false} />
    ${of.cause && html`<${Notice} kind=${of.found ? "info" : "warn"}><strong>${of.cause}</strong> ${of.fix}${of.hint && html`<br />${of.hint}`}<//>`}
    ${!of.found && !of.cause && html`<${Notice} kind="warn">Nothing is stored under this id. Is it complete? Was its row deleted by age?<//>`}
    ${of.conversions.map((one) => html`<${Conversion} of=${one} key=${one.conversion} />`)}
    ${of.clicks.map((one) => html`<${Click} of=${one} key=${one.click_id} />`)}
    ${of.events.length > 0 && html`<section class="stack tight" aria-label="Timeline"><h3>What happened</h3>
      <ol class="steps">${of.events.map((event, at) => html`<li key=${at}><${Step} of=${event} /></li>`)}</ol></section>`}
    ${(of.deliveries ?? []).length > 0 && html`<section class="stack tight" aria-label="Deliveries"><h3>Deliveries</h3>
      <ol class="steps">${of.deliveries.map((one) => html`<li key=${one.delivery}><div class="row"><${Pill} word=${one.state} /><span>${one.target} ${one.message && `· ${words(one.message)}`}</span></div><p class="mono small break">${one.delivery}</p></li>`)}</ol></section>`}
  </div>`;
}

function Conversion({ of }) {
  return html`<section class="inset" aria-label="Conversion"><div class="row"><h3>Conversion</h3><${Pill} word=${of.status} /><strong class="push">${money(of.value, of.currency)}</strong></div>
    <${Facts} of=${[["Type", of.type], ["Transaction", of.transaction_id && html`<span class="mono small break">${of.transaction_id}</span>`], ["Network", of.network], ["Campaign", of.campaign], ["Counted", html`<${Time} at=${of.time} />`]]} /></section>`;
}

const HIDDEN = new Set(["click_id", "time", "campaign", "offer", "kind", "erased", "consent"]);

function Click({ of }) {
  return html`<section class="inset" aria-label="Click"><div class="row"><h3>Click</h3>${of.kind !== "counted" && html`<${Pill}>${words(of.kind)}<//>`}${of.erased && html`<${Pill} kind="warn">erased<//>`}</div>
    <${Facts} of=${[["Id", html`<span class="mono small">${of.click_id}</span>`], ["Campaign", of.campaign], ["Offer", of.offer], ["Came", html`<${Time} at=${of.time} />`], !of.consent && ["Consent", "not given"],
      ...Object.entries(of).filter(([name]) => !HIDDEN.has(name)).map(([name, value]) => [words(name), html`<span class="mono small break">${String(value)}</span>`])]} /></section>`;
}

function Step({ of }) {
  if (of.event === "click") return html`<div class="row"><strong>Click</strong><${Time} at=${of.time} as="exact" /></div>`;
  if (of.event === "change") return html`<div class="row"><strong>Conversion changed</strong><${Time} at=${of.time} as="exact" /></div><p class="row"><${Pill} word=${of.status_from} /> ${money(of.value_from, of.currency)} <span aria-label="to">→</span> <${Pill} word=${of.status_to} /> ${money(of.value_to, of.currency)}</p>`;
  const sent = Object.entries(of.sent ?? {});
  return html`<div class="row"><strong>Postback</strong>${of.verdict && html`<${Pill} word=${of.verdict} />`}<${Time} at=${of.time} as="exact" /></div>
    <p class="small">${of.network ?? "a removed network"}${of.reason && html`: <strong>${words(of.reason)}</strong>. ${of.cause} <span class="soft">${of.fix}</span>`}</p>
    ${of.found_in && html`<p class="small">The click id was found in <code>${of.found_in}</code>.</p>`}
    ${of.first_verdict && html`<p class="small">First it was ${words(of.first_verdict)}${of.first_reason && ` (${words(of.first_reason)})`}.</p>`}
    ${sent.length > 0 && html`<p class="mono small break">${sent.map(([name, text]) => `${name}=${text}`).join("  ")}</p>`}
    ${of.request && html`<p class="tiny soft mono">request ${of.request}</p>`}`;
}
