// What is shown while nobody has asked yet: the first call, to this very address.

import { make, show } from "./dom.js";
import { key } from "./service.js";

const QUESTION = '{"messages": [{"role": "user", "content": "Say hello."}]}';

/** The first call, for a shell. With `locked` it says where a key goes; never the key itself. */
export function firstCall(origin, locked) {
  const lines = [`curl ${origin}/v1/chat/completions`, "-H 'Content-Type: application/json'"];
  if (locked) lines.push("-H 'Authorization: Bearer YOUR-KEY'");
  return [...lines, `-d '${QUESTION}'`].join(" \\\n  ");
}

/** The panel of the first call. */
export class First {
  constructor(section) {
    this.section = section;
    this.code = make("code", {});
    this.copy = make("button", { type: "button", class: "primary", on: { click: () => this.#copy() } }, "Copy");
    section.append(
      make("h2", { id: "first-title" }, "Make the first call"),
      make("p", {}, "Nobody has asked for anything yet. Paste this into a terminal, and watch it here:"),
      make("div", { class: "snippet" }, make("pre", { tabindex: "0", "aria-label": "The first call" }, this.code), this.copy),
      make(
        "p",
        { class: "quiet" },
        "Then give your programs the address ",
        make("strong", {}, `${location.origin}/v1`),
        " where they have OpenAI's, or ",
        make("strong", {}, location.origin),
        " where they have Ollama's or Anthropic's.",
      ),
    );
  }

  show(state) {
    const { running = 0, ended = {} } = state.remote ?? {}; // jobs beside the line are counted nowhere else
    const beside = Object.values(ended).reduce((sum, number) => sum + number, running);
    const listed = [...(state.jobs ?? []), ...(state.finished ?? [])];
    const untouched = state.accepted === 0 && beside === 0 && listed.length === 0;
    show(this.section, untouched);
    document.body.toggleAttribute("data-untouched", untouched);
    const call = firstCall(location.origin, key.get() !== null);
    if (untouched && this.code.textContent !== call) this.code.textContent = call;
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.code.textContent);
    } catch {
      // No clipboard outside a secure context, which plain HTTP on another machine is: leave it selected to be copied.
      getSelection().selectAllChildren(this.code);
      this.copy.textContent = "Selected";
      return;
    }
    this.copy.textContent = "Copied";
    setTimeout(() => (this.copy.textContent = "Copy"), 2000);
  }
}
