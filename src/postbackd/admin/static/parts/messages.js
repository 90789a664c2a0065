// Short messages that a screen reader speaks and that go by themselves; and questions before something is done.
import { html, signal, useEffect, useRef } from "../app/html.js";
import { Icon } from "./icon.js";

const shown = signal([]);
let last = 0;

export function say(text, kind = "good") {
  const id = (last += 1);
  shown.value = [...shown.value.slice(-2), { id, text, kind }];
  setTimeout(() => { shown.value = shown.value.filter((one) => one.id !== id); }, kind === "bad" ? 9000 : 4500);
}

// Do something that may fail, and say what came of it: `said` is a text, or a function of the answer.  Gives the answer, or undefined after a failure.
export async function attempt(work, said) {
  try {
    const answer = await work();
    if (said) say(typeof said === "function" ? said(answer) : said);
    return answer;
  } catch (problem) {
    say(problem.detail ?? String(problem), "bad");
    return undefined;
  }
}

export function Messages() {
  return html`<div class="toasts" role="status" aria-live="polite">
    ${shown.value.map((one) => html`<div class="toast" key=${one.id}><${Icon} name=${one.kind === "bad" ? "warn" : "check"} /><span>${one.text}</span></div>`)}
  </div>`;
}

// <${Dialog} title="…" onClose=${…}> : the browser's own, so that focus stays inside and Escape closes it.
export function Dialog({ title, onClose, wide, children }) {
  const element = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    element.current.showModal();
    return () => before?.focus?.();
  }, []);
  const outside = (event) => { if (event.target === element.current) onClose(); };
  return html`<dialog ref=${element} class=${wide ? "wide" : ""} aria-label=${title} onClose=${onClose} onClick=${outside}>
    <div class="in">
      <header><h2>${title}</h2><button class="button quiet square" type="button" aria-label="Close" onClick=${onClose}><${Icon} name="cross" /></button></header>
      ${children}
    </div>
  </dialog>`;
}

// A question whose answer does something that cannot be taken back.
export function Confirm({ title, children, yes, danger, busy, onYes, onClose }) {
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <div class="stack tight">${children}</div>
    <div class="ends">
      <button type="button" class=${`button ${danger ? "danger" : "main"}`} disabled=${busy} onClick=${onYes}>${yes}</button>
      <button type="button" class="button quiet" onClick=${onClose}>Cancel</button>
    </div>
  <//>`;
}
