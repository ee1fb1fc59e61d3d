// What stands above all else when something is not as usual.

import { make } from "./dom.js";
import { key } from "./service.js";
import { clock } from "./words.js";

/** The notices that a state asks for, as `{id, title, words, action}`. */
export function noticesOf(state, commands) {
  const found = [];
  if (state.draining) {
    found.push({ id: "draining", title: "Draining.", words: "No new work is taken; what is here may finish, then the service ends." });
  }
  if (state.paused) {
    const kept = state.paused.kept ? ` Something is still loaded: ${state.paused.kept}` : "";
    const freed = state.paused.unloaded ? " The GPU is free." : kept;
    const action = { label: "Resume", click: commands.resume };
    found.push({ id: "paused", title: "Paused.", words: `Nothing starts until the line is resumed.${freed}`, action });
  }
  if (state.upstream?.away) found.push({ id: "away", title: "Out of reach.", words: state.upstream.away, bad: true });
  if (state.bypass) {
    const who = state.bypass.program ?? "A program";
    const words = `${who} asks the model past the line, so waits and loads are not what they could be. ${state.bypass.reason ?? ""}`;
    found.push({ id: "bypass", title: "Bypassed.", words: words.trim(), bad: true });
  }
  return found;
}

/** The place of the notices. One that stays is not drawn, or read out, again. */
export class Notices {
  #parent;
  #shown = new Map();
  #line = [];
  #connection = null;

  constructor(parent) {
    this.#parent = parent;
  }

  /** Those of the line. */
  line(notices) {
    this.#line = notices;
    this.#draw();
  }

  /** The one of the connection, or null. */
  connection(notice) {
    this.#connection = notice;
    this.#draw();
  }

  #draw() {
    const wanted = this.#connection === null ? this.#line : [this.#connection, ...this.#line];
    for (const [id, { element }] of this.#shown) {
      if (!wanted.some((one) => one.id === id)) {
        element.remove();
        this.#shown.delete(id);
      }
    }
    for (const one of wanted) {
      const text = `${one.title} ${one.words}`;
      const old = this.#shown.get(one.id);
      if (old?.text === text) continue;
      const element = this.#notice(one);
      if (old) old.element.replaceWith(element);
      else if (one === this.#connection) this.#parent.prepend(element);
      else this.#parent.append(element);
      this.#shown.set(one.id, { element, text });
    }
  }

  #notice({ title, words, action, bad, form }) {
    const box = make("div", { class: bad ? "notice bad" : "notice" }, make("p", {}, make("strong", {}, title), ` ${words}`));
    if (action) box.append(make("button", { type: "button", on: { click: action.click } }, action.label));
    if (form) box.append(form());
    return box;
  }
}

/** The notice of a connection that is not there: since when, and why. */
export function lostNotice(message, since, wake) {
  const words = `${message} Not connected since ${clock(since)}; what you see below is as it was then. It tries again by itself.`;
  return { id: "connection", title: "Not connected.", words, bad: true, action: { label: "Try now", click: wake } };
}

/** The notice that asks for a key. `message` is what the service said of the last one, or null. */
export function keyNotice(message, typed) {
  const words = message === null
    ? "This service wants a key. It stays in this tab, and is forgotten with it."
    : `That key was not taken. ${message}`;
  const form = () => {
    const input = make("input", { type: "password", name: "key", required: true, autocomplete: "off", spellcheck: "false", "aria-label": "API key" });
    const submit = (event) => {
      event.preventDefault();
      if (input.value.trim() === "") return;
      key.set(input.value.trim());
      typed();
    };
    return make("form", { on: { submit } }, input, make("button", { type: "submit", class: "primary" }, "Show the line"));
  };
  return { id: "connection", title: "Key.", words, form };
}
