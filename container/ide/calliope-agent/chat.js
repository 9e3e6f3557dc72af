'use strict';

const crypto = require('node:crypto');
const vscode = require('vscode');
const { told } = require('./status');

const INSTRUCTIONS =
  'You help a programmer inside an editor. Answer briefly. Put code in fenced blocks with the language named.';
const ROLES = ['chat', 'fast'];

// The chat view. The conversation lives here, not in the page, which may be thrown away whenever it is hidden; and in
// memory only, since an operator may forbid prompts on any disk.
class Chat {
  constructor(agent, status, media) {
    Object.assign(this, { agent, status, media, view: undefined, turns: [], model: ROLES[0], models: ROLES });
    this.selection = undefined;
    this.abort = undefined;
  }

  resolveWebviewView(view) {
    this.view = view;
    view.webview.options = { enableScripts: true, localResourceRoots: [this.media] };
    view.webview.onDidReceiveMessage((message) => this.received(message));
    view.onDidDispose(() => {
      this.view = undefined;
    });
    view.webview.html = this.page(view.webview);
  }

  async received(message) {
    const actions = {
      ready: () => this.opened(),
      ask: () => this.ask(message.text),
      stop: () => this.stop(),
      model: () => this.choose(message.model),
      dropSelection: () => this.select(undefined),
      copy: () => vscode.env.clipboard.writeText(message.text),
      insert: () => insert(message.text),
      replace: () => replace(message.text, this.turns[message.turn]?.selection),
      settings: () => vscode.commands.executeCommand('calliope.openSettings'),
      status: () => vscode.commands.executeCommand('calliope.showStatus'),
    };
    await actions[message.type]?.();
  }

  async opened() {
    this.draw();
    try {
      const listed = await this.agent.models(AbortSignal.timeout(10_000));
      const others = listed.filter((model) => model.id.includes('/') && !/embed/.test(model.id)).map((model) => model.id);
      const roles = ROLES.filter((role) => listed.some((model) => model.id === role));
      this.models = [...new Set([...(roles.length > 0 ? roles : ROLES), ...others])];
      this.draw();
    } catch (error) {
      this.status.output.warn(`models: ${told(error)}`);
    }
  }

  choose(model) {
    this.model = model;
  }

  select(selection) {
    this.selection = selection;
    this.draw();
  }

  clear() {
    this.stop();
    this.turns = [];
    this.select(undefined);
  }

  stop() {
    this.abort?.abort();
  }

  // Show the view and hold the editor's selection, or ask about it at once.
  async about(question) {
    const selection = selected();
    await vscode.commands.executeCommand('calliope.chat.focus');
    if (!selection) {
      vscode.window.showInformationMessage('Select some code first.');
      return;
    }
    this.select(selection);
    if (question) {
      await this.ask(question);
    }
  }

  async ask(text) {
    if (this.abort || !text.trim()) {
      return;
    }
    const turn = { role: 'user', text: text.trim(), selection: this.selection };
    const answer = { role: 'assistant', text: '', reasoning: '', model: this.model, selection: this.selection };
    this.turns.push(turn);
    const messages = [{ role: 'system', content: INSTRUCTIONS }, ...this.turns.filter(sendable).map(wire)];
    this.turns.push(answer);
    this.selection = undefined;
    this.abort = new AbortController();
    await this.busy(true);
    try {
      for await (const piece of this.agent.chat(this.model, messages, this.abort.signal)) {
        this.grow(answer, piece);
      }
      answer.state = 'done';
    } catch (error) {
      this.failed(answer, error);
    }
    this.abort = undefined;
    await this.busy(false);
  }

  grow(answer, piece) {
    answer.text += piece.text ?? '';
    answer.reasoning += piece.reasoning ?? '';
    answer.model = piece.target ?? answer.model;
    answer.note = piece.note ?? answer.note;
    this.post({ type: 'grow', turn: this.turns.indexOf(answer), piece });
  }

  failed(answer, error) {
    if (this.abort.signal.aborted) {
      answer.state = 'stopped';
      return;
    }
    answer.state = 'failed';
    answer.error = error.message;
    answer.code = error.code;
    this.status.output.error(`chat: ${told(error)}`);
  }

  async busy(busy) {
    this.status.answering(busy);
    this.draw();
    await vscode.commands.executeCommand('setContext', 'calliope.busy', busy);
  }

  draw() {
    const { turns, models, model, selection } = this;
    const seen = turns.map((turn) => ({ ...turn, selection: turn.selection && label(turn.selection) }));
    const held = selection && label(selection);
    this.post({ type: 'state', turns: seen, models, model, selection: held, busy: this.abort !== undefined });
  }

  post(message) {
    this.view?.webview.postMessage(message);
  }

  page(webview) {
    const nonce = crypto.randomBytes(16).toString('base64url');
    const file = (name) => webview.asWebviewUri(vscode.Uri.joinPath(this.media, name));
    return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src ${webview.cspSource}; script-src 'nonce-${nonce}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="${file('chat.css')}">
<title>Calliope chat</title>
</head>
<body>
<main id="turns" role="log" aria-label="Conversation" tabindex="0"></main>
<p id="hint">Ask about your code. Select some first to send it along.</p>
<form id="form">
  <p id="held" hidden><span id="held-name"></span>
    <button type="button" id="held-drop" aria-label="Do not send the selection">Remove</button></p>
  <label for="question" class="unseen">Your question</label>
  <textarea id="question" rows="3" placeholder="Ask Calliope (Enter sends, Shift+Enter is a new line)"></textarea>
  <div id="row">
    <label for="model" class="unseen">Model</label>
    <select id="model"></select>
    <button type="submit" id="send">Send</button>
    <button type="button" id="stop" hidden>Stop</button>
  </div>
</form>
<p id="said" role="status" class="unseen"></p>
<script nonce="${nonce}" src="${file('chat.js')}"></script>
</body>
</html>`;
  }
}

// A turn that failed or was stopped before any text is no part of what the model is told.
const sendable = (turn) => turn.role === 'user' || turn.text !== '';

function wire(turn) {
  const held = turn.role === 'user' ? turn.selection : undefined;
  if (!held) {
    return { role: turn.role, content: turn.text };
  }
  // A fence longer than any inside keeps the code in one piece.
  const longest = Math.max(2, ...[...held.text.matchAll(/`+/g)].map((run) => run[0].length));
  const fence = '`'.repeat(longest + 1);
  const code = `${fence}${held.language}\n${held.text}\n${fence}`;
  return { role: 'user', content: `${turn.text}\n\n${label(held)}:\n${code}` };
}

function selected() {
  const editor = vscode.window.activeTextEditor;
  if (!editor || editor.selection.isEmpty) {
    return undefined;
  }
  const { document, selection } = editor;
  return {
    uri: document.uri,
    version: document.version,
    range: new vscode.Range(selection.start, selection.end),
    text: document.getText(selection),
    language: document.languageId,
  };
}

const label = (held) =>
  `${vscode.workspace.asRelativePath(held.uri, false)}, lines ${held.range.start.line + 1} to ${held.range.end.line + 1}`;

async function insert(text) {
  const editor = vscode.window.activeTextEditor ?? vscode.window.visibleTextEditors[0];
  if (!editor) {
    vscode.window.showWarningMessage('Open a file to insert the code into, or copy it.');
    return;
  }
  await editor.edit((edit) => edit.replace(editor.selection, text));
}

async function replace(text, held) {
  if (!held) {
    return;
  }
  const document = await vscode.workspace.openTextDocument(held.uri);
  if (document.version !== held.version) {
    vscode.window.showWarningMessage('The file has changed since you asked. Copy the code and place it yourself.');
    return;
  }
  const edit = new vscode.WorkspaceEdit();
  edit.replace(held.uri, held.range, text);
  await vscode.workspace.applyEdit(edit);
}

module.exports = { Chat };
