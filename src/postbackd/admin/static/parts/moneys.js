// Money by currency, one under the other: currencies are never added up.
import { html } from "../app/html.js";
import { money, NOTHING } from "../app/format.js";

export function Moneys({ of }) {
  const all = Object.entries(of ?? {});
  return all.length === 0 ? NOTHING : html`<span class="stacked">${all.map(([currency, text]) => html`<span class="nowrap" key=${currency}>${money(text, currency)}</span>`)}</span>`;
}
