'use strict';

const vscode = require('vscode');

// The status bar's item and the "Show Status" page.
class Status {
  constructor(agent) {
    this.agent = agent;
    this.output = vscode.window.createOutputChannel('Calliope', { log: true });
    this.item = vscode.window.createStatusBarItem('calliope.status', vscode.StatusBarAlignment.Right, 90);
    this.item.name = 'Calliope';
    this.item.command = 'calliope.showStatus';
    this.failure = '';
    this.busy = false;
    this.draw();
    this.item.show();
  }

  dispose() {
    this.item.dispose();
    this.output.dispose();
  }

  inlineWorks() {
    this.failure = '';
    this.draw();
  }

  inlineFails(error) {
    this.output.warn(`inline: ${told(error)}`);
    this.failure = error.message;
    this.draw();
  }

  answering(busy) {
    this.busy = busy;
    this.draw();
  }

  draw() {
    const on = vscode.workspace.getConfiguration('calliope.inline').get('enabled', true);
    const icon = this.busy ? 'loading~spin' : this.failure ? 'warning' : on ? 'sparkle' : 'circle-slash';
    this.item.text = `$(${icon}) Calliope`;
    const state = this.failure || (on ? 'Inline suggestions are on.' : 'Inline suggestions are off.');
    this.item.tooltip = `${state} Select to see the status.`;
    this.item.accessibilityInformation = { label: `Calliope. ${state}`, role: 'button' };
    this.item.backgroundColor = this.failure ? new vscode.ThemeColor('statusBarItem.warningBackground') : undefined;
  }

  async show() {
    const lines = [];
    try {
      const health = await this.agent.health(AbortSignal.timeout(10_000));
      lines.push(`The agent is ${health.status}${health.problem ? `: ${health.problem}` : '.'}`);
      for (const [role, target] of Object.entries(health.roles ?? {})) {
        lines.push(`${role}: ${target}`);
      }
      this.failure = '';
    } catch (error) {
      lines.push(error.message);
      this.failure = error.message;
    }
    this.draw();
    this.output.info(lines.join(' | '));
    const choice = await vscode.window.showInformationMessage(
      lines[0],
      { modal: true, detail: lines.slice(1).join('\n') },
      'Open Settings',
      'Show Log',
    );
    if (choice === 'Open Settings') {
      await openSettings();
    } else if (choice === 'Show Log') {
      this.output.show();
    }
  }
}

// The settings page lies beside the IDE under the instance's address, which the IDE tells only by way of its link to
// other ports.
async function openSettings() {
  const ports = process.env.VSCODE_PROXY_URI ?? '';
  const root = ports.endsWith('proxy/{{port}}/') ? ports.slice(0, -'proxy/{{port}}/'.length) : '';
  if (!/^https?:\/\//.test(root)) {
    await vscode.window.showWarningMessage("Open the page calliope/ below this server's address in the browser.");
    return;
  }
  await vscode.env.openExternal(vscode.Uri.parse(`${root}calliope/`));
}

function told(error) {
  const facts = [error.code, error.status || '', error.requestId && `request ${error.requestId}`].filter(Boolean);
  return facts.length > 0 ? `${error.message} (${facts.join(', ')})` : error.message;
}

module.exports = { Status, openSettings, told };
