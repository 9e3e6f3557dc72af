// Ends this process when its parent is gone, without the native watchdog, which would have to be compiled. The native
// one notices even while the process is busy; this one at its next free moment, which is soon enough for a leftover.
'use strict';

exports.start = (parent) => {
  const look = () => {
    try {
      process.kill(parent, 0);
    } catch (error) {
      if (error.code === 'ESRCH') {
        process.exit(87);
      }
    }
  };
  setInterval(look, 1000).unref();
};

exports.exit = (code) => process.exit(code ?? 0);
