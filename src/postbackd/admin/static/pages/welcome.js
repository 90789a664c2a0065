// Welcome: what a one-time link leads to.  Somebody chooses a name and a password, and is signed in.
import { html, useEffect, useState } from "../app/html.js";
import { call } from "../app/api.js";
import { goInstead, link } from "../app/router.js";
import { take } from "../app/session.js";
import { Bones, Field, Form, Notice, Time } from "../parts/parts.js";

const LEADS = {
  welcome: "You are the first one here, and will be the owner: you see and change everything, and invite others.",
  invite: "You are invited as",
  reset: "Choose another password for",
};
const TITLES = { welcome: "Welcome to postbackd", invite: "Welcome to postbackd", reset: "Choose another password" };

export default function Welcome({ query }) {
  const code = query.code ?? "";
  if (!code) return html`<h1>Welcome</h1><${Notice} kind="warn">This link has no code. Open the whole link that <code>postbackd serve</code> printed, or that you were sent.<//><p><a href=${link("sign-in")}>Sign in</a></p>`;
  return html`<${Follow} code=${code} />`;
}

function Follow({ code }) {
  const [one, setOne] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => { call("GET", "/welcome", { code }).then(setOne, setProblem); }, [code]);
  if (problem) return html`<h1>This link does not open</h1><${Notice} kind="bad">${problem.message}<//><p><a href=${link("sign-in")}>Sign in</a></p>`;
  return one ? html`<${Choose} code=${code} link=${one} />` : html`<h1>Welcome</h1><${Bones} />`;
}

function Choose({ code, link: one }) {
  const [name, setName] = useState(one.name);
  const [password, setPassword] = useState("");
  const [again, setAgain] = useState("");
  const [differs, setDiffers] = useState(false);
  const send = async () => {
    setDiffers(password !== again);
    if (password !== again) return;
    take(await call("POST", "/welcome", { body: { code, name: one.name ? "" : name, password } }));
    goInstead("overview");
  };
  return html`<h1>${TITLES[one.purpose]}</h1>
    <p class="lead">${one.purpose === "welcome" ? LEADS.welcome : html`${LEADS[one.purpose]} <strong>${one.purpose === "invite" ? one.role : one.name}</strong>.`}</p>
    <${Form} send=${one.purpose === "reset" ? "Save and sign in" : "Begin"} onSend=${send} fields=${["name", "password"]}>${(wrong) => html`
      <${Field} label="Name" value=${name} onValue=${setName} wrong=${wrong("name")} readonly=${Boolean(one.name)} name="username" autocomplete="username" autocapitalize="none" spellcheck=${false} required autofocus=${!one.name} />
      <${Field} label="Password" kind="password" hint="At least 12 characters; a sentence is easier to remember than symbols." value=${password} onValue=${setPassword} wrong=${wrong("password")} name="new-password" autocomplete="new-password" required />
      <${Field} label="The same password again" kind="password" value=${again} onValue=${setAgain} wrong=${differs ? "The two passwords differ." : undefined} name="new-password-again" autocomplete="new-password" required />
      <p class="soft tiny">The link works once, until <${Time} at=${one.until} />.</p>`}
    <//>`;
}
