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

const SILENCE = 40_000; // milliseconds without a heartbeat after which a stream counts as broken
const LONGEST_PAUSE = 5000;

// Everything that happens after `cursor`, without a gap: `onEvents` gets lists of events, `onLink` true or false as the
// daemon is reached or not, `onGap` is called when the daemon does not keep what came next after our cursor.
export async function follow(cursor, { onEvents, onLink, onGap }) {
  let pause = 500;
  for (;;) {
    try {
      for await (const events of stream(cursor, () => onLink(true))) {
        pause = 500;
        cursor = events.at(-1).seq;
        onEvents(events);
      }
      throw new Refused(0, { code: "ended", detail: "The daemon has ended the stream: it is stopping." });
    } catch (error) {
      if (error.code === "cursor-expired") {
        cursor = error.problem.oldest || 0;
        onGap();
        continue;
      }
      onLink(false, error);
      await new Promise((done) => setTimeout(done, pause));
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    }
  }
}

// Lists of the events that one stream brings, until it ends. Read by hand: an EventSource hides why it was refused.
async function* stream(cursor, onOpen) {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE);
  try {
    const answer = await fetch(`v1/events?after=${cursor}`, { headers: { Accept: "text/event-stream" }, cache: "no-store", signal: silence.signal });
    if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
    onOpen();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      const data = blocks.flatMap((block) => block.split("\n")).filter((line) => line.startsWith("data: "));
      if (data.length) yield data.map((line) => JSON.parse(line.slice(6)));
    }
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused(0, { code: "unreachable", detail: "The stream of events broke." });
  } finally {
    clearTimeout(timer);
  }
}
