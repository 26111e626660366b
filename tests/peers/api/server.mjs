// A test peer: an API on Node's own HTTP servers, on free ports. Prints one JSON line when it listens: {plain, tls, h2c}: base URLs without a slash
// at their end; the TLS port speaks HTTP/2 and HTTP/1.1, h2c HTTP/2 only. Ends when its stdin closes.
//
//   /trailers    reads the body, answers what trailers came with it, and sends some of its own
//   /hints       103 before the answer
//   /refused     417 before the body is read, and without a 100; the body is left unread, the connection closed
//   /early       the answer before the body is over: `early`, then each piece of the body as it comes
//   /odd         headers and a reason that few send
//   /aborted     answers endlessly; /aborts says how many of these and of uploads to /swallow were cut by their client
//   elsewhere    the request: raw head as it came, length and SHA-256 of the body
//
// CERTIFICATE and KEY are files for the TLS port.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';

const aborts = { replies: 0, requests: 0, waiting: [] };

async function answer(request, response) {
  const path = request.url.split('?')[0].replace(/^.*\//, '/');
  if (path === '/early') {
    response.writeHead(200, { 'content-type': 'application/octet-stream' });
    response.write('early\n');
    request.on('data', (piece) => response.write(piece));
    request.on('end', () => response.end('late\n'));
    return;
  }
  if (path === '/aborted') {
    response.writeHead(200, { 'content-type': 'application/octet-stream' });
    const more = () => { while (!response.destroyed && response.write(Buffer.alloc(65536, 'a'))); };
    response.on('drain', more);
    response.on('close', () => cut('replies'));
    return more();
  }
  if (path === '/aborts') {
    const { replies, requests } = aborts;
    const wanted = new URL(request.url, 'http://x').searchParams;
    if (replies < (wanted.get('replies') ?? 0) || requests < (wanted.get('requests') ?? 0)) {
      return aborts.waiting.push(() => answer(request, response));
    }
    return json(response, { replies, requests });
  }
  if (path === '/odd') {
    // HTTP/2 has no reason.
    if (request.httpVersionMajor === 1) response.statusMessage = 'Quite Fine';
    response.setHeader('x-empty', '');
    response.setHeader('x-latin', 'caf\u00e9');
    response.setHeader('X-Mixed-Case', 'Kept As It Is');
    response.setHeader('x-list', ['b', 'a', 'b']);
    response.setHeader('x-long', 'y'.repeat(12000));
    response.setHeader('keyholder-error', 'forged');
    return response.end('odd\n');
  }
  if (path === '/hints') {
    response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
    return response.end('hinted\n');
  }
  const hash = createHash('sha256');
  let length = 0;
  request.on('aborted', () => cut('requests'));
  try {
    for await (const piece of request) {
      hash.update(piece);
      length += piece.length;
    }
  } catch {
    return;
  }
  if (path === '/trailers') {
    response.setHeader('trailer', 'x-checksum, x-count');
    response.setHeader('content-type', 'application/json');
    response.write(JSON.stringify({ length, sha256: hash.copy().digest('hex'), trailers: request.trailers }));
    response.addTrailers({ 'x-checksum': hash.digest('hex'), 'x-count': String(length) });
    return response.end();
  }
  json(response, { method: request.method, target: request.url, headers: pairs(request.rawHeaders), length, sha256: hash.digest('hex') });
}

function cut(what) {
  aborts[what] += 1;
  for (const again of aborts.waiting.splice(0)) again();
}

function json(response, value) {
  const text = JSON.stringify(value, null, 1);
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

function pairs(raw) {
  const found = [];
  for (let at = 0; at < raw.length; at += 2) found.push([raw[at], raw[at + 1]]);
  return found;
}

/** What an API that has seen enough of a request by its head does: no 100, and the connection is over. */
function expected(request, response) {
  if (!request.url.endsWith('/refused')) {
    response.writeContinue();
    return answer(request, response);
  }
  response.writeHead(417, { 'content-type': 'text/plain', connection: 'close' });
  response.end('not this\n');
}

async function listening(server, scheme) {
  await new Promise((done) => server.listen(0, '127.0.0.1', 4096, done));
  return `${scheme}://127.0.0.1:${server.address().port}`;
}

const tls = { cert: readFileSync(process.env.CERTIFICATE), key: readFileSync(process.env.KEY), allowHTTP1: true };
const servers = [http.createServer(answer), http2.createSecureServer(tls, answer), http2.createServer(answer)];
for (const server of servers) server.on('checkContinue', expected);
servers[0].keepAliveTimeout = 60_000;
const [plain, secure, h2c] = await Promise.all(servers.map((server, at) => listening(server, at === 1 ? 'https' : 'http')));
console.log(JSON.stringify({ plain, tls: secure, h2c }));
process.stdin.resume().on('end', () => process.exit());
