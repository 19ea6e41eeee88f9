// A gRPC server or client of @grpc/grpc-js, with the same service as ../python/echo.py.
// `node echo.js serve PORT`; `node echo.js call HOST:PORT`.
'use strict';
const assert = require('node:assert');
const grpc = require('@grpc/grpc-js');

const SERVICE = 'partners.Echo';
const MESSAGE = '\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \u{1F608} %41 %';
const BINARY = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
const raw = (value) => value;

function method(name, requestStream, responseStream) {
  return {
    path: `/${SERVICE}/${name}`, requestStream, responseStream,
    requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw,
  };
}
const METHODS = {
  Unary: method('Unary', false, false),
  Up: method('Up', true, false),
  Down: method('Down', false, true),
  Both: method('Both', true, true),
  Fail: method('Fail', true, true),
  Sleep: method('Sleep', false, true),
};

// All that was sent under m-.
function sent(metadata) {
  const all = new grpc.Metadata();
  for (const key of Object.keys(metadata.getMap()).filter((key) => key.startsWith('m-'))) {
    metadata.get(key).forEach((value) => all.add(key, value));
  }
  return all;
}

const IMPLEMENTATION = {
  Unary(call, callback) {
    call.sendMetadata(sent(call.metadata));
    callback(null, call.request, sent(call.metadata));
  },
  Up(call, callback) {
    let [count, size] = [0, 0];
    call.on('data', (one) => { count += 1; size += one.length; });
    call.on('end', () => callback(null, Buffer.from(`${count} ${size}`)));
  },
  Down(call) {
    for (let n = 0; n < Number(call.request); n += 1) call.write(Buffer.from(String(n)));
    call.end();
  },
  Both(call) {
    call.sendMetadata(sent(call.metadata));
    call.on('data', (one) => call.write(one));
    call.on('end', () => call.end(sent(call.metadata)));
  },
  Fail(call) {
    const after = Number(call.metadata.get('x-after')[0] ?? 0);
    for (let n = 0; n < after; n += 1) call.write(Buffer.from(String(n)));
    const metadata = new grpc.Metadata();
    metadata.set('grpc-status-details-bin', BINARY);
    call.emit('error', { code: grpc.status.ABORTED, details: MESSAGE, metadata });
  },
  Sleep(call) {
    const deadline = call.getDeadline();
    const left = deadline === Infinity ? '' : String((deadline - Date.now()) / 1000);
    call.write(Buffer.from(left));
    call.on('cancelled', () => console.log(left ? 'sleep: its deadline has passed' : 'sleep: cancelled'));
  },
};

function serve(port) {
  const server = new grpc.Server();
  server.addService(METHODS, IMPLEMENTATION);
  server.bindAsync(`0.0.0.0:${port}`, grpc.ServerCredentials.createInsecure(), (error) => {
    if (error) throw error;
    console.log('serves');
  });
}

let checks = 0;
function equal(what, got, expected) {
  checks += 1;
  assert.deepStrictEqual(got, expected, `${what}: ${JSON.stringify(got)}, not ${JSON.stringify(expected)}`);
}

// What a call that answers with a stream, or with one message, came to.
function ended(call) {
  return new Promise((resolve) => {
    const got = [];
    const told = {};
    call.on('data', (one) => got.push(one));
    call.on('metadata', (metadata) => { told.head = metadata; });
    call.on('error', () => {});
    call.on('status', (status) => resolve({ ...told, got, code: status.code, details: status.details, trailers: status.metadata }));
  });
}
const soon = () => ({ deadline: Date.now() + 20_000 });

async function call(target) {
  const client = new grpc.Client(target, grpc.credentials.createInsecure());
  const unary = (bytes, metadata = new grpc.Metadata(), options = soon(), path = METHODS.Unary.path) => new Promise((resolve) => {
    const told = {};
    const one = client.makeUnaryRequest(path, raw, raw, bytes, metadata, options, (error, value) => { told.value = value; });
    one.on('metadata', (head) => { told.head = head; });
    one.on('status', (status) => setImmediate(() => resolve({ ...told, code: status.code, details: status.details, trailers: status.metadata })));
  });
  const both = (name, metadata = new grpc.Metadata(), options = soon()) => client.makeBidiStreamRequest(METHODS[name].path, raw, raw, metadata, options);

  const metadata = new grpc.Metadata();
  metadata.add('m-text', 'a, b; c="d"');
  metadata.add('m-twice', 'one');
  metadata.add('m-twice', 'two');
  metadata.add('m-empty', '');
  metadata.add('m-some-bin', BINARY);
  metadata.add('m-some-bin', Buffer.from([0, 44, 255]));
  for (let n = 0; n < 100; n += 1) metadata.add(`m-many-${n}`, 'v'.repeat(20));
  const listed = (some) => Object.keys(some.getMap()).filter((key) => key.startsWith('m-')).sort().map((key) => [key, some.get(key)]);
  // Values of one name may come in one line (RFC 9110, 5.3).
  const joined = (some) => listed(some).map(([key, values]) => (key.endsWith('-bin') ? [key, values] : [key, values.join(', ')]));
  let answer = await unary(Buffer.from('metadata'), metadata);
  equal('unary', [answer.code, String(answer.value)], [0, 'metadata']);
  equal('metadata in the head', joined(answer.head), joined(metadata));
  equal('metadata in the trailers', joined(answer.trailers), joined(metadata));

  equal('nothing', (await unary(Buffer.alloc(0))).value.length, 0);
  equal('large', (await unary(Buffer.alloc(3_000_000))).value.length, 3_000_000);
  const up = await new Promise((resolve, reject) => {
    const one = client.makeClientStreamRequest(METHODS.Up.path, raw, raw, new grpc.Metadata(), soon(), (error, value) => (error ? reject(error) : resolve(String(value))));
    for (let n = 0; n < 100; n += 1) one.write(Buffer.alloc(n * 100));
    one.end();
  });
  equal('up', up, '100 495000');
  const down = (count) => ended(client.makeServerStreamRequest(METHODS.Down.path, raw, raw, Buffer.from(String(count)), new grpc.Metadata(), soon()));
  equal('down', (await down(200)).got.map(Number), Array.from({ length: 200 }, (_, n) => n));
  equal('down: none', (({ got, code }) => [got.length, code])(await down(0)), [0, 0]);
  const chat = both('Both');
  const over = ended(chat);
  for (let n = 0; n < 20; n += 1) {
    const back = new Promise((resolve) => { chat.once('data', resolve); });
    chat.write(Buffer.alloc(n * 1000, n));
    equal('both', (await back).equals(Buffer.alloc(n * 1000, n)), true);
  }
  chat.end();
  equal('both: its code', (await over).code, 0);
  const empty = both('Both');
  empty.end();
  equal('empty stream', (({ got, code }) => [got.length, code])(await ended(empty)), [0, 0]);
  const many = await Promise.all(Array.from({ length: 300 }, (_, n) => unary(Buffer.from(String(n)))));
  equal('many at once', many.map(({ value }) => Number(value)), Array.from({ length: 300 }, (_, n) => n));

  for (const after of [0, 3]) {
    const said = new grpc.Metadata();
    said.set('x-after', String(after));
    // Its direction stays open: the server ends first.
    const failed = await ended(both('Fail', said));
    equal('fail', [failed.code, failed.details, failed.got.length], [grpc.status.ABORTED, MESSAGE, after]);
    equal('fail: details', failed.trailers.get('grpc-status-details-bin'), [BINARY]);
  }
  // Sends on and on; the server ends meanwhile. (grpcio's client comes to INTERNAL now and then, with nothing between them: it is not asked.)
  const said = new grpc.Metadata();
  said.set('x-after', '5');
  const stubborn = both('Fail', said);
  const sends = setInterval(() => stubborn.write(Buffer.alloc(10_000)), 1);
  const failed = await ended(stubborn);
  clearInterval(sends);
  equal('fail while it sends', [failed.code, failed.details, failed.got.length], [grpc.status.ABORTED, MESSAGE, 5]);
  const none = await unary(Buffer.alloc(0), undefined, soon(), `/${SERVICE}/None`);
  equal('no such method', none.code, grpc.status.UNIMPLEMENTED);

  const sleep = (options) => client.makeServerStreamRequest(METHODS.Sleep.path, raw, raw, Buffer.alloc(0), new grpc.Metadata(), options);
  const late = await ended(sleep({ deadline: Date.now() + 1_500 }));
  const left = Number(late.got[0]);
  equal(`the deadline is told: ${left}`, left > 0 && left < 5, true);
  equal('deadline', late.code, grpc.status.DEADLINE_EXCEEDED);
  const given = sleep({});
  const gone = ended(given);
  given.once('data', () => given.cancel());
  equal('cancelled', (await gone).code, grpc.status.CANCELLED);
  equal('after that', String((await unary(Buffer.from('again'))).value), 'again');
  client.close();
  console.log(`${checks} checks`);
}

({ serve, call })[process.argv[2]](process.argv[3]);
