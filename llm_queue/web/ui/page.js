// The page: a state comes in, and every part shows it; between two states, time goes on by our own clock.

import { Commands } from "./ask.js";
import { mark, say } from "./dom.js";
import { Cold, Counts, Models, Programs } from "./facts.js";
import { Finished } from "./finished.js";
import { First } from "./first.js";
import { Line } from "./line.js";
import { keyNotice, lostNotice, Notices, noticesOf } from "./notices.js";
import { Next, Now, runningJob, Turn, waitingCount, waitingJobs } from "./now.js";
import { follow } from "./service.js";
import { Waits } from "./waits.js";
import { Why } from "./why.js";

const TICK = 500; // milliseconds between two looks at the clock
const AGES = 10_000; // milliseconds between two looks at how long ago something was
const SAID = 6_000; // milliseconds for which the outcome of a command is shown

const part = (id) => document.getElementById(id);
const commands = new Commands(tell);
const notices = new Notices(part("notices"));
const now = new Now(part("now"), commands);
const next = new Next(part("next"));
const turn = new Turn(part("turn"));
const line = new Line(part("line"), commands);
const whys = { now: new Why(now.why), next: new Why(next.why) };
const ticking = [now, next, turn, line];
const still = [
  new First(part("first")),
  new Finished(part("finished")),
  new Waits(part("waits")),
  new Programs(part("programs")),
  new Models(part("models")),
  new Cold(part("cold")),
  new Counts(part("counts")),
];

let state = null;
let came = 0;
let fresh = false;
let unsay = null;

function tell(text, bad) {
  const place = part("said");
  clearTimeout(unsay);
  say(place, text);
  mark(place, "data-bad", bad ? "true" : null);
  unsay = setTimeout(() => say(place, ""), SAID);
}

/** Seconds since the state came; while nothing comes, time stands still with it. */
function passed() {
  return fresh ? (performance.now() - came) / 1000 : 0;
}

/** Have parts show the state. One that cannot takes nothing from the others. */
function showEach(parts, gone) {
  for (const one of parts) {
    try {
      one.show(state, gone);
    } catch (error) {
      console.error(error);
    }
  }
}

function showAll() {
  const gone = passed();
  mark(part("main"), "data-empty", null);
  showEach([...ticking, ...still], gone);
  const upstream = state.upstream ?? {};
  say(part("upstream"), [upstream.name, upstream.url].filter(Boolean).join(" at "));
  notices.line(noticesOf(state, commands));
  const waiting = waitingCount(state);
  document.title = waiting > 0 ? `(${waiting}) llm-queue` : "llm-queue";
  part("pause").disabled = !fresh || Boolean(state.draining);
  part("drain").disabled = !fresh || Boolean(state.draining);
  say(part("pause"), state.paused ? "Resume" : "Pause");
  const running = runningJob(state);
  whys.now.show(running, state.slot?.phase);
  whys.next.show(waitingJobs(state)[0] ?? null, running?.job);
}

function connection(kind, words) {
  const place = part("connection");
  mark(place, "data-state", kind);
  say(place, words);
  fresh = kind === "live";
  mark(part("main"), "data-stale", fresh ? null : "true");
  if (!fresh) for (const id of ["pause", "drain"]) part(id).disabled = true;
}

/** What is shown is the line as it is now. */
function live() {
  if (fresh) return;
  notices.connection(null);
  connection("live", "Live");
  showAll();
}

const feed = follow({
  state: (json) => {
    state = json;
    came = performance.now();
    if (fresh) showAll();
    else live();
  },
  live,
  lost: (message, since, next, tries) => {
    connection("lost", `Not connected, next try in ${Math.ceil(next / 1000)} s`);
    mark(part("connection"), "data-tries", tries);
    notices.connection(lostNotice(message, since, () => feed.wake()));
  },
  locked: (message) => {
    connection("lost", "Needs a key");
    notices.connection(keyNotice(message, () => feed.wake()));
  },
  asleep: () => connection("connecting", "Resting"),
});

part("pause").addEventListener("click", () => (state?.paused ? commands.resume() : commands.pause()));
part("drain").addEventListener("click", () => commands.drain());
setInterval(() => {
  if (state === null || !fresh || document.hidden) return;
  showEach(ticking, passed());
}, TICK);
setInterval(() => {
  if (state === null || !fresh || document.hidden) return;
  showEach(still, passed()); // a line that does not change sends nothing, and what it has done grows older
}, AGES);
