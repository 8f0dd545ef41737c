// The zones: how each is doing, and a pause for those who may.
import { post } from "./api.js";
import { confirm } from "./ask.js";
import { ago, span, time } from "./format.js";
import { html } from "./html.js";

export const inTrouble = (zone) => zone.state === "hung" || zone.state === "unreachable";

async function pause(zone, act) {
  const sure = await confirm({ title: `Pause ${zone.zone}?`, text: "Its tasks are not looked at until it is resumed, also after a restart. Their deadlines go on.", yes: "Pause the zone" });
  if (sure) await act(`${zone.zone} is paused`, () => post(`zones/${encodeURIComponent(zone.zone)}/pause`));
}

export function Zones({ zones, admin, act, busy, show }) {
  return html`<section class="sheet" tabindex="0" aria-labelledby="h-zones"><h2 id="h-zones">Zones</h2>
    ${!zones ? html`<p class="faint">Loading…</p>` : html`<div class="cards">${zones.map((zone) => html`<article key=${zone.zone} class="card ${zone.state}" aria-labelledby="zone-${zone.zone}">
      <header><h3 id="zone-${zone.zone}">${zone.zone}</h3><span class="state ${zone.state}"><i aria-hidden="true"></i>${zone.state}</span></header>
      <dl class="facts">
        <div><dt>Backend</dt><dd>${zone.backend}</dd></div>
        <div><dt>Live tasks</dt><dd><a href="#/tasks" onClick=${() => show({ zone: zone.zone, state: "live" })}>${zone.live_tasks}</a></dd></div>
        <div><dt>Latency</dt><dd>${span(zone.latency_seconds)}</dd></div>
        <div><dt>Last answer</dt><dd>${ago(zone.last_answer_at)}</dd></div>
        <div><dt>Looks every</dt><dd>${span(zone.poll_interval)}</dd></div>
        ${zone.failures > 0 && html`<div><dt>Failures in a row</dt><dd>${zone.failures}</dd></div>`}
      </dl>
      ${zone.last_error && html`<p class="trouble">${zone.last_error}</p>`}
      ${zone.errors.length > 0 && html`<details><summary>Last errors</summary><ul class="plain">${zone.errors.map((each) => html`<li key=${each.at}><time datetime=${each.at}>${time(each.at)}</time> ${each.error}</li>`)}</ul></details>`}
      ${admin && html`<div class="buttons">${zone.state === "paused"
        ? html`<button disabled=${busy} aria-label="Resume ${zone.zone}" onClick=${() => act(`${zone.zone} is resumed`, () => post(`zones/${encodeURIComponent(zone.zone)}/resume`))}>Resume</button>`
        : html`<button disabled=${busy} aria-label="Pause ${zone.zone}" onClick=${() => pause(zone, act)}>Pause…</button>`}</div>`}
    </article>`)}</div>`}
    ${zones && !admin && html`<p class="faint">Pausing and resuming is for admins.</p>`}
  </section>`;
}
