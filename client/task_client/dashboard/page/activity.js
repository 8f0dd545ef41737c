// Charts: how much is registered and ends, and how quickly the zones answer.
import { Component, createRef, html } from "./html.js";
import { ENDS, kind, mark, span } from "./format.js";

const MINUTES = 60;
const SAMPLES = 360;
const ZONES = 6; // lines in the chart of latencies

// Counts of the last hour by minute, and samples of latencies since the page was opened.
export class Activity {
  constructor() {
    this.minutes = new Map(); // minute → [registered, succeeded, ended otherwise]
    this.samples = []; // [seconds, {zone: latency}]
    this.version = 0;
  }

  count(events) {
    for (const event of events) {
      const minute = Math.floor(Date.parse(event.time) / 60_000);
      const name = kind(event.type);
      const column = name === "registered" ? 0 : name === "succeeded" ? 1 : ENDS.has(name) ? 2 : -1;
      if (column < 0) continue;
      if (!this.minutes.has(minute)) this.minutes.set(minute, [0, 0, 0]);
      this.minutes.get(minute)[column] += 1;
    }
    this.version += 1;
  }

  sample(zones) {
    this.samples.push([Date.now() / 1000, Object.fromEntries(zones.map((zone) => [zone.zone, zone.failures ? null : zone.latency_seconds]))]);
    if (this.samples.length > SAMPLES) this.samples.shift();
    this.version += 1;
  }

  counts() {
    const now = Math.floor(Date.now() / 60_000);
    const minutes = Array.from({ length: MINUTES }, (_, index) => now - MINUTES + 1 + index);
    for (const minute of this.minutes.keys()) if (minute < minutes[0]) this.minutes.delete(minute);
    return [minutes.map((minute) => minute * 60), ...[0, 1, 2].map((column) => minutes.map((minute) => this.minutes.get(minute)?.[column] ?? 0))];
  }

  latencies() {
    const latest = this.samples.at(-1)?.[1] ?? {};
    const zones = Object.keys(latest).filter((zone) => latest[zone] != null).sort((a, b) => (latest[b] ?? 0) - (latest[a] ?? 0)).slice(0, ZONES);
    return { zones, data: [this.samples.map(([at]) => at), ...zones.map((zone) => this.samples.map(([, of]) => (of[zone] == null ? null : of[zone] * 1000)))] };
  }

  // Registered, succeeded and otherwise ended in the last hour.
  sums() {
    return this.counts().slice(1).map((column) => column.reduce((sum, value) => sum + value, 0));
  }
}

const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

class Chart extends Component {
  constructor(props) {
    super(props);
    this.place = createRef();
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.redraw = () => this.draw();
  }

  componentDidMount() {
    this.draw();
    this.dark.addEventListener("change", this.redraw);
    this.observer = new ResizeObserver(() => this.plot?.setSize(this.size()));
    this.observer.observe(this.place.current);
  }

  componentWillUnmount() {
    this.dark.removeEventListener("change", this.redraw);
    this.observer.disconnect();
    this.plot.destroy();
  }

  componentDidUpdate(before) {
    if (before.lines.map((line) => line.label).join() !== this.props.lines.map((line) => line.label).join()) this.draw();
    else if (before.version !== this.props.version) this.plot.setData(this.props.data);
  }

  size() {
    return { width: Math.max(200, this.place.current.clientWidth), height: 200 };
  }

  draw() {
    this.plot?.destroy();
    const axis = { stroke: ink("--faint"), grid: { stroke: ink("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const stepped = this.props.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined;
    const series = this.props.lines.map(({ label, color, fill }) => ({
      label, stroke: ink(color), fill: fill && ink(fill), width: 1.75, paths: stepped, points: { show: false }, spanGaps: true,
    }));
    const values = (_, ticks) => ticks.map((value) => (Number.isInteger(value) || !this.props.stepped ? value : ""));
    const scale = { range: (_, low, high) => [0, Math.max(this.props.least, (high || 0) * 1.1)] };
    this.plot = new uPlot(
      { ...this.size(), series: [{}, ...series], axes: [{ ...axis, values: (_, ticks, __, ___, step) => ticks.map((tick) => mark(tick, step < 60)) }, { ...axis, size: 48, values }], scales: { y: scale }, legend: { show: false }, cursor: { y: false } },
      this.props.data, this.place.current,
    );
  }

  // Nothing of what uPlot has put into it is touched.
  render({ label }) {
    return html`<div class="plot" ref=${this.place} role="img" aria-label=${label}></div>`;
  }
}

const COLORS = ["--blue", "--amber", "--green", "--red", "--violet", "--faint"];

const Key = ({ lines }) => html`<ul class="key">${lines.map(({ label, color }) => html`<li key=${label}><i class=${color.slice(2)} aria-hidden="true"></i>${label}</li>`)}</ul>`;

export function ActivityView({ activity }) {
  const counts = activity.counts();
  const [registered, succeeded, otherwise] = activity.sums();
  const { zones, data } = activity.latencies();
  const flow = [{ label: "registered", color: "--blue" }, { label: "succeeded", color: "--green", fill: "--green-fill" }, { label: "failed, lost or cancelled", color: "--red" }];
  const latencies = zones.map((zone, index) => ({ label: zone, color: COLORS[index] }));
  const latest = activity.samples.at(-1)?.[1] ?? {};
  return html`<section class="sheet" tabindex="0" aria-labelledby="h-activity"><h2 id="h-activity">Activity</h2>
    <div class="charts">
      <figure><figcaption><h3>Tasks a minute, last hour</h3><${Key} lines=${flow} /></figcaption>
        <${Chart} lines=${flow} data=${counts} version=${activity.version} stepped least=${4} label="Tasks a minute in the last hour: ${registered} registered, ${succeeded} succeeded, ${otherwise} ended otherwise." />
        <p class="faint">${registered} registered, ${succeeded} succeeded, ${otherwise} failed, lost or cancelled.</p></figure>
      <figure><figcaption><h3>Milliseconds a poll takes</h3><${Key} lines=${latencies} /></figcaption>
        <${Chart} lines=${latencies} data=${data} version=${activity.version} least=${1} label="Latency of the zones since this page was opened." />
        <p class="faint">${zones.length === 0 ? "No zone has answered yet." : `Now: ${zones.map((zone) => `${zone} ${span(latest[zone])}`).join(", ")}.`}</p></figure>
    </div>
  </section>`;
}
