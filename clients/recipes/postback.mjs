// Sends one postback.  Node 18 or later, nothing to install.
//
//   POSTBACK_URL=https://track.example.com/p/KEY node postback.mjs click_id=0saq... txid=A-1001 type=sale value=12.50
//
// Or: import { sendPostback } from "./postback.mjs".  Call it when the order is stored, and do not let the buyer wait
// for it.  With POSTBACK_SECRET (pbs_...) the request is signed.

import { createHash, createHmac } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

/** The tracker could not be reached: send the same postback, with the same txid, again later. */
export class TryAgainLater extends Error {}

/** The tracker will not count it however often it is sent; the message says why. */
export class PostbackRefused extends Error {}

// encodeURIComponent leaves !'()* alone, RFC 3986 does not.
const encode = (text) =>
  encodeURIComponent(text).replace(/[!'()*]/g, (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase());

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

/** What is signed: parameters decoded, encoded alike, sorted by name and value. */
export function canonicalQuery(query) {
  return [...new URLSearchParams(query)]
    .filter(([name]) => name !== "sig" && name !== "sig_time")
    .map((pair) => pair.map(encode))
    .sort((a, b) => compare(a[0], b[0]) || compare(a[1], b[1]))
    .map((pair) => pair.join("="))
    .join("&");
}

export function sign(secret, method, path, query, body, time) {
  const bodyHash = createHash("sha256").update(body).digest("hex");
  const text = ["postbackd-v1", method, path, canonicalQuery(query), bodyHash, time].join("\n");
  return createHmac("sha256", secret).update(text).digest("hex");
}

/** One request, two seconds at most; certificates are verified and redirects not followed. */
async function ask(url, secret) {
  const headers = {};
  if (secret) {
    const now = String(Math.floor(Date.now() / 1000));
    const signature = sign(secret, "GET", url.pathname, url.search.slice(1), "", now);
    headers["X-Postback-Signature"] = `t=${now},v1=${signature}`;
  }
  const answer = await fetch(url, { headers, redirect: "manual", signal: AbortSignal.timeout(2000) });
  await answer.arrayBuffer(); // read to its end, so that the connection can be used again
  return answer;
}

/** Sends up to three times; resolves to the verdict.  `postback`: click_id, txid, type, value, currency ... */
export async function sendPostback(address, postback, secret) {
  if (!postback.txid) {
    throw new PostbackRefused("give a txid: without one a retry cannot be told from a second sale");
  }
  const url = new URL(address);
  const pairs = Object.entries(postback).map((pair) => pair.map(encode).join("="));
  url.search = [url.search.slice(1), ...pairs].filter(Boolean).join("&");
  for (let tries = 1; ; tries++) {
    const [answer, trouble] = await ask(url, secret).then(
      (answer) => [answer, answer.status],
      (error) => [null, error.cause?.message ?? error.message],
    );
    if (answer && ![408, 429].includes(answer.status) && answer.status < 500) return readVerdict(answer);
    if (tries === 3) {
      throw new TryAgainLater(`${trouble}: send the same postback, with the same txid, again later`);
    }
    const named = answer?.headers.get("retry-after") ?? "";
    await sleep(1000 * (/^\d+$/.test(named) ? Math.min(Number(named), 10) : 2 ** (tries - 1)));
  }
}

function readVerdict(answer) {
  const verdict = answer.headers.get("postbackd-verdict");
  if (answer.status === 404) {
    throw new PostbackRefused(
      "404: the tracker does not know this URL, or the signature is wrong: compare both with 'postbackd network list'",
    );
  }
  if (verdict === "rejected" || verdict === "unmatched") {
    const reason = answer.headers.get("postbackd-reason");
    throw new PostbackRefused(`${verdict}: ${reason} (see the network's log: postbackd log)`);
  }
  if (!answer.ok) {
    throw new PostbackRefused(`${answer.status}: this is not the address of a tracker: look at POSTBACK_URL`);
  }
  return verdict ?? "delivered"; // accepted, duplicate, updated, held, queued; other trackers name no verdict
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const words = process.argv.slice(2).map((word) => [word.split("=", 1)[0], word.slice(word.indexOf("=") + 1)]);
  try {
    const { POSTBACK_URL, POSTBACK_SECRET } = process.env;
    console.log(await sendPostback(POSTBACK_URL, Object.fromEntries(words), POSTBACK_SECRET));
  } catch (error) {
    console.error(error.message);
    process.exitCode = error instanceof TryAgainLater ? 75 : 1;
  }
}
