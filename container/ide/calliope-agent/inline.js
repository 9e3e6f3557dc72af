'use strict';

const crypto = require('node:crypto');
const vscode = require('vscode');

// What is sent at most around the cursor; the agent cuts further to what the model takes.
const PREFIX_CHARS = 8000;
const SUFFIX_CHARS = 3000;
// After an error: not at every keystroke again.
const PAUSE_MS = 10_000;

class Inline {
  constructor(agent, status) {
    this.agent = agent;
    this.status = status;
    this.session = crypto.randomUUID();
    this.pausedUntil = 0;
  }

  async provideInlineCompletionItems(document, position, context, token) {
    const asked = context.triggerKind === vscode.InlineCompletionTriggerKind.Invoke;
    const settings = vscode.workspace.getConfiguration('calliope.inline', document);
    if (!asked && (!wanted(settings, document) || Date.now() < this.pausedUntil)) {
      return undefined;
    }
    const abort = new AbortController();
    const watch = token.onCancellationRequested(() => abort.abort());
    try {
      if (!asked && !(await quiet(settings.get('delay', 75), abort.signal))) {
        return undefined;
      }
      const text = await this.agent.complete(this.place(document, position), abort.signal);
      this.status.inlineWorks();
      if (!text || token.isCancellationRequested) {
        return undefined;
      }
      return [new vscode.InlineCompletionItem(text, new vscode.Range(position, position))];
    } catch (error) {
      if (!abort.signal.aborted) {
        this.pausedUntil = Date.now() + PAUSE_MS;
        this.status.inlineFails(error);
      }
      return undefined;
    } finally {
      watch.dispose();
    }
  }

  place(document, position) {
    const at = document.offsetAt(position);
    const start = document.positionAt(Math.max(0, at - PREFIX_CHARS));
    const end = document.positionAt(at + SUFFIX_CHARS);
    const named = crypto.createHash('sha256').update(document.uri.toString()).digest('hex').slice(0, 16);
    return {
      prefix: document.getText(new vscode.Range(start, position)),
      suffix: document.getText(new vscode.Range(position, end)),
      path: vscode.workspace.asRelativePath(document.uri, false),
      language: document.languageId,
      editor: `${this.session}/${named}`,
    };
  }
}

function wanted(settings, document) {
  return settings.get('enabled', true) && !settings.get('disabledLanguages', []).includes(document.languageId);
}

// True after `ms` without the signal.
function quiet(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(!signal.aborted), ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve(false);
    });
  });
}

module.exports = { Inline };
