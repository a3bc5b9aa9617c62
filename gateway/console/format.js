// Numbers, times and sizes as people read them.

const NUMBER = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const WHEN = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

import { el } from "./dom.js";

export const number = (value) => NUMBER.format(value ?? 0);
export const short = (value) => SHORT.format(value ?? 0);
export const clock = (value) => CLOCK.format(new Date(value));

/** Millionths of the operator's currency. */
export const micro = (value) => new Intl.NumberFormat("en", { maximumFractionDigits: 6, minimumFractionDigits: 2 }).format((value ?? 0) / 1e6);

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let size = value ?? 0;
  for (; size >= 1024 && at < units.length - 1; at += 1) size /= 1024;
  return `${at === 0 ? size : size.toFixed(1)} ${units[at]}`;
}

const STEPS = [["second", 60], ["minute", 60], ["hour", 24], ["day", 30], ["month", 12], ["year", Infinity]];

function distance(at) {
  let left = (new Date(at).getTime() - Date.now()) / 1000;
  for (const [unit, most] of STEPS) {
    if (Math.abs(left) < most) return unit === "second" && Math.abs(left) < 45 ? "just now" : AGO.format(Math.round(left), unit);
    left /= most;
  }
  return "";
}

/** A moment, near it said as a distance. */
export function when(at) {
  if (!at || Number.isNaN(new Date(at).getTime())) return el("span", { class: "faint" }, "–");
  return el("time", { datetime: at, title: WHEN.format(new Date(at)) }, distance(at));
}

/** The same to the second. */
export function exactly(at) {
  return el("time", { datetime: at, title: at }, WHEN.format(new Date(at)));
}
