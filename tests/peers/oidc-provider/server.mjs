// A test peer: the certified authorization server `oidc-provider`, a resource server, and a control server.
//
// Prints one JSON line when all three listen: {"issuer", "resource", "control", "pid"}. Everything else goes to
// stderr. Ends when its stdin closes, so that a test that dies leaves no orphan.
//
// Environment (times in seconds):
//   HOST (127.0.0.1), PORT, RS_PORT, CTL_PORT   0 or missing = a free port
//   ISSUER, RESOURCE                            other names for the servers, when a proxy stands in front
//   AT_TTL (5), RT_TTL (600), CODE_TTL (10), DEVICE_TTL (60), CLOCK_TOLERANCE (0)
//   ROTATE=0        keep one refresh token; by default each use rotates it, and a second use revokes the whole grant
//   ALWAYS_RT=1     a refresh token for every code; by default only with `scope=offline_access` and `prompt=consent`
//   INTERACTIVE=1   real login and consent pages; by default both are answered automatically
//   REDIRECT_URIS   comma separated, beside `http://<loopback>:<any port>/callback/<anything>`, which is always allowed
//   DPOP_NONCE=1    DPoP proofs must carry the server's nonce
//   OUT_DIR         where the private keys of client `c-pkjwt` are written
//   TLS_KEY, TLS_CERT   serve the issuer by https and ask for client certificates; MTLS_DN is the subject of `c-mtls`
import http from 'node:http';
import https from 'node:https';
import fs from 'node:fs';
import Provider, { errors } from 'oidc-provider';
import { allowLoopbackCallbacks, clients, serverKeys } from './clients.mjs';
import { Control } from './control.mjs';
import { accountClaims, automatic, interactive } from './interaction.mjs';
import { resourceServer } from './resource.mjs';

console.log = console.error; // stdout carries the ready line only
console.info = console.error;
process.stdin.on('end', () => process.exit(0)).resume();

const env = process.env;
const host = env.HOST ?? '127.0.0.1';
const seconds = (name, otherwise) => Number(env[name] ?? otherwise);
const tls = env.TLS_KEY && { key: fs.readFileSync(env.TLS_KEY), cert: fs.readFileSync(env.TLS_CERT), requestCert: true, rejectUnauthorized: false };

// The ports are taken first: the issuer's name holds its port, and the provider wants its name when it is made.
const listening = (server, port) => new Promise((resolve, reject) => {
  server.once('error', reject).listen(Number(port ?? 0), host, () => resolve(server.address().port));
});
const issuerServer = tls ? https.createServer(tls) : http.createServer();
const apiServer = http.createServer();
const controlServer = http.createServer();
const issuerPort = await listening(issuerServer, env.PORT);
const apiPort = await listening(apiServer, env.RS_PORT);
const controlPort = await listening(controlServer, env.CTL_PORT);
const issuer = env.ISSUER ?? `${tls ? 'https' : 'http'}://${host}:${issuerPort}`;
const resource = env.RESOURCE ?? `http://${host}:${apiPort}/`;

const control = new Control();
const provider = new Provider(issuer, {
  clients: clients(tls),
  jwks: { keys: serverKeys.map((key) => key.private) },
  clockTolerance: seconds('CLOCK_TOLERANCE', 0), // the default, 15 s, keeps expired access tokens working
  scopes: ['openid', 'offline_access', 'read', 'write'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'preferred_username'] },
  findAccount: async (_ctx, id) => (control.gone.has(id) ? undefined : { accountId: id, claims: async () => accountClaims(id) }),
  issueRefreshToken: async (_ctx, client, code) => client.grantTypeAllowed('refresh_token') && (code.scopes.has('offline_access') || env.ALWAYS_RT === '1'),
  rotateRefreshToken: env.ROTATE !== '0',
  clientBasedCORS: () => false,
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'none', ...(tls ? ['tls_client_auth', 'self_signed_tls_client_auth'] : [])],
  enabledJWA: { clientAuthSigningAlgValues: ['HS256', 'RS256', 'PS256', 'ES256', 'EdDSA'] },
  ttl: {
    AccessToken: seconds('AT_TTL', 5),
    ClientCredentials: seconds('AT_TTL', 5),
    AuthorizationCode: seconds('CODE_TTL', 10),
    RefreshToken: seconds('RT_TTL', 600),
    DeviceCode: seconds('DEVICE_TTL', 60),
    IdToken: 60,
    Grant: 3600,
    Session: 3600,
    Interaction: 600,
  },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  cookies: { keys: ['peer-cookie-key'] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (_ctx, client, token) => client.clientId === 'rs' || token.clientId === client.clientId },
    revocation: { enabled: true },
    pushedAuthorizationRequests: { enabled: true },
    dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => env.DPOP_NONCE === '1' },
    jwtResponseModes: { enabled: true },
    registration: { enabled: true, initialAccessToken: env.REG_TOKEN ?? 'reg-token' },
    registrationManagement: { enabled: true },
    claimsParameter: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    ...(tls && { mTLS: mutualTls() }),
    resourceIndicators: {
      enabled: true,
      defaultResource: async (_ctx, _client, oneOf) => oneOf ?? undefined,
      useGrantedResource: async () => true,
      getResourceServerInfo: async (_ctx, wanted) => {
        if (!wanted.startsWith(resource)) throw new errors.InvalidTarget();
        return {
          scope: 'read write',
          audience: wanted,
          accessTokenTTL: seconds('AT_TTL', 5),
          accessTokenFormat: wanted.includes('opaque') ? 'opaque' : 'jwt',
          jwt: { sign: { alg: 'ES256' } },
        };
      },
    },
  },
  renderError: async (ctx, out) => { ctx.type = 'json'; ctx.body = out; },
});
provider.on('server_error', (_ctx, err) => console.error('server_error', err));
allowLoopbackCallbacks(provider);
provider.use(control.middleware());
provider.use(env.INTERACTIVE === '1' ? interactive(provider) : automatic(provider));

issuerServer.on('request', provider.callback());
apiServer.on('request', resourceServer({ provider, issuer, control }));
controlServer.on('request', control.handler());
process.stdout.write(`${JSON.stringify({ issuer, resource, control: `http://${host}:${controlPort}`, pid: process.pid })}\n`);

function mutualTls() {
  const certificate = (ctx) => ctx.socket.getPeerX509Certificate?.();
  return {
    enabled: true,
    certificateBoundAccessTokens: true,
    selfSignedTlsClientAuth: true,
    tlsClientAuth: true,
    getCertificate: (ctx) => certificate(ctx)?.toString(),
    certificateAuthorized: (ctx) => !!certificate(ctx),
    certificateSubjectMatches: (ctx, _property, expected) => certificate(ctx)?.subject?.split('\n').reverse().join(',') === expected,
  };
}
