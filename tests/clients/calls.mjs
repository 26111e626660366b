// As calls.py, by Node's own clients:   node calls.mjs fetch | http | http2
// `fetch` decodes bodies and knows neither trailers nor interim responses.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import { text } from 'node:stream/consumers';

const PATTERN = Buffer.from(Array.from({ length: 251 }, (_, at) => at));

function content(call) {
  if (!call.body) return undefined;
  return call.body.text !== undefined ? Buffer.from(call.body.text) : Buffer.alloc(call.body.size, PATTERN);
}

function* pieces(data) {
  for (let at = 0; at < data.length; at += 50_000) yield data.subarray(at, at + 50_000);
}

function told(call, seen) {
  const { body, headers, trailers = [], ...rest } = seen;
  const lower = (pairs) => pairs.map(([name, value]) => [name.toLowerCase(), value]).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return {
    name: call.name,
    reason: '',
    informational: [],
    ...rest,
    headers: lower(headers),
    trailers: lower(trailers),
    length: body.length,
    sha256: createHash('sha256').update(body).digest('hex'),
    text: body.length <= 4096 ? body.toString() : null,
  };
}

function headersOf(job, call) {
  return { authorization: `Bearer ${job.token}`, ...Object.fromEntries(call.headers) };
}

async function withFetch(job, call) {
  const data = content(call);
  const body = data && call.body.chunked ? ReadableStream.from(pieces(data)) : data;
  const reply = await fetch(job.base + call.path, { method: call.method, headers: headersOf(job, call), body, duplex: 'half', redirect: 'manual' });
  return { version: '1.1', status: reply.status, reason: reply.statusText, headers: [...reply.headers], body: Buffer.from(await reply.arrayBuffer()) };
}

const agents = {};

function withHttp(job, call) {
  const library = job.base.startsWith('https:') ? https : http;
  agents[library] ??= new library.Agent({ keepAlive: true, ca: readFileSync(job.ca) });
  const data = content(call);
  const headers = { ...headersOf(job, call), ...(data && !call.body.chunked ? { 'content-length': data.length } : {}) };
  const informational = [];
  return new Promise((done, failed) => {
    const request = library.request(job.base + call.path, { method: call.method, headers, agent: agents[library] });
    request.on('information', (it) => it.statusCode !== 100 && informational.push(it.statusCode, pairs(it.rawHeaders)));
    // Node's documentation wants this of who keeps connections: nginx closes one after a 412 that said it would be kept.
    const again = (error) => (request.reusedSocket && error.code === 'ECONNRESET' ? withHttp(job, call).then(done, failed) : failed(error));
    request.on('error', again);
    request.on('response', async (reply) => {
      try {
        const body = await all(reply);
        const { httpVersion: version, statusCode: status, statusMessage: reason } = reply;
        done({ version, status, reason, headers: pairs(reply.rawHeaders), trailers: pairs(reply.rawTrailers), informational, body });
      } catch (error) {
        failed(error);
      }
    });
    if (call.trailers) request.addTrailers(Object.fromEntries(call.trailers));
    for (const piece of data ? pieces(data) : []) request.write(piece);
    request.end();
  });
}

let session;

function withHttp2(job, call) {
  const base = new URL(job.base);
  session ??= http2.connect(base.origin, { ca: readFileSync(job.ca) });
  const data = content(call);
  const headers = { ...headersOf(job, call), ':method': call.method, ':path': base.pathname.replace(/\/$/, '') + call.path };
  if (data && !call.body.chunked) headers['content-length'] = data.length;
  const seen = { version: '2', headers: [], trailers: [], informational: [] };
  return new Promise((done, failed) => {
    const stream = session.request(headers, { endStream: !data, waitForTrailers: Boolean(call.trailers) });
    stream.on('error', failed);
    stream.on('headers', (it, _, raw) => it[':status'] !== 100 && seen.informational.push(it[':status'], plain(raw)));
    stream.on('response', (it, _, raw) => Object.assign(seen, { status: it[':status'], headers: plain(raw) }));
    stream.on('trailers', (_, __, raw) => { seen.trailers = plain(raw); });
    stream.on('wantTrailers', () => stream.sendTrailers(Object.fromEntries(call.trailers)));
    all(stream).then((body) => done({ ...seen, body }), failed);
    for (const piece of data ? pieces(data) : []) stream.write(piece);
    if (data) stream.end();
  });
}

function plain(raw) {
  return pairs(raw).filter(([name]) => !name.startsWith(':'));
}

function pairs(raw) {
  const found = [];
  for (let at = 0; at < raw.length; at += 2) found.push([raw[at], raw[at + 1]]);
  return found;
}

async function all(stream) {
  const found = [];
  for await (const piece of stream) found.push(piece);
  return Buffer.concat(found);
}

const call = { fetch: withFetch, http: withHttp, http2: withHttp2 }[process.argv[2]];
const job = JSON.parse(await text(process.stdin));
const results = [];
for (const it of job.calls) {
  try {
    results.push(told(it, await call(job, it)));
  } catch (error) {
    results.push({ name: it.name, error: `${error.name}: ${error.message} ${error.cause?.message ?? ''}` });
    break;
  }
}
console.log(JSON.stringify(results));
process.exit();
