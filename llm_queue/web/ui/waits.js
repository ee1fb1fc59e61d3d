// How long jobs of each lane have waited, minute by minute, over the last hour.

import { draw, make, show } from "./dom.js";
import { known, lanesOf, seconds } from "./words.js";

const HOUR = 3600;
const MINUTE = 60;
const NONE = 0.05; // seconds: shorter waits are none
const [WIDTH, HEIGHT] = [300, 44];

/** The points of a lane that can be drawn, oldest first: `[secondsAgo, median, p95, count]`. */
function pointsOf(lane, passed) {
  return (lane?.waits ?? [])
    .map(([ago, ...others]) => [ago + passed, ...others])
    .filter((point) => known(point[0]) && known(point[1]) && (point[3] ?? 1) > 0 && point[0] <= HOUR)
    .sort((one, other) => other[0] - one[0]);
}

/** Runs of minutes that follow each other: where nobody waited, there is no line. */
function runsOf(points) {
  const runs = [];
  for (const point of points) {
    const last = runs.at(-1)?.at(-1);
    if (last !== undefined && last[0] - point[0] <= 1.5 * MINUTE) runs.at(-1).push(point);
    else runs.push([point]);
  }
  return runs;
}

function plot(points, top) {
  const x = (secondsAgo) => (WIDTH * (1 - Math.min(HOUR, secondsAgo) / HOUR)).toFixed(1);
  const y = (wait) => (HEIGHT - (HEIGHT - 2) * Math.min(1, wait / top)).toFixed(1);
  const shapes = runsOf(points).flatMap((run) => {
    const [first, ...others] = run;
    const ends = [[first[0] + MINUTE, ...first.slice(1)], first, ...others]; // a point is where its minute ended
    const high = ends.map((point) => `${x(point[0])},${y(point[2] ?? point[1])}`);
    const low = ends.map((point) => `${x(point[0])},${y(point[1])}`);
    const ground = [`${x(ends.at(-1)[0])},${HEIGHT}`, `${x(ends[0][0])},${HEIGHT}`];
    return [
      draw("polygon", { class: "band", points: [...high, ...ground].join(" ") }),
      draw("polyline", { class: "median", points: low.join(" ") }),
    ];
  });
  const grid = [0.25, 0.5, 0.75].map((part) =>
    draw("line", { class: "grid", x1: WIDTH * part, x2: WIDTH * part, y1: 0, y2: HEIGHT }),
  );
  return draw(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "plot", "aria-hidden": "true" },
    ...grid,
    draw("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
    ...shapes,
  );
}

/** The panel of the waits. It is drawn anew when its numbers are others, and not with each token. */
export class Waits {
  #drawn = "";

  constructor(section) {
    this.none = make("p", { class: "quiet" }, "A minute after the first job has started, its wait is drawn here.");
    this.body = make("div", { class: "waits" });
    const marks = ["1 h ago", "30 min", "now"].map((words) => make("span", {}, words));
    this.axis = make("p", { class: "axis", "aria-hidden": "true" }, ...marks);
    section.append(
      make("div", { class: "head" }, make("h2", { id: "waits-title" }, "Waits"), make("span", { class: "sum" }, "by lane: the median, and 95 of 100")),
      this.none,
      this.body,
      this.axis,
    );
  }

  show(state, passed = 0) {
    const lanes = lanesOf(state.lanes)
      .map((lane) => [lane, pointsOf(state.lanes?.[lane], passed)])
      .filter(([, points]) => points.length > 0);
    const drawn = JSON.stringify(lanes, (name, value) => (name === "0" && known(value) ? Math.round(value / 30) : value));
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    show(this.none, lanes.length === 0);
    show(this.axis, lanes.length > 0);
    this.body.replaceChildren(...lanes.map(([lane, points]) => this.#lane(lane, points)));
  }

  #lane(lane, points) {
    const highest = Math.max(...points.map((point) => point[2] ?? point[1]));
    const last = points.at(-1);
    return make(
      "div",
      { class: "wait" },
      make(
        "p",
        { class: "wait-head" },
        make("strong", {}, lane),
        make("span", { class: "quiet" }, "mostly "),
        make("strong", { class: "number" }, last[1] < NONE ? "at once" : seconds(last[1])),
        make("span", { class: "quiet" }, highest < NONE ? " in all this hour" : ` now, up to ${seconds(highest)} in this hour`),
      ),
      plot(points, Math.max(highest, 0.1)),
    );
  }
}
