// An API behind the authorization server: answers 200 with an echo of the request to any live access token of the
// issuer, and 401 as RFC 6750 §3 says to anything else. A DPoP-bound token needs its proof (RFC 9449 §7).
import { createHash } from 'node:crypto';
import * as jose from 'jose';
import { serverKeys } from './clients.mjs';

const keys = jose.createLocalJWKSet({ keys: serverKeys.map((key) => key.public) });

export function resourceServer({ provider, issuer, control }) {
  return async (req, res) => {
    if (await control.intercept(req, res)) return;
    const end = (status, body, headers = {}) => {
      control.note({ server: 'resource', method: req.method, path: req.url.split('?')[0], status });
      res.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
    };
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    try {
      const claims = await authorise(provider, issuer, req);
      const { authorization, ...headers } = req.headers;
      end(200, {
        ok: true, method: req.method, path: req.url, headers, scheme: authorization.split(' ')[0], body: Buffer.concat(chunks).toString(),
        sub: claims.sub ?? null, client_id: claims.client_id, scope: claims.scope, exp: claims.exp, cnf: claims.cnf,
      });
    } catch (error) {
      const code = error.oauth ?? 'invalid_token';
      end(401, { error: code, error_description: error.message }, { 'www-authenticate': `Bearer error="${code}"` });
    }
  };
}

async function authorise(provider, issuer, req) {
  const [scheme, token] = (req.headers.authorization ?? '').split(' ');
  if (!token) throw refusal('invalid_request', 'no token');
  const claims = token.split('.').length === 3 ? await readJwt(issuer, token) : await readOpaque(provider, token);
  if (claims.cnf?.jkt) await checkProof(req, scheme, token, claims.cnf.jkt);
  return claims;
}

async function readJwt(issuer, token) {
  const { payload } = await jose.jwtVerify(token, keys, { issuer, typ: 'at+jwt' });
  return payload;
}

// Asked of the provider in this process: an introspection request would stand in the request log of the test.
async function readOpaque(provider, token) {
  const found = await provider.AccessToken.find(token) ?? await provider.ClientCredentials.find(token);
  if (!found?.isValid) throw refusal('invalid_token', 'inactive');
  return { sub: found.accountId, client_id: found.clientId, scope: found.scope, exp: found.exp, cnf: found.jkt && { jkt: found.jkt } };
}

async function checkProof(req, scheme, token, jkt) {
  if (scheme.toLowerCase() !== 'dpop') throw refusal('invalid_token', 'DPoP-bound token used as bearer');
  const proof = await jose.jwtVerify(req.headers.dpop ?? '', jose.EmbeddedJWK, { typ: 'dpop+jwt' });
  const expected = {
    ath: createHash('sha256').update(token).digest('base64url'),
    htm: req.method,
    htu: `http://${req.headers.host}${req.url.split('?')[0]}`,
  };
  const thumbprint = await jose.calculateJwkThumbprint(proof.protectedHeader.jwk);
  const matches = thumbprint === jkt && Object.entries(expected).every(([claim, value]) => proof.payload[claim] === value);
  if (!matches) throw refusal('invalid_dpop_proof', 'mismatch');
}

function refusal(oauth, message) {
  return Object.assign(new Error(message), { oauth });
}
