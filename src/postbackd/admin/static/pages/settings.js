// Settings: what this installation is and how it was started.
import { html } from "../app/html.js";
import { zone } from "../app/format.js";
import { about } from "../app/session.js";
import { Bones, Card, Copy, Facts, Head } from "../parts/parts.js";

export default function Settings() {
  return html`<${Head} title="Settings" lead="How this installation runs, and who may use it." />
    <div class="stack"><${About} /></div>`;
}

function About() {
  const shown = about.value;
  if (shown === null) return html`<${Card} title="This installation" bare><${Bones} /><//>`;
  return html`<${Card} title="This installation">
    <${Facts} of=${[["Version", shown.version], ["Address for visitors and networks", html`<${Copy} text=${shown.base_url} label="address" />`], ["Times are shown in", zone]]} />
  <//>`;
}
