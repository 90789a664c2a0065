// Campaigns: tracked links, each a source plus one or more weighted offers.
import { html, useState } from "../app/html.js";
import { dataSet, useAsk } from "../app/api.js";
import { count, percent } from "../app/format.js";
import { go, link } from "../app/router.js";
import { may } from "../app/session.js";
import { changed, ReadOnly, Remove, save, useEntry, useList } from "../parts/catalog.js";
import { Dialog, say } from "../parts/messages.js";
import { Asked, Button, Card, Copy, Empty, Facts, Field, Form, Head, Icon, Notice, Select, Table } from "../parts/parts.js";

export default function Campaigns({ rest, query }) {
  return rest[0] ? html`<${One} name=${rest[0]} />` : html`<${All} adds=${query.add === "1"} source=${query.source} />`;
}

// Match rate is not shown here: a postback that did not match belongs to no campaign.
const rateOf = (figures) => (figures?.clicks ? percent((figures.conversions?.count ?? 0) / figures.clicks, 2) : "–");

function All({ adds, source }) {
  const campaigns = useList("campaign");
  const figures = useAsk("/report", { since: "24h", by: "campaign" });
  const [open, setOpen] = useState(adds);
  const of = new Map((figures.data.value?.groups ?? []).map((group) => [group.campaign, group]));
  const add = may("catalog") && html`<${Button} kind="main" icon="plus" onClick=${() => setOpen(true)}>New campaign<//>`;
  return html`<${Head} title="Campaigns" lead="Each campaign is one link that you give to a traffic source. It counts the click and leads the visitor to an offer.">${add}<//>
    <div class="stack"><${ReadOnly} />
      <${Card} bare><${Asked} of=${campaigns} lines=${6}>${({ items }) => html`<${Table} caption="Campaigns" rows=${items} keyOf=${(row) => row.id} onRow=${(row) => go("campaigns", row.slug)}
        empty=${html`<${Empty} icon="campaigns" title="No campaign yet" actions=${add}>A campaign needs a <a href=${link("sources")}>source</a> that sends visitors, and an offer of a <a href=${link("networks")}>network</a>. With these, it gives you a link to paste into the source.<//>`}
        columns=${[
          { head: "Campaign", lead: true, cell: (row) => html`<a class="main-text" href=${link("campaigns", row.slug)}>${row.name}</a>` },
          { head: "Source", cell: (row) => (row.source ? html`<a href=${link("sources", row.source)}>${row.source}</a>` : "(removed)") },
          { head: "Offers", cell: (row) => row.offers.map((one) => one.offer ?? "(removed)").join(", "), break: true },
          { head: "Clicks, 24 h", num: true, cell: (row) => count(of.get(row.name)?.clicks ?? (figures.data.value ? 0 : null)) },
          { head: "Conversions", num: true, cell: (row) => count(of.get(row.name)?.conversions?.count ?? (figures.data.value ? 0 : null)) },
          { head: "Conversion rate", num: true, cell: (row) => rateOf(of.get(row.name)) },
        ]} />`}<//><//>
    </div>
    ${open && html`<${Edit} source=${source} onClose=${() => setOpen(false)} />`}`;
}

function One({ name }) {
  const entry = useEntry("campaign", name);
  const [edits, setEdits] = useState(false);
  const shown = entry.data.value;
  return html`<${Head} title=${shown?.name ?? name} back=${["Campaigns", link("campaigns")]}>
      ${may("catalog") && shown && html`<${Button} icon="pencil" onClick=${() => setEdits(true)}>Edit<//>
        <${Remove} kind="campaign" row=${shown}>Its link stops working at once. What it counted stays in the reports, and late conversions are still attributed.<//>`}
    <//>
    <${Asked} of=${entry}>${(campaign) => html`<div class="stack">
      <${Links} campaign=${campaign} />
      <div class="columns"><${Rotation} campaign=${campaign} /><${Yesterday} campaign=${campaign} /></div>
    </div>`}<//>
    ${edits && shown && html`<${Edit} entry=${shown} tag=${entry.tag.current} onClose=${() => setEdits(false)} onSaved=${(saved) => { setEdits(false); if (saved.slug !== name) go("campaigns", saved.slug); else entry.again(); }} />`}`;
}

function Links({ campaign }) {
  const bare = campaign.click_url.split("?")[0];
  return html`<${Card} title="The link of this campaign">
    <div class="stack tight">
      <p>Paste it into ${campaign.source ? html`the source <a href=${link("sources", campaign.source)}>${campaign.source}</a>` : "your source"} as the landing page address. The source fills in what stands in <span class="mono">{}</span> or <span class="mono">\${}</span>.</p>
      <${Copy} text=${campaign.click_url} label="campaign link" />
      ${bare === campaign.click_url
        ? html`<p class="soft small">Add the source's own click id as <code>source_click_id=</code> and up to ten more values as <code>sub1=</code> … <code>sub10=</code>, with the macros of the source.</p>`
        : html`<details><summary class="soft small">Without macros, for a mail or a post</summary><${Copy} text=${bare} label="link without macros" /></details>`}
      ${dataSet.value === "demo"
        ? html`<p class="soft small">This campaign is simulated: the server does not know its link.</p>`
        : html`<p class="row"><a class="button low" href=${bare} target="_blank" rel="noreferrer"><${Icon} name="right" />Open it once</a><span class="soft small">A real click: it is counted, and its id is shown in the address of the offer.</span></p>`}
    </div>
  <//>`;
}

function Rotation({ campaign }) {
  const sum = campaign.offers.reduce((all, one) => all + one.weight, 0);
  return html`<${Card} title="Offers" bare><${Table} caption="Offers of this campaign and their share of the visitors" rows=${campaign.offers} columns=${[
    { head: "Offer", lead: true, cell: (one) => html`<span class="main-text">${one.offer ?? "(removed)"}</span>` },
    { head: "Weight", num: true, cell: (one) => count(one.weight) },
    { head: "Share", num: true, cell: (one) => percent(one.weight / sum) },
  ]} /><//>`;
}

function Yesterday({ campaign }) {
  const figures = useAsk("/report", { since: "24h", by: "campaign" }, { every: 30 });
  return html`<${Card} title="Last 24 hours"><${Asked} of=${figures} lines=${2}>${(report) => {
    const found = report.groups.find((group) => group.campaign === campaign.name);
    if (!found) return html`<p class="soft">No visitor came through this link yet. Open it once yourself: the click shows here and in the <a href=${link("live")}>live log</a> as soon as a postback follows.</p>`;
    return html`<${Facts} of=${[["Clicks", count(found.clicks)], ["Conversions", count(found.conversions?.count)], ["Postbacks", count(found.postbacks.total)], ["Conversion rate", rateOf(found)]]} />`;
  }}<//><//>`;
}

function Edit({ entry = null, source, tag, onClose, onSaved }) {
  const sources = useList("source");
  const offers = useList("offer");
  return html`<${Dialog} title=${entry ? `Edit ${entry.name}` : "New campaign"} onClose=${onClose}>
    <${Asked} of=${sources}>${(ofSources) => html`<${Asked} of=${offers}>${(ofOffers) => html`<${Fields} entry=${entry} from=${source} tag=${tag} sources=${ofSources.items} offers=${ofOffers.items} onClose=${onClose} onSaved=${onSaved} />`}<//>`}<//>
  <//>`;
}

const newest = (rows) => rows.reduce((last, one) => (!last || one.id > last.id ? one : last), null);

// `from`: the source whose page led here.  Else what was added last is proposed: it is most often what is meant.
function Fields({ entry, from, tag, sources, offers, onClose, onSaved }) {
  const [name, setName] = useState(entry?.name ?? "");
  const [source, setSource] = useState(entry?.source ?? from ?? newest(sources)?.name ?? "");
  const [slug, setSlug] = useState(entry?.slug ?? "");
  const [shares, setShares] = useState(entry?.offers ?? [{ offer: newest(offers)?.name ?? "", weight: 1 }]);
  if (!entry && (sources.length === 0 || offers.length === 0)) return html`<${Missing} sources=${sources} offers=${offers} />`;
  const send = async () => {
    const wanted = { name, source, offers: shares.map((one) => ({ offer: one.offer, weight: Number(one.weight) })), ...(slug ? { slug } : {}) };
    const saved = await save("campaign", entry?.slug ?? null, entry ? changed(entry, wanted) : wanted, tag);
    say(`Campaign ${saved.name} is saved`);
    if (onSaved) onSaved(saved); else go("campaigns", saved.slug);
  };
  const put = (at, change) => setShares(shares.map((one, here) => (here === at ? { ...one, ...change } : one)));
  return html`<${Form} send=${entry ? "Save" : "Add the campaign"} onSend=${send} onCancel=${onClose} fields=${["name", "slug", "source", "offers"]}>${(wrong) => html`
    <${Field} label="Name" hint="What you call it, for example “Summer push, Germany”." value=${name} onValue=${setName} wrong=${wrong("name")} autocomplete="off" autofocus />
    <${Field} label="Source" kind="select" hint="Who sends the visitors." options=${sources.map((one) => [one.name, one.name])} value=${source} onValue=${setSource} wrong=${wrong("source")} />
    <fieldset class="stack tight"><legend>Offers</legend>
      ${shares.map((one, at) => html`<div class="row share" key=${at}>
        <${Select} label=${`Offer ${at + 1}`} value=${one.offer} onValue=${(offer) => put(at, { offer })} options=${offers.map((offer) => [offer.name, `${offer.name} (${offer.network ?? "removed"})`])} />
        <input type="number" min="1" max="1000000" aria-label=${`Weight of offer ${at + 1}`} title="Weight" value=${one.weight} onInput=${(event) => put(at, { weight: event.currentTarget.value })} />
        ${shares.length > 1 && html`<${Button} kind="quiet square" icon="cross" label=${`Leave out offer ${at + 1}`} onClick=${() => setShares(shares.filter((_, here) => here !== at))} />`}
      </div>`)}
      ${shares.length > 1 && html`<p class="hint soft small">The numbers are weights: with 3 and 1, three visitors of four go to the first.</p>`}
      ${wrong("offers") && html`<p class="wrong">${wrong("offers")}</p>`}
      ${shares.length < offers.length && html`<p><button type="button" class="link" onClick=${() => setShares([...shares, { offer: offers.find((one) => !shares.some((had) => had.offer === one.name))?.name, weight: 1 }])}>Share the visitors with another offer</button></p>`}
    </fieldset>
    <${Field} label="Last part of the link" hint=${entry ? "Changing it breaks the link that is in use." : "Made from the name when left empty."} value=${slug} onValue=${setSlug} wrong=${wrong("slug")} autocomplete="off" spellcheck=${false} />`}
  <//>`;
}

function Missing({ sources, offers }) {
  return html`<${Notice} kind="info">A campaign joins a source and an offer. ${sources.length === 0 ? "There is no source yet. " : ""}${offers.length === 0 ? "There is no offer yet." : ""}<//>
    <div class="ends">${sources.length === 0 && html`<${Button} kind="main" href=${link("sources", { add: 1 })}>Add a source<//>`}
    ${offers.length === 0 && html`<${Button} kind=${sources.length ? "main" : ""} href=${link("networks")}>${"Add an offer to a network"}<//>`}</div>`;
}
