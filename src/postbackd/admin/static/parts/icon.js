// Icons: one path each on a grid of 24, drawn with lines.
import { html } from "../app/html.js";

const PATHS = {
  overview: "M3 12h4l3-8 4 16 3-8h4",
  live: "M12 12h.01M8.5 15.5a5 5 0 0 1 0-7m7 0a5 5 0 0 1 0 7M5.6 18.4a9 9 0 0 1 0-12.8m12.8 0a9 9 0 0 1 0 12.8",
  alarms: "M6 9a6 6 0 0 1 12 0c0 6 2.5 7 2.5 7h-17S6 15 6 9m4 11a2.2 2.2 0 0 0 4 0",
  reports: "M4 20V10m5.5 10V4M15 20v-7m5 7V8",
  doctor: "M9 3H6v6a5 5 0 0 0 10 0V3h-3M11 14v2a5 5 0 0 0 9 3m.5-4.5a1.5 1.5 0 1 0-.01 0",
  reconcile: "M4 7h13m-3-3 3 3-3 3M20 17H7m3-3-3 3 3 3",
  campaigns: "M10 14a4 4 0 0 0 5.7.4l3.5-3.5a4 4 0 0 0-5.7-5.7l-1.7 1.7M14 10a4 4 0 0 0-5.7-.4l-3.5 3.5a4 4 0 0 0 5.7 5.7l1.7-1.7",
  networks: "M12 8V4m0 4a3 3 0 1 0 0 .01M6.5 16.5l3.2-2.6m7.8 2.6-3.2-2.6M5 20a2 2 0 1 0-.01 0M19 20a2 2 0 1 0-.01 0M12 8v6",
  sources: "M3 11v2a1 1 0 0 0 1 1h3l7 5V5L7 10H4a1 1 0 0 0-1 1m14.5-2a4 4 0 0 1 0 6",
  deliveries: "m4 12 16-8-6 17-3-7zm7 2 4-4",
  settings: "M4 7h9m5 0h2M4 17h2m5 0h9M13 7a2.5 2.5 0 1 0 5 0 2.5 2.5 0 1 0-5 0M6 17a2.5 2.5 0 1 0 5 0 2.5 2.5 0 1 0-5 0",
  menu: "M4 7h16M4 12h16M4 17h16",
  cross: "M6 6l12 12M18 6 6 18",
  check: "m5 12.5 4.5 4.5L19 7.5",
  warn: "M12 9v4m0 3.5h.01M10.3 4.2 2.6 17.6a2 2 0 0 0 1.7 3h15.4a2 2 0 0 0 1.7-3L13.7 4.2a2 2 0 0 0-3.4 0",
  info: "M12 11v5m0-8.5h.01M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  plus: "M12 5v14M5 12h14",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8m0-13v1.5m0 15V21m9-9h-1.5m-15 0H3m15.4-6.4-1.1 1.1M6.7 17.3l-1.1 1.1m12.8 0-1.1-1.1M6.7 6.7 5.6 5.6",
  moon: "M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5",
  person: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8m-7.5 8.5a7.5 7.5 0 0 1 15 0",
  out: "M14 4h5v16h-5M4 12h11m-4-4 4 4-4 4",
  pause: "M8 5v14M16 5v14",
  play: "M7 5v14l12-7z",
  send: "M5 12h14m-5-5 5 5-5 5",
  again: "M20 11a8 8 0 1 0-.8 5M20 4v7h-7",
  right: "m9 6 6 6-6 6",
  left: "m15 6-6 6 6 6",
  key: "M14.5 9.5a4.5 4.5 0 1 0-4 4L12 15h2v2h2v2h4v-3.500l-5-5M7.500 7.500h.01",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  pencil: "M4 20h4L19 9l-4-4L4 16z",
  flask: "M10 3v6l-5.500 9.500A1.700 1.700 0 0 0 7 21h10a1.700 1.700 0 0 0 1.500-2.500L13 9V3M8.500 3h7M8 15h8",
  download: "M12 4v11m-4-4 4 4 4-4M5 20h14",
  search: "M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13m9.500 3-4.900-4.900",
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" width="16" height="16" aria-hidden="true" focusable="false"><path d=${PATHS[name]} /></svg>`;
}

export function Mark() {
  return html`<svg class="mark" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
    <rect width="24" height="24" rx="6" fill="currentColor" />
    <path d="M16.500 7.500H9A3.750 3.750 0 0 0 9 15h7.500m-3-3 3 3-3 3" fill="none" stroke="var(--surface)" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" />
  </svg>`;
}
