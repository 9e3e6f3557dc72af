// One provider: its state, its key, the check, its models, and why something cannot be changed.

import { ask, provider as path } from "./agent.js";
import { act, badge, field, h, row, say } from "./dom.js";
import { addForm } from "./providers.js";
import { source, tokens } from "./words.js";

const STATES = {
  ready: ["good", "Ready"],
  needs_key: ["warn", "Needs a key"],
  needs_address: ["idle", "Needs an address"],
  not_set_up: ["idle", "Not set up"],
};
const VERDICTS = {
  valid: ["good", "Works"],
  no_key: ["warn", "No key"],
  rejected: ["bad", "Key refused"],
  out_of_quota: ["bad", "Out of quota"],
  rate_limited: ["warn", "Asked too often"],
  failing: ["bad", "Provider fails"],
  unreachable: ["bad", "Unreachable"],
  not_a_model: ["bad", "Not a provider"],
};
const NEEDS_KEY = "It needs a key.";
const SHOWN_MODELS = 12;

export function entry(page, one) {
  const checked = page.checked.get(one.name);
  const [kind, word] = checked && checked.state !== "valid" ? VERDICTS[checked.state] : STATES[one.state];
  const roles = one.models.flatMap((model) => model.plays);
  return h(
    "li",
    {},
    h(
      "details",
      { class: "provider", "data-key": `provider-${one.name}`, "data-provider": one.name },
      h(
        "summary",
        {},
        h("span", { class: "name" }, h("strong", { text: one.title }), h("span", { class: "id", text: one.name })),
        h("span", { class: "key-label", text: one.key ? one.key.label : "" }),
        h("span", { class: "roles", text: roles.length ? `plays ${roles.join(", ")}` : "" }),
        badge(kind, word),
      ),
      h("div", { class: "inside" }, inside(page, one)),
    ),
  );
}

function inside(page, one) {
  return [
    one.state === "ready" || one.text === NEEDS_KEY ? null : h("p", { text: one.text }),
    verdict(page.checked.get(one.name)),
    keyPart(page, one),
    h(
      "dl",
      { class: "facts" },
      row("Key", keyLine(one)),
      one.base_url || one.base_url_source.kind === "environment" ? row("Address", h("code", { text: one.base_url ?? "–" }), ` from ${addressOrigin(one)}`) : null,
      row("Models", models(one)),
      row("Defined", whence(one)),
    ),
    sources(one),
    ownPart(page, one),
  ];
}

function keyLine(one) {
  if (one.key) return h("span", {}, h("code", { text: one.key.label }), ` from ${one.key.source}`);
  if (one.credentials) return `credentials of its own (${one.credentials})`;
  return one.key_required ? "none yet" : "not needed";
}

function addressOrigin(one) {
  return one.base_url_source.kind === "default" ? "its provider file" : source(one.base_url_source);
}

function whence(one) {
  if (one.trust === "shipped") return "comes with calliope-agent";
  return one.trust === "operator" ? `by who runs this server (${one.place})` : `by you (${one.place})`;
}

function verdict(checked) {
  if (!checked) return null;
  const [kind, word] = VERDICTS[checked.state];
  const names = checked.listed_by_provider ? checked.models : [];
  const list = names.length
    ? h(
        "details",
        { class: "listed", "data-key": `listed-${checked.provider}` },
        h("summary", { text: names.length === 1 ? "The model it lists" : `The ${names.length} models it lists` }),
        h("ul", { class: "models" }, names.map((name) => h("li", {}, h("code", { text: name })))),
      )
    : null;
  return h("div", { class: `verdict ${kind}` }, badge(kind, word), h("p", { text: checked.message }), list);
}

function keyPart(page, one) {
  const refusal = one.may.set_key;
  const buttons = [
    h("button", { type: "button", "data-key": `check-${one.name}`, class: refusal === null ? "quiet" : null, disabled: Boolean(one.may.check), text: "Check", onclick: (event) => check(page, one, event.currentTarget) }),
    one.may.remove_key === null ? h("button", { type: "button", class: "quiet danger", "data-key": `rmkey-${one.name}`, text: "Remove key", onclick: (event) => removeKey(page, one, event.currentTarget) }) : null,
  ];
  return h(
    "div",
    { class: "key-part" },
    refusal === null ? keyForm(page, one) : h("p", { class: "why-not", text: refusal }),
    h("div", { class: "buttons" }, buttons),
  );
}

function keyForm(page, one) {
  const label = one.may.remove_key === null ? "Replace your key" : "Your key";
  const input = h("input", { type: "password", name: "key", required: true, autocomplete: "off", spellcheck: "false", "data-key": `key-${one.name}`, "data-1p-ignore": true, maxlength: "16384" });
  const save = h("button", { type: "submit", text: "Save key" });
  const form = h("form", { class: "inline-form", autocomplete: "off" }, field(label, input, `It is sent to ${origin(one)} and nowhere else.`), save);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(save, async () => {
      const told = await ask("PUT", path(one.name, "/key"), { key: input.value.trim() });
      input.value = "";
      page.checked.delete(one.name);
      await page.renew(`${one.title}: ${told.label} is kept.${told.note ? ` ${told.note}` : ""}`);
    });
  });
  return form;
}

function origin(one) {
  try {
    return new URL(one.base_url).host;
  } catch {
    return one.title;
  }
}

function check(page, one, button) {
  return act(button, async () => {
    say(`Asking ${one.title}…`);
    const told = await ask("POST", path(one.name, "/check"), {});
    page.checked.set(one.name, told);
    page.show();
    const [kind, word] = VERDICTS[told.state];
    say(`${one.title}: ${word}. ${told.message}`, kind === "good" ? "good" : "bad");
  });
}

function removeKey(page, one, button) {
  if (!window.confirm(`Remove your key of ${one.title}? New requests will not have it; answers that are being written now go on.`)) return null;
  return act(button, async () => {
    const told = await ask("DELETE", path(one.name, "/key"));
    page.checked.delete(one.name);
    await page.renew(`${one.title}: your key is removed.${told.left ? ` ${told.left} is used from now on.` : ""}`);
  });
}

function models(one) {
  if (!one.models.length) return "none listed; any name of the provider's can be asked for";
  const shown = one.models.slice(0, SHOWN_MODELS);
  const rest = one.models.length - shown.length;
  return h(
    "ul",
    { class: "models" },
    shown.map((model) =>
      h("li", {}, h("code", { text: model.name }), model.context_tokens ? h("span", { class: "hint", text: ` ${tokens(model.context_tokens)} tokens` }) : null, model.plays.map((role) => h("span", { class: "tag", text: role }))),
    ),
    rest ? h("li", { class: "hint", text: `and ${rest} more` }) : null,
  );
}

/** Every place that a key may come from, in the order they count. */
function sources(one) {
  const told = one.key_sources.filter((line) => line.state !== "unset");
  if (told.length < 2 && !told.some((line) => line.note)) return null;
  const words = { used: ["good", "used"], shadowed: ["idle", "not used: another comes first"], ignored: ["warn", "ignored"], broken: ["bad", "cannot be used"] };
  return h(
    "div",
    { class: "sources" },
    h("h4", { text: "Keys that were found, in the order they count" }),
    h("ol", {}, told.map((line) => h("li", {}, badge(...words[line.state]), ` ${line.source} `, line.label ? h("code", { text: line.label }) : null, line.note ? h("p", { class: "hint", text: line.note }) : null))),
  );
}

function ownPart(page, one) {
  if (one.trust !== "person") return null;
  if (one.may.change !== null) return h("p", { class: "why-not", text: one.may.change });
  const remove = h("button", { type: "button", class: "quiet danger", text: "Remove this provider", onclick: (event) => removeProvider(page, one, event.currentTarget) });
  return h("details", { class: "change", "data-key": `edit-${one.name}` }, h("summary", { text: "Change this provider" }), addForm(page, one), remove);
}

function removeProvider(page, one, button) {
  if (!window.confirm(`Remove ${one.title} and its key?`)) return null;
  return act(button, async () => {
    await ask("DELETE", path(one.name));
    page.checked.delete(one.name);
    await page.renew(`${one.title} is removed.`);
  });
}
