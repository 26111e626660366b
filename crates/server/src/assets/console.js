// The console in the browser: what a server can't do. No text ever becomes markup: pages are parsed as documents, and the policy demands Trusted Types.
// What it acts on:
//   data-copy="#id"         copies that value or text          data-guard="KEY"    form: unsaved changes are marked, kept, warned of
//   data-secret             never kept in a draft              data-saved="KEY"    that draft is done with
//   data-when="a b"         row for these values of a switch   data-switch         radio or select that decides (data-also: another word of it)
//   data-filter="#list"     filters its data-words             data-add="#id"      one more row of that template
//   data-dialog[="panel"]   link: its <main> in a dialog       data-part="NAME"    replaced when the page changes on the server
//   data-events="URL"       body: server-sent events           data-submit         its form is sent on change
//   data-file="#id"         file: its text goes there          data-as="url"       of it: as a data URL
//   data-stay               link in a dialog: stays in it      data-again          this answer asks who it is: a page of its own
//   data-cancel             link in a dialog: closes it

const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const words = document.body.dataset; // the server's texts

function make(name, attributes = {}, ...inside) {
  const element = document.createElement(name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  element.append(...inside);
  return element;
}

function tell(text, kind = '') {
  const note = make('p', { class: `notice ${kind}` }, text);
  $('#toasts')?.append(note);
  setTimeout(() => note.remove(), 8000);
}

/** Fetches a page as a document; `form` is posted. Null: nobody answered. */
function page(url, form) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open(form ? 'POST' : 'GET', url);
    request.responseType = 'document';
    request.setRequestHeader('Keyholder-Part', '1');
    request.timeout = 90_000;
    request.onload = () => resolve({ document: request.response, url: request.responseURL, status: request.status, made: request.getResponseHeader('Keyholder-Made') });
    request.onerror = request.ontimeout = () => resolve(null);
    request.send(form);
  });
}

function enhance(root) {
  for (const button of all('[data-copy]', root)) copies(button);
  for (const time of all('time[datetime]', root)) local(time);
  for (const form of all('form', root)) {
    onlyOnce(form);
    switches(form);
    if (form.dataset.guard) guard(form);
  }
  for (const input of all('[data-filter]', root)) filters(input);
  for (const button of all('[data-add]', root)) adds(button);
  for (const link of all('a[data-dialog]', root)) opens(link);
  for (const input of all('[data-file]', root)) reads(input);
  for (const field of all('[data-submit]', root)) field.addEventListener('change', () => field.form.requestSubmit());
  for (const done of all('[data-saved]', root)) sessionStorage.removeItem(draftOf(done.dataset.saved));
}

function copies(button) {
  button.hidden = false;
  button.addEventListener('click', async () => {
    const source = $(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.value ?? source.textContent);
      tell(words.copied, 'good');
    } catch { // plain http, or no permission
      getSelection().selectAllChildren(source);
      source.select?.();
      tell(words.copyByHand);
    }
  });
}

const shown = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: 'medium', timeStyle: 'short' });
const distance = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: 'auto' });
const UNITS = [['day', 864e5], ['hour', 36e5], ['minute', 6e4], ['second', 1e3]];

function local(time) {
  const at = new Date(time.getAttribute('datetime'));
  if (isNaN(at)) return;
  if (!time.title) time.title = time.textContent;
  time.textContent = time.dataset.as === 'distance' ? away(at) : shown.format(at);
}

function away(at) {
  const left = at - Date.now();
  const [unit, length] = UNITS.find(([, size]) => Math.abs(left) >= size) ?? UNITS.at(-1);
  return distance.format(Math.round(left / length), unit);
}

setInterval(() => all('time[data-as=distance]').forEach(local), 10_000);

/** `form.method` may be a field of that name. */
const isPosted = (form) => form.getAttribute('method') === 'post';

function onlyOnce(form) {
  form.addEventListener('submit', (event) => {
    if (event.defaultPrevented) return;
    if (!navigator.onLine || form.dataset.sent && isPosted(form)) {
      event.preventDefault();
      if (!form.dataset.sent) tell(words.offline, 'bad');
    } else if (form.target !== '_blank') { // else this page stays as it is
      form.dataset.sent = '1';
      event.submitter?.setAttribute('aria-busy', 'true');
    }
  });
}

addEventListener('pageshow', (event) => {
  if (!event.persisted) return;
  for (const form of all('form[data-sent]')) delete form.dataset.sent;
  for (const button of all('[aria-busy]')) button.removeAttribute('aria-busy');
  refresh();
});

/** Rows that depend on a choice; the server ignores what doesn't apply. */
function switches(form) {
  const rows = all('[data-when]', form);
  const apply = () => {
    const on = all('[data-switch]', form).filter((it) => it.type !== 'radio' || it.checked);
    const chosen = on.flatMap((it) => [it.value, (it.selectedOptions?.[0] ?? it).dataset.also]);
    for (const row of rows) row.hidden = !row.dataset.when.split(' ').some((word) => chosen.includes(word));
  };
  form.addEventListener('change', (event) => { if (event.target.matches('[data-switch]')) apply(); });
  apply();
}

const isBox = (field) => ['checkbox', 'radio'].includes(field.type);
const isTyped = (field) => field.name && !['hidden', 'submit', 'button'].includes(field.type);
const isOpen = (field) => isTyped(field) && !['password', 'file'].includes(field.type) && !('secret' in field.dataset);
const valueOf = (field) => (isBox(field) ? String(field.checked) : field.value);
const initial = (field) => (isBox(field) ? String(field.defaultChecked) : field.defaultValue
  ?? ([...field.options ?? []].find((it) => it.defaultSelected) ?? field.options?.[0])?.value ?? '');
const keyOf = (field) => (isBox(field) ? `${field.name}=${field.value}` : field.name);

/** Drafts belong to whoever typed them: another person in this browser is not offered them. */
const draftOf = (key) => `draft ${words.who} ${key}`;

function guard(form) {
  const place = draftOf(form.dataset.guard);
  const mark = $('[data-unsaved]', form);
  let leaving = false;
  const changed = () => [...form.elements].filter((it) => isTyped(it) && valueOf(it) !== initial(it));
  const note = () => {
    const now = changed();
    for (const row of all('.field', form)) row.classList.toggle('changed', now.some((it) => row.contains(it)));
    if (mark) mark.hidden = !now.length && !('came' in form.dataset);
    const kept = {};
    for (const field of now.filter(isOpen)) (kept[keyOf(field)] ??= []).push(valueOf(field));
    try {
      if (Object.keys(kept).length) sessionStorage.setItem(place, JSON.stringify(kept)); else sessionStorage.removeItem(place);
    } catch { // larger than a browser keeps
      sessionStorage.removeItem(place);
    }
  };
  form.addEventListener('input', note);
  form.addEventListener('change', note);
  form.addEventListener('submit', (event) => { if (!event.defaultPrevented) leaving = true; });
  addEventListener('pageshow', () => { leaving = false; });
  addEventListener('beforeunload', (event) => { if (!leaving && form.isConnected && changed().length) event.preventDefault(); });
  // A form that comes back with remarks holds what was typed already.
  if ('came' in form.dataset) note(); else offer(form, place, note);
}

function offer(form, place, note) {
  const draft = JSON.parse(sessionStorage.getItem(place));
  if (!draft) return;
  const [yes, no] = [words.restore, words.discard].map((text) => make('button', { type: 'button', class: 'second' }, text));
  const box = make('div', { class: 'notice warn', role: 'status' }, make('p', {}, words.draft), make('p', { class: 'actions' }, yes, no));
  form.prepend(box);
  yes.addEventListener('click', () => {
    for (const field of [...form.elements].filter(isOpen)) {
      const value = draft[keyOf(field)]?.shift();
      if (value === undefined) continue;
      if (isBox(field)) field.checked = value === 'true'; else field.value = value;
      field.dispatchEvent(new Event('change', { bubbles: true }));
    }
    box.remove();
    note();
  });
  no.addEventListener('click', () => { sessionStorage.removeItem(place); box.remove(); });
}

function filters(input) {
  const said = $(`${input.dataset.filter}-found`);
  const apply = () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const item of all(`${input.dataset.filter} [data-words]`)) {
      item.hidden = !wanted.every((word) => item.dataset.words.includes(word));
      found += item.hidden ? 0 : 1;
    }
    if (said) said.textContent = (found ? words.found : words.foundNone).replace('{n}', found);
  };
  input.addEventListener('input', apply);
  if (input.value) apply();
}

function adds(button) {
  button.hidden = false;
  button.addEventListener('click', () => {
    const row = $(button.dataset.add).content.cloneNode(true);
    const first = $('input, select, textarea', row);
    button.before(row);
    first?.focus();
  });
}

function dataUrl(file) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(file);
  });
}

function reads(input) {
  input.closest('.field').hidden = false;
  input.addEventListener('change', async () => {
    const file = input.files[0];
    const target = $(input.dataset.file);
    if (!file) return;
    if (file.size > input.dataset.most) { tell(words.tooLarge, 'bad'); return; }
    target.value = await (input.dataset.as === 'url' ? dataUrl(file) : file.text());
    target.dispatchEvent(new Event('input', { bubbles: true }));
  });
}

function opens(link) {
  link.addEventListener('click', async (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    link.setAttribute('aria-busy', 'true');
    const got = await page(link.href);
    link.removeAttribute('aria-busy');
    const main = got?.document && $('main', got.document);
    if (main && new URL(got.url).pathname === link.pathname) show(link, main, got.url);
    else location.href = link.href; // signed out, say
  });
}

/** Ids that the page behind has too. */
function apart(root) {
  for (const it of all('[id]', root)) it.id = `in-${it.id}`;
  for (const name of ['for', 'aria-describedby', 'aria-labelledby']) {
    for (const it of all(`[${name}]`, root)) it.setAttribute(name, it.getAttribute(name).replace(/\S+/g, 'in-$&'));
  }
  for (const name of ['href', 'data-copy', 'data-add', 'data-filter', 'data-file']) {
    for (const it of all(`[${name}^="#"]`, root)) it.setAttribute(name, `#in-${it.getAttribute(name).slice(1)}`);
  }
}

function show(link, main, url) {
  const close = make('button', { type: 'button', class: 'plain close' }, words.close);
  const dialog = make('dialog', { class: link.dataset.dialog, 'aria-label': $('h1', main)?.textContent ?? '' }, close);
  const put = (inside, from) => {
    const adopted = document.adoptNode(inside);
    adopted.removeAttribute('id');
    apart(adopted);
    $('main', dialog)?.remove();
    dialog.append(adopted);
    // Who has signed in again here goes on with the page behind, too.
    const csrf = $('input[name="csrf"]', adopted)?.value;
    if (csrf) for (const field of all('input[name="csrf"]')) field.value = csrf;
    for (const form of all('form', adopted)) sends(form, from);
    for (const cancel of all('a[data-cancel]', adopted)) cancel.addEventListener('click', (event) => {
      event.preventDefault();
      if (may()) dialog.close();
    });
    for (const step of all('a[data-stay]', adopted)) step.addEventListener('click', async (event) => {
      event.preventDefault();
      const got = await page(step.href);
      if (got?.document) put($('main', got.document), got.url); else tell(words.offline, 'bad');
    });
    enhance(adopted);
    ($('[aria-invalid="true"], [autofocus]', adopted) ?? $('h1', adopted))?.focus();
  };
  const sends = (form, from) => form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const button = event.submitter;
    if (button?.ariaBusy) return;
    button?.setAttribute('aria-busy', 'true');
    const to = new URL(form.getAttribute('action') || from, location.href);
    const data = new URLSearchParams(new FormData(form, button));
    if (!isPosted(form)) to.search = data;
    const got = await page(to.href, isPosted(form) ? data : undefined);
    button?.removeAttribute('aria-busy');
    const isDone = got?.status < 400 && isPosted(form) && new URL(got.url).pathname !== '/console/sign-in';
    const next = !isDone && got?.document && $('main', got.document);
    if (!got?.document) tell(words.offline, 'bad');
    // Who it is must be shown again: on a page of its own, which can ask for a passkey.
    else if (next && $('[data-again]', next)) { form.action = form.getAttribute('action') || from; form.submit(); }
    else if (next) put(next, isPosted(form) ? from : got.url);
    else if (got.made) {
      sessionStorage.removeItem(draftOf(form.dataset.guard));
      dialog.close();
      choose(link, got.made);
    }
    else { dialog.remove(); location.href = got.url; }
  });
  const may = () => !$('.field.changed', dialog) || confirm(words.leave);
  close.addEventListener('click', () => may() && dialog.close());
  dialog.addEventListener('cancel', (event) => may() || event.preventDefault());
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  put(main, url);
  dialog.showModal();
}

/** What the side panel made becomes the chosen option. `made` is `ID NAME`, percent-encoded. */
function choose(link, made) {
  const [id, name] = made.split(' ').map(decodeURIComponent);
  const select = $(link.dataset.for);
  select.append(new Option(name, id, false, true));
  select.dispatchEvent(new Event('change', { bubbles: true }));
  select.focus();
  tell(words.attached.replace('{name}', name), 'good');
}

let refreshing = false;
let again = false;

/** Takes over the parts that differ now, unless somebody is typing in them. */
async function refresh() {
  if (!$('[data-part]')) return;
  if (refreshing) { again = true; return; }
  refreshing = true;
  const got = await page(location.href);
  refreshing = false;
  if (got?.document && got.status === 200 && new URL(got.url).pathname === location.pathname) {
    for (const part of all('[data-part]')) replace(part, $(`[data-part="${CSS.escape(part.dataset.part)}"]`, got.document));
  }
  if (again) { again = false; refresh(); }
}

function replace(part, by) {
  if (!by || part.matches(':has(:focus:not(a, button, summary))')) return;
  const source = part.source ?? (part.source = part.outerHTML);
  if (source === by.outerHTML) return;
  const open = all('details[open][id]', part).map((it) => it.id);
  const focus = part.contains(document.activeElement) ? document.activeElement.id : '';
  const now = document.adoptNode(by);
  now.source = now.outerHTML;
  part.replaceWith(now);
  enhance(now);
  for (const id of open) $(`#${CSS.escape(id)}`, now)?.setAttribute('open', '');
  if (focus) document.getElementById(focus)?.focus();
}

/** Only while the tab is seen: a browser has few connections. */
function listen(url) {
  const sign = $('.live');
  const say = (state) => { if (sign) { sign.dataset.state = state; sign.textContent = sign.dataset[state] ?? ''; } };
  let source = null;
  let soon = 0;
  const happened = (event) => {
    const said = $('[data-announce]');
    if (said) said.textContent = JSON.parse(event.data).message;
    clearTimeout(soon);
    soon = setTimeout(refresh, 150);
  };
  const start = () => {
    if (source || document.hidden) return;
    source = new EventSource(url);
    source.addEventListener('open', () => say('on'));
    source.addEventListener('error', () => { say('lost'); if (source?.readyState === EventSource.CLOSED) { source = null; setTimeout(start, 10_000); } });
    source.addEventListener('happened', happened);
    source.addEventListener('reload', refresh);
  };
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) { source?.close(); source = null; } else { start(); refresh(); }
  });
  start();
}

// What the server said, before anything changes.
for (const part of all('[data-part]')) part.source = part.outerHTML;
enhance(document);
if (words.events) listen(words.events);
$('[role="alert"][tabindex]')?.focus();
