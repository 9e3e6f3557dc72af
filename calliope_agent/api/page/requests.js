// The last requests and why each answer is what it is.

import { badge, h, show } from "./dom.js";
import { milliseconds, time } from "./words.js";

const CACHE = {
  bypass: "not looked up: an answer that may differ each time",
  miss: "looked up, not there",
  hit: "answered from the cache",
  join: "joined an identical request that was running",
  replay: "repeated: the same Idempotency-Key",
  "typed-through": "what was typed was already suggested",
};

export function showRequests(page) {
  const records = page.told.requests.data;
  if (!records.length) {
    show("requests", h("p", { class: "empty", text: "Nothing has been asked since the agent started." }));
    return;
  }
  show("requests", h("ul", { class: "list" }, records.map(entry)));
}

function entry(record) {
  return h(
    "li",
    {},
    h(
      "details",
      { class: "request", "data-key": `request-${record.id}` },
      h(
        "summary",
        {},
        h("time", { datetime: record.arrived_at, text: time(record.arrived_at) }),
        h("span", { class: "asked" }, h("span", { class: "tag", text: record.kind }), " ", h("span", { text: record.target ?? (record.asked || "–") })),
        h("span", { class: "took", text: milliseconds(record.ttft_ms) }),
        outcome(record),
      ),
      h("div", { class: "inside" }, h("ol", { class: "story" }, story(record).map((line) => h("li", { text: line }))), h("p", { class: "hint" }, "Request ", h("code", { text: record.id }))),
    ),
  );
}

function outcome(record) {
  if (record.outcome === "complete") return badge("good", record.cache === "hit" ? "from the cache" : "answered");
  if (record.outcome === "running") return badge("idle", "running");
  if (record.outcome === "cancelled") return badge("idle", "cancelled");
  return badge("bad", (record.code ?? "failed").replaceAll("_", " "));
}

/** The record as sentences. */
function story(record) {
  const role = record.role ? `, the role ${record.role}` : "";
  const lines = [`Asked for ${record.asked || "no model by name"}${role}${record.stream ? ", as a stream" : ""}.`];
  record.attempts.forEach((attempt, index) => lines.push(...attempted(attempt, index + 1)));
  if (record.fallback_cause) lines.push(`The next in order was asked because of ${record.fallback_cause}.`);
  lines.push(...record.notes);
  lines.push(`Cache: ${CACHE[record.cache] ?? record.cache}.`);
  lines.push(ending(record));
  return lines;
}

function attempted(attempt, number) {
  const took = attempt.ended_ms === null ? "" : ` after ${milliseconds(attempt.ended_ms - attempt.started_ms)}`;
  const key = attempt.key ? `, with ${attempt.key}` : "";
  const status = attempt.status ? ` (status ${attempt.status})` : "";
  const how = attempt.code ? `${attempt.code.replaceAll("_", " ")}${status}${took}` : `answered${took}`;
  const lines = [`Attempt ${number}: ${attempt.target}${key}: ${how}.`];
  if (attempt.note) lines.push(attempt.note);
  if (attempt.waited_ms) lines.push(`Waited ${milliseconds(attempt.waited_ms)} before the next attempt.`);
  return lines;
}

function ending(record) {
  if (record.outcome === "error") return `Failed with ${record.status}: ${record.message}`;
  if (record.outcome === "cancelled") return "The caller went away before the end.";
  if (record.outcome === "running") return "It is being answered now.";
  const own = record.overhead_ms === null ? "" : `, of which ${milliseconds(record.overhead_ms)} were the agent's own`;
  const finish = record.finish ? ` It ended with “${record.finish}”.` : "";
  return `First content after ${milliseconds(record.ttft_ms)}${own}; all of it after ${milliseconds(record.total_ms)}.${finish}`;
}
