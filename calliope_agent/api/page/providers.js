// Every provider, those that can be asked first, and a form for one of the person's own.

import { ask, provider as path } from "./agent.js";
import { act, field, h, say, show } from "./dom.js";
import { entry } from "./provider.js";

const GROUPS = [
  ["Ready", (one) => one.state === "ready", true],
  ["Need a key", (one) => one.state === "needs_key", true],
  ["Not set up", (one) => one.state === "not_set_up" || one.state === "needs_address", false],
];

export function showProviders(page) {
  const { providers, problems, keys } = page.told.providers;
  show(
    "providers",
    problems.map((text) => h("p", { class: "notice warn", text })),
    GROUPS.map(([title, belongs, open]) => group(page, title, own(providers.filter(belongs)), open)),
    h("details", { class: "group", "data-key": "group-add" }, h("summary", {}, h("h3", { text: "Add a provider" })), addForm(page)),
    h("p", { class: "hint", text: place(keys) }),
    keys.notes.map((text) => h("p", { class: "hint", text })),
  );
}

/** The person's own come first. */
const own = (members) => members.toSorted((one, other) => (other.trust === "person") - (one.trust === "person"));

function place({ policy, why }) {
  if (policy === "deny") return "Who runs this server has switched off keys of your own (CALLIOPE_USER_KEYS=deny).";
  return `Where your keys are kept: ${why}.`;
}

function group(page, title, members, open) {
  if (!members.length) return title === "Ready" ? h("p", { class: "empty", text: "No provider can be asked yet. Set a key, or start a local model." }) : null;
  return h(
    "details",
    { class: "group", open, "data-key": `group-${title}` },
    h("summary", {}, h("h3", { text: title }), h("span", { class: "count", text: `${members.length}` })),
    h("ul", { class: "list" }, members.map((one) => entry(page, one))),
  );
}

/** For a new provider, or for one of the person's own. */
export function addForm(page, known = null) {
  const name = h("input", { type: "text", name: "name", required: true, pattern: "[a-z0-9][a-z0-9\\-]{0,39}", autocomplete: "off", spellcheck: "false", value: known?.name ?? "", readonly: Boolean(known) });
  const url = h("input", { type: "url", name: "base_url", required: true, autocomplete: "off", spellcheck: "false", placeholder: "https://llm.example.com/v1", value: known?.base_url ?? "" });
  const wire = h("select", { name: "wire" }, h("option", { value: "openai", text: "OpenAI's" }), h("option", { value: "anthropic", text: "Anthropic's" }));
  wire.value = known?.wire ?? "openai";
  const models = h("textarea", { name: "models", rows: "3", spellcheck: "false", autocomplete: "off", value: known?.models.map((model) => model.name).join("\n") ?? "" });
  const keyless = h("input", { type: "checkbox", name: "keyless" });
  keyless.checked = known ? !known.key_required : false;
  const save = h("button", { type: "submit", text: known ? "Save" : "Add provider" });
  const form = h(
    "form",
    { class: "form" },
    field("Name", name, "Small letters, digits and hyphens; you ask for name/model."),
    field("Address", url, "What stands before /chat/completions or /messages."),
    field("API it speaks", wire),
    field("Models", models, "One per line. May be left empty: check the provider to see its list."),
    h("label", { class: "tick" }, keyless, " It needs no key"),
    save,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const names = models.value.split("\n").map((line) => line.trim()).filter(Boolean);
    const body = { base_url: url.value.trim(), wire: wire.value, key_required: !keyless.checked };
    if (names.length) body.models = names.map((one) => kept(known, one));
    act(save, async () => {
      await ask("PUT", path(name.value.trim()), body);
      await page.renew(keyless.checked ? `${name.value} is saved.` : `${name.value} is saved. Set its key if it has none yet.`);
      if (!known) form.reset();
    });
  });
  form.addEventListener("invalid", () => say("Some fields are missing or not right.", "bad"), true);
  return form;
}

/** A model that was there keeps what is known of it. */
function kept(known, name) {
  const before = known?.models.find((model) => model.name === name);
  if (!before) return { name };
  const { title, context_tokens, max_output_tokens, capabilities, suits } = before;
  return Object.fromEntries(
    Object.entries({ name, title, context_tokens, max_output_tokens, capabilities, roles: suits }).filter(([, value]) => value !== null && value.length !== 0),
  );
}
