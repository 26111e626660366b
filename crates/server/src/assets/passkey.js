// Passkeys: fetches the server's question, has the browser answer it, and sends the button's form with the answer.

const bytes = (text) => Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
const text = (buffer) => buffer && btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
const keys = (ids) => ids.map((id) => ({ type: 'public-key', id: bytes(id) }));
const valueOf = (form, name) => form.elements.namedItem(name)?.value ?? '';

async function question(button, form) {
  const body = new URLSearchParams({ csrf: valueOf(form, 'csrf'), for: button.dataset.for });
  const reply = await fetch(button.dataset.question, { method: 'POST', body });
  if (!reply.ok) throw new Error(reply.statusText);
  return reply.json();
}

async function create(asked, form) {
  const name = asked.name || valueOf(form, 'name') || 'Keyholder';
  const { rawId, response } = await navigator.credentials.create({ publicKey: {
    challenge: bytes(asked.challenge),
    rp: { id: asked.party, name: 'Keyholder' },
    user: { id: new TextEncoder().encode(asked.user), name, displayName: name },
    pubKeyCredParams: [-7, -8, -257].map((alg) => ({ type: 'public-key', alg })),
    excludeCredentials: keys(asked.known),
    authenticatorSelection: { residentKey: 'required', requireResidentKey: true, userVerification: 'required' },
    attestation: 'none',
  } });
  return { id: text(rawId), clientDataJSON: text(response.clientDataJSON), authenticatorData: text(response.getAuthenticatorData()),
    publicKey: text(response.getPublicKey()), algorithm: response.getPublicKeyAlgorithm() };
}

async function get(asked) {
  const { rawId, response } = await navigator.credentials.get({ publicKey: {
    challenge: bytes(asked.challenge), rpId: asked.party, allowCredentials: keys(asked.known), userVerification: 'required',
  } });
  return { id: text(rawId), clientDataJSON: text(response.clientDataJSON), authenticatorData: text(response.authenticatorData),
    signature: text(response.signature), userHandle: text(response.userHandle) };
}

const REASONS = { NotAllowedError: 'none', InvalidStateError: 'known' };

async function use(button) {
  const { form } = button;
  const said = button.closest('.field').querySelector('.wrong');
  said.hidden = true;
  button.setAttribute('aria-busy', 'true');
  try {
    const asked = await question(button, form);
    const answer = await (button.dataset.passkey === 'create' ? create : get)(asked, form);
    button.closest('.field').querySelector('input').value = JSON.stringify(answer);
    form.requestSubmit();
  } catch (error) {
    said.textContent = button.dataset[REASONS[error.name] ?? 'failed'];
    said.hidden = false;
  }
  button.removeAttribute('aria-busy');
}

for (const button of document.querySelectorAll('[data-passkey]')) {
  if (!window.PublicKeyCredential) break;
  button.hidden = false;
  button.addEventListener('click', () => button.ariaBusy || use(button));
}
