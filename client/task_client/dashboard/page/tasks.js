// The tasks that the list shows: loaded page by page with the filters of the daemon, kept up to date by events.
import { get, query } from "./api.js";
import { ENDS, kind } from "./format.js";

const PAGE = 500;
const MOST = 10_000; // tasks held at once; filters reach the others
const ONE_BY_ONE = 8; // more unknown tasks than this are fetched with the first page
const LOOK_AGAIN = 2000; // milliseconds between two looks at a visible live task: what this costs follows what is seen, not what there is

const MOVES = { launching: "queued", running: "running", cancelling: "cancelling" };

export class Tasks {
  constructor(onChange, onError) {
    this.onChange = onChange;
    this.onError = onError;
    this.filters = { state: "", zone: "", action: "", label: "", text: "" };
    this.clear();
  }

  clear() {
    this.loading?.abort();
    this.byUid = new Map();
    this.rows = []; // newest first
    this.more = null; // token of the next page
    this.complete = false;
    this.cursor = 0;
    this.unknown = new Set();
    this.seen = new Map(); // uid → when it was last fetched
    this.shown = [];
    this.generation = (this.generation || 0) + 1;
  }

  asked() {
    const { state, zone, action, label } = this.filters;
    const pairs = [["zone", zone], ["action", action], ["label", label.replace("=", ":")]];
    if (state === "live" || state === "ended") pairs.push(["done", state === "ended"]);
    else pairs.push(["state", state]);
    return pairs;
  }

  matches(task) {
    const { state, zone, action, label } = this.filters;
    if (zone && task.zone !== zone) return false;
    if (action && task.action !== action) return false;
    if (state === "live" ? task.done : state === "ended" ? !task.done : state && task.state !== state) return false;
    if (!label) return true;
    const [name, ...value] = label.replace("=", ":").split(":");
    return task.labels?.[name] === value.join(":");
  }

  // Load the list anew: answers the cursor of its first page, from which events go on without a gap; null if it was
  // overtaken by another load. The further pages come in afterwards.
  async load() {
    this.clear();
    const mine = this.generation;
    this.loading = new AbortController();
    const cursor = await this.page(mine);
    if (cursor !== null) this.rest(mine);
    return cursor;
  }

  async rest(mine) {
    while (mine === this.generation && this.more && this.byUid.size < MOST) {
      if ((await this.page(mine)) === null) return;
    }
    if (mine !== this.generation) return;
    this.complete = true;
    this.onChange();
  }

  async page(mine) {
    try {
      const found = await get(`tasks?${query([...this.asked(), ["page_size", PAGE], ["page_token", this.more]])}`, this.loading.signal);
      if (mine !== this.generation) return null;
      if (!this.byUid.size) this.cursor = found.cursor;
      this.more = found.next_page_token;
      found.tasks.forEach((task) => this.keep(task));
      this.sort();
      this.onChange();
      return found.cursor;
    } catch (error) {
      if (error.name === "AbortError" || mine !== this.generation) return null;
      this.complete = true;
      this.onError(error);
      return null;
    }
  }

  keep(task) {
    const known = this.byUid.get(task.uid);
    if (known && known.revision > task.revision) return;
    this.seen.set(task.uid, performance.now());
    this.byUid.set(task.uid, task);
  }

  sort() {
    const text = this.filters.text.trim().toLowerCase();
    const found = [];
    for (const task of this.byUid.values()) {
      if (!this.matches(task)) this.byUid.delete(task.uid);
      else if (!text || task.id.toLowerCase().includes(text) || task.uid.startsWith(text) || String(task.region_task_id ?? "") === text) found.push(task);
    }
    found.sort((a, b) => (a.uid < b.uid ? 1 : -1));
    this.rows = found;
  }

  find(text) {
    this.filters.text = text;
    this.sort();
    this.onChange();
  }

  // Take in what has happened. Moves are applied as the event tells them; the rest of the task is fetched if it is looked at.
  apply(events) {
    for (const event of events) {
      if (event.seq <= this.cursor) continue;
      const task = this.byUid.get(event.uid);
      const name = kind(event.type);
      if (!task) {
        if (name !== "tidied") this.unknown.add(event.uid);
        continue;
      }
      if (ENDS.has(name)) {
        const progress = name === "succeeded" ? { ...task.progress, percent: 100 } : task.progress;
        this.byUid.set(event.uid, { ...task, state: name, done: true, cancellable: false, finished_at: event.time, progress });
      } else if (MOVES[name] && !task.done) {
        this.byUid.set(event.uid, { ...task, state: MOVES[name] });
      }
      this.seen.set(event.uid, 0);
    }
    this.sort();
    this.onChange();
  }

  // Called again and again while the page is visible.
  async refresh() {
    const mine = this.generation;
    try {
      await this.meet();
      const now = performance.now();
      const due = this.shown.filter((uid) => {
        const task = this.byUid.get(uid);
        const at = this.seen.get(uid) ?? 0;
        return task && (at === 0 || (!task.done && now - at > LOOK_AGAIN));
      });
      const found = await Promise.all(due.map((uid) => this.fetch(uid)));
      if (mine !== this.generation || !found.some(Boolean)) return;
      found.forEach((task) => task && this.keep(task));
      this.sort();
      this.onChange();
    } catch (error) {
      if (mine === this.generation) this.onError(error);
    }
  }

  async fetch(uid) {
    try {
      return await get(`tasks/${uid}`);
    } catch (error) {
      if (error.status !== 404 && error.status !== 410) throw error;
      this.byUid.delete(uid);
      return null;
    }
  }

  // Tasks that events told of and the list does not have: new ones, and those that match the filters only now.
  async meet() {
    if (!this.unknown.size || this.rows.length >= MOST) return;
    const [mine, uids] = [this.generation, [...this.unknown]];
    this.unknown.clear();
    let found;
    if (uids.length <= ONE_BY_ONE) {
      found = await Promise.all(uids.map((uid) => this.fetch(uid)));
    } else {
      found = (await get(`tasks?${query([...this.asked(), ["page_size", PAGE]])}`)).tasks;
    }
    if (mine !== this.generation) return;
    found.forEach((task) => task && this.matches(task) && this.keep(task));
    this.sort();
    this.onChange();
  }
}
