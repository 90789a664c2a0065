// What each reason means and what mends it: asked once, in the words of the server.
import { signal, useEffect } from "../app/html.js";
import { call } from "../app/api.js";

const reasons = signal({});
let asked = false;

// A signal: word -> { cause, fix }.
export function useReasons() {
  useEffect(() => {
    if (asked) return;
    asked = true;
    call("GET", "/reasons").then((answer) => { reasons.value = Object.fromEntries(answer.items.map((one) => [one.word, one])); }, () => { asked = false; });
  }, []);
  return reasons;
}
