// The registered clients and the keys. `SECRET` is long enough for HS256 (client_secret_jwt).
import fs from 'node:fs';
import path from 'node:path';
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';

const SECRET = 'secret-0123456789-0123456789-0123456789-ab';
const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';

const rsa = (kid) => keyPair(kid, 'RS256', 'rsa', { modulusLength: 2048 });
const ec = (kid) => keyPair(kid, 'ES256', 'ec', { namedCurve: 'P-256' });

/** The authorization server's signing keys. */
export const serverKeys = [rsa('as-rs256'), ec('as-es256')];

/** Every client of the peer, in the form of dynamic registration (RFC 7591). */
export function clients(tls) {
  const full = {
    redirect_uris: (process.env.REDIRECT_URIS ?? 'http://127.0.0.1:9999/cb').split(','),
    response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token', 'client_credentials', DEVICE],
  };
  const basic = { client_secret: SECRET, token_endpoint_auth_method: 'client_secret_basic', ...full };
  return [
    { client_id: 'c-basic', ...basic },
    { client_id: 'c-post', ...basic, token_endpoint_auth_method: 'client_secret_post' },
    // Id and secret must be form-encoded before they go into the Basic header (RFC 6749 §2.3.1).
    { client_id: 'c:odd id/+%', ...basic, client_secret: 'p@ss:w/+ %rd&=x-0123456789-0123456789' },
    { client_id: 'c-public', token_endpoint_auth_method: 'none', ...full, grant_types: ['authorization_code', 'refresh_token', DEVICE] },
    { client_id: 'c-norefresh', ...basic, grant_types: ['authorization_code'] },
    { client_id: 'c-par', ...basic, require_pushed_authorization_requests: true },
    { client_id: 'c-dpop', ...basic, dpop_bound_access_tokens: true },
    { client_id: 'c-sjwt', ...basic, token_endpoint_auth_method: 'client_secret_jwt', token_endpoint_auth_signing_alg: 'HS256' },
    { client_id: 'c-pkjwt', token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: privateKeyJwtKeys() }, ...full },
    ...(tls ? [{ client_id: 'c-mtls', token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_subject_dn: process.env.MTLS_DN ?? 'CN=c-mtls', tls_client_certificate_bound_access_tokens: true, ...full }] : []),
    // May introspect everybody's tokens.
    { client_id: 'rs', client_secret: SECRET, redirect_uris: [], response_types: [], grant_types: [] },
  ];
}

/**
 * Keyholder gives each integration a redirect URI of its own, `{public_url}/callback/{integration}`, and neither its
 * port nor the integration's id is known when this peer starts. So any loopback callback counts as registered. The
 * rest stays strict: the code is still bound to the exact URI that the authorization request named.
 */
export function allowLoopbackCallbacks(provider) {
  const registered = provider.Client.prototype.redirectUriAllowed;
  provider.Client.prototype.redirectUriAllowed = function redirectUriAllowed(uri) {
    return isLoopbackCallback(uri) || registered.call(this, uri);
  };
}

function isLoopbackCallback(uri) {
  return /^http:\/\/(127\.0\.0\.1|localhost|\[::1\])(:\d+)?\/callback\/[^?#]+$/.test(uri);
}

function privateKeyJwtKeys() {
  const pairs = { 'client-es256': ec('client-es256'), 'client-rs256': rsa('client-rs256') };
  const folder = process.env.OUT_DIR;
  if (folder) {
    fs.mkdirSync(folder, { recursive: true });
    for (const [name, pair] of Object.entries(pairs)) {
      fs.writeFileSync(path.join(folder, `${name}.pem`), pair.pem, { mode: 0o600 });
      fs.writeFileSync(path.join(folder, `${name}.jwk.json`), JSON.stringify(pair.private), { mode: 0o600 });
    }
  }
  return Object.values(pairs).map((pair) => pair.public);
}

// Generated as PEM and read back: on Node 20, exporting a key object that `generateKeyPairSync` returned as a JWK can hang
// for ever, when the garbage collector frees the generating job while the export holds the lock they share.
function keyPair(kid, alg, type, options) {
  const { publicKey, privateKey: pem } = generateKeyPairSync(type, {
    ...options,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  const meta = { kid, alg, use: 'sig' };
  return {
    public: { ...createPublicKey(publicKey).export({ format: 'jwk' }), ...meta },
    private: { ...createPrivateKey(pem).export({ format: 'jwk' }), ...meta },
    pem,
  };
}
