// The page: what is shown, what is kept up to date, and where one goes from here.
import { Activity, ActivityView } from "./activity.js";
import { follow, get } from "./api.js";
import * as detail from "./detail.js";
import { STATES } from "./format.js";
import { html, render } from "./html.js";
import { List } from "./list.js";
import * as mailbox from "./mailbox.js";
import { Tasks } from "./tasks.js";
import { inTrouble, Zones } from "./zones.js";

const REFRESH = 500; // milliseconds between two looks at what became stale
const STATUS = 5000; // ... at zones and the daemon itself
const VIEWS = { tasks: "Tasks", zones: "Zones", callbacks: "Callbacks", activity: "Activity" };

const tasks = new Tasks(changed, trouble);
const activity = new Activity();
const page = { view: "tasks", uid: null, box: "dead", shown: null, zones: null, info: null, mail: null, dead: null, label: "", linked: true, why: "", trouble: "", busy: false };
let drawing = false;
let stale = false; // the task shown has moved
let focus = () => null; // what is to have the focus as soon as it is drawn

function changed() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    render(html`<${Page} />`, document.getElementById("page"));
    const found = focus();
    if (found) {
      focus = () => null;
      found.focus();
    }
  });
}

// Said to those who cannot see it; only what somebody did or must know, not every change.
function say(text) {
  document.getElementById("said").textContent = text;
}

function trouble(error) {
  if (error.status === 0 || error.code === "unreachable") return link(false, error);
  page.trouble = error.message;
  say(error.message);
  changed();
}

function link(up, error) {
  if (page.linked !== up) say(up ? "The daemon answers again." : "The daemon cannot be reached.");
  if (page.linked === up) return;
  page.linked = up;
  page.why = error?.message || "";
  if (up) status();
  changed();
}

// Do something that was asked for, tell how it went, and show what came of it.
async function act(done, request) {
  page.busy = true;
  page.trouble = "";
  changed();
  try {
    await request();
    say(done);
  } catch (error) {
    trouble(error);
  } finally {
    page.busy = false;
  }
  await Promise.all([showTask(), showMail(), status()]);
  changed();
}

// ---------------------------------------------------------------- keeping up

async function start() {
  const cursor = await tasks.load();
  if (cursor === null) setTimeout(start, 1000);
  else follow(cursor, { onEvents: happened, onLink: link, onGap: () => tasks.load() });
  return cursor;
}

function happened(events) {
  tasks.apply(events);
  activity.count(events);
  if (events.some((event) => event.uid === page.uid)) stale = true;
  changed();
}

// The last hour up to `until`, for the chart.
async function lookBack(until) {
  if (until === null) return;
  const recent = new Date(Date.now() - 3_600_000).toISOString();
  let after = Math.max(0, until - 5000);
  for (let pages = 0; pages < 12; pages += 1) {
    let found;
    try {
      found = await get(`events?after=${after}&page_size=500`);
    } catch (error) {
      if (error.code !== "cursor-expired") throw error;
      after = error.problem.oldest || 0;
      continue;
    }
    activity.count(found.events.filter((event) => event.time >= recent && event.seq <= until));
    if (found.events.length < 500) return changed();
    after = found.cursor;
  }
}

async function status() {
  try {
    const [info, { zones }, dead] = await Promise.all([get("info"), get("zones"), get("callbacks?state=dead&page_size=100")]);
    Object.assign(page, { info, zones, dead: dead.callbacks.length + (dead.next_page_token ? "+" : "") });
    activity.sample(zones);
  } catch (error) {
    trouble(error);
  }
  changed();
}

async function showTask() {
  const uid = page.uid;
  if (!uid) return;
  stale = false;
  try {
    const found = await detail.load(uid);
    if (uid === page.uid) page.shown = found;
  } catch (error) {
    if (uid === page.uid && (error.status === 404 || error.status === 410 || !page.shown?.task)) page.shown = { uid, error: error.message };
  }
  changed();
}

async function showMail() {
  if (page.view !== "callbacks") return;
  const box = page.box;
  try {
    const found = await mailbox.load(box);
    if (box === page.box) page.mail = found;
  } catch (error) {
    trouble(error);
  }
  changed();
}

let looked = 0;
async function tick() {
  if (!document.hidden && page.linked) {
    await tasks.refresh();
    const live = page.shown?.task && !page.shown.task.done;
    if (page.uid && (stale || (live && Date.now() - looked > 2000) || callbacksMove())) {
      looked = Date.now();
      await showTask();
    }
  }
  setTimeout(tick, REFRESH);
}

const callbacksMove = () => Date.now() - looked > 2000 && page.shown?.explained?.callbacks.some((each) => each.state === "pending");

// ---------------------------------------------------------------- going somewhere

function route() {
  const [, view, rest] = location.hash.split("/");
  const before = page.uid;
  page.view = view in VIEWS ? view : "tasks";
  page.uid = page.view === "tasks" && rest ? decodeURIComponent(rest) : null;
  page.trouble = "";
  if (page.uid !== before) {
    page.shown = page.uid ? { uid: page.uid, task: null } : null;
    if (page.uid) {
      focus = () => (page.shown?.task || page.shown?.error) && document.getElementById("task-name");
      showTask();
    }
  }
  if (page.view === "callbacks") {
    page.box = mailbox.BOXES.includes(rest) ? rest : "dead";
    page.mail = null;
    showMail();
  }
  document.title = `${page.shown ? "Task" : VIEWS[page.view]} – task-daemon`;
  changed();
}

function close() {
  const uid = page.uid;
  location.hash = "#/tasks";
  focus = () => !page.uid && (document.querySelector(`a[data-uid="${uid}"]`) || document.querySelector("table.tasks a"));
}

function filter(change) {
  if ("label" in change) page.label = change.label;
  Object.assign(tasks.filters, change);
  page.trouble = "";
  tasks.load();
}

addEventListener("hashchange", route);
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
  const find = document.getElementById("find");
  if (find && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    find.focus();
  }
});

// ---------------------------------------------------------------- what is seen

function Head() {
  const { zones, info } = page;
  const ill = zones?.filter(inTrouble).length ?? 0;
  const [, succeeded, otherwise] = activity.sums();
  const figures = [
    ["Live tasks", info ? info.status.live : "–", "#/tasks", "", () => filter({ state: "live", zone: "", action: "", label: "" })],
    ["Ended, last hour", succeeded + otherwise, "#/activity", ""],
    ["Zones in trouble", zones ? `${ill} of ${zones.length}` : "–", "#/zones", ill ? "bad" : ""],
    ["Dead callbacks", page.dead ?? "–", "#/callbacks/dead", page.dead && page.dead !== "0" ? "bad" : ""],
  ];
  return html`<header class="head">
    <div class="brand"><img src="icon.svg" alt="" width="28" height="28" /><h1>task-daemon</h1>
      <span class="link ${page.linked ? "up" : "down"}"><i aria-hidden="true"></i>${page.linked ? "live" : "no connection"}</span></div>
    <nav class="views" aria-label="Views">${Object.entries(VIEWS).map(([view, name]) => html`<a key=${view} href="#/${view}" aria-current=${view === page.view ? "page" : undefined}>${name}</a>`)}</nav>
    <ul class="figures" aria-label="At a glance">${figures.map(([name, value, href, tone, onClick]) => html`<li key=${name}><a href=${href} class=${tone} onClick=${onClick}><strong>${value}</strong> <span>${name}</span></a></li>`)}</ul>
  </header>`;
}

function Choice({ id, name, value, choices, onChange }) {
  return html`<label for=${id}><span>${name}</span><select id=${id} onChange=${(event) => onChange(event.target.value)}>
    ${choices.map(([choice, text]) => html`<option key=${choice} value=${choice} selected=${choice === value}>${text}</option>`)}
  </select></label>`;
}

function Filters() {
  const { filters } = tasks;
  const same = (words) => words.map((word) => [word, word]);
  const actions = [...new Set((page.zones || []).flatMap((zone) => zone.actions))].sort();
  const any = Object.values(filters).some(Boolean);
  return html`<form class="filters" role="search" aria-label="Filter tasks" onSubmit=${(event) => event.preventDefault()}>
    <label for="find" class="find"><span>Find</span><input id="find" type="search" placeholder="Name or uid ( / )" value=${filters.text} autocomplete="off" spellcheck="false" onInput=${(event) => tasks.find(event.target.value)} /></label>
    <${Choice} id="f-state" name="State" value=${filters.state} choices=${[["", "All"], ["live", "Live"], ["ended", "Ended"], ...same(STATES)]} onChange=${(state) => filter({ state })} />
    <${Choice} id="f-zone" name="Zone" value=${filters.zone} choices=${[["", "All"], ...same((page.zones || []).map((zone) => zone.zone))]} onChange=${(zone) => filter({ zone })} />
    <${Choice} id="f-action" name="Action" value=${filters.action} choices=${[["", "All"], ...same(actions)]} onChange=${(action) => filter({ action })} />
    <label for="f-label"><span>Label</span><input id="f-label" placeholder="name:value" value=${page.label} autocomplete="off" spellcheck="false"
      onInput=${(event) => { page.label = event.target.value; }}
      onChange=${() => /^$|^[^:=]+[:=]/.test(page.label) ? filter({ label: page.label }) : trouble(new Error("Cannot filter by this label: it is written name:value."))} /></label>
    <button type="button" disabled=${!any} onClick=${() => filter({ state: "", zone: "", action: "", label: "", text: "" })}>Clear</button>
  </form>`;
}

function TasksView() {
  const rows = tasks.rows;
  const count = !tasks.complete && !rows.length ? "Loading…" : `${rows.length.toLocaleString()} ${rows.length === 1 ? "task" : "tasks"}${tasks.more && tasks.byUid.size >= 10_000 ? ", the newest ones; filters reach the others" : ""}`;
  return html`<div class="split ${page.uid ? "open" : ""}">
    <section class="left" aria-labelledby="h-tasks"><h2 id="h-tasks" class="unseen">Tasks</h2>
      <${Filters} /><p class="count" id="count">${count}</p>
      <${List} rows=${rows} busy=${!tasks.complete} chosen=${page.uid} open=${(uid) => { location.hash = `#/tasks/${uid}`; }} seen=${(uids) => { tasks.shown = uids; }} />
      ${tasks.complete && !rows.length && html`<p class="empty">${Object.values(tasks.filters).some(Boolean) ? "No task matches these filters." : "Nothing is registered. `taskctl register` or a POST to /v1/tasks does it."}</p>`}
    </section>
    ${page.uid && html`<${detail.Detail} shown=${page.shown} act=${act} busy=${page.busy} close=${close} />`}
  </div>`;
}

function Page() {
  const admin = page.info?.you.roles.includes("admin") ?? false;
  const { zones, busy } = page;
  return html`<${Head} />
    ${!page.linked && html`<p class="banner" role="alert">${page.why} What you see may be old; the page goes on trying.</p>`}
    ${page.trouble && html`<p class="banner"><span>${page.trouble}</span> <button onClick=${() => { page.trouble = ""; changed(); }}>Dismiss</button></p>`}
    <main id="content" tabindex="-1">
      ${page.view === "tasks" && html`<${TasksView} />`}
      ${page.view === "zones" && html`<${Zones} zones=${zones} admin=${admin} act=${act} busy=${busy} show=${filter} />`}
      ${page.view === "callbacks" && html`<${mailbox.Mailbox} box=${page.box} found=${page.mail} act=${act} busy=${busy} />`}
      ${page.view === "activity" && html`<${ActivityView} activity=${activity} />`}
    </main>`;
}

route();
start().then(lookBack).catch(trouble);
status();
setInterval(() => { if (!document.hidden) { status(); showMail(); } }, STATUS);
setTimeout(tick, REFRESH);
