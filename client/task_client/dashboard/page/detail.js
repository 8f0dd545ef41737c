// One task: what it waits for, its facts, its history, its callbacks, and what can be done with it.
import { get, post } from "./api.js";
import { confirm } from "./ask.js";
import { amount, between, kind, percent, span, time } from "./format.js";
import { html } from "./html.js";
import { Bar, State } from "./list.js";
import { Delivery } from "./mailbox.js";

// All that is shown about one task. Throws Refused.
export async function load(uid) {
  const [task, history, explained] = await Promise.all([
    get(`tasks/${uid}`), get(`tasks/${uid}/events?page_size=500`), get(`tasks/${uid}/explain`),
  ]);
  return { uid, task, events: history.events, explained };
}

async function cancel(task, act) {
  const tracked = task.mode === "track";
  const sure = await confirm(tracked
    ? { title: `Stop watching ${task.id}?`, text: "The work itself goes on; nobody will be told how it ends but that it was cancelled.", yes: "Stop watching", danger: true }
    : { title: `Cancel ${task.id}?`, text: `The ${task.action} in zone ${task.zone} is stopped. What it has done so far may be lost.`, yes: "Cancel the task", danger: true });
  if (sure) await act(`${task.id}: asked to ${tracked ? "stop watching" : "cancel"}`, () => post(`tasks/${task.uid}/cancel`, tracked ? { stop_tracking: true } : {}));
}

async function resolve(task, state, act) {
  const sure = await confirm({ title: `Has ${task.id} ${state}?`, text: "You looked yourself and know how the lost work ended. Its callbacks are told so.", yes: `It has ${state}`, danger: state === "failed" });
  if (sure) await act(`${task.id}: resolved as ${state}`, () => post(`tasks/${task.uid}/resolve`, { state, reason: "resolved in the dashboard" }));
}

function Actions({ task, act, busy }) {
  const look = () => act(`${task.id}: will be looked at now`, () => post(`tasks/${task.uid}/poll`));
  return html`<div class="buttons">
    ${!task.done && task.state !== "cancelling" && (task.cancellable || task.mode === "track") &&
      html`<button class="danger" disabled=${busy} onClick=${() => cancel(task, act)}>${task.mode === "track" ? "Stop watching…" : "Cancel…"}</button>`}
    ${!task.done && html`<button disabled=${busy} onClick=${look}>Look now</button>`}
    ${task.state === "lost" && ["succeeded", "failed"].map((state) => html`<button disabled=${busy} onClick=${() => resolve(task, state, act)}>It has ${state}…</button>`)}
  </div>`;
}

function Facts({ task }) {
  const p = task.progress;
  const done = p.done == null ? null : `${amount(p.done, p.unit)}${p.total == null ? "" : ` of ${amount(p.total, p.unit)}`}`;
  const labels = Object.entries(task.labels || {}).map(([name, value]) => `${name}:${value}`).join(", ");
  const facts = [
    ["Action", task.action], ["Zone", task.zone], ["Mode", task.mode === "run" ? "run: the daemon started it" : "track: somebody else started it"],
    ["Done", done], ["Rate", p.rate == null ? null : `${amount(p.rate, p.unit)}/s`], ["Left", !task.done && p.eta_seconds != null ? span(p.eta_seconds) : null],
    ["Registered", time(task.created_at)], ["Started", task.started_at && time(task.started_at)],
    ["Ended", task.finished_at && `${time(task.finished_at)}, after ${span(between(task.created_at, task.finished_at))}`],
    ["Looked at", task.last_polled_at && time(task.last_polled_at)], ["Next look", task.next_poll_at && time(task.next_poll_at)],
    ["Deadline", !task.done && time(task.deadline_at)], ["Labels", labels], ["Flags", task.flags.join(", ")],
    ["Region task", task.region_task_id], ["Size", task.size == null ? null : amount(task.size, "bytes")],
    ["Owner", `user ${task.owner.uid}`], ["Job", task.job], ["Uid", task.uid],
  ];
  return html`<dl class="facts">${facts.filter(([, value]) => value != null && value !== "" && value !== false).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function Timeline({ events }) {
  return html`<ol class="timeline">${events.map((event, index) => {
    const detail = Object.entries(event.detail || {}).filter(([, value]) => value != null && typeof value !== "object").map(([name, value]) => `${name} ${value}`).join(", ");
    return html`<li key=${event.seq} class=${kind(event.type)}>
      <span class="what">${kind(event.type)}</span> <time datetime=${event.time}>${time(event.time)}</time>
      ${index > 0 && html` <span class="faint">+${span(between(events[index - 1].time, event.time))}</span>`}
      ${detail && html`<div class="faint">${detail}</div>`}
    </li>`;
  })}</ol>`;
}

export function Detail({ shown, act, busy, close }) {
  const { task, events, explained, error } = shown;
  const leave = html`<button class="close" aria-label="Close the task" onClick=${close}>✕</button>`;
  if (!task) {
    return html`<aside class="detail" aria-label="Task"><header><h2 tabindex="-1" id="task-name">${error ? "Cannot show this task" : "Loading…"}</h2>${leave}</header>
      ${error && html`<p class="trouble">${error}</p>`}</aside>`;
  }
  const waits = explained.waiting_for.replace(/; POST \S+ sends it again$/, "; Replay below sends it again");
  return html`<aside class="detail" aria-labelledby="task-name" onKeyDown=${(event) => event.key === "Escape" && close()}>
    <header><div><h2 tabindex="-1" id="task-name">${task.id}</h2><${State} state=${task.state} /> <span class="faint">${task.action} in ${task.zone}</span></div>${leave}</header>
    ${percent(task) != null && html`<${Bar} task=${task} />`}
    ${task.error && html`<p class="trouble"><strong>${task.error.kind}</strong> ${task.error.message}</p>`}
    <p class="waits">It waits for ${waits}.</p>
    <${Actions} task=${task} act=${act} busy=${busy} />
    <section aria-labelledby="h-facts"><h3 id="h-facts">Facts</h3><${Facts} task=${task} /></section>
    <section aria-labelledby="h-history"><h3 id="h-history">History</h3><${Timeline} events=${events} /></section>
    <section aria-labelledby="h-callbacks"><h3 id="h-callbacks">Callbacks</h3>
      ${explained.callbacks.length === 0 ? html`<p class="faint">None${task.done ? "" : " yet"}.</p>` :
        explained.callbacks.map((each) => html`<${Delivery} key=${each.id} delivery=${each} act=${act} busy=${busy} />`)}
    </section>
    ${task.params && html`<section aria-labelledby="h-params"><h3 id="h-params">Params</h3><pre tabindex="0" aria-label="Params">${JSON.stringify(task.params, null, 2)}</pre></section>`}
  </aside>`;
}
