// What was asked and spent.

import { h, show } from "./dom.js";
import { count, day, dollars } from "./words.js";

export function showUsage(page) {
  const { since, total, targets } = page.told.usage;
  const note = h("p", { class: "lead", text: `Since ${day(since)}. Tokens are the providers' own numbers; a cost is unknown where a price or a count is.` });
  if (!total.requests) {
    show("usage", note, h("p", { class: "empty", text: "Nothing has been asked yet." }));
    return;
  }
  const head = ["Model", "Requests", "Failed", "From cache", "Tokens in", "Tokens out", "Cost"];
  const body = targets.map((row) => line(row.target, row));
  const foot = targets.length > 1 ? h("tfoot", {}, line("Together", total)) : null;
  const table = h("table", {}, h("caption", { class: "unseen", text: "Requests, tokens and cost by model" }), h("thead", {}, h("tr", {}, head.map((text, index) => h("th", { scope: "col", class: index ? "number" : null, text })))), h("tbody", {}, body), foot);
  show("usage", note, h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Usage by model" }, table));
}

function line(name, row) {
  const input = row.input_tokens + row.cache_read_tokens + row.cache_write_tokens;
  const cells = [count(row.requests), count(row.failed), count(row.from_cache), count(input), count(row.output_tokens), dollars(row.cost_usd)];
  return h("tr", {}, h("th", { scope: "row", text: name }), cells.map((text) => h("td", { class: "number", text })));
}
