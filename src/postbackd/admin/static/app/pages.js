// The pages, in the order of the navigation.  To add one: a file in pages/, one row here (see README.md).
// load: imported when it is first shown.  badge: a signal with a number worth noticing.  low: in the bottom bar of phones.
export const PAGES = [
  { group: "Watch", name: "overview", title: "Overview", icon: "overview", low: true, load: () => import("../pages/overview.js") },
  { group: "Run", name: "settings", title: "Settings", icon: "settings", load: () => import("../pages/settings.js") },
];

// Shown without the frame, to whoever is not signed in.
export const DOORS = [
];

export const find = (name) => [...PAGES, ...DOORS].find((page) => page.name === name);
