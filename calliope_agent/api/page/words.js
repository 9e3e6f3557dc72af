// Numbers, times and names as people read them.

export const ROLES = {
  chat: ["Chat", "Questions, edits and agents"],
  inline: ["Inline", "Completions while you type"],
  fast: ["Fast", "Short jobs: titles, summaries"],
  embed: ["Embeddings", "Search by meaning"],
};

export const count = (value) => value.toLocaleString("en");

/** US dollars; null is told as unknown, never as nothing. */
export function dollars(value) {
  if (value === null) return "unknown";
  if (value === 0) return "$0";
  return value < 0.01 ? "< $0.01" : `$${value.toFixed(2)}`;
}

export function tokens(value) {
  if (value === null) return "";
  return value >= 1_000_000 ? `${+(value / 1_000_000).toFixed(1)}M` : value >= 1000 ? `${Math.round(value / 1000)}k` : `${value}`;
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "";
  return value >= 1000 ? `${(value / 1000).toFixed(1)} s` : `${Math.round(value)} ms`;
}

export const time = (iso) => new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

export const day = (iso) => new Date(iso).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

export const megabytes = (value) => `${(value / 1e6).toFixed(value < 1e7 ? 1 : 0)} MB`;

/** Where a value comes from, as the end of a sentence. */
export function source({ kind, where }) {
  if (kind === "environment") return `environment variable ${where}`;
  if (kind === "flag") return "the command line";
  if (kind === "file") return where.split("/").pop();
  return kind === "none" ? "nowhere" : "default";
}

/** Any setting's value on one line. */
export function value(given) {
  if (given === null || given === "") return "–";
  if (given === true) return "yes";
  if (given === false) return "no";
  if (Array.isArray(given)) return given.length ? given.join(" → ") : "–";
  if (typeof given === "object") {
    const pairs = Object.entries(given).map(([name, meaning]) => `${name} → ${Array.isArray(meaning) ? meaning.join(" → ") : meaning}`);
    return pairs.length ? pairs.join(", ") : "–";
  }
  return String(given);
}
