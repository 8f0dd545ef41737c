// The table of tasks. Only the rows in view are in the document; the rest is room above and below.
import { Component, createRef, html } from "./html.js";
import { percent, span, time } from "./format.js";

const ROW = 38; // pixels; style.css has the same
const BESIDE = 8; // rows kept beyond the view

export function State({ state }) {
  return html`<span class="state ${state}"><i aria-hidden="true"></i>${state}</span>`;
}

export function Bar({ task }) {
  const known = percent(task);
  if (known == null) return html`<span class="faint">${task.done ? "" : "not known yet"}</span>`;
  const stalled = task.flags.includes("stalled");
  return html`<span class="bar ${task.state} ${stalled ? "stalled" : ""}">
    <progress max="100" value=${known} aria-label="Progress of ${task.id}"></progress>
    <span class="figure">${known === 100 ? 100 : known.toFixed(1)} %</span>
  </span>`;
}

export function note(task) {
  if (task.error) return `${task.error.kind}: ${task.error.message}`;
  if (task.flags.includes("backend_unreachable") && !task.done) return "the zone does not answer";
  if (task.flags.includes("stalled") && !task.done) return "no progress for a long time";
  const eta = task.progress.eta_seconds;
  return !task.done && eta != null ? `${span(eta)} left` : task.progress.message || "";
}

export class List extends Component {
  constructor(props) {
    super(props);
    this.box = createRef();
    this.state = { top: 0, height: 600 };
    this.active = null; // uid of the row that the keyboard is at
    this.onScroll = () => this.setState({ top: this.box.current.scrollTop, height: this.box.current.clientHeight });
    this.onKeyDown = (event) => this.key(event);
  }

  componentDidMount() {
    this.observer = new ResizeObserver(this.onScroll);
    this.observer.observe(this.box.current);
    this.props.seen(this.visible());
  }

  componentWillUnmount() {
    this.observer.disconnect();
    this.props.seen([]);
  }

  // What the reader looks at stays where it is when tasks come in above it.
  getSnapshotBeforeUpdate(before) {
    const anchor = before.rows[Math.floor(this.box.current.scrollTop / ROW)];
    return anchor && this.box.current.scrollTop > ROW ? { uid: anchor.uid, index: before.rows.indexOf(anchor), rows: before.rows } : null;
  }

  componentDidUpdate(before, _, anchor) {
    if (anchor && anchor.rows !== this.props.rows) {
      const index = this.index(anchor.uid);
      if (index > anchor.index) this.box.current.scrollTop += (index - anchor.index) * ROW;
    }
    this.props.seen(this.visible());
    if (this.wanted) {
      const link = this.box.current.querySelector(`a[data-uid="${this.wanted}"]`);
      this.wanted = null;
      link?.focus({ preventScroll: true });
    }
  }

  index(uid) {
    return this.props.rows.findIndex((task) => task.uid === uid);
  }

  range() {
    const first = Math.max(0, Math.floor(this.state.top / ROW) - BESIDE);
    return [first, Math.min(this.props.rows.length, Math.ceil((this.state.top + this.state.height) / ROW) + BESIDE)];
  }

  visible() {
    const { top, height } = this.state;
    return this.props.rows.slice(Math.floor(top / ROW), Math.ceil((top + height) / ROW)).map((task) => task.uid);
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.state.height / ROW) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const rows = this.props.rows;
    const from = Math.max(0, this.index(this.active));
    this.goTo(Math.min(rows.length - 1, Math.max(0, from + steps[event.key])));
  }

  goTo(index) {
    const box = this.box.current;
    const task = this.props.rows[index];
    if (!task) return;
    this.active = this.wanted = task.uid;
    const head = box.querySelector("thead").offsetHeight;
    if (index * ROW < box.scrollTop) box.scrollTop = index * ROW;
    else if ((index + 1) * ROW + head > box.scrollTop + box.clientHeight) box.scrollTop = (index + 1) * ROW + head - box.clientHeight;
    this.onScroll();
  }

  // Rows in view and the one that has the focus, with the room between them.
  pieces() {
    const [first, last] = this.range();
    const shown = [];
    for (let index = first; index < last; index += 1) shown.push(index);
    const active = this.index(this.active);
    if (active < 0 && first > 0) shown.unshift(0);
    if (active >= 0 && active < first) shown.unshift(active);
    if (active >= last) shown.push(active);
    const pieces = [];
    let next = 0;
    for (const index of shown) {
      if (index > next) pieces.push(this.room(`before-${next}`, index - next));
      pieces.push(this.row(index, Math.max(active, 0)));
      next = index + 1;
    }
    if (next < this.props.rows.length) pieces.push(this.room("after", this.props.rows.length - next));
    return pieces;
  }

  room(key, rows) {
    return html`<tr key=${key} aria-hidden="true" class="room" style=${{ height: `${rows * ROW}px` }}><td></td></tr>`;
  }

  // `reached` is the index of the row that Tab leads to.
  row(index, reached) {
    const task = this.props.rows[index];
    const chosen = task.uid === this.props.chosen;
    return html`<tr key=${task.uid} aria-rowindex=${index + 2} class=${chosen ? "chosen" : ""} onClick=${() => this.props.open(task.uid)}>
      <th scope="row"><a href="#/tasks/${task.uid}" data-uid=${task.uid} tabindex=${index === reached ? 0 : -1} aria-current=${chosen ? "true" : undefined}
        onFocus=${() => { this.active = task.uid; }}>${task.id}</a></th>
      <td><${State} state=${task.state} /></td>
      <td class="bars"><${Bar} task=${task} /></td>
      <td class="wide deed">${task.action}</td>
      <td class="wide">${task.zone}</td>
      <td class="widest note" title=${note(task)}>${note(task)}</td>
      <td class="wide when"><time datetime=${task.created_at}>${time(task.created_at)}</time></td>
    </tr>`;
  }

  render({ rows, busy }) {
    return html`<div class="box" ref=${this.box} onScroll=${this.onScroll} onKeyDown=${this.onKeyDown} tabindex=${rows.length ? -1 : 0} role="region" aria-label="List of tasks">
      <table class="tasks" aria-rowcount=${rows.length + 1} aria-busy=${busy ? "true" : "false"}>
        <caption class="unseen">Tasks, newest first. Arrow keys move, Enter shows one.</caption>
        <thead><tr aria-rowindex="1">
          <th scope="col">Task</th><th scope="col" class="c-state">State</th><th scope="col" class="c-bar">Progress</th>
          <th scope="col" class="wide deed c-action">Action</th><th scope="col" class="wide c-zone">Zone</th>
          <th scope="col" class="widest">Note</th><th scope="col" class="wide c-when">Registered</th>
        </tr></thead>
        <tbody>${this.pieces()}</tbody>
      </table>
    </div>`;
  }
}
