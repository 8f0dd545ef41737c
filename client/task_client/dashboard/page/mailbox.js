// Callbacks: each with its attempts, and what can be done when it did not arrive.
import { get, post, query } from "./api.js";
import { kind, span, time } from "./format.js";
import { html } from "./html.js";

export function Delivery({ delivery, act, busy, listed }) {
  const { id, state, type, attempts, url, method, tries, next_at } = delivery;
  const name = `${kind(type)} to ${url || "its receiver"}`;
  const last = tries[tries.length - 1];
  const outcome = last ? (last.status ? `answered ${last.status}` : last.error) : "not tried yet";
  return html`<article class="delivery" aria-label="Callback ${name}">
    <div class="line"><span class="state ${state}"><i aria-hidden="true"></i>${state}</span> <strong>${kind(type)}</strong> <span class="url">${method} ${url || "(hidden)"}</span></div>
    <div class="line faint">${listed && html`<a href="#/tasks/${delivery.uid}">Show its task</a> · `}${attempts} ${attempts === 1 ? "attempt" : "attempts"}, the last ${outcome}${next_at ? `; next ${time(next_at)}` : ""}${delivery.waits_for ? `; waits for ${delivery.waits_for}` : ""}</div>
    ${tries.length > 0 && html`<details><summary>Attempts</summary><table><caption class="unseen">Attempts of ${name}</caption>
      <thead><tr><th scope="col">At</th><th scope="col">Took</th><th scope="col">Answer</th></tr></thead>
      <tbody>${tries.map((each) => html`<tr key=${each.at}><td>${time(each.at)}</td><td>${span(each.seconds)}</td><td>${each.status ?? ""} ${each.error || ""} ${each.answer && html`<code>${each.answer}</code>`}</td></tr>`)}</tbody>
    </table></details>`}
    <div class="buttons">
      <button disabled=${busy} aria-label="Replay the callback ${name}" onClick=${() => act("Callback is sent again", () => post(`callbacks/${id}/replay`))}>Replay</button>
      ${(state === "dead" || state === "pending") && html`<button disabled=${busy} aria-label="Acknowledge the callback ${name}" onClick=${() => act("Callback acknowledged", () => post(`callbacks/${id}/ack`))}>Acknowledge</button>`}
    </div>
  </article>`;
}

export const BOXES = ["dead", "pending", "delivered", "acked"];

// The newest callbacks of a state. Throws Refused.
export const load = async (state) => (await get(`callbacks?${query([["state", state], ["page_size", 100]])}`));

export function Mailbox({ box, found, act, busy }) {
  return html`<section class="sheet" aria-labelledby="h-mailbox"><h2 id="h-mailbox">Callbacks</h2>
    <p class="faint">What was to be told to somebody, and whether it arrived. A replay goes out at once under the same id; receivers drop repeats by it.</p>
    <nav class="chips" aria-label="State of callbacks">${BOXES.map((name) => html`<a key=${name} href="#/callbacks/${name}" aria-current=${name === box ? "page" : undefined}>${name}</a>`)}</nav>
    ${!found ? html`<p class="faint">Loading…</p>` : found.callbacks.length === 0 ? html`<p class="empty">No callback is ${box}.</p>` :
      html`<div class="deliveries">${found.callbacks.map((each) => html`<${Delivery} key=${each.id} delivery=${each} act=${act} busy=${busy} listed />`)}</div>
        ${found.next_page_token && html`<p class="faint">These are the first 100; <code>taskctl callbacks --state ${box}</code> lists all.</p>`}`}
  </section>`;
}
