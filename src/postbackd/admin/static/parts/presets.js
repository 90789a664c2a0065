// Choosing who it is: a preset fills in what the network or source calls things.
import { html, useState } from "../app/html.js";
import { useAsk } from "../app/api.js";
import { Notice } from "./parts.js";

// How well the spellings of a preset are known, in words that need no explanation.
const GRADES = { vendor: "from its own documentation", "several independent sources": "from several sources" };
const gradeOf = (preset) => GRADES[preset.grade] ?? preset.grade;

export const usePresets = (role) => useAsk("/presets", { role });

export const usePreset = (entry) => useAsk(entry.preset ? `/presets/${encodeURIComponent(entry.preset)}` : null);

// The preset and the name of a new entry: [preset, name, setName, choose]; a name that nobody typed follows the preset.
export function useChoice(presets) {
  const [preset, setPreset] = useState("");
  const [name, setName] = useState("");
  const choose = (id, one) => {
    const before = presets.data.value.find((had) => had.id === preset);
    if (one && (!name || name === before?.name)) setName(one.name);
    setPreset(id);
  };
  return [preset, name, setName, choose];
}

export function Known({ of }) {
  return of?.notes && html`<details class="spaced"><summary class="soft small">What is known of ${of.name} (${gradeOf(of)})</summary><p class="small">${of.notes}</p></details>`;
}

// `value`: id of the preset, or "".  `onValue(id, preset)`.
export function Choose({ presets, value, onValue, wrong, what }) {
  const [search, setSearch] = useState("");
  const wanted = search.trim().toLowerCase();
  const fitting = presets.filter((one) => one.name.toLowerCase().includes(wanted) || one.id.includes(wanted));
  return html`<fieldset class="stack tight"><legend>Who is it?</legend>
    <input type="search" placeholder=${`Search ${presets.length} presets`} aria-label=${`Search presets of ${what}s`} value=${search} onInput=${(event) => setSearch(event.currentTarget.value)} />
    <div class="choices" role="radiogroup" aria-label="Preset">
      <label class="choice"><input type="radio" name="preset" checked=${value === ""} onChange=${() => onValue("", null)} /><span>Another one<small>I fill in its macros myself</small></span></label>
      ${fitting.map((one) => html`<label class="choice" key=${one.id}><input type="radio" name="preset" checked=${value === one.id} onChange=${() => onValue(one.id, one)} /><span>${one.name}<small>${gradeOf(one)}</small></span></label>`)}
    </div>
    ${fitting.length === 0 && html`<${Notice}>No preset of this name. Choose “Another one”: everything works without a preset, too.<//>`}
    ${wrong && html`<p class="wrong">${wrong}</p>`}
  </fieldset>`;
}
