// Who has the slot, who is next, and the turn of the loaded models.

import { make, mark, say, show } from "./dom.js";
import { count, figure, known, lanesOf, listed, range, seconds, startOf } from "./words.js";

const FACTS = [
  ["tokens", (job) => count(job.tokens)],
  ["tokens/s", (job) => (known(job.tokens_per_s) ? job.tokens_per_s.toFixed(1) : "–")],
  ["running", (job, passed) => (known(job.running_s) ? figure(job.running_s + passed, { whole: true }) : "–")],
  ["first token", (job) => figure(job.first_token_s)],
];

/** The job that has the slot, or null. */
export function runningJob(state) {
  const id = state.slot?.job;
  if (id === undefined || id === null) return null;
  const found = (state.jobs ?? []).find((job) => job.job === id);
  return found ?? { job: id, client: state.slot.client, state: state.slot.phase };
}

/** The jobs that wait, those that are listed. */
export function waitingJobs(state) {
  return (state.jobs ?? []).filter((job) => job.job !== state.slot?.job);
}

/** How many wait, those that are not listed too. */
export function waitingCount(state) {
  const counted = Object.values(state.waiting ?? {}).reduce((sum, number) => sum + number, 0);
  return Math.max(counted, waitingJobs(state).length);
}

/** The panel of the job that runs. `commands.cancel(job)` is asked for. */
export class Now {
  #job = null;
  #section;

  constructor(section, commands) {
    this.#section = section;
    this.title = make("h2", { id: "now-title", class: "label" }, "Now");
    this.client = make("p", { class: "who" });
    this.what = make("p", { class: "what" });
    this.lane = make("span", { class: "lane" });
    this.facts = FACTS.map(([name]) => make("dd", {}, "–"));
    this.figures = make(
      "dl",
      { class: "figures" },
      ...FACTS.map(([name], at) => make("div", {}, make("dt", {}, name), this.facts[at])),
    );
    this.why = make("p", { class: "why" });
    this.cancel = make("button", { type: "button", on: { click: () => commands.cancel(this.#job) } }, "Cancel");
    section.append(
      make("div", { class: "head" }, this.title, this.lane, this.cancel),
      this.client,
      this.what,
      this.figures,
      this.why,
    );
  }

  /** Show the state; `passed` seconds went by since it came. */
  show(state, passed) {
    const job = runningJob(state);
    this.#job = job;
    const loading = state.slot?.phase === "loading";
    mark(this.#section, "data-state", job === null ? "free" : loading ? "loading" : "running");
    show(this.cancel, job !== null);
    show(this.lane, job?.lane !== undefined && job !== null);
    show(this.figures, job !== null && !loading);
    show(this.why, job !== null);
    if (job === null) {
      this.#showFree(state, passed);
      return;
    }
    say(this.title, loading ? "Loads a model for" : "Runs now");
    say(this.client, job.client);
    say(this.lane, job.lane ?? "");
    mark(this.lane, "data-lane", job.lane ?? "");
    mark(this.cancel, "aria-label", `Cancel what runs, of ${job.client}`);
    say(this.what, modelOf(job));
    if (!loading) FACTS.forEach(([, value], at) => say(this.facts[at], value(job, passed)));
  }

  #showFree(state, passed) {
    say(this.title, "Now");
    const hold = holdOf(state);
    if (state.paused) {
      say(this.client, "Paused");
      say(this.what, "Nothing starts until the line is resumed.");
    } else if (state.upstream?.away) {
      say(this.client, "Out of reach");
      say(this.what, "What is behind the line does not answer. Jobs wait for it.");
    } else if (hold !== null) {
      say(this.client, `Kept for ${hold.client}`);
      const until = known(hold.until_in_s) ? `, for ${seconds(hold.until_in_s - passed)} at most` : "";
      say(this.what, `It is about to ask ${hold.model ? `${hold.model} ` : ""}again, and its model is loaded${until}.`);
    } else if (waitingCount(state) > 0) {
      say(this.client, "In a moment");
      const busy = state.bypass ? "The engine may be busy with what comes past the line. " : "";
      say(this.what, `${busy}Who is next starts as soon as the engine takes it.`);
    } else if (state.draining) {
      say(this.client, "Nothing");
      say(this.what, "All is done, and nothing new is taken. The service ends.");
    } else {
      say(this.client, "Free");
      say(this.what, "Whoever asks now starts at once.");
    }
  }
}

function holdOf(state) {
  return state.hold ?? (state.held ? { client: state.held_for ?? "a program" } : null);
}

/** `granite4.1:8b, 8,192 tokens of context`. */
export function modelOf(job) {
  if (!job.model) return "";
  return known(job.num_ctx) && job.num_ctx > 0 ? `${job.model}, ${count(job.num_ctx)} tokens of context` : job.model;
}

/** By which of the line's first rules the first of those who wait is next, as far as the state shows it; or "". */
export function becauseOf(state) {
  const [first, ...others] = waitingJobs(state);
  const waiting = state.waiting ?? {};
  const lanes = lanesOf(waiting);
  const at = lanes.indexOf(first.lane);
  if (others.length === 0) return "Nobody else waits.";
  if (lanes.slice(0, at).some((lane) => waiting[lane] > 0)) return ""; // a rule that is not seen from here
  const lower = lanes.slice(at + 1).filter((lane) => waiting[lane] > 0);
  const beside = others.filter((job) => job.lane === first.lane);
  const loaded = first.resident && beside.some((job) => job.resident === false);
  const over = known(state.turn?.used_s) && state.turn.used_s >= state.turn.length_s;
  const changes = over && first.resident === false && beside.some((job) => job.resident);
  const reasons = [
    lower.length > 0 && `${first.lane} goes before ${listed(lower)}`,
    loaded && "its model is loaded already",
    changes && "the turn of what is loaded is over",
  ].filter(Boolean);
  const text = reasons.join(", and ");
  return text && `${text[0].toUpperCase()}${text.slice(1)}.`;
}

/** The panel of the job that is next. */
export class Next {
  constructor(section) {
    this.client = make("p", { class: "who" });
    this.what = make("p", { class: "what" });
    this.lane = make("span", { class: "lane" });
    this.because = make("p", { class: "because" });
    this.why = make("p", { class: "why" });
    this.start = make("p", { class: "start" });
    section.append(
      make("div", { class: "head" }, make("h2", { id: "next-title", class: "label" }, "Next"), this.lane, this.start),
      this.client,
      this.what,
      this.because,
      this.why,
    );
    this.section = section;
  }

  show(state, passed) {
    const job = waitingJobs(state)[0] ?? null;
    mark(this.section, "data-state", job === null ? "free" : "waiting");
    const because = job === null ? "" : becauseOf(state);
    say(this.because, because);
    show(this.because, because !== "");
    show(this.lane, job !== null);
    show(this.start, job !== null);
    show(this.why, job !== null);
    if (job === null) {
      say(this.client, "Nobody");
      say(this.what, "No job waits.");
      return;
    }
    const [low, high] = startOf(job).map((value) => (known(value) ? value - passed : null));
    say(this.client, job.client);
    say(this.lane, job.lane);
    mark(this.lane, "data-lane", job.lane);
    say(this.what, job.resident === false ? `${modelOf(job)}, to be loaded first` : modelOf(job));
    say(this.start, range(low, high));
  }
}

/** The turn as a bar that empties. */
export class Turn {
  #words = make("p", { class: "words" });
  #bar = make("div", { class: "fill" });
  #section;

  constructor(section) {
    this.#section = section;
    this.track = make("div", { class: "bar", "aria-hidden": "true" }, this.#bar);
    section.append(make("h2", { id: "turn-title", class: "label" }, "Turn"), this.track, this.#words);
  }

  show(state, passed) {
    const turn = state.turn;
    const there = known(turn?.used_s) && known(turn?.length_s) && turn.length_s > 0;
    show(this.#section, there);
    if (!there) return;
    const nothing = state.models?.length === 0;
    const running = state.slot?.phase === "running";
    const left = nothing ? 0 : Math.max(0, turn.length_s - turn.used_s - (running ? passed : 0));
    this.#bar.style.transform = `scaleX(${(left / turn.length_s).toFixed(4)})`;
    say(this.#words, nothing ? "Begins when a model is loaded" : turnWords(state, left));
  }
}

function turnWords(state, left) {
  if (left > 0) {
    const [rest, length] = [left, state.turn.length_s].map((value) => seconds(Math.ceil(value), { whole: true }));
    const loaded = listed((state.models ?? []).map((model) => model.name));
    return `${rest} of ${length} left of ${loaded || "what is loaded"}`;
  }
  const another = waitingJobs(state).some((job) => job.resident === false);
  return another ? "Over: the model that has waited longest is next" : "Used up: it goes on until somebody wants another model";
}
