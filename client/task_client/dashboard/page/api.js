// Requests to the daemon, by way of the bridge that served this page; paths are relative to the page.

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The daemon answered ${status}.`);
    this.status = status;
    this.code = problem.code || "";
    this.problem = problem;
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(`v1/${path}`, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { code: "unreachable", detail: "The dashboard does not answer: `taskctl dashboard` has ended." });
  }
  const body = answer.status === 204 ? null : await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, body || {});
  return body;
}

export const get = (path, signal) => ask(path, { signal });

export const post = (path, body = {}) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const query = (pairs) =>
  pairs.filter(([, value]) => value !== "" && value != null).map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");

// Everything that happens after `cursor`, without a gap: `onEvents` gets lists of events, `onLink` true or false as the
// daemon is reached or not, `onGap` the oldest cursor there is when ours is older than what the daemon keeps.
export function follow(cursor, { onEvents, onLink, onGap }) {
  const stop = new AbortController();
  const loop = async () => {
    let pause = 500;
    let wait = 25; // seconds; none after a failure, to know soon that the daemon is back
    while (!stop.signal.aborted) {
      try {
        const page = await get(`events?after=${cursor}&wait=${wait}&page_size=500`, stop.signal);
        onLink(true);
        [pause, wait] = [500, 25];
        if (page.cursor < cursor) {
          onGap(page.cursor); // another store than before
        } else if (page.events.length) {
          onEvents(page.events);
        }
        cursor = page.cursor;
      } catch (error) {
        if (stop.signal.aborted) return;
        if (error.code === "cursor-expired") {
          cursor = error.problem.oldest || 0;
          onGap(cursor);
          continue;
        }
        onLink(false, error);
        wait = 0;
        await new Promise((done) => setTimeout(done, pause));
        pause = Math.min(pause * 2, 5000);
      }
    }
  };
  loop();
  return () => stop.abort();
}
