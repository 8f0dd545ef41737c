// How values look to people.

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

export const STATES = ["queued", "running", "cancelling", "succeeded", "failed", "cancelled", "lost"];
export const ENDS = new Set(["succeeded", "failed", "cancelled", "lost"]);

// Of an axis: hours and minutes, or seconds where they matter.
export const mark = (seconds, fine) => clock.format(new Date(seconds * 1000)).slice(0, fine ? 8 : 5);

export function time(text) {
  if (!text) return "–";
  const at = new Date(text);
  return at.toDateString() === new Date().toDateString() ? clock.format(at) : `${day.format(at)} ${clock.format(at)}`;
}

export function span(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  if (seconds > 0 && seconds < 0.001) return "< 1 ms";
  if (seconds < 0.0995) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} d`;
}

export const between = (from, to) => (Date.parse(to) - Date.parse(from)) / 1000;
export const ago = (text) => (text ? `${span(Math.max(0, (Date.now() - Date.parse(text)) / 1000))} ago` : "never");

export function amount(value, unit) {
  if (value == null) return "–";
  if (unit !== "bytes") return value.toLocaleString() + (unit ? ` ${unit}` : "");
  const names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let power = 0;
  while (value >= 1024 && power < names.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${power && value < 100 ? value.toFixed(1) : Math.round(value)} ${names[power]}`;
}

export const percent = (task) => (task.progress.percent == null ? null : Math.floor(task.progress.percent * 10) / 10);

// An event's kind without the prefix that all of them share.
export const kind = (type) => type.replace(/^task\./, "");
