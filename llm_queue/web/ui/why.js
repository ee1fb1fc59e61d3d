// Why a job runs, or is next: asked for when it has been so for a moment, and anew while it stays so.

import { say } from "./dom.js";
import { jobReport, Refused } from "./service.js";

const SETTLED = 400; // milliseconds that it must last before anybody is asked: a fast line has many
const AGAIN = 10_000; // milliseconds until it is asked anew: the answer says how long the job has waited

/** The explanation in one element. */
export class Why {
  #element;
  #about = null;
  #timer = null;

  constructor(element) {
    this.#element = element;
  }

  /** Show why for this job (or null); `about` says what the answer depends on. */
  show(job, about) {
    const now = job === null ? null : `${job.job} ${about}`;
    if (now === this.#about) return;
    const another = job === null || !this.#about?.startsWith(`${job.job} `);
    this.#about = now;
    clearTimeout(this.#timer);
    if (another) say(this.#element, "");
    if (job !== null) this.#timer = setTimeout(() => this.#ask(job.job, now), SETTLED);
  }

  async #ask(id, about) {
    try {
      const report = document.hidden ? null : await jobReport(id);
      if (this.#about !== about) return;
      if (report !== null) say(this.#element, (report.explanation?.sentences ?? []).slice(0, 2).join(" "));
    } catch (error) {
      if (!(error instanceof Refused)) throw error; // it may have ended meanwhile
    }
    if (this.#about === about) this.#timer = setTimeout(() => this.#ask(id, about), AGAIN);
  }
}
