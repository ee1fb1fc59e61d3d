// Questions to whoever looks at the page, and the commands that follow: each says what it will do before it does it.

import { make } from "./dom.js";
import { command, jobPath, Refused } from "./service.js";

/**
 * Ask in a dialog. `choices` are `[value, label, class]`; gives the value that was chosen, or null. Escape is null.
 */
export function choose(title, words, choices) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    const dialog = make("dialog", { "aria-labelledby": "asked-title" });
    const close = (value) => () => {
      resolve(value);
      dialog.close();
    };
    const buttons = choices.map(([value, label, kind]) =>
      make("button", { type: "button", class: kind, on: { click: close(value) } }, label),
    );
    dialog.append(
      make("h2", { id: "asked-title" }, title),
      make("p", {}, words),
      make("div", { class: "commands" }, ...buttons, make("button", { type: "button", on: { click: close(null) } }, "Keep as it is")),
    );
    dialog.addEventListener("close", () => {
      resolve(null);
      dialog.remove();
      before?.focus?.();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Commands as buttons give them. `said(text, bad)` tells what came of them. */
export class Commands {
  constructor(said) {
    this.said = said;
  }

  async #do(path, body, done) {
    try {
      await command(path, body);
      this.said(done, false);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.said(error.status === 401 ? "That takes a key: type it above." : error.message, true);
    }
  }

  cancel = (job) => job && this.#do(jobPath(job.job, "cancel"), {}, `Cancelled what ${job.client} had asked.`);

  move = (job, lane) => this.#do(jobPath(job.job, "lane"), { lane }, `The job of ${job.client} is ${lane} now.`);

  resume = () => this.#do("/queue/resume", {}, "The line goes on.");

  pause = async () => {
    const chosen = await choose(
      "Pause the line?",
      "What runs goes on to its end. Nothing else starts until you resume, and whoever asks waits. Freeing the GPU also "
        + "unloads the models, through the line; the first job afterwards pays for a load.",
      [
        ["keep", "Pause", "primary"],
        ["free", "Pause and free the GPU", ""],
      ],
    );
    if (chosen === null) return;
    const free = chosen === "free";
    await this.#do("/queue/pause", { unload: free }, free ? "Paused. The GPU is being freed." : "Paused.");
  };

  drain = async () => {
    const chosen = await choose(
      "Drain and stop the service?",
      "It takes no new work from now on, finishes what is here as far as its drain timeout allows, and ends. This cannot be "
        + "taken back; somebody has to start it again.",
      [["drain", "Drain and stop", "danger"]],
    );
    if (chosen === "drain") await this.#do("/queue/drain", {}, "Draining. This page will lose its connection at the end.");
  };
}
