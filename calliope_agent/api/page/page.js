// The page: asks the agent for everything, lets each part show its share, and again after every change.

import { get } from "./agent.js";
import { act, h, hush, say } from "./dom.js";
import { showCache } from "./cache.js";
import { showProviders } from "./providers.js";
import { showRequests } from "./requests.js";
import { showRoles } from "./roles.js";
import { showSettings } from "./settings.js";
import { showUsage } from "./usage.js";

const SOURCES = {
  health: ["api/health", [503]],
  providers: ["api/providers"],
  settings: ["api/settings"],
  requests: ["v1/requests?limit=30"],
  usage: ["api/usage"],
  cache: ["api/cache"],
};

async function load(names = Object.keys(SOURCES)) {
  const told = await Promise.all(names.map((name) => get(...SOURCES[name])));
  return Object.fromEntries(names.map((name, index) => [name, told[index]]));
}

const page = {
  told: null,
  /** What checks said, by provider: models that a provider lists, the last verdict. */
  checked: new Map(),
  /** Ask again and show again; `say` is told when that worked. */
  async renew(text) {
    this.told = await load();
    this.show();
    if (text) say(text);
  },
  show() {
    trouble(null);
    showState(this.told);
    showRoles(this);
    showProviders(this);
    showRequests(this);
    showUsage(this);
    showCache(this);
    showSettings(this);
  },
};

function showState({ health, providers }) {
  const state = document.getElementById("state");
  const { target, problem } = providers.roles.chat;
  const ready = target !== null && problem === null;
  state.dataset.kind = ready ? "good" : "warn";
  if (health.status === "stopping") state.textContent = "The agent is stopping.";
  else if (ready) state.textContent = `Ready. ${target} answers in chat.`;
  else if (target) state.textContent = `Not ready. ${target} is to answer in chat, but: ${problem}`;
  else state.textContent = "Not ready. Set a provider's key, and chat has a model.";
}

function trouble(error) {
  const place = document.getElementById("trouble");
  if (error === null) {
    place.replaceChildren();
    return;
  }
  const again = h("button", { type: "button", text: "Try again", onclick: (event) => renew(event.currentTarget) });
  place.replaceChildren(h("div", { class: "notice bad", role: "alert" }, h("p", { text: error.message }), again));
  document.getElementById("state").textContent = "The agent could not be asked.";
}

function renew(button, text) {
  return act(button, async () => {
    try {
      await page.renew(text);
    } catch (error) {
      trouble(error);
      throw error;
    }
  });
}

document.getElementById("refresh").addEventListener("click", (event) => renew(event.currentTarget, "Up to date."));
document.getElementById("hush").addEventListener("click", hush);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hush();
});

const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        for (const link of links.values()) link.removeAttribute("aria-current");
        const link = links.get(entry.target.id);
        link.setAttribute("aria-current", "true");
        link.closest("nav").scrollTo({ left: link.offsetLeft - 60 });
      }
    }
  },
  { rootMargin: "-20% 0px -70% 0px" },
);
for (const id of links.keys()) watcher.observe(document.getElementById(id));

page.renew().catch(trouble);
