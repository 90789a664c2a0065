// Lists that come in pages: the first is asked for by itself, the others when somebody wants them.
import { html, useState } from "../app/html.js";
import { address, call, useAsk } from "../app/api.js";
import { Button } from "./parts.js";
import { attempt } from "./messages.js";

const NONE = { of: null, items: [], next: null };

// `keyOf` tells rows apart: a row may stand on two pages when others came before it meanwhile.
export function usePages(path, query, keyOf, options) {
  const first = useAsk(path, query, options);
  const [later, setLater] = useState(NONE);
  const [busy, setBusy] = useState(false);
  const of = path && address(path, query);
  const data = first.data.value;
  const mine = later.of === of && data ? later : { ...NONE, next: data?.next ?? null };
  const seen = new Set();
  const items = [...(data?.items ?? []), ...mine.items].filter((row) => !seen.has(keyOf(row)) && seen.add(keyOf(row)));
  const more = async () => {
    setBusy(true);
    const page = await attempt(() => call("GET", path, { query: { ...query, cursor: mine.next } }));
    if (page) setLater({ of, items: [...mine.items, ...page.items], next: page.next });
    setBusy(false);
  };
  return { first, items, next: mine.next, more, busy, again: () => { setLater(NONE); first.again(); } };
}

export function More({ of }) {
  return of.next && html`<p class="more"><${Button} busy=${of.busy} onClick=${of.more}>Show more<//></p>`;
}
