// What is wrong with a URL, as it is written: where, why, what to do, and the mended URL to copy.
import { html, useEffect, useState } from "../app/html.js";
import { call } from "../app/api.js";
import { plural, words } from "../app/format.js";
import { Card, Copy, Field, Notice, Pill } from "./parts.js";

const KINDS = { error: "bad", warning: "warn", advice: "info" };
const NAMES = { click: "a click URL", offer: "the URL of an offer", postback: "a postback URL", target: "the URL of a target" };
const WAIT_MS = 250; // while somebody types

// `about`: what the URL is for: { network: NAME } or { source: NAME }.
export function CheckUrl({ about, hint }) {
  const [url, setUrl] = useState("");
  return html`<${Card} title="Check a URL"><div class="stack">
    <${Field} label="URL to check" kind="area" hint=${hint} value=${url} onValue=${setUrl} maxlength="8192" spellcheck=${false} autocapitalize="off" />
    <${Flaws} url=${url} about=${about} />
  </div><//>`;
}

// Of a URL that is being written.  `quiet`: nothing is said of one that is right.
export function Flaws({ url, about, quiet }) {
  const [answer, setAnswer] = useState(null);
  const asked = url.trim() ? JSON.stringify({ urls: [url], ...about }) : "";
  useEffect(() => {
    if (!asked) { setAnswer(null); return undefined; }
    const stop = new AbortController();
    const timer = setTimeout(async () => {
      try {
        setAnswer({ of: (await call("POST", "/lint", { body: JSON.parse(asked), signal: stop.signal }))[0] });
      } catch (problem) { if (problem.name !== "AbortError") setAnswer({ problem }); }
    }, WAIT_MS);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [asked]);
  return html`<div role="status" class="lint">${answer?.problem ? html`<${Notice} kind="bad">${answer.problem.detail}<//>` : answer && html`<${Told} of=${answer.of} told=${about.kind} quiet=${quiet} />`}</div>`;
}

function Told({ of, told, quiet }) {
  if (!of.flaws.length) return quiet ? null : html`<${Notice} kind="good">Nothing is wrong with it, as ${named(of)}.<//>`;
  const found = of.flaws.length + of.more;
  return html`<div class="stack tight">
    <p class="soft small">${plural(found, "finding")} in ${named(of)}${told ? "" : `: ${of.why}`}.</p>
    <p class="mono small break sunken">${marked(of)}</p>
    <ul class="flaws">${of.flaws.map((one) => html`<li key=${`${one.check} ${one.start}`}>
      <${Pill} kind=${KINDS[one.severity]}>${one.severity}<//> <span class="soft small">${words(one.check)}</span> <code class="small break">${one.text.length > 60 ? `${one.text.slice(0, 60)}…` : one.text}</code>
      <p>${one.cause} ${one.fix}${one.mended && html` <span class="soft small">Mended below.</span>`}</p></li>`)}</ul>
    ${of.more > 0 && html`<p class="soft small">And ${of.more} more.</p>`}
    ${of.mended !== null && html`<h3>Mended</h3><${Copy} text=${of.mended} label="mended URL" />`}
  </div>`;
}

const named = (of) => NAMES[of.kind] + (of.whose ? ` for ${of.whose}` : "");

// The URL with its places marked; of two at one place the graver.  Places count whole characters, as Array.from does.
function marked({ url, flaws }) {
  const letters = Array.from(url);
  const edges = [...new Set([0, letters.length, ...flaws.flatMap((one) => [one.start, one.end])])].sort((a, b) => a - b);
  return edges.slice(1).map((end, at) => {
    const text = letters.slice(edges[at], end).join("");
    const here = flaws.filter((one) => one.start <= edges[at] && end <= one.end);
    const kind = Object.keys(KINDS).find((severity) => here.some((one) => one.severity === severity && one.end - one.start < letters.length));
    return kind ? html`<mark class=${KINDS[kind]}>${text}</mark>` : text;
  });
}
