// As sockets.py, by the npm package `ws`.

import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import WebSocket from 'ws';

const job = JSON.parse(await text(process.stdin));
const authorization = `Bearer ${job.token}`;
const address = `${job.base.replace(/^http/, 'ws')}/socket?x=%20y&run=`;

function open(run) {
  const headers = { authorization, 'x-own': 'stays' };
  const socket = new WebSocket(address + run, ['first', 'second.v2'], { headers, ca: readFileSync(job.ca) });
  const waiting = [], came = [];
  socket.on('message', (data, binary) => {
    const message = told(data, binary);
    if (waiting.length) waiting.shift()(message);
    else came.push(message);
  });
  const next = () => new Promise((done) => (came.length ? done(came.shift()) : waiting.push(done)));
  return { socket, next };
}

function told(data, binary) {
  if (!binary && data.length < 2000) return data.toString();
  return [binary ? 'bytes' : 'str', data.length, createHash('sha256').update(data).digest('hex')];
}

const run = randomUUID();
const { socket, next } = open(run);
const [upgrade] = await once(socket, 'upgrade');
const opened = {
  status: upgrade.statusCode,
  headers: Object.fromEntries(['upgrade', 'sec-websocket-protocol', 'sec-websocket-extensions', 'x-opened'].map((name) => [name, upgrade.headers[name]])),
};
const first = JSON.parse(await next());
first.query = first.query.replace(run, 'RUN');
const seen = [];
const bytes = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
for (const message of ['hello', '', 'caf\u00e9 \u{1f511}', bytes, Buffer.alloc(0), Buffer.alloc(1_000_000, 'x'), 'y'.repeat(300_000)]) {
  socket.send(message);
  seen.push(await next());
}
socket.send('one, ', { fin: false });
socket.send('two, ', { fin: false });
socket.send('three', { fin: true });
seen.push(await next());
const pong = once(socket, 'pong');
socket.ping('are you there');
seen.push((await pong)[0].toString());
socket.send('big 3000064');
seen.push(await next());
for (let n = 0; n < 200; n += 1) socket.send(String(n));
for (let n = 0; n < 200; n += 1) seen.push(await next());
const closing = once(socket, 'close');
socket.send('close 4001 until then');
const [code, reason] = await closing;

const other = randomUUID();
const second = open(other);
await second.next();
const closed = once(second.socket, 'close');
second.socket.close(4002, 'enough');
await closed;
const there = await (await fetch(`${job.base}/closed?run=${other}`, { headers: { authorization } })).json();
console.log(JSON.stringify({ opened, first, seen, closed: [code, reason.toString()], there }));
process.exit();
