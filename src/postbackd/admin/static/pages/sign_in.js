// Sign in: name, password, and the code of an authenticator where one is asked for.
import { html, useState } from "../app/html.js";
import { call } from "../app/api.js";
import { take } from "../app/session.js";
import { Field, Form } from "../parts/parts.js";

export default function SignIn({ query }) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const [asksCode, setAsksCode] = useState(false);
  const send = async () => {
    try {
      take(await call("POST", "/session", { body: { name, password, code } }));
      location.replace(`#/${query.back ?? "overview"}`);
    } catch (problem) {
      if (problem.field === "code" && !asksCode) { setAsksCode(true); return; }
      throw problem;
    }
  };
  return html`<h1>Sign in</h1>
    <p class="lead">To see what arrives, what is counted, and why.</p>
    <${Form} send="Sign in" onSend=${send} fields=${["code"]}>${(wrong) => html`
      <${Field} label="Name" value=${name} onValue=${setName} name="username" autocomplete="username" autocapitalize="none" spellcheck=${false} required autofocus />
      <${Field} label="Password" kind="password" value=${password} onValue=${setPassword} name="password" autocomplete="current-password" required />
      ${asksCode && html`<${Field} label="Code" hint="Six digits of your authenticator, or one of your recovery codes." wrong=${wrong("code")} value=${code} onValue=${setCode} name="code" autocomplete="one-time-code" spellcheck=${false} ref=${(field) => field?.base?.querySelector?.("input")?.focus()} />`}
      <p class="hint soft tiny">Forgotten? An owner makes a new link under Settings, or on the server: <code>postbackd user reset</code></p>`}
    <//>`;
}
