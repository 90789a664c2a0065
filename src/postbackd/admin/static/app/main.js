// Begins: asks who is signed in, then shows the page or the door.
import { effect, html, render } from "./html.js";
import { signedOut } from "./api.js";
import { DOORS } from "./pages.js";
import { go, route } from "./router.js";
import { begin, session } from "./session.js";
import { Door, Shell } from "./shell.js";
import { Failed } from "../parts/parts.js";
import { Mark } from "../parts/icon.js";

const isDoor = (name) => DOORS.some((door) => door.name === name);

function App() {
  const { state, problem } = session.value;
  if (isDoor(route.value.page)) return html`<${Door} />`;
  if (state === "in") return html`<${Shell} />`;
  return html`<div class="door"><main><span class="brand"><${Mark} />postbackd</span>
    <h1 class="unseen">postbackd</h1>
    ${state === "away" ? html`<${Failed} problem=${problem} again=${begin} />` : html`<p class="soft" role="status">One moment…</p>`}</main></div>`;
}

// Whoever is signed out while a page is open comes back to that page after signing in.
effect(() => {
  if (session.value.state === "out" && !isDoor(route.value.page)) {
    const { page, rest, query } = route.value;
    const back = [page, ...rest].join("/") + (Object.keys(query).length ? "?" + new URLSearchParams(query) : "");
    go("sign-in", back === "overview" ? {} : { back });
  }
});
effect(() => { if (signedOut.value) session.value = { state: "out" }; });

render(html`<${App} />`, document.getElementById("root"));
begin();
