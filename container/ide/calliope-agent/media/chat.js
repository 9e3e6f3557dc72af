'use strict';

// The page of the chat view: draws what the extension tells. All text goes in as text, never as markup.
const host = acquireVsCodeApi();
const byId = (id) => document.getElementById(id);
const [turns, form, question, model] = ['turns', 'form', 'question', 'model'].map(byId);
let seen = [];
let busy = false;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const button = (text, onclick) => make('button', { type: 'button', textContent: text, onclick });

// Prose and fenced blocks, in their order; a fence that is still open is a block that still grows.
function parts(text) {
  const found = [];
  let open;
  for (const line of text.split('\n')) {
    const fence = /^\s*(`{3,}|~{3,})\s*([^`]*)$/.exec(line);
    if (open && fence && !fence[2].trim() && fence[1].startsWith(open.fence)) {
      open = undefined;
    } else if (!open && fence) {
      open = { code: true, fence: fence[1], language: fence[2].trim(), lines: [] };
      found.push(open);
    } else {
      if (!open && found.at(-1)?.code !== false) {
        found.push({ code: false, lines: [] });
      }
      (open ?? found.at(-1)).lines.push(line);
    }
  }
  return found;
}

// `code` and **bold** within prose; every other mark stays as it was written.
function prose(text) {
  const pieces = text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/);
  return pieces.map((piece, at) => {
    if (at % 2 === 0) {
      return piece;
    }
    return piece[0] === '`'
      ? make('code', { textContent: piece.slice(1, -1) })
      : make('strong', { textContent: piece.slice(2, -2) });
  });
}

function codeBlock(part, turn, at) {
  const text = part.lines.join('\n');
  const send = (type) => () => host.postMessage({ type, text, turn: at });
  const actions = [button('Copy', send('copy')), button('Insert at cursor', send('insert'))];
  if (turn.selection) {
    actions.push(button('Replace selection', send('replace')));
  }
  const code = make('pre', { tabIndex: 0 }, make('code', { textContent: text }));
  code.setAttribute('role', 'region');
  code.setAttribute('aria-label', part.language ? `Code, ${part.language}` : 'Code');
  return make('div', {}, code, make('div', { className: 'actions' }, ...actions));
}

function body(turn, at) {
  const drawn = parts(turn.text)
    .filter((part) => part.code || part.lines.join('').trim())
    .map((part) =>
      part.code
        ? codeBlock(part, turn, at)
        : make('div', { className: 'text' }, ...prose(part.lines.join('\n').trim())),
    );
  if (turn.reasoning) {
    drawn.unshift(make('details', {}, make('summary', { textContent: 'Reasoning' }), turn.reasoning));
  }
  return drawn;
}

function ending(turn) {
  if (turn.state === 'failed') {
    const next = make('div', { className: 'actions' }, button('Show status', () => host.postMessage({ type: 'status' })));
    if (/key|quota|model/.test(turn.code ?? '')) {
      next.prepend(button('Open settings', () => host.postMessage({ type: 'settings' })));
    }
    return [make('div', { className: 'error', textContent: turn.error }), next];
  }
  const note = turn.state === 'stopped' ? 'Stopped.' : turn.note;
  return note ? [make('p', { className: 'held note', textContent: note })] : [];
}

function article(turn, at) {
  const mine = turn.role === 'user';
  const head = make('h3', { textContent: mine ? 'You' : 'Calliope ' });
  if (!mine) {
    head.append(make('small', { textContent: turn.model }));
  }
  const held = mine && turn.selection ? [make('p', { className: 'held', textContent: turn.selection })] : [];
  const content = mine ? [make('div', { className: 'text', textContent: turn.text })] : body(turn, at);
  return make('article', { className: turn.role }, head, ...held, ...content, ...ending(turn));
}

// Follows the text only for those who are at its end.
function keepingPlace(change) {
  const atEnd = turns.scrollHeight - turns.scrollTop - turns.clientHeight < 40;
  change();
  if (atEnd) {
    turns.scrollTop = turns.scrollHeight;
  }
}

function draw(state) {
  seen = state.turns;
  const ended = busy && !state.busy;
  busy = state.busy;
  keepingPlace(() => turns.replaceChildren(...seen.map(article)));
  turns.setAttribute('aria-busy', String(busy));
  model.replaceChildren(
    ...state.models.map((name) => make('option', { value: name, textContent: name, selected: name === state.model })),
  );
  byId('send').hidden = busy;
  byId('stop').hidden = !busy;
  byId('held').hidden = !state.selection;
  byId('held-name').textContent = state.selection ? `Sends ${state.selection}` : '';
  byId('said').textContent = busy ? 'Calliope is answering.' : ended ? spoken(seen.at(-1)) : '';
}

// A screen reader is told the whole answer once, not each piece of it.
function spoken(turn) {
  if (turn?.state === 'failed') {
    return turn.error;
  }
  return turn?.state === 'stopped' ? 'Stopped.' : 'The answer is complete.';
}

let drawing = false;
function grow({ turn: at, piece }) {
  const turn = seen[at];
  if (!turn) {
    return;
  }
  turn.text += piece.text ?? '';
  turn.reasoning = (turn.reasoning ?? '') + (piece.reasoning ?? '');
  turn.model = piece.target ?? turn.model;
  // Many pieces may come between two frames: the last turn is drawn once for all of them.
  if (!drawing) {
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      keepingPlace(() => turns.lastElementChild?.replaceWith(article(seen.at(-1), seen.length - 1)));
    });
  }
}

window.addEventListener('message', ({ data }) => (data.type === 'state' ? draw(data) : grow(data)));
form.addEventListener('submit', (event) => {
  event.preventDefault();
  if (!busy && question.value.trim()) {
    host.postMessage({ type: 'ask', text: question.value });
    question.value = '';
  }
});
question.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && busy) {
    host.postMessage({ type: 'stop' });
  }
});
byId('stop').addEventListener('click', () => host.postMessage({ type: 'stop' }));
byId('held-drop').addEventListener('click', () => host.postMessage({ type: 'dropSelection' }));
model.addEventListener('change', () => host.postMessage({ type: 'model', model: model.value }));
host.postMessage({ type: 'ready' });
