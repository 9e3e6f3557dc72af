// The agent's own API. Addresses are relative, so that the page works below any prefix.

const token = document.querySelector('meta[name="write-token"]').content;

/** What the agent answers; throws an Error with its own words. `also` are further statuses that are no failure. */
export async function ask(method, path, body, also = []) {
  const headers = { accept: "application/json" };
  if (method !== "GET") headers["x-calliope-write-token"] = token;
  if (body !== undefined) headers["content-type"] = "application/json";
  const request = { method, headers, redirect: "error", cache: "no-store" };
  if (body !== undefined) request.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(path, request);
  } catch {
    throw new Error("The agent does not answer. It may be restarting, or your login has ended: load the page again.");
  }
  const told = await answer.json().catch(() => null);
  if (answer.ok || also.includes(answer.status)) {
    if (told !== null) return told;
    throw new Error("Something answered that is not the agent. Load the page again.");
  }
  throw new Error(told?.error?.message ?? (await refusal(answer)));
}

async function refusal(answer) {
  if (answer.status === 403) return "This page may not do that any more. Load it again.";
  if (answer.status === 502 || answer.status === 503) return "The agent does not answer. It may be starting; try again in a moment.";
  return `The agent answered with status ${answer.status}. Load the page again.`;
}

export const get = (path, also) => ask("GET", path, undefined, also);
export const patchSettings = (changes) => ask("PATCH", "api/settings", changes);
export const provider = (name, tail = "") => `api/providers/${encodeURIComponent(name)}${tail}`;
