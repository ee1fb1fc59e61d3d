// The service behind this page: questions, commands, and the stream of what changes.

const KEY = "llm-queue key";
const QUIET = 40_000; // milliseconds; the service says something each 15 s
const SHORTEST = 500; // milliseconds between two tries to connect, at first
const LONGEST = 15_000;
const HIDDEN = 5_000; // milliseconds after which a page that nobody sees lets its connection go: a browser has six

/** An answer that says no. `status` is 0 if there was none. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The key of this tab, forgotten with it. */
export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

function headers(extra = {}) {
  const secret = key.get();
  return secret === null ? extra : { ...extra, Authorization: `Bearer ${secret}` };
}

async function checked(response) {
  if (response.ok) return response;
  let message = `The service answered ${response.status}.`;
  try {
    const body = await response.json();
    message = body.error?.message ?? (typeof body.error === "string" ? body.error : message);
  } catch {
    // No JSON: something between us and the service has answered.
  }
  throw new Refused(response.status, message);
}

async function asked(path, options) {
  try {
    return await fetch(path, { cache: "no-store", redirect: "error", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The service cannot be reached.");
  }
}

/** What the service knows of one job, with an explanation. Throws `Refused`. */
export async function jobReport(id) {
  const response = await asked(`/queue/jobs/${encodeURIComponent(id)}`, { headers: headers() });
  return (await checked(response)).json();
}

/** Have a command carried out; gives its answer. Throws `Refused`. */
export async function command(path, body = {}) {
  const json = headers({ "Content-Type": "application/json" });
  const response = await asked(path, { method: "POST", headers: json, body: JSON.stringify(body) });
  return (await checked(response)).json();
}

/** The path of a job's command. */
export function jobPath(id, name) {
  return `/queue/jobs/${encodeURIComponent(id)}/${name}`;
}

/** Reads server-sent events out of pieces of text. */
export class EventReader {
  #rest = "";
  #data = [];
  #name = "";
  lastId = null;
  comments = 0; // lines that say nothing but that somebody is there

  /** The events that this piece completes, as `{name, data}`. */
  *read(piece) {
    const lines = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) yield { name: this.#name || "message", data: this.#data.join("\n") };
        this.#data = [];
        this.#name = "";
        continue;
      }
      const [, field, value] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line);
      if (field === "data") this.#data.push(value);
      else if (field === "event") this.#name = value;
      else if (field === "id") this.lastId = value;
      else if (field === "") this.comments += 1;
    }
  }
}

/**
 * Follow the line for as long as the page lives. `told` has `state(json)`, `live()` (the last state is that of now),
 * `lost(message, since, next, tries)`, `locked(message)` and `asleep()`. Gives `{wake}`, which tries at once.
 */
export function follow(told) {
  const reader = { lastId: null };
  let wake = () => {};
  let failures = 0;
  let since = null;
  let controller = null;
  let hidden = null;

  async function listen() {
    controller = new AbortController();
    const { signal } = controller;
    let quiet = setTimeout(() => controller.abort(), QUIET);
    try {
      const extra = { Accept: "text/event-stream" };
      if (reader.lastId !== null) extra["Last-Event-ID"] = reader.lastId;
      const response = await checked(await asked("/queue/events", { headers: headers(extra), signal }));
      const events = new EventReader();
      const pieces = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await pieces.read();
        if (done) return;
        clearTimeout(quiet);
        quiet = setTimeout(() => controller.abort(), QUIET);
        let state = null; // of several that came together, the last
        for (const event of events.read(value)) {
          if (event.name === "snapshot" || event.name === "change") state = event.data;
        }
        const unchanged = reader.lastId !== null && events.comments > 0; // no snapshot comes of what we know already
        if (state === null && !unchanged) continue;
        [failures, since] = [0, null];
        if (state === null) {
          told.live();
        } else {
          told.state(JSON.parse(state));
          reader.lastId = events.lastId;
        }
      }
    } finally {
      clearTimeout(quiet);
      controller.abort();
    }
  }

  /** Wait this many milliseconds, or until somebody wants it now. */
  function pause(milliseconds) {
    return new Promise((resolve) => {
      const timer = milliseconds === null ? null : setTimeout(resolve, milliseconds);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async function run() {
    for (;;) {
      let problem = new Refused(0, "The service has ended the connection.");
      try {
        await listen();
      } catch (error) {
        problem = error;
      }
      if (document.hidden) {
        told.asleep();
        await pause(null);
        continue;
      }
      if (problem.status === 401) {
        told.locked(key.get() === null ? null : problem.message);
        await pause(null);
        continue;
      }
      since ??= new Date();
      const longest = Math.min(LONGEST, SHORTEST * 2 ** failures);
      failures += 1;
      const next = longest * (0.75 + Math.random() / 4); // not all pages at once
      const message = problem instanceof Refused ? problem.message : "The connection broke.";
      told.lost(message, since, next, failures);
      await pause(next);
    }
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(hidden);
    if (document.hidden) hidden = setTimeout(() => controller?.abort(), HIDDEN);
    else wake();
  });
  window.addEventListener("online", () => wake());
  run();
  return { wake: () => wake() };
}
