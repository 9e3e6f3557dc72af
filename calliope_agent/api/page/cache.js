// The kept answers, and the local model.

import { ask } from "./agent.js";
import { act, h, row, show } from "./dom.js";
import { count, megabytes } from "./words.js";

const PLACES = { off: "off", memory: "in memory only", disk: "on this machine's disk" };

export function showCache(page) {
  const { cache, providers } = page.told;
  const { state } = providers.local;
  show(
    "cache",
    h(
      "div",
      { class: "cards two" },
      h("article", { class: "card", "aria-label": "Cache" }, h("div", { class: "card-head" }, h("h3", { text: "Cache of answers" })), facts(cache), cache.where === "off" ? null : clear(page)),
      h(
        "article",
        { class: "card", "aria-label": "Local model" },
        h("div", { class: "card-head" }, h("h3", { text: "Local model" })),
        h("p", { class: "target", text: page.told.settings.settings.find((one) => one.name === "local_model").value }),
        h("p", { text: state[0].toUpperCase() + state.slice(1) + "." }),
        h("p", { class: "hint", text: "It runs on this machine: nothing leaves it, and no key is needed. Fetch it with “calliope-agent models pull”." }),
      ),
    ),
  );
}

const answers = (number) => `${count(number)} ${number === 1 ? "answer" : "answers"}`;

function facts(cache) {
  if (cache.where === "off") return h("p", { text: `Answers are not kept. ${cache.problem ?? ""}` });
  const looked = cache.hits + cache.misses;
  return h(
    "dl",
    { class: "facts" },
    row("Kept", `${answers(cache.entries)}, ${megabytes(cache.size_bytes)} of ${megabytes(cache.max_bytes)}`),
    row("Where", `${PLACES[cache.where]}`),
    row("Used", looked ? `${count(cache.hits)} of ${count(looked)} look-ups found an answer` : "not looked up yet"),
    cache.problem ? row("Problem", cache.problem) : null,
  );
}

function clear(page) {
  return h("button", {
    type: "button",
    class: "quiet danger",
    "data-key": "clear-cache",
    text: "Forget all answers",
    onclick: (event) => {
      if (!window.confirm("Forget every kept answer?")) return;
      act(event.currentTarget, async () => {
        const told = await ask("DELETE", "api/cache");
        await page.renew(`${answers(told.cleared)} forgotten.`);
      });
    },
  });
}
