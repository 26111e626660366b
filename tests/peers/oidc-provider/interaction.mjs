// Login and consent: answered automatically, or by a person on real pages.
import { escapeHtml, page } from './pages.mjs';

/** Who may sign in on the pages, with which password. */
const PASSWORDS = { alice: 'alice-password', bob: 'bob-password' };

/** What the issuer says about an account. */
export function accountClaims(id) {
  return { sub: id, email: `${id}@example.test`, email_verified: true, name: id, preferred_username: id };
}

/** Signs in and consents at once. `login_hint` names the account (`alice` without one); `login_hint=deny` refuses. */
export function automatic(provider) {
  return onInteraction(provider, async (ctx, details) => {
    const hint = details.params.login_hint;
    if (hint === 'deny') return refuse(provider, ctx);
    const accountId = details.session?.accountId ?? hint ?? 'alice';
    return finish(provider, ctx, { login: { accountId }, consent: await consent(provider, details, accountId) });
  });
}

/** Asks for user name and password, then for consent. */
export function interactive(provider) {
  return onInteraction(provider, async (ctx, details) => {
    const form = ctx.method === 'POST' ? await readForm(ctx.req) : undefined;
    if (form?.get('action') === 'cancel') return refuse(provider, ctx);
    return details.prompt.name === 'login' ? login(provider, ctx, details, form) : askConsent(provider, ctx, details, form);
  });
}

function login(provider, ctx, details, form) {
  const username = form?.get('username') ?? '';
  if (form && Object.hasOwn(PASSWORDS, username) && PASSWORDS[username] === form.get('password')) {
    return finish(provider, ctx, { login: { accountId: username } });
  }
  const problem = form ? '<p role="alert">Wrong user name or password.</p>' : '';
  return show(ctx, 'Sign in', `
    <p>Sign in to go on to <b>${escapeHtml(details.params.client_id)}</b>.</p>
    ${problem}
    <label for="username">Username</label>
    <input id="username" name="username" autocomplete="username" required value="${escapeHtml(username || (details.params.login_hint ?? ''))}">
    <label for="password">Password</label>
    <input id="password" name="password" type="password" autocomplete="current-password" required>
    <button type="submit">Sign in</button>`);
}

async function askConsent(provider, ctx, details, form) {
  const { accountId } = details.session;
  if (form) return finish(provider, ctx, { consent: await consent(provider, details, accountId) });
  const scopes = wantedScopes(details).map((scope) => `<li>${escapeHtml(scope)}</li>`).join('');
  return show(ctx, 'Consent', `
    <p><b>${escapeHtml(details.params.client_id)}</b> asks for access to the account of <b>${escapeHtml(accountId)}</b>:</p>
    <ul>${scopes}</ul>
    <button type="submit" name="action" value="continue">Continue</button>
    <button type="submit" name="action" value="cancel">Cancel</button>`);
}

/** Grants everything that was asked for. */
async function consent(provider, details, accountId) {
  const known = details.grantId && await provider.Grant.find(details.grantId);
  const grant = known || new provider.Grant({ accountId, clientId: details.params.client_id });
  const scope = wantedScopes(details).join(' ');
  grant.addOIDCScope(scope);
  for (const resource of [details.params.resource ?? []].flat()) grant.addResourceScope(resource, scope);
  if (details.prompt.details.missingOIDCClaims) grant.addOIDCClaims(details.prompt.details.missingOIDCClaims);
  return { grantId: await grant.save() };
}

function wantedScopes(details) {
  return (details.params.scope ?? 'openid').split(' ');
}

function onInteraction(provider, answer) {
  return async (ctx, next) => {
    if (!ctx.path.startsWith('/interaction/')) return next();
    return answer(ctx, await provider.interactionDetails(ctx.req, ctx.res));
  };
}

function refuse(provider, ctx) {
  return finish(provider, ctx, { error: 'access_denied', error_description: 'user said no' }, false);
}

function finish(provider, ctx, result, mergeWithLastSubmission = true) {
  ctx.respond = false;
  return provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission });
}

function show(ctx, title, form) {
  ctx.type = 'html';
  ctx.set('cache-control', 'no-store');
  ctx.body = page(title, form);
}

async function readForm(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return new URLSearchParams(Buffer.concat(chunks).toString());
}
