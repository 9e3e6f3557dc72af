'use strict';

// The extension's client against a real HTTP server; run by test_extension.py with `node --test`.
const assert = require('node:assert/strict');
const http = require('node:http');
const path = require('node:path');
const { test } = require('node:test');

const extension = path.join(__dirname, '..', '..', 'container', 'ide', 'calliope-agent');
const { Agent } = require(path.join(extension, 'agent.js'));
const { events } = require(path.join(extension, 'sse.js'));

async function served(handler, run) {
  const server = http.createServer(handler);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const environment = {
    CALLIOPE_AGENT_URL: `http://127.0.0.1:${server.address().port}`,
    CALLIOPE_AGENT_TOKEN: 'cal-0123456789abcdef',
  };
  try {
    await run(new Agent(environment));
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const stream = (...data) => (request, response) => {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'x-request-id': 'r-1', 'x-calliope-target': 'a/b' });
  response.end(data.map((one) => `data: ${typeof one === 'string' ? one : JSON.stringify(one)}\n\n`).join(''));
};
const delta = (content, finish = null) => ({ choices: [{ delta: { content }, finish_reason: finish }] });

async function collected(pieces) {
  const all = [];
  for await (const piece of pieces) {
    all.push(piece);
  }
  return all;
}

async function eventsOf(text, size) {
  const bytes = new TextEncoder().encode(text);
  const chunks = [];
  for (let at = 0; at < bytes.length; at += size) {
    chunks.push(bytes.subarray(at, at + size));
  }
  return collected(events(chunks));
}

test('events are the same however the stream is cut into chunks', async () => {
  const text = ': ping\n\ndata: é\r\ndata:second\r\n\r\nid: 7\ndata: {"a":1}\n\nevent: x\rdata: last\r\rdata: cut short';
  for (let size = 1; size < 30; size += 1) {
    assert.deepEqual(await eventsOf(text, size), ['é\nsecond', '{"a":1}', 'last'], `chunks of ${size}`);
  }
});

test('an answer comes in pieces with its target', () =>
  served(stream(delta('he'), delta('llo'), delta('', 'stop'), '[DONE]'), async (agent) => {
    assert.deepEqual(await collected(agent.chat('chat', [])), [{ target: 'a/b' }, { text: 'he' }, { text: 'llo' }]);
  }));

test('an answer without a finish is an error, even after [DONE]', () =>
  served(stream(delta('he'), '[DONE]'), async (agent) => {
    await assert.rejects(collected(agent.chat('chat', [])), { code: 'truncated', requestId: 'r-1' });
  }));

test('an error event in the stream keeps its message', () =>
  served(stream(delta('he'), { error: { message: 'Stalled. Ask again.', code: 'stalled', status: 504 } }), async (agent) => {
    await assert.rejects(collected(agent.chat('chat', [])), { message: 'Stalled. Ask again.', status: 504 });
  }));

test('a cut connection is an error that names what to do', () =>
  served(
    (request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: {"choices":[{"delta":{"content":"he"}}]}\n\n', () => response.destroy());
    },
    async (agent) => {
      await assert.rejects(collected(agent.chat('chat', [])), /cannot be reached.*Show Status/);
    },
  ));

test("the agent's refusal is shown as it was written, and a page that is no JSON is not", () =>
  served(
    (request, response) => {
      const json = request.url === '/v1/models';
      response.writeHead(424, { 'x-request-id': 'r-2' });
      response.end(json ? '{"error":{"message":"No key. Run X.","code":"key_missing"}}' : '<html>secret</html>');
    },
    async (agent) => {
      await assert.rejects(agent.models(), { message: 'No key. Run X.', code: 'key_missing', requestId: 'r-2', status: 424 });
      await assert.rejects(agent.complete({ editor: 'e' }), /answered 424/);
    },
  ));

test('aborting closes the connection', async () => {
  let gone;
  const left = new Promise((resolve) => {
    gone = resolve;
  });
  const handler = (request, response) => {
    response.on('close', gone);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write('data: {"choices":[{"delta":{"content":"he"}}]}\n\n');
  };
  await served(handler, async (agent) => {
    const abort = new AbortController();
    await assert.rejects(async () => {
      for await (const piece of agent.chat('chat', [], abort.signal)) {
        if (piece.text) {
          abort.abort();
        }
      }
    }, { name: 'AbortError' });
    await left;
  });
});

test('the token goes along, the editor is named, and a superseded request is silence', () =>
  served(
    (request, response) => {
      assert.equal(request.headers.authorization, 'Bearer cal-0123456789abcdef');
      const editor = request.headers['x-calliope-editor'];
      response.writeHead(editor === 'old' ? 409 : 200, { 'content-type': 'application/json' });
      response.end(JSON.stringify(editor === 'old' ? { error: { code: 'superseded' } } : { choices: [{ text: 'x' }] }));
    },
    async (agent) => {
      assert.equal(await agent.complete({ editor: 'old' }), '');
      assert.equal(await agent.complete({ editor: 'new' }), 'x');
    },
  ));

test('without the environment the message says why, and the token is never in it', async () => {
  await assert.rejects(new Agent({}).models(), /CALLIOPE_AGENT_URL/);
  const unreachable = new Agent({ CALLIOPE_AGENT_URL: 'http://127.0.0.1:9', CALLIOPE_AGENT_TOKEN: 'cal-secret-canary' });
  await assert.rejects(unreachable.models(), (error) => !JSON.stringify([error.message, error.stack]).includes('canary'));
});

test('a redirect is not followed with the token', () =>
  served(
    (request, response) => {
      response.writeHead(302, { location: 'http://127.0.0.1:9/' });
      response.end();
    },
    async (agent) => {
      await assert.rejects(agent.models(), /cannot be reached/);
    },
  ));
