// A share beside the line that it should not fall below: colour and word.
import { html } from "../app/html.js";
import { NOTHING, percent } from "../app/format.js";
import { HEALTHY_MATCH_RATE } from "../app/health.js";
import { Pill } from "./parts.js";

export function Rate({ of = null, line = HEALTHY_MATCH_RATE }) {
  if (of === null) return NOTHING;
  const low = of < line;
  return html`<${Pill} kind=${low ? "bad" : "good"}>${percent(of)}${low && html`<span class="unseen">, below the line</span>`}<//>`;
}
