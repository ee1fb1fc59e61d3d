// One job, opened: why it waits or waited, what went before it, and what can be done with it.

import { make, mark, say, show } from "./dom.js";
import { jobReport, Refused } from "./service.js";
import { count, known, percent, seconds } from "./words.js";

const AGAIN = 3_000; // milliseconds until an open job that waits is explained anew
const CHOICES = ["interactive", "normal", "background"];

/** Why a job went before another one: the rules of the line, in a few words each. */
const RULES = {
  had_slot: "had the slot",
  only_one: "nobody else waited",
  bound: "its model was loaded for it",
  shares_load: "shares the load",
  lane_burst: "its lane was passed over long enough",
  higher_lane: "higher lane",
  turn_goes_on: "its model's turn",
  turn_over: "its model had waited longest",
  new_model: "new model",
  strand_first: "its prompt is cached",
  guest: "asks seldom",
  fair_share: "less of the slot so far",
  first_come: "came first",
};

/** The costs of a pick, in words. */
function costs(pick) {
  return [
    known(pick.load_s) && `load ${seconds(pick.load_s)}`,
    known(pick.cold_prompt_s) && `cold prompt ${seconds(pick.cold_prompt_s)}`,
    known(pick.hold_s) && `kept free ${seconds(pick.hold_s)}`,
  ].filter(Boolean);
}

function pickRow(pick, id) {
  const paid = costs(pick);
  const rule = String(pick.rule ?? "");
  return make(
    "li",
    {},
    make("strong", {}, pick.job === id ? "This job" : (pick.client ?? "?")),
    pick.model ? ` · ${pick.model}` : null,
    rule ? make("span", { class: "rule" }, RULES[rule] ?? rule.replaceAll("_", " ")) : null,
    paid.length ? make("span", { class: "quiet" }, ` ${paid.join(", ")}`) : null,
  );
}

function factsOf(report) {
  const cached = report.cached_tokens ?? report.prompt_cached_tokens;
  return [
    ["waited", seconds(report.wait_s)],
    report.load_s > 0 && ["loaded", seconds(report.load_s)],
    report.run_s > 0 && ["ran", seconds(report.run_s)],
    known(report.prompt_tokens) && ["prompt", `${count(report.prompt_tokens)} tokens`],
    known(cached) && known(report.prompt_tokens) && report.prompt_tokens > 0
      && ["of it cached", percent(cached / report.prompt_tokens)],
    known(report.prompt_s) && ["reading it", seconds(report.prompt_s)],
    known(report.completion_tokens) && ["answer", `${count(report.completion_tokens)} tokens`],
    known(report.num_ctx) && ["context", `${count(report.num_ctx)} tokens`],
    report.attempts > 1 && ["attempts", count(report.attempts)],
    report.label && ["what", report.label],
    report.job && ["job", report.job],
  ].filter(Boolean);
}

/** What is inside an opened row. It asks when it is opened, and again while the job waits. */
export class Explanation {
  #id;
  #timer = null;
  #open = false;
  #text = null;

  /** `commands` is null for a job that has ended. */
  constructor(job, commands) {
    this.#id = job.job;
    this.told = make("div", {});
    this.problem = make("p", { class: "problem" });
    this.sentences = make("div", { class: "sentences", role: "status" }, this.told, this.problem);
    this.bound = make("p", { class: "quiet" });
    this.picks = make("ol", { class: "picks" });
    this.before = make("div", {}, make("p", { class: "label" }, "What had the slot"), this.picks);
    this.facts = make("dl", { class: "facts" });
    this.element = make("div", { class: "inside" }, this.sentences, this.bound, this.before, this.facts);
    for (const part of [this.problem, this.before, this.bound]) show(part, false);
    if (commands !== null) this.element.append(this.#commands(job, commands));
  }

  #commands(job, commands) {
    this.lanes = CHOICES.map((lane) =>
      make("button", { type: "button", on: { click: () => commands.move(job, lane) } }, lane),
    );
    return make(
      "div",
      { class: "commands" },
      make("div", { class: "choice", role: "group", "aria-label": `Lane of ${job.client}` }, ...this.lanes),
      make(
        "button",
        { type: "button", class: "danger", on: { click: () => commands.cancel(job) } },
        make("span", {}, "Cancel"),
        make("span", { class: "unseen" }, ` the job of ${job.client}`),
      ),
    );
  }

  /** The lane that it is in. */
  update(job) {
    this.lanes?.forEach((button, at) => mark(button, "aria-pressed", String(CHOICES[at] === job.lane)));
  }

  /** The row was opened, or closed. */
  opened(open) {
    this.#open = open;
    clearTimeout(this.#timer);
    if (open) this.#ask();
  }

  async #ask() {
    let ended = false;
    try {
      const report = await jobReport(this.#id);
      ended = !["queued", "running", "loading"].includes(report.state);
      this.#show(report);
    } catch (error) {
      this.#tell([error instanceof Refused ? error.message : "That cannot be shown."]);
    }
    if (this.#open && !ended && this.element.isConnected) this.#timer = setTimeout(() => this.#ask(), AGAIN);
  }

  #show(report) {
    const explanation = report.explanation ?? {};
    const told = explanation.sentences ?? [];
    this.#tell(told.length ? told : ["Nothing more is known of it."]);
    show(this.problem, Boolean(report.error));
    say(this.problem, report.error ?? "");
    show(this.bound, Boolean(explanation.bound));
    say(this.bound, explanation.bound ?? "");
    const picks = explanation.picks ?? [];
    show(this.before, picks.length > 0);
    this.picks.replaceChildren(...picks.map((pick) => pickRow(pick, this.#id)));
    this.facts.replaceChildren(
      ...factsOf(report).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
    );
  }

  #tell(sentences) {
    const text = sentences.join("\n");
    if (this.#text === text) return; // nothing is read out twice
    this.#text = text;
    this.told.replaceChildren(...sentences.map((sentence) => make("p", {}, sentence)));
  }
}
