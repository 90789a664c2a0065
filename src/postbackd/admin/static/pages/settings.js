// Settings: who may use this installation, and how it runs.
import { html, useState } from "../app/html.js";
import { call, useAsk } from "../app/api.js";
import { bytes, count, NOTHING, titled, zone } from "../app/format.js";
import { link } from "../app/router.js";
import { about, may } from "../app/session.js";
import { attempt, Confirm, Dialog } from "../parts/messages.js";
import { Asked, Bones, Button, Card, Copy, Empty, Facts, Field, Form, Head, Notice, Pill, Select, Table, Tabs, Time } from "../parts/parts.js";
import { Account } from "../parts/account.js";

const TABS = [["", "Account"], ["users", "Users", "own"], ["tokens", "Tokens", "own"], ["audit", "Audit log", "own"], ["system", "Installation"], ["options", "Options"]];

export default function Settings({ rest, query }) {
  const here = rest[0] ?? "";
  const Shown = { "": Account, users: Users, tokens: Tokens, audit: Audit, system: System, options: Options }[here];
  return html`<${Head} title="Settings" lead="Who may use this installation, and how it runs." />
    <${Tabs} label="Settings" of=${TABS.filter(([, , scope]) => !scope || may(scope)).map(([key, text]) => [text, key ? link("settings", key) : link("settings"), key === here])} />
    ${Shown ? html`<${Shown} query=${query} />` : html`<p>There is no such page.</p>`}`;
}

// --- users ----------------------------------------------------------------------------------------------------

const ROLES = [["viewer", "viewer: looks at everything"], ["operator", "operator: changes the catalog, replays, resends"], ["owner", "owner: manages users and tokens, too"]];

function Users() {
  const users = useAsk("/users");
  const [invites, setInvites] = useState(false);
  const [shown, setShown] = useState(null);
  const [removes, setRemoves] = useState(null);
  const run = async (work, text) => { const answer = await attempt(work, text); users.again(); return answer; };
  const path = (row) => `/users/${row.id}`;
  return html`<${Card} title="Users" bare aside=${html`<${Button} kind="low" icon="plus" onClick=${() => setInvites(true)}>Invite<//>`}>
      <${Asked} of=${users}>${(rows) => html`<${Table} caption="Users" rows=${rows} keyOf=${(row) => row.id} columns=${[
        { head: "Name", lead: true, cell: (row) => html`<span class="main-text">${row.name}</span>${row.is_you && html` <span class="soft">(you)</span>`}` },
        { head: "Role", cell: (row) => html`<${Select} label=${`Role of ${row.name}`} value=${row.role} disabled=${row.is_you} onValue=${(role) => run(() => call("PATCH", path(row), { body: { role } }), `${row.name} has another role, and has to sign in again`)} options=${ROLES.map(([role]) => role)} />` },
        { head: "Code at sign-in", cell: (row) => (row.totp ? html`<${Pill} kind="good">on<//>` : html`<${Pill} kind="warn">off<//>`) },
        { head: "Since", cell: (row) => html`<${Time} at=${row.made} />` },
        { head: "", cell: (row) => !row.is_you && html`<span class="row"><${Button} kind="low" onClick=${async () => setShown(await run(() => call("POST", `${path(row)}/reset`)))}>New password link<//><${Button} kind="quiet square low" icon="trash" label=${`Remove ${row.name}`} onClick=${() => setRemoves(row)} /></span>` },
      ]} />`}<//>
    <//>
    ${invites && html`<${Invite} onClose=${() => setInvites(false)} onMade=${(made) => { setInvites(false); setShown(made); }} />`}
    ${shown && html`<${Dialog} title="A link that works once" onClose=${() => setShown(null)}><p>Send it to ${shown.name || "whoever it is for"} by a way that nobody else reads. It is shown this once, and works until <${Time} at=${shown.until} />.</p><${Copy} text=${shown.link} label="link" macros=${false} /><//>`}
    ${removes && html`<${Confirm} title=${`Remove ${removes.name}?`} yes="Remove" danger onClose=${() => setRemoves(null)} onYes=${async () => { await run(() => call("DELETE", path(removes)), `${removes.name} is removed`); setRemoves(null); }}><p>Their sessions and tokens end at once. What they did stays in the audit log.</p><//>`}`;
}

function Invite({ onClose, onMade }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState("operator");
  return html`<${Dialog} title="Invite somebody" onClose=${onClose}>
    <${Form} send="Make a link" onCancel=${onClose} fields=${["name", "role"]} onSend=${async () => onMade(await call("POST", "/users/invite", { body: { role, name } }))}>${(wrong) => html`
      <${Field} label="Role" kind="select" options=${ROLES} value=${role} onValue=${setRole} wrong=${wrong("role")} />
      <${Field} label="Name" hint="Empty: whoever is invited chooses." value=${name} onValue=${setName} wrong=${wrong("name")} autocomplete="off" autocapitalize="none" />`}<//>
  <//>`;
}

// --- tokens ---------------------------------------------------------------------------------------------------

const SCOPES = [["read", "look at everything but secrets"], ["catalog", "change networks, sources, offers, campaigns, targets, rules"], ["operate", "replay, resend, import, quiet alarms, erase, back up"]];

function Tokens() {
  const tokens = useAsk("/tokens");
  const [adds, setAdds] = useState(false);
  const [made, setMade] = useState(null);
  const [removes, setRemoves] = useState(null);
  const remove = async () => {
    await attempt(() => call("DELETE", `/tokens/${removes.id}`), `${removes.name} opens nothing any more`);
    tokens.again();
    setRemoves(null);
  };
  const add = html`<${Button} kind="low" icon="plus" onClick=${() => setAdds(true)}>New token<//>`;
  return html`<${Card} title="Tokens" bare aside=${add}>
      <${Asked} of=${tokens}>${(rows) => html`<${Table} caption="Tokens" rows=${rows} keyOf=${(row) => row.id}
        empty=${html`<${Empty} icon="key" title="No token yet" actions=${add}>Programs use the API with a token of their own: each has a name, a few rights, and an end.<//>`} columns=${[
        { head: "Name", lead: true, cell: (row) => html`<span class="main-text">${row.name}</span>` },
        { head: "May", cell: (row) => row.scopes.join(", ") },
        { head: "Made by", cell: (row) => row.made_by || "command line" },
        { head: "Last used", cell: (row) => (row.used ? html`<${Time} at=${row.used} as="since" />` : html`<span class="soft">never</span>`) },
        { head: "Ends", cell: (row) => (row.expires ? html`<${Time} at=${row.expires} />` : "never") },
        { head: "", cell: (row) => html`<${Button} kind="quiet square low" icon="trash" label=${`Remove ${row.name}`} onClick=${() => setRemoves(row)} />` },
      ]} />`}<//>
    <//>
    ${adds && html`<${NewToken} onClose=${() => setAdds(false)} onMade=${(one) => { setAdds(false); setMade(one); tokens.again(); }} />`}
    ${made && html`<${Dialog} title=${`Token ${made.name}`} onClose=${() => setMade(null)}><p>Copy it now: it is shown this once. Send it as <code>Authorization: Bearer …</code></p><${Copy} text=${made.token} label="token" macros=${false} /><//>`}
    ${removes && html`<${Confirm} title=${`Remove ${removes.name}?`} yes="Remove" danger onYes=${remove} onClose=${() => setRemoves(null)}><p>Whatever uses it is refused from now on.</p><//>`}`;
}

function NewToken({ onClose, onMade }) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState(["read"]);
  const [days, setDays] = useState("365");
  const flip = (scope) => (on) => setScopes(on ? [...scopes, scope] : scopes.filter((one) => one !== scope));
  const send = async () => onMade(await call("POST", "/tokens", { body: { name, scopes, expires_days: days === "" ? null : Number(days) } }));
  return html`<${Dialog} title="New token" onClose=${onClose}><${Form} send="Make the token" onSend=${send} onCancel=${onClose} fields=${["name", "scopes", "expires_days"]}>${(wrong) => html`
    <${Field} label="Name" hint="What it is for, such as “Grafana”." value=${name} onValue=${setName} wrong=${wrong("name")} autocomplete="off" autofocus />
    <fieldset class="stack tight"><legend>It may</legend>${SCOPES.map(([scope, text]) => html`<${Field} label=${html`<span><strong>${scope}</strong>: ${text}</span>`} kind="check" value=${scopes.includes(scope)} onValue=${flip(scope)} />`)}${wrong("scopes") && html`<p class="wrong">${wrong("scopes")}</p>`}</fieldset>
    <${Field} label="Ends after" kind="select" options=${[["30", "30 days"], ["90", "90 days"], ["365", "a year"], ["", "never"]]} value=${days} onValue=${setDays} wrong=${wrong("expires_days")} />`}<//><//>`;
}

// --- audit log ------------------------------------------------------------------------------------------------

function Audit({ query }) {
  const [before, setBefore] = useState([]);
  const page = useAsk("/audit", { limit: 50, who: query.who, cursor: before.at(-1) });
  return html`<${Card} title="Who changed what" bare><${Asked} of=${page}>${({ items, next }) => html`<${Table} caption="Audit log, newest first" rows=${items} keyOf=${(row) => row.id}
      empty=${html`<${Empty} icon="person" title="Nothing was changed yet">Every change, and every try that was refused, is listed here with who made it. Values are not kept, only the names of what was given.<//>`} columns=${[
      { head: "Time", cell: (row) => html`<${Time} at=${row.at} />` },
      { head: "Who", lead: true, cell: (row) => html`<a class="main-text" href=${link("settings", "audit", { who: row.who })}>${row.who || "nobody"}</a> ${row.kind !== "nobody" && html`<span class="soft small">${row.kind}</span>`}` },
      { head: "What", break: true, cell: (row) => html`<span class="mono small">${row.action}</span>` },
      { head: "Of", break: true, cell: (row) => html`<span class="mono small">${row.object.replace("/api/v1", "")}</span>` },
      { head: "Given", break: true, cell: (row) => row.fields.join(", ") },
      { head: "Result", cell: (row) => html`<${Pill} kind=${row.status < 400 ? "good" : "bad"}>${row.status}<//>` },
      { head: "From", cell: (row) => html`<span class="mono small">${row.prefix}</span>` },
    ]} />
    ${(next || before.length > 0) && html`<div class="more row">${before.length > 0 && html`<${Button} kind="low" icon="left" onClick=${() => setBefore(before.slice(0, -1))}>Newer<//>`}${next && html`<${Button} kind="low" onClick=${() => setBefore([...before, next])}>Older<//>`}</div>`}`}<//><//>`;
}

// --- the installation -----------------------------------------------------------------------------------------

function System() {
  const shown = about.value;
  return html`<div class="stack">
    ${shown === null ? html`<${Card} bare><${Bones} /><//>` : html`<${Card} title="This installation"><${Facts} of=${[
      ["Version", shown.version],
      ["Address for visitors and networks", html`<${Copy} text=${shown.base_url} label="address" macros=${false} />`],
      ["Times are shown in", `${zone}; hold the pointer over a time for UTC`],
      ["Simulated data", shown.has_demo ? "there are some; switch to them at the top" : html`none; <code>postbackd demo</code> makes a month of them, kept apart`],
      ["For programs", html`<a href="/api/docs">what they can ask</a>, each with a <a href=${link("settings", "tokens")}>token</a> of its own`],
    ]} /><//>`}
    <${Backups} /><${Kept} />
  </div>`;
}

function Backups() {
  const backups = useAsk("/backups");
  return html`<${Card} title="Backups" bare><${Asked} of=${backups} lines=${2}>${({ directory, items, failed }) => html`
    ${failed && html`<div class="in"><${Notice} kind="bad">The newest backup could not be made: ${failed}<//></div>`}
    <${Table} caption="Backups, newest first" rows=${[...items].reverse().slice(0, 14)} keyOf=${(row) => row.name}
      empty=${directory ? html`<${Empty} icon="download" title="No backup yet">They are made into ${directory}; <code>postbackd backup</code> makes one now.<//>` : html`<${Empty} icon="download" title="No backups are made">Start postbackd with <code>--backup-dir DIR</code>: one verified file a day, encrypted if you give it a key.<//>`}
      columns=${[
        { head: "Backup", lead: true, break: true, cell: (row) => html`<span class="mono small">${row.name}</span>` },
        { head: "Made", cell: (row) => html`<${Time} at=${row.made} as="since" />` },
        { head: "Size", num: true, cell: (row) => bytes(row.bytes) },
      ]} />`}<//><//>`;
}

function Kept() {
  const kept = useAsk("/privacy");
  const days = (number) => (number === null ? "for ever" : number === 0 ? "not at all" : `${count(number)} days`);
  return html`<${Card} title="What is kept, and how long" bare><${Asked} of=${kept} lines=${4}>${(answer) => {
    const tables = [...Map.groupBy(answer.kept, (row) => `${row.table} ${row.days}`).values()];
    return html`<${Table} caption="What is kept of people and requests" folds rows=${tables} keyOf=${(rows) => `${rows[0].table} ${rows[0].days}`} columns=${[
      { head: "Of", lead: true, cell: (rows) => html`<span class="main-text">${titled(rows[0].table)}</span>` },
      { head: "What is kept, and why", break: true, cell: (rows) => html`<span class="small">${[...new Set(rows.map((row) => row.purpose))].join("; ")}</span>` },
      { head: "Kept", cell: (rows) => html`<span class="nowrap">${days(rows[0].days)}</span>` },
    ]} /><p class="in small soft">Changed by the settings of retention, under <a href=${link("settings", "options")}>Options</a>; each column stands in <code>postbackd privacy</code>. E-mail addresses, phone numbers and full IP addresses never reach the disk.</p>`;
  }}<//><//>`;
}

function Options() {
  const options = useAsk("/settings");
  const [search, setSearch] = useState("");
  const text = (value) => (value === null || value === "" ? NOTHING : Array.isArray(value) ? value.join(", ") || NOTHING : typeof value === "boolean" ? (value ? "on" : "off") : String(value));
  const same = (row) => JSON.stringify(row.value) === JSON.stringify(row.default);
  return html`<div class="stack">
    <${Notice}>These were given when postbackd was started. To change one, edit its configuration file, environment (<code>POSTBACKD_NAME</code>) or command line (<code>--name</code>), and restart it: no connection is refused meanwhile.<//>
    <${Card} title="Options" bare aside=${html`<input type="search" class="narrow" aria-label="Search options" placeholder="Search" value=${search} onInput=${(event) => setSearch(event.currentTarget.value)} />`}>
      <${Asked} of=${options} lines=${8}>${(rows) => html`<${Table} caption="Options and their values" folds keyOf=${(row) => row.name}
        rows=${rows.filter((row) => `${row.name} ${row.help}`.toLowerCase().includes(search.trim().toLowerCase()))}
        empty=${html`<${Empty} icon="search" title="No option of this name">Search for another word.<//>`} columns=${[
          { head: "Option", lead: true, cell: (row) => html`<code class="nowrap">--${row.name.replaceAll("_", "-")}</code>` },
          { head: "Value", break: true, cell: (row) => (row.secret ? html`<span class="soft">${row.given ? "given, not shown" : NOTHING}</span>` : html`<span class=${`value ${same(row) ? "" : "main-text"}`}>${text(row.value)}</span>${!same(row) && html` <span class="soft tiny">usually ${text(row.default)}</span>`}`) },
          { head: "What it does", break: true, cell: (row) => html`<span class="small soft">${row.help}</span>` },
        ]} />`}<//><//>
  </div>`;
}
