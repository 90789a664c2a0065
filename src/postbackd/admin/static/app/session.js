// Who is signed in, and what this installation is.
import { signal } from "./html.js";
import { call, csrf, dataSet, look, Problem, signedOut } from "./api.js";

export const session = signal({ state: "asking" });  // state: asking, in, out, away
export const about = signal(null);

export const may = (scope) => (session.value.scopes ?? []).includes(scope);

export async function begin() {
  signedOut.value = false;
  try {
    const answer = await call("GET", "/session");
    if (answer) take(answer); else session.value = { state: "out" };
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    session.value = { state: "away", problem: error };
  }
}

export function take(answer) {
  csrf.value = answer.csrf;
  session.value = { state: "in", ...answer };
  signedOut.value = false;
  askAbout();
}

export async function leave() {
  await call("DELETE", "/session");
  csrf.value = "";
  session.value = { state: "out" };
}

async function askAbout() {
  try {
    about.value = await call("GET", "/about");
  } catch (error) {
    // The simulated data that this page looked at may be gone.
    if (dataSet.value === "demo" && error.status === 404) { look("real"); await askAbout(); }
  }
}
