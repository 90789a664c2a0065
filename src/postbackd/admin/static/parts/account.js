// One's own account: password, code at sign-in, other sessions.
import { html, useState } from "../app/html.js";
import { call } from "../app/api.js";
import { plural } from "../app/format.js";
import { begin, session, take } from "../app/session.js";
import { attempt, Dialog, say } from "./messages.js";
import { Button, Card, Copy, Facts, Field, Form, Notice, Pill, Time } from "./parts.js";

const MAY = { read: "look at everything", catalog: "set up networks, sources, offers and campaigns", operate: "repair, replay, resend and import", own: "manage users and tokens" };

export function Account() {
  const me = session.value;
  const [opens, setOpens] = useState("");
  const close = () => setOpens("");
  const end = () => attempt(() => call("DELETE", "/me/sessions"), ({ ended }) => `Signed out ${plural(ended, "other session")}`);
  if (!me.name) return html`<${Notice}>Nobody is signed in.<//>`;
  return html`<div class="columns">
    <${Card} title=${me.name}><div class="stack">
      <${Facts} of=${[["Role", me.role], ["May", me.scopes.map((scope) => MAY[scope] ?? scope).join("; ")], ["Signed in until", html`<${Time} at=${me.until} />`]]} />
      <div class="ends"><${Button} icon="key" onClick=${() => setOpens("password")}>Change password<//><${Button} icon="out" onClick=${end}>Sign out everywhere else<//></div>
    </div><//>
    <${Card} title="Code at sign-in" aside=${html`<${Pill} kind=${me.totp ? "good" : "warn"}>${me.totp ? "on" : "off"}<//>`}><div class="stack">
      <p>${me.totp ? html`A code of your authenticator is asked for at sign-in. ${plural(me.recovery_left, "recovery code")} left.` : "With a code of an authenticator, a password alone opens nothing."}</p>
      <div class="ends"><${Button} kind=${me.totp ? "danger" : "main"} onClick=${() => setOpens(me.totp ? "off" : "on")}>${me.totp ? "Switch it off" : "Set it up"}<//></div>
    </div><//>
    ${opens === "password" && html`<${Password} onClose=${close} />`}
    ${opens === "on" && html`<${SetUp} onClose=${close} />`}
    ${opens === "off" && html`<${Off} onClose=${close} />`}
  </div>`;
}

function Password({ onClose }) {
  const [old, setOld] = useState("");
  const [fresh, setFresh] = useState("");
  const send = async () => {
    take(await call("POST", "/me/password", { body: { old, new: fresh } }));
    say("Your password is changed; every other session has ended");
    onClose();
  };
  return html`<${Dialog} title="Change password" onClose=${onClose}><${Form} send="Change it" onSend=${send} onCancel=${onClose} fields=${["password", "new", "old"]}>${(wrong) => html`
    <${Field} label="Password now" kind="password" value=${old} onValue=${setOld} wrong=${wrong("old")} autocomplete="current-password" autofocus />
    <${Field} label="New password" kind="password" hint="At least 12 characters." value=${fresh} onValue=${setFresh} wrong=${wrong("new") ?? wrong("password")} autocomplete="new-password" />`}<//><//>`;
}

function SetUp({ onClose }) {
  const [password, setPassword] = useState("");
  const [seed, setSeed] = useState(null);
  const [code, setCode] = useState("");
  if (!seed) {
    return html`<${Dialog} title="Set up codes" onClose=${onClose}><${Form} key="prove" send="Go on" onSend=${async () => setSeed(await call("POST", "/me/totp", { body: { password } }))} onCancel=${onClose} fields=${["password"]}>${(wrong) => html`
      <${Field} label="Your password" kind="password" value=${password} onValue=${setPassword} wrong=${wrong("password")} autocomplete="current-password" autofocus />`}<//><//>`;
  }
  const confirm = async () => {
    await call("PUT", "/me/totp", { body: { code } });
    say("From now on a code is asked for");
    begin();
    onClose();
  };
  return html`<${Dialog} title="Set up codes" onClose=${onClose}><ol class="numbered">
      <li><div class="stack tight"><p>Add this to your authenticator: <a href=${seed.uri}>open it on this device</a>, or type the key.</p><${Copy} text=${seed.seed} label="key" macros=${false} /></div></li>
      <li><div class="stack tight"><p>Keep these recovery codes for the day on which the telephone is lost; each works once, and they are shown this once.</p><${Copy} text=${seed.recovery.join("  ")} label="recovery codes" macros=${false} /></div></li>
      <li><${Form} key="confirm" send="Switch it on" onSend=${confirm} onCancel=${onClose} fields=${["code"]}>${(wrong) => html`<${Field} label="The code that it shows now" value=${code} onValue=${setCode} wrong=${wrong("code")} inputmode="numeric" autocomplete="one-time-code" />`}<//></li>
    </ol><//>`;
}

function Off({ onClose }) {
  const [password, setPassword] = useState("");
  const send = async () => {
    await call("POST", "/me/totp/off", { body: { password } });
    say("No code is asked for any more");
    begin();
    onClose();
  };
  return html`<${Dialog} title="Switch codes off" onClose=${onClose}><${Form} send="Switch it off" onSend=${send} onCancel=${onClose} fields=${["password"]}>${(wrong) => html`
    <${Field} label="Your password" kind="password" value=${password} onValue=${setPassword} wrong=${wrong("password")} autocomplete="current-password" autofocus />`}<//><//>`;
}
