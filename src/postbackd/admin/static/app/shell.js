// The frame around every page: navigation, data set, colours, who is signed in.
import { html, signal, useEffect, useRef, useState } from "./html.js";
import { dataSet, look } from "./api.js";
import { useOpenAlarms } from "./open_alarms.js";
import { find, PAGES } from "./pages.js";
import { go, link, route } from "./router.js";
import { about, leave, session } from "./session.js";
import { Bones, Button, Notice } from "../parts/parts.js";
import { Icon, Mark } from "../parts/icon.js";
import { attempt, Messages, say } from "../parts/messages.js";

const open = signal(false);  // the drawer of small screens

function Links() {
  const here = route.value.page;
  const groups = [...new Set(PAGES.map((page) => page.group))];
  return html`<nav class="nav" aria-label="Pages">${groups.map((group) => html`
    <h2 id=${`nav-${group}`}>${group}</h2>
    <ul aria-labelledby=${`nav-${group}`}>${PAGES.filter((page) => page.group === group).map((page) => html`<li>
      <a href=${link(page.name)} aria-current=${here === page.name ? "page" : undefined}><${Icon} name=${page.icon} />${page.title}
      ${page.badge?.value > 0 && html`<span class="badge">${page.badge.value}<span class="unseen"> open</span></span>`}</a></li>`)}</ul>`)}
  </nav>`;
}

function Side() {
  const element = useRef(null);
  useEffect(() => { if (open.value) element.current.querySelector(".nav a").focus(); }, [open.value]);
  const close = (event) => { if (event.key === "Escape") open.value = false; };
  return html`<aside class=${`side ${open.value ? "open" : ""}`} id="side" ref=${element} onKeyDown=${close} onClick=${(event) => { if (event.target.closest("a")) open.value = false; }} aria-label="Navigation">
    <a class="brand" href="#/overview"><${Mark} />postbackd</a>
    <${Links} />
    <footer>${about.value ? html`postbackd ${about.value.version}` : ""}</footer>
  </aside>`;
}

function Colours() {
  const [theme, set] = useState(document.documentElement.dataset.theme);
  const change = () => {
    const next = theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("theme", next); } catch { /* kept for this page alone */ }
    dispatchEvent(new Event("theme"));
    set(next);
  };
  useEffect(() => {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const follow = () => {
      let chosen = null;
      try { chosen = localStorage.getItem("theme"); } catch { /* nothing was chosen */ }
      if (chosen) return;
      document.documentElement.dataset.theme = system.matches ? "dark" : "light";
      dispatchEvent(new Event("theme"));
      set(document.documentElement.dataset.theme);
    };
    system.addEventListener("change", follow);
    return () => system.removeEventListener("change", follow);
  }, []);
  const other = theme === "dark" ? "light" : "dark";
  return html`<${Button} kind="quiet square" icon=${theme === "dark" ? "sun" : "moon"} label=${`Use ${other} colours`} title=${`Use ${other} colours`} onClick=${change} />`;
}

function Top() {
  const page = find(route.value.page);
  const out = () => attempt(async () => { await leave(); go("sign-in"); });
  return html`<header class="top">
    <${Button} kind="quiet square menu" icon="menu" label="Open the navigation" aria-expanded=${open.value ? "true" : "false"} aria-controls="side" onClick=${() => { open.value = true; }} />
    <span class="where">${page?.title ?? "Not found"}</span>
    <span class="space"></span>
    ${about.value?.has_demo && html`<${DataSwitch} />`}
    <${Colours} />
    ${session.value.name && html`<span class="soft small who">${session.value.name}</span>
    <${Button} kind="quiet square" icon="out" label="Sign out" title="Sign out" onClick=${out} />`}
  </header>`;
}

function DataSwitch() {
  const change = (at) => { look(at); say(at === "demo" ? "Now showing simulated data" : "Now showing real data"); };
  return html`<div class="segments" role="group" aria-label="Which data are shown">${[["real", "Real"], ["demo", "Simulated"]].map(([key, text]) => html`
    <button type="button" aria-pressed=${dataSet.value === key ? "true" : "false"} onClick=${() => change(key)}>${text}</button>`)}</div>`;
}

function Band() {
  if (dataSet.value !== "demo") return null;
  return html`<div class="band" role="note"><${Icon} name="flask" />
    <span>These are simulated data. Nothing here is real traffic or real money.</span>
    <button type="button" class="link" onClick=${() => look("real")}>Show the real data</button></div>`;
}

function Low() {
  const here = route.value.page;
  return html`<nav class="tabs-low" aria-label="Main pages">
    ${PAGES.filter((page) => page.low).map((page) => html`<a href=${link(page.name)} aria-current=${here === page.name ? "page" : undefined}><${Icon} name=${page.icon} />${page.title}</a>`)}
    <button type="button" aria-expanded=${open.value ? "true" : "false"} aria-controls="side" onClick=${() => { open.value = true; }}><${Icon} name="menu" />More</button>
  </nav>`;
}

// The component of a page, imported when it is first shown.
const loaded = signal({});

function load(page) {
  page.load().then(
    (module) => { loaded.value = { ...loaded.value, [page.name]: module.default }; },
    () => { loaded.value = { ...loaded.value, [page.name]: Old }; },
  );
}

function Old() {
  return html`<${Notice} kind="warn">This page belongs to another version of postbackd, or the connection was lost. <button type="button" class="link" onClick=${() => location.reload()}>Load the dashboard again</button><//>`;
}

export function Content() {
  const { page: name, rest, query } = route.value;
  const page = find(name);
  const Component = page && loaded.value[name];
  useEffect(() => { if (page && !loaded.value[name]) load(page); }, [name]);
  useEffect(() => { document.title = `${page?.title ?? "Not found"} · postbackd`; }, [name]);
  if (!page) return html`<div class="stack"><h1>There is no such page</h1><p><a href="#/overview">Go to the overview</a></p></div>`;
  if (!Component) return html`<h1 class="unseen">${page.title}</h1><${Bones} lines=${6} />`;
  return html`<${Component} key=${`${name}/${rest[0] ?? ""}/${dataSet.value}`} rest=${rest} query=${query} />`;
}

export function Shell() {
  useOpenAlarms();
  const main = useRef(null);
  const { page, rest } = route.value;
  const first = useRef(true);
  useEffect(() => {
    if (first.current) { first.current = false; return; }
    scrollTo(0, 0);
    main.current.focus({ preventScroll: true });
  }, [page, rest.join("/")]);
  const skip = (event) => { event.preventDefault(); main.current.focus(); };
  return html`<a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <div class="shell">
      <${Side} />
      <div class=${`scrim ${open.value ? "open" : ""}`} onClick=${() => { open.value = false; }}></div>
      <div class="body"><${Top} /><${Band} /><main id="main" tabindex="-1" ref=${main}><${Content} /></main></div>
    </div>
    <${Low} /><${Messages} />`;
}

export function Door() {
  return html`<div class="door"><main><span class="brand"><${Mark} />postbackd</span><${Content} /></main></div><${Messages} />`;
}
