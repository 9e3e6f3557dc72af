'use strict';

// The data of each server-sent event of a byte stream, by the WHATWG rules: lines end in \n, \r\n or \r; comments and
// other fields than data are passed over; an event that the stream's end cuts short is not given out.
async function* events(chunks) {
  const decoder = new TextDecoder();
  let rest = '';
  let data = [];
  for await (const chunk of chunks) {
    rest += decoder.decode(chunk, { stream: true });
    // A lone \r at the end may be the first half of \r\n: it waits for the next chunk.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line !== '') {
        if (line.startsWith('data:')) {
          data.push(line.slice(5).replace(/^ /, ''));
        }
      } else if (data.length > 0) {
        yield data.join('\n');
        data = [];
      }
    }
  }
}

module.exports = { events };
