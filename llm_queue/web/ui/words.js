// Numbers and lengths of time, in words.

const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const LANES = ["interactive", "normal", "background"];

/** `5,000`. */
export function count(number) {
  return known(number) ? COUNT.format(number) : "–";
}

/** True for a number. */
export function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** The lanes, the highest first, and others that the service may have. */
export function lanesOf(waiting) {
  return [...LANES, ...Object.keys(waiting ?? {}).filter((lane) => !LANES.includes(lane))];
}

/** `3.2 s`, `42 s`, `3 min 20 s`, `2 h 5 min`. */
export function seconds(value, { whole = false } = {}) {
  if (!known(value)) return "–";
  const positive = Math.max(0, value);
  if (positive < 9.95 && !whole) return `${positive.toFixed(1)} s`;
  const rounded = whole ? Math.floor(positive) : Math.round(positive);
  if (rounded < 60) return `${rounded} s`;
  const [minutes, hours] = [Math.floor(rounded / 60), Math.floor(rounded / 3600)];
  if (hours === 0) return minutes < 10 && rounded % 60 ? `${minutes} min ${rounded % 60} s` : `${minutes} min`;
  return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
}

/** The same as a figure, which is large and has to be short: `3.2 s`, `42 s`, `3:20`, `2:05:00`. */
export function figure(value, { whole = false } = {}) {
  if (!known(value) || value < (whole ? 60 : 59.5)) return seconds(value, { whole });
  const rounded = whole ? Math.floor(value) : Math.round(value);
  const [hours, minutes] = [Math.floor(rounded / 3600), Math.floor(rounded / 60) % 60];
  const parts = hours > 0 ? [hours, String(minutes).padStart(2, "0")] : [minutes];
  return [...parts, String(rounded % 60).padStart(2, "0")].join(":");
}

/** When something starts, from the ends of a range in seconds: `in 12–20 s`. */
export function range(low, high) {
  if (!known(low) && !known(high)) return "start not known";
  if (!known(low) || !known(high)) return `in about ${seconds(low ?? high, { whole: true })}`;
  const [from, to] = [Math.max(0, low), Math.max(0, high)];
  if (to < 1) return "at once";
  if (from < 1) return `within ${seconds(Math.ceil(to), { whole: true })}`;
  if (to < 100) {
    const [first, last] = [Math.round(from), Math.round(to)];
    return first === last ? `in ${first} s` : `in ${first}–${last} s`;
  }
  const [unit, name] = to < 6000 ? [60, "min"] : [3600, "h"];
  if (from < unit / 2) return `within ${Math.ceil(to / unit)} ${name}`;
  const [first, last] = [from, to].map((value) => (unit === 60 ? Math.round(value / 60) : tenth(value / 3600)));
  return first === last ? `in about ${first} ${name}` : `in ${first}–${last} ${name}`;
}

function tenth(value) {
  return Math.round(value * 10) / 10;
}

/** The start of a job as a range, or about, as far as the service says it: `[low, high]`, each a number or null. */
export function startOf(job) {
  const [low, high] = [job.starts_in_low_s, job.starts_in_high_s];
  if (known(low) || known(high)) return [low ?? null, high ?? null];
  return known(job.starts_in_s) ? [job.starts_in_s, null] : [null, null];
}

/** How long ago: `2 min ago`. */
export function ago(value) {
  if (!known(value)) return "";
  return value < 1 ? "just now" : `${seconds(value, { whole: true })} ago`;
}

/** `6.1 GB`. */
export function bytes(value) {
  if (!known(value)) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [size, unit] = [value, 0];
  while (size >= 1000 && unit < units.length - 1) [size, unit] = [size / 1000, unit + 1];
  return `${size < 10 && unit > 0 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

/** `a, b and c`. */
export function listed(parts) {
  return parts.length < 2 ? (parts[0] ?? "") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}

/** `1 job`, `5,000 jobs`. */
export function jobs(number) {
  return number === 1 ? "1 job" : `${count(number)} jobs`;
}

/** A share from 0 to 1 as `83 %`. */
export function percent(share) {
  return known(share) ? `${Math.round(100 * share)} %` : "–";
}

/** A moment of today: `14:03:11`. */
export function clock(date) {
  return date.toLocaleTimeString("en-GB");
}
