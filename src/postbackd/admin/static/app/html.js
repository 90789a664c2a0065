// The one place that names the libraries.  Pages take html, hooks and signals from here.
import { h, render } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);
export { render };
export { useEffect, useId, useMemo, useRef, useState } from "../vendor/hooks.js";
export { computed, effect, signal, useSignal } from "../vendor/signals.js";
