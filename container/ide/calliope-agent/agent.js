'use strict';

const { events } = require('./sse');

// Something that kept the agent from answering; the message says what to do next.
class AgentProblem extends Error {
  constructor(message, { status = 0, code = '', requestId = '' } = {}) {
    super(message);
    this.name = 'AgentProblem';
    Object.assign(this, { status, code, requestId });
  }
}

// The agent of this container. Address and token are read from the environment at every call and kept nowhere, so that
// no setting, log or workspace file ever holds them.
class Agent {
  constructor(environment) {
    this.environment = environment;
  }

  // The answer's pieces as they come: {text}, {reasoning}, and once {target} with who answers.
  // Throws AgentProblem, also for an answer that ends before its provider said that it was complete.
  async *chat(model, messages, signal) {
    const response = await this.post('/v1/chat/completions', { model, messages, stream: true }, signal);
    yield { target: response.headers.get('x-calliope-target') ?? model };
    const requestId = response.headers.get('x-request-id') ?? '';
    let finished = '';
    try {
      for await (const data of events(response.body)) {
        if (data === '[DONE]') {
          break;
        }
        const event = parsed(data);
        if (event.error) {
          throw problem(event.error, 200, requestId);
        }
        const choice = event.choices?.[0];
        const delta = choice?.delta ?? {};
        const reasoning = delta.reasoning_content ?? delta.reasoning;
        if (reasoning) {
          yield { reasoning };
        }
        if (delta.content) {
          yield { text: delta.content };
        }
        finished = choice?.finish_reason ?? finished;
      }
    } catch (error) {
      throw translated(error, requestId);
    }
    if (!finished) {
      throw new AgentProblem('The answer was cut off before its end. Ask again.', { code: 'truncated', requestId });
    }
    if (finished === 'length') {
      yield { note: 'The answer reached its length limit. Ask to go on.' };
    } else if (finished === 'content_filter') {
      yield { note: 'The provider held part of the answer back.' };
    }
  }

  // The text to insert at the cursor, or '' when there is nothing to say.
  async complete(place, signal) {
    const { prefix, suffix, path, language, editor } = place;
    const body = { model: 'inline', prompt: prefix, suffix, path, language, stream: false };
    try {
      const response = await this.post('/v1/fim/completions', body, signal, { 'x-calliope-editor': editor });
      const answer = parsed(await response.text()).choices?.[0] ?? {};
      return answer.text ?? answer.message?.content ?? '';
    } catch (error) {
      if (error.status === 409) {
        return '';
      }
      throw translated(error, '');
    }
  }

  // What can be asked: roles first.
  async models(signal) {
    const response = await this.fetch('/v1/models', { signal });
    return parsed(await response.text()).data ?? [];
  }

  // Readiness per component; a 503 here is an answer too.
  async health(signal) {
    const response = await this.fetch('/api/health', { signal }, [503]);
    return parsed(await response.text());
  }

  async post(path, body, signal, headers = {}) {
    const sent = { 'content-type': 'application/json', accept: 'text/event-stream, application/json', ...headers };
    return this.fetch(path, { method: 'POST', headers: sent, body: JSON.stringify(body), signal });
  }

  async fetch(path, options, accepted = []) {
    const url = this.environment.CALLIOPE_AGENT_URL;
    const token = this.environment.CALLIOPE_AGENT_TOKEN;
    if (!url || !token) {
      throw new AgentProblem(
        'This IDE was started without its agent (CALLIOPE_AGENT_URL and CALLIOPE_AGENT_TOKEN are not set). ' +
          'Restart the server; if USE_ALL_COMPONENTS is false, chat and suggestions are switched off on purpose.',
        { code: 'no_agent' },
      );
    }
    let response;
    try {
      response = await fetch(url.replace(/\/+$/, '') + path, {
        redirect: 'error',
        ...options,
        headers: { ...options.headers, authorization: `Bearer ${token}` },
      });
    } catch (error) {
      throw translated(error, '');
    }
    if (!response.ok && !accepted.includes(response.status)) {
      throw await refused(response);
    }
    return response;
  }
}

async function refused(response) {
  const requestId = response.headers.get('x-request-id') ?? '';
  let error = {};
  try {
    error = JSON.parse(await response.text()).error ?? {};
  } catch {
    error = { message: `The agent answered ${response.status} without a reason.` };
  }
  return problem(error, response.status, requestId);
}

function problem(error, status, requestId) {
  const message = error.message ?? 'The agent reported an error without a reason.';
  return new AgentProblem(message, { status: error.status ?? status, code: error.code ?? '', requestId });
}

function translated(error, requestId) {
  if (error instanceof AgentProblem || error?.name === 'AbortError') {
    return error;
  }
  return new AgentProblem(
    'The agent cannot be reached. It restarts by itself within seconds; if this stays, run "Calliope: Show Status".',
    { code: 'unreachable', requestId },
  );
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new AgentProblem('The agent sent something that is not JSON. Run "Calliope: Show Status".', {
      code: 'malformed',
    });
  }
}

module.exports = { Agent, AgentProblem };
