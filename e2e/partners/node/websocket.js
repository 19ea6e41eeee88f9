// A WebSocket client of ws, to a server that echoes. `node websocket.js URL`: text, bytes, a message in fragments, a large one, PING and
// its PONG, and the close with its code. Says `N checks` and ends with 0 if all hold.
'use strict';
const assert = require('node:assert');
const { once } = require('node:events');
const WebSocket = require('ws');

async function main(url) {
  let checks = 0;
  const equal = (got, expected) => { checks += 1; assert.deepStrictEqual(got, expected); };
  const socket = new WebSocket(url, { handshakeTimeout: 10_000 });
  const limit = setTimeout(() => { throw new Error('it takes too long'); }, 20_000);
  await once(socket, 'open');
  const back = async (message) => {
    const answered = once(socket, 'message');
    if (message) socket.send(message);
    return (await answered)[0];
  };
  equal(String(await back('hello \u263a')), 'hello \u263a');
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
  equal(await back(bytes), bytes);
  socket.send('in ', { fin: false });
  socket.send('pieces', { fin: true });
  equal(String(await back()), 'in pieces');
  equal((await back(Buffer.alloc(60_000, 7))).length, 60_000);
  for (let n = 0; n < 100; n += 1) equal(String(await back(`${n}`)), `${n}`);
  const pong = once(socket, 'pong');
  socket.ping('are you there');
  equal(String((await pong)[0]), 'are you there');
  const closed = once(socket, 'close');
  socket.close(1000, 'done');
  equal((await closed)[0], 1000);
  clearTimeout(limit);
  console.log(`${checks} checks`);
}

main(process.argv[2]);
