'use strict';

const vscode = require('vscode');
const { Agent } = require('./agent');
const { Chat } = require('./chat');
const { Inline } = require('./inline');
const { Status, openSettings } = require('./status');

const EXPLAIN = 'Explain what this code does and anything surprising in it.';
const REFACTOR = 'Refactor this code for clarity without changing what it does. Answer with the whole code in one block.';

function activate(context) {
  const agent = new Agent(process.env);
  const status = new Status(agent);
  const chat = new Chat(agent, status, vscode.Uri.joinPath(context.extensionUri, 'media'));
  const command = (name, action) => vscode.commands.registerCommand(`calliope.${name}`, action);
  context.subscriptions.push(
    status,
    vscode.window.registerWebviewViewProvider('calliope.chat', chat),
    vscode.languages.registerInlineCompletionItemProvider({ pattern: '**' }, new Inline(agent, status)),
    vscode.workspace.onDidChangeConfiguration((event) => event.affectsConfiguration('calliope') && status.draw()),
    command('explainSelection', () => chat.about(EXPLAIN)),
    command('refactorSelection', () => chat.about(REFACTOR)),
    command('addSelection', () => chat.about('')),
    command('showStatus', () => status.show()),
    command('openSettings', openSettings),
    command('newChat', () => chat.clear()),
    command('stop', () => chat.stop()),
    command('toggleInline', toggleInline),
    { dispose: () => chat.stop() },
  );
}

async function toggleInline() {
  const settings = vscode.workspace.getConfiguration('calliope.inline');
  await settings.update('enabled', !settings.get('enabled', true), vscode.ConfigurationTarget.Global);
}

module.exports = { activate };
