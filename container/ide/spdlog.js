// VS Code's log files without the native logger: it would have to be compiled, and where it is missing VS Code prints a
// page of errors at every start and keeps no log. Same functions, plain appending, one older file kept.
'use strict';

const fs = require('node:fs');
const path = require('node:path');

const NAMES = ['trace', 'debug', 'info', 'warning', 'error', 'critical'];

class Logger {
  constructor(kind, name, file, maxBytes) {
    Object.assign(this, { file, maxBytes, level: 2, formatted: true, lines: [], bytes: 0, timer: undefined });
    fs.mkdirSync(path.dirname(file), { recursive: true });
    try {
      this.bytes = fs.statSync(file).size;
    } catch {
      this.bytes = 0;
    }
  }

  write(level, message) {
    if (level < this.level) {
      return;
    }
    const time = new Date().toISOString().replace('T', ' ').replace('Z', '');
    this.lines.push(this.formatted ? `${time} [${NAMES[level]}] ${message}\n` : String(message));
    this.timer ??= setTimeout(() => this.flush(), 200).unref();
  }

  // A log that cannot be written (a full disk) must not stop the IDE.
  flush() {
    clearTimeout(this.timer);
    this.timer = undefined;
    const text = this.lines.splice(0).join('');
    try {
      if (this.bytes > 0 && this.bytes + text.length > this.maxBytes) {
        fs.renameSync(this.file, `${this.file}.1`);
        this.bytes = 0;
      }
      fs.appendFileSync(this.file, text);
      this.bytes += text.length;
    } catch {
      this.bytes = 0;
    }
  }

  getLevel() {
    return this.level;
  }

  setLevel(level) {
    this.level = level;
  }

  setPattern() {
    this.formatted = true;
  }

  clearFormatters() {
    this.formatted = false;
  }

  drop() {
    this.flush();
  }
}

['trace', 'debug', 'info', 'warn', 'error', 'critical'].forEach((method, level) => {
  Logger.prototype[method] = function log(message) {
    this.write(level, message);
  };
});

const create = async (name, file, maxBytes) => new Logger('rotating', name, file, maxBytes);

// One by one: VS Code imports these as named exports, which Node reads off assignments of this form only.
exports.version = 0;
exports.setLevel = () => {};
exports.setFlushOn = () => {};
exports.Logger = Logger;
exports.createRotatingLogger = create;
exports.createAsyncRotatingLogger = create;
