// Who plays each role, in which order the others are asked, and where that comes from.

import { patchSettings } from "./agent.js";
import { act, badge, field, h, say, show } from "./dom.js";
import { ROLES, source } from "./words.js";

const OTHER = "\u0000other";

export function showRoles(page) {
  const cards = Object.keys(ROLES).map((role) => card(page, role));
  show("models", h("div", { class: "cards" }, cards), chainCard(page));
}

function card(page, role) {
  const { roles } = page.told.providers;
  const setting = find(page, `${role}_model`);
  const { target, chain, problem } = roles[role];
  const [title, text] = ROLES[role];
  const after = chain.slice(1);
  return h(
    "article",
    { class: "card", "aria-label": title, "data-key": `role-${role}` },
    h("div", { class: "card-head" }, h("h3", { text: title }), target ? null : badge("warn", "nobody")),
    h("p", { class: "hint", text }),
    target ? h("p", { class: "target", text: target }) : h("p", { class: "problem", text: problem ?? "No model plays this role yet." }),
    target && problem ? h("p", { class: "problem", text: problem }) : null,
    after.length ? h("p", { class: "hint" }, "Then ", after.join(", then ")) : null,
    setting.changeable ? h("p", { class: "origin", text: origin(setting) }) : null,
    setting.changeable ? chooser(page, role, setting) : h("p", { class: "why-not", text: setting.why_not }),
  );
}

function origin(setting) {
  if (setting.value === null) return "Chosen from the keys that are there.";
  return `Set in ${source(setting.source)}.`;
}

function chooser(page, role, setting) {
  const select = h("select", { name: role, "data-key": `choose-${role}` }, options(page, role, setting.value));
  select.value = setting.value ?? "";
  const typed = h("input", { type: "text", name: `${role}-other`, autocomplete: "off", spellcheck: "false", placeholder: "provider/model" });
  const other = h("div", { hidden: true }, field("Its name", typed, "provider/model, as the provider spells it"));
  const save = h("button", { type: "submit", class: "small", text: "Use it" });
  select.addEventListener("change", () => {
    other.hidden = select.value !== OTHER;
    if (!other.hidden) typed.focus();
  });
  const form = h("form", { class: "inline-form" }, field("Model", select), other, save);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = select.value === OTHER ? typed.value.trim() : select.value;
    if (select.value === OTHER && !chosen) {
      say("Write the model's name first.", "bad");
      typed.focus();
      return;
    }
    act(save, async () => {
      await patchSettings({ [`${role}_model`]: chosen || null });
      await page.renew(chosen ? `${ROLES[role][0]} is played by ${chosen}.` : `${ROLES[role][0]} is chosen from the keys again.`);
    });
  });
  return h("details", { class: "change", "data-key": `change-${role}` }, h("summary", { text: "Change" }), form);
}

/** Every target of the providers that can be asked, those that suit the role first, and what checks have listed. */
function options(page, role, current) {
  const groups = [];
  const known = new Set();
  for (const provider of page.told.providers.providers) {
    if (provider.state !== "ready" && !current?.startsWith(`${provider.name}/`)) continue;
    const suits = provider.models.filter((model) => model.suits.includes(role));
    const rest = provider.models.filter((model) => !model.suits.includes(role) && fits(model, role));
    const listed = (page.checked.get(provider.name)?.models ?? []).map((name) => `${provider.name}/${name}`);
    const targets = [...new Set([...[...suits, ...rest].map((model) => model.target), ...listed])];
    for (const target of targets) known.add(target);
    if (targets.length) groups.push(h("optgroup", { label: provider.title }, targets.map(option)));
  }
  const unknown = current && !known.has(current) ? [option(current)] : [];
  return [h("option", { value: "", text: "Automatic" }), ...unknown, ...groups, h("option", { value: OTHER, text: "Another model…" })];
}

const option = (target) => h("option", { value: target, text: target });

const fits = (model, role) => (role === "embed") === model.capabilities.includes("embeddings") || !model.capabilities.length;

function chainCard(page) {
  const setting = find(page, "fallbacks");
  const chain = setting.value;
  return h(
    "article",
    { class: "card wide", "aria-label": "Fallback order", "data-key": "chain" },
    h("div", { class: "card-head" }, h("h3", { text: "Fallback order" })),
    h("p", { class: "hint", text: "When a role's model fails, these are asked in order. A model that a tool named itself is never swapped." }),
    chain.length ? h("ol", { class: "chain" }, chain.map((target, index) => link(page, setting, target, index))) : h("p", { class: "empty", text: "Nobody else is asked." }),
    setting.changeable && chain.length ? h("p", { class: "origin", text: `Set in ${source(setting.source)}.` }) : null,
    setting.changeable ? adder(page, chain) : h("p", { class: "why-not", text: setting.why_not }),
    ownChains(page),
  );
}

function link(page, setting, target, index) {
  const chain = setting.value;
  const button = (text, label, next, off) =>
    h("button", {
      type: "button",
      class: "quiet small",
      disabled: off,
      "aria-label": `${label} ${target}`,
      "data-key": `chain-${label}-${target}`,
      text,
      onclick: (event) => change(page, event.currentTarget, next()),
    });
  const moved = (to) => () => {
    const next = [...chain];
    next.splice(to, 0, ...next.splice(index, 1));
    return next;
  };
  const buttons = setting.changeable
    ? h(
        "span",
        { class: "buttons" },
        button("↑", "Move up", moved(index - 1), index === 0),
        button("↓", "Move down", moved(index + 1), index === chain.length - 1),
        button("Remove", "Remove", () => chain.filter((_, at) => at !== index), false),
      )
    : null;
  return h("li", {}, h("span", { class: "target", text: target }), buttons);
}

function change(page, button, chain) {
  return act(button, async () => {
    await patchSettings({ fallbacks: chain.length ? chain : null });
    await page.renew(chain.length ? `Asked in order: ${chain.join(", ")}.` : "Nobody else is asked now.");
  });
}

function adder(page, chain) {
  const select = h("select", { name: "fallback" }, options(page, "chat", null).slice(1, -1));
  const add = h("button", { type: "submit", class: "small", text: "Add" });
  const form = h("form", { class: "inline-form" }, field("Add a model to ask next", select), add);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (chain.includes(select.value)) say(`${select.value} is in the order already.`, "bad");
    else if (select.value) change(page, add, [...chain, select.value]);
  });
  return select.options.length ? form : h("p", { class: "hint", text: "Set a provider's key first; its models can then be added here." });
}

/** Chains that single roles have for themselves come first; the page tells of them, the table below changes them. */
function ownChains(page) {
  const own = Object.keys(ROLES).filter((role) => find(page, `fallbacks_${role}`).value.length);
  if (!own.length) return null;
  return h("p", { class: "hint" }, `${own.map((role) => ROLES[role][0]).join(", ")} have an order of their own; see `, h("a", { href: "#settings", text: "all settings" }), ".");
}

function find(page, name) {
  return page.told.settings.settings.find((setting) => setting.name === name);
}
