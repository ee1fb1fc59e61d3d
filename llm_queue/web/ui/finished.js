// The jobs that have ended, the last one first.

import { make, mark, Rows, say, show } from "./dom.js";
import { Explanation } from "./job.js";
import { count, known, seconds } from "./words.js";

const WORDS = { succeeded: "done", timed_out: "timed out" };
const FEW = 6;
const MOST = 20;

class Ended {
  constructor(job) {
    this.inside = new Explanation(job, null);
    const good = job.state === "succeeded";
    const tokens = known(job.completion_tokens) ? `${count(job.completion_tokens)} tokens` : "";
    this.element = make(
      "li",
      {},
      make(
        "details",
        { on: { toggle: (event) => this.inside.opened(event.target.open) } },
        make(
          "summary",
          {},
          make("span", { class: "outcome", "data-good": String(good) }, WORDS[job.state] ?? job.state),
          make(
            "span",
            { class: "asks" },
            make("span", { class: "client" }, job.client),
            make("span", { class: "model" }, job.model),
          ),
          make("span", { class: "waited" }, `waited ${seconds(job.wait_s)}`),
          make("span", { class: "ran" }, job.run_s > 0 ? `ran ${seconds(job.run_s)}` : "did not run"),
          make("span", { class: "tokens" }, tokens),
        ),
        this.inside.element,
      ),
    );
  }

  update() {} // what has ended stays as it is
}

/** The panel of the jobs that have ended. */
export class Finished {
  #rows;
  #all = false;
  #last = null;

  constructor(section) {
    this.none = make("p", { class: "quiet" }, "Nothing has ended yet.");
    this.list = make("ol", { class: "rows ended" });
    this.toggle = make("button", { type: "button", class: "wide", on: { click: () => this.#flip() } });
    section.append(
      make(
        "div",
        { class: "head" },
        make("h2", { id: "finished-title" }, "Finished"),
        make("span", { class: "sum" }, "open one to see why it took so long"),
      ),
      this.none,
      this.list,
      this.toggle,
    );
    this.#rows = new Rows(this.list, (job) => new Ended(job));
  }

  #flip() {
    this.#all = !this.#all;
    this.show(this.#last);
  }

  show(state) {
    this.#last = state;
    const listed = (state.finished ?? []).slice(0, MOST);
    const finished = listed.slice(0, this.#all ? MOST : FEW);
    show(this.toggle, listed.length > FEW);
    say(this.toggle, this.#all ? `Show the last ${FEW}` : `Show the last ${listed.length}`);
    mark(this.toggle, "aria-expanded", String(this.#all));
    show(this.none, finished.length === 0);
    show(this.list, finished.length > 0);
    this.#rows.show(finished, (job) => job.job);
  }
}
