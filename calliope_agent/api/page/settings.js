// Every setting: its value, where that comes from, and a form where it can be changed.

import { patchSettings } from "./agent.js";
import { act, badge, field, h, show } from "./dom.js";
import { source, value } from "./words.js";

export function showSettings(page) {
  const { settings, problems, warnings, config_file: file } = page.told.settings;
  const mine = settings.filter((one) => one.changeable);
  const theirs = settings.filter((one) => !one.changeable);
  show(
    "settings",
    problems.map((text) => h("p", { class: "notice bad", text })),
    warnings.map((text) => h("p", { class: "notice warn", text })),
    part(page, "Yours to change", mine, true),
    part(page, "Set by who runs this server", theirs, false),
    h("p", { class: "hint" }, "Yours are written to ", h("code", { text: file }), ", your comments there stay."),
  );
}

function part(page, title, members, open) {
  if (!members.length) return null;
  return h(
    "details",
    { class: "group", open, "data-key": `settings-${title}` },
    h("summary", {}, h("h3", { text: title }), h("span", { class: "count", text: `${members.length}` })),
    h("ul", { class: "list" }, members.map((one) => entry(page, one))),
  );
}

function entry(page, setting) {
  const shown = setting.secret ? (setting.set ? "set, not shown" : "–") : value(setting.value);
  return h(
    "li",
    {},
    h(
      "details",
      { class: "setting", "data-key": `setting-${setting.name}` },
      h(
        "summary",
        {},
        h("span", { class: "name" }, h("code", { text: setting.name }), h("span", { class: "hint", text: setting.help })),
        h("span", { class: "value", text: shown }),
        h("span", { class: "origin", text: source(setting.source) }),
      ),
      h("div", { class: "inside" }, setting.changeable ? form(page, setting) : h("p", { class: "why-not", text: setting.why_not }), h("p", { class: "hint" }, "Environment variable ", h("code", { text: setting.variable }), setting.secret ? "" : `, default ${value(setting.default)}`)),
    ),
  );
}

function form(page, setting) {
  const { control, read } = editor(setting);
  const save = h("button", { type: "submit", class: "small", text: "Save" });
  const reset = h("button", { type: "button", class: "quiet small", text: "Use the default", disabled: setting.source.kind !== "file" });
  const send = (button, given) =>
    act(button, async () => {
      await patchSettings({ [setting.name]: given });
      await page.renew(`${setting.name} is ${given === null ? "the default again" : "saved"}.${setting.needs_restart ? " It counts after the agent's next start." : ""}`);
    });
  reset.addEventListener("click", () => send(reset, null));
  const made = h("form", { class: "inline-form" }, field(setting.help, control, hint(setting)), h("span", { class: "buttons" }, save, reset));
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    send(save, read());
  });
  return h("div", {}, setting.needs_restart ? badge("warn", "counts after a restart") : null, made);
}

function hint(setting) {
  const { type, additionalProperties } = setting.schema;
  if (type === "array") return "One per line, in order.";
  if (type === "object") return additionalProperties.type === "array" ? "One per line: name = first, second" : "One per line: name = meaning";
  return "";
}

/** A control for the setting's type, and how its value is read. */
function editor(setting) {
  const { schema } = setting;
  const given = setting.value;
  if (schema.type === "boolean") return choice([["true", "yes"], ["false", "no"]], String(given), (text) => text === "true");
  if (schema.enum) return choice(schema.enum.map((word) => [word, word || "–"]), given, (text) => text);
  if (schema.type === "integer" || schema.type === "number") {
    const control = h("input", { type: "number", required: true, step: schema.type === "integer" ? "1" : "any", min: schema.minimum ?? null, max: schema.maximum ?? null, value: String(given) });
    return { control, read: () => Number(control.value) };
  }
  if (schema.type === "array" || schema.type === "object") return lines(schema, given);
  const control = h("input", { type: "text", autocomplete: "off", spellcheck: "false", value: given ?? "" });
  return { control, read: () => control.value.trim() || null };
}

function choice(words, current, parse) {
  const control = h("select", {}, words.map(([word, text]) => h("option", { value: word, text })));
  control.value = current;
  return { control, read: () => parse(control.value) };
}

function lines(schema, given) {
  const text = Array.isArray(given) ? given.join("\n") : Object.entries(given).map(([name, meaning]) => `${name} = ${Array.isArray(meaning) ? meaning.join(", ") : meaning}`).join("\n");
  const control = h("textarea", { rows: "3", spellcheck: "false", autocomplete: "off", value: text });
  const split = () => control.value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (schema.type === "array") return { control, read: () => (split().length ? split() : null) };
  const pair = (line) => {
    const at = line.indexOf("=");
    const [name, meaning] = at < 0 ? [line, ""] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
    return [name, schema.additionalProperties.type === "array" ? meaning.split(",").map((part) => part.trim()).filter(Boolean) : meaning];
  };
  return { control, read: () => (split().length ? Object.fromEntries(split().map(pair)) : null) };
}
