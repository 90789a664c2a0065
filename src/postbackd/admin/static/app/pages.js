import { openAlarms } from "./open_alarms.js";

// The pages, in the order of the navigation.  To add one: a file in pages/, one row here (see README.md).
// load: imported when it is first shown.  badge: a signal with a number worth noticing.  low: in the bottom bar of phones.
export const PAGES = [
  { group: "Watch", name: "overview", title: "Overview", icon: "overview", low: true, load: () => import("../pages/overview.js") },
  { group: "Watch", name: "live", title: "Live log", icon: "live", low: true, load: () => import("../pages/live.js") },
  { group: "Watch", name: "alarms", title: "Alarms", icon: "alarms", badge: openAlarms, load: () => import("../pages/alarms.js") },
  { group: "Watch", name: "doctor", title: "Doctor", icon: "doctor", load: () => import("../pages/doctor.js") },
  { group: "Watch", name: "reports", title: "Reports", icon: "reports", load: () => import("../pages/reports.js") },
  { group: "Watch", name: "deliveries", title: "Deliveries", icon: "deliveries", load: () => import("../pages/deliveries.js") },
  { group: "Watch", name: "reconcile", title: "Reconcile", icon: "reconcile", load: () => import("../pages/reconcile.js") },
  { group: "Set up", name: "campaigns", title: "Campaigns", icon: "campaigns", low: true, load: () => import("../pages/campaigns.js") },
  { group: "Set up", name: "networks", title: "Networks", icon: "networks", low: true, load: () => import("../pages/networks.js") },
  { group: "Set up", name: "sources", title: "Sources", icon: "sources", load: () => import("../pages/sources.js") },
  { group: "Run", name: "settings", title: "Settings", icon: "settings", load: () => import("../pages/settings.js") },
];

// Shown without the frame, to whoever is not signed in.
export const DOORS = [
  { name: "welcome", title: "Welcome", load: () => import("../pages/welcome.js") },
  { name: "sign-in", title: "Sign in", load: () => import("../pages/sign_in.js") },
];

export const find = (name) => [...PAGES, ...DOORS].find((page) => page.name === name);
