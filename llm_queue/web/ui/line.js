// The line: who waits, in the order in which they are expected to run, each with the range in which it starts.

import { make, mark, Rows, say, show } from "./dom.js";
import { Explanation } from "./job.js";
import { waitingCount, waitingJobs } from "./now.js";
import { count, jobs as jobsIn, known, lanesOf, range, seconds, startOf } from "./words.js";

const FEW = 12; // rows at first: who is next, and after that
const MOST = 50; // rows: more tell nobody anything, and a browser draws them for nothing

class Waiting {
  constructor(job, commands) {
    this.place = make("span", { class: "place" });
    this.client = make("span", { class: "client" });
    this.lane = make("span", { class: "lane" });
    this.model = make("span", { class: "model" });
    this.span = make("span", { class: "span" });
    this.start = make("span", { class: "when" });
    this.waited = make("span", { class: "waited" });
    this.inside = new Explanation(job, commands);
    this.element = make(
      "li",
      {},
      make(
        "details",
        { on: { toggle: (event) => this.inside.opened(event.target.open) } },
        make(
          "summary",
          {},
          this.place,
          make("span", { class: "asks" }, this.client, this.model),
          this.lane,
          make("span", { class: "starts" }, this.start, make("span", { class: "track", "aria-hidden": "true" }, this.span)),
          this.waited,
        ),
        this.inside.element,
      ),
    );
  }

  update({ job, place, passed, scale }) {
    say(this.place, place);
    say(this.client, job.client);
    say(this.lane, job.lane);
    mark(this.lane, "data-lane", job.lane);
    say(this.model, job.resident === false ? `${job.model} + load` : job.model);
    say(this.waited, `waited ${seconds(job.wait_s + passed, { whole: true })}`);
    const [low, high] = startOf(job).map((value) => (known(value) ? Math.max(0, value - passed) : null));
    say(this.start, range(low, high));
    show(this.span, known(low) || known(high));
    const [from, to] = [low ?? high ?? 0, high ?? low ?? 0];
    this.span.style.left = `${((100 * from) / scale).toFixed(1)}%`;
    this.span.style.width = `${((100 * (to - from)) / scale).toFixed(1)}%`;
    this.inside.update(job);
  }
}

/** The panel of the line. */
export class Line {
  #rows;
  #all = false;
  #last = null;

  constructor(section, commands) {
    this.count = make("span", { class: "sum" });
    this.lanes = make("p", { class: "quiet" });
    this.list = make("ol", { class: "rows waiting" });
    this.more = make("p", { class: "quiet more" });
    this.toggle = make("button", { type: "button", class: "wide", on: { click: () => this.#flip() } });
    this.beside = make("p", { class: "quiet more" });
    section.append(
      make("div", { class: "head" }, make("h2", { id: "line-title" }, "The line"), this.count),
      this.lanes,
      this.list,
      this.toggle,
      this.more,
      this.beside,
    );
    this.#rows = new Rows(this.list, ({ job }) => new Waiting(job, commands));
  }

  #flip() {
    this.#all = !this.#all;
    this.show(...this.#last);
  }

  show(state, passed) {
    this.#last = [state, passed];
    const listed = waitingJobs(state).slice(0, MOST);
    const shown = listed.slice(0, this.#all ? MOST : FEW);
    const waiting = state.waiting ?? {};
    const total = waitingCount(state);
    say(this.count, total === 0 ? "Nobody waits" : `${jobsIn(total)} ${total === 1 ? "waits" : "wait"}`);
    const parts = lanesOf(waiting).filter((lane) => waiting[lane] > 0);
    say(this.lanes, parts.map((lane) => `${count(waiting[lane])} ${lane}`).join(" · "));
    show(this.lanes, parts.length > 0);
    const ends = shown.flatMap((job) => startOf(job).filter(known));
    const scale = Math.max(1, ...ends.map((end) => end - passed));
    this.#rows.show(
      shown.map((job, at) => ({ job, place: at + 1, passed, scale })),
      ({ job }) => job.job,
    );
    show(this.list, shown.length > 0);
    show(this.toggle, listed.length > FEW);
    say(this.toggle, this.#all ? `Show the first ${FEW}` : `Show the first ${count(listed.length)}`);
    mark(this.toggle, "aria-expanded", String(this.#all));
    const behind = total - listed.length;
    show(this.more, behind > 0);
    say(this.more, `${count(behind)} more ${behind === 1 ? "waits" : "wait"} behind these ${count(listed.length)}.`);
    const elsewhere = state.remote?.running ?? 0;
    show(this.beside, elsewhere > 0);
    say(this.beside, `${jobsIn(elsewhere)} ${elsewhere === 1 ? "runs" : "run"} elsewhere, beside this line.`);
  }
}
