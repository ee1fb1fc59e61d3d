// What is beside the line: programs, loaded models, prompts read anew, loads.

import { make, mark, say, show } from "./dom.js";
import { ago, bytes, count, known, percent, seconds } from "./words.js";

const MOST = 5; // programs that are shown by name

/** The programs of the last hour by their model time, the least of them put together. */
export function ranked(programs) {
  const all = [...(programs ?? [])].map((one) => ({ ...one, total: (one.model_s ?? 0) + (one.load_s ?? 0) }));
  all.sort((one, other) => other.total - one.total || one.client.localeCompare(other.client));
  if (all.length <= MOST + 1) return all;
  const rest = all.slice(MOST);
  const sum = (name) => rest.reduce((total, one) => total + (one[name] ?? 0), 0);
  const names = ["total", "model_s", "load_s", "jobs", "cold_prompts", "cached_tokens", "prompt_tokens"];
  return [...all.slice(0, MOST), { client: `${rest.length} others`, ...Object.fromEntries(names.map((name) => [name, sum(name)])) }];
}

/** Redraws its section when what it shows has changed. */
class Panel {
  #drawn = null;

  constructor(section, id, title, words) {
    this.section = section;
    this.sum = make("span", { class: "sum" }, words);
    this.body = make("div", {});
    section.append(make("div", { class: "head" }, make("h2", { id: `${id}-title` }, title), this.sum), this.body);
  }

  show(state, passed = 0) {
    const shown = this.pick(state, passed);
    const drawn = JSON.stringify(shown);
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    this.body.replaceChildren(...this.build(shown));
  }
}

/** Model time by program, as one stacked bar with its legend. */
export class Programs extends Panel {
  constructor(section) {
    super(section, "programs", "Model time", "last hour, by program");
  }

  pick(state) {
    return ranked(state.programs);
  }

  build(programs) {
    const total = programs.reduce((sum, one) => sum + one.total, 0);
    if (total === 0) return [make("p", { class: "quiet" }, "No model has worked in the last hour.")];
    const bar = make("div", { class: "stack", "aria-hidden": "true" });
    for (const [at, one] of programs.entries()) {
      const part = make("span", { class: "part", "data-at": at });
      part.style.flexGrow = String(one.total / total); // together 1: less would leave a gap
      bar.append(part);
    }
    const head = ["program", "time", "share", "jobs", "cached"].map((name) => make("th", { scope: "col" }, name));
    const rows = programs.map((one, at) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, make("span", { class: "swatch", "data-at": at, "aria-hidden": "true" }), make("span", { class: "client" }, one.client)),
        make("td", {}, seconds(one.total)),
        make("td", {}, percent(one.total / total)),
        make("td", {}, count(one.jobs)),
        make("td", {}, one.prompt_tokens > 0 && known(one.cached_tokens) ? percent(one.cached_tokens / one.prompt_tokens) : "–"),
      ),
    );
    return [
      bar,
      make(
        "table",
        { class: "legend" },
        make("caption", { class: "unseen" }, "Model time of the last hour by program; cached is the part of its prompts that was not read anew"),
        make("thead", {}, make("tr", {}, ...head)),
        make("tbody", {}, ...rows),
      ),
    ];
  }
}

/** The models that are in memory. */
export class Models extends Panel {
  constructor(section) {
    super(section, "models", "Loaded", "");
  }

  pick(state) {
    return state.models ?? [];
  }

  build(models) {
    if (models.length === 0) return [make("p", { class: "quiet" }, "No model is in memory.")];
    return [make("ul", { class: "models" }, ...models.map((model) => this.#model(model)))];
  }

  #model({ name, num_ctx: context, size_bytes: size, vram_bytes: video }) {
    const words = [known(context) && context > 0 && `${count(context)} tokens of context`, known(size) && bytes(size)].filter(Boolean);
    if (known(size) && known(video) && size > 0) {
      const share = video / size;
      words.push(share >= 0.995 ? "all of it on the GPU" : share <= 0.005 ? "none of it on the GPU" : `${percent(share)} of it on the GPU`);
    }
    return make("li", {}, make("strong", {}, name), make("span", { class: "quiet" }, words.join(" · ")));
  }
}

/** Prompts that the engine could not take from its cache. */
export class Cold extends Panel {
  constructor(section) {
    super(section, "cold", "Cold prompts", "read anew, not from the cache");
  }

  pick(state, passed) {
    const by = (state.programs ?? []).filter((one) => one.cold_prompts > 0);
    by.sort((one, other) => other.cold_prompts - one.cold_prompts);
    return {
      by: by.slice(0, MOST).map((one) => [one.client, one.cold_prompts]),
      last: (state.cold_prompts ?? []).slice(0, 6).map((one) => ({ ...one, seconds_ago: 10 * Math.round((one.seconds_ago + passed) / 10) })),
    };
  }

  build({ by, last }) {
    show(this.section, true);
    if (by.length === 0 && last.length === 0) return [make("p", { class: "quiet" }, "None in the last hour.")];
    const parts = [];
    if (by.length > 0) {
      parts.push(make("p", { class: "by" }, ...by.flatMap(([client, number], at) => [at ? " · " : null, `${client} `, make("strong", {}, count(number))])));
    }
    parts.push(make("ul", { class: "cold" }, ...last.map((one) => this.#prompt(one))));
    return parts;
  }

  #prompt(one) {
    const where = known(one.at_character) ? `changed its prompt at character ${count(one.at_character)}` : "had its prompt read anew";
    const cost = [known(one.tokens) && `${count(one.tokens)} tokens`, known(one.seconds) && seconds(one.seconds), ago(one.seconds_ago)].filter(Boolean);
    return make("li", {}, make("span", {}, make("strong", {}, one.client), ` ${where}`), make("span", { class: "quiet" }, cost.join(" · ")));
  }
}

const COUNTS = [
  ["loads", (state) => count(state.loads)],
  ["loads avoided", (state) => count(state.reloads_avoided), true],
  ["time loading", (state) => seconds(state.load_seconds, { whole: true })],
  ["jobs done", (state) => count(state.ended?.succeeded ?? 0)],
  ["refused", (state) => count(Object.values(state.rejected ?? {}).reduce((sum, one) => sum + one, 0))],
  ["kept free", (state) => seconds(state.held_seconds, { whole: true })],
];

/** What was counted since the service began. */
export class Counts {
  constructor(section) {
    this.values = COUNTS.map(() => make("dd", {}, "–"));
    const pairs = COUNTS.map(([name, , best], at) => {
      const pair = make("div", {}, make("dt", {}, name), this.values[at]);
      mark(pair, "data-best", best ? "true" : null);
      return pair;
    });
    section.append(
      make("div", { class: "head" }, make("h2", { id: "counts-title" }, "Loads"), make("span", { class: "sum" }, "since the start")),
      make("dl", { class: "figures small" }, ...pairs),
    );
  }

  show(state) {
    COUNTS.forEach(([, value], at) => say(this.values[at], value(state)));
  }
}
