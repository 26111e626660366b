// Drives Chromium for tests that are not written in JavaScript: one JSON command a line on stdin, one JSON answer a line
// on stdout, {"ok": true, "value": ...} or {"ok": false, "error": "..."}. The first line answers nothing: it says that
// the browser runs, and which. Ends when stdin closes, or with {"do": "close"}.
//
// Every command may name its `person` (0 without): each has cookies and storage of their own. See COMMANDS below.
// Actions wait for their target, and `see`, `wait_url` for what they name, 10 s at most: a test never sleeps.
//
// Environment: CHROMIUM, the browser's path (/usr/bin/chromium).
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import readline from 'node:readline';
import { stripVTControlCharacters } from 'node:util';
import { chromium } from 'playwright-core';

const PATIENCE_MS = 10_000;

const COMMANDS = {
  /** {url} → HTTP status of the page, null when the address only changed within it */
  goto: async ({ page }, { url }) => (await page.goto(url))?.status() ?? null,
  /** {label | selector, value} */
  fill: async ({ page }, c) => field(page, c).fill(c.value),
  /** {label | selector, value}: one option of a list, by its value or its text */
  select: async ({ page }, c) => { await field(page, c).selectOption(c.value); },
  /** {label | selector, value: true | false} */
  check: async ({ page }, c) => field(page, c).setChecked(c.value ?? true),
  /** {role, name | selector} */
  click: async ({ page }, c) => target(page, c).click(),
  /** {key}: for example Tab, Enter, Control+a */
  press: async ({ page }, { key }) => page.keyboard.press(key),
  /** {text}: key by key, into what has the focus */
  type: async ({ page }, { text }) => page.keyboard.type(text),
  /** the button that leads to the page before */
  back: async ({ page }) => { await page.goBack(); },
  /** {text}: waits until it can be seen */
  see: async ({ page }, { text }) => page.getByText(text).filter({ visible: true }).first().waitFor(),
  /** {contains}: waits until the address contains it → the address */
  wait_url: async ({ page }, { contains }) => {
    // `commit`: a page that never answers (a callback to a closed port) still has an address.
    await page.waitForURL((url) => url.href.includes(contains), { waitUntil: 'commit' });
    return page.url();
  },
  /** {selector?} → what a person can read */
  text: async ({ page }, { selector }) => page.locator(selector ?? 'body').innerText(),
  html: async ({ page }) => page.content(),
  url: async ({ page }) => page.url(),
  title: async ({ page }) => page.title(),
  /** {selector} → how many there are now */
  count: async ({ page }, { selector }) => page.locator(selector).count(),
  /** {selector, name} → the attribute's value or null */
  attribute: async ({ page }, { selector, name }) => page.locator(selector).getAttribute(name),
  /** {script}: an expression → its value */
  eval: async ({ page }, { script }) => page.evaluate(script),
  /** {path, width?, height?, dark?, whole?}: the page as PNG, the whole of it or what the window shows; the size (1280 × 800) and the colours stay as set */
  screenshot: async ({ page }, { path, width = 1280, height = 800, dark = false, whole = true }) => {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light' });
    await page.screenshot({ path, fullPage: whole });
  },
  cookies: async ({ context }) => context.cookies(),
  /** → what went wrong in the pages so far: console errors (violations of the content security policy are among them), uncaught exceptions */
  console: async ({ problems }) => problems,
  /** → what axe-core finds: [{id, impact, help, nodes: [{target, summary}]}]. Over the debugger, since the pages' policy stops injected scripts. */
  axe: async (person) => {
    const wire = await debuggerOf(person);
    const source = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
    await evaluate(wire, source);
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    return evaluate(wire, `axe.run(document, { runOnly: { type: 'tag', values: ${JSON.stringify(tags)} }, resultTypes: ['violations'] })
      .then(({ violations }) => violations.map(({ id, impact, help, nodes }) => ({ id, impact, help, nodes: nodes.map(({ target, failureSummary }) => ({ target, summary: failureSummary })) })))`);
  },
  /** {width, height} */
  size: async ({ page }, { width, height }) => page.setViewportSize({ width, height }),
  /** {on}: whether dark pages are preferred */
  dark: async ({ page }, { on }) => page.emulateMedia({ colorScheme: on ? 'dark' : 'light' }),
  /** → {role, name} of what has the focus, as a screen reader says it */
  focused: async (person) => {
    const wire = await debuggerOf(person);
    const { result } = await wire.send('Runtime.evaluate', { expression: 'document.activeElement ?? document' });
    const { nodes } = await wire.send('Accessibility.getPartialAXTree', { objectId: result.objectId, fetchRelatives: false });
    return { role: nodes[0]?.role?.value ?? '', name: nodes[0]?.name?.value ?? '' };
  },
  /** Presses Tab until {role, name} has the focus; fails when the focus comes round. */
  tab_to: async (person, { role, name }) => {
    const seen = [];
    for (let steps = 0; steps < 150; steps += 1) {
      await person.page.keyboard.press('Tab');
      // A page that is just going away has nothing in focus.
      const at = await COMMANDS.focused(person).catch(() => ({}));
      if (at.role === role && at.name === name) return;
      seen.push(`${at.role} “${at.name}”`);
    }
    throw new Error(`Tab does not come to ${role} “${name}”, but to ${seen.slice(0, 60).join(', ')}`);
  },
  /** → how far what was there already has moved by itself since the page came (CLS, web.dev/cls) */
  shift: async ({ page }) => page.evaluate(() => new Promise((resolve) => {
    const watch = new PerformanceObserver((list) => {
      watch.disconnect();
      resolve(list.getEntries().filter((it) => !it.hadRecentInput).reduce((sum, it) => sum + it.value, 0));
    });
    watch.observe({ type: 'layout-shift', buffered: true });
    // Where nothing moves, nobody is told.
    requestAnimationFrame(() => requestAnimationFrame(() => resolve(0)));
  })),
  /** → what lies in the clipboard */
  clipboard: async ({ page }) => page.evaluate(() => navigator.clipboard.readText()),
  /** {on} → what pages asked in dialogs since the last time, as `kind: text`; from now on they are told yes or no. At first: leave pages, else no. */
  dialogs: async ({ asked }, { on }) => {
    if (on !== undefined) asked.answer = on;
    return asked.texts.splice(0);
  },
  /** → the number of a new tab of the same person */
  new_tab: async ({ context }) => people.push(await newTab(context, await context.newPage())) - 1,
  /** → the number of the tab that a link opened */
  opened: async (person) => {
    const page = person.tabs.shift() ?? await person.page.waitForEvent('popup');
    person.tabs.length = 0;
    await page.waitForLoadState('domcontentloaded');
    return people.push(await newTab(person.context, page)) - 1;
  },
  /** {on} */
  offline: async ({ context }, { on }) => context.setOffline(on),
  /** → {hosts, bytes} since the last time */
  traffic: async ({ traffic }) => {
    const seen = { hosts: [...traffic.hosts], bytes: traffic.bytes };
    traffic.hosts.clear();
    traffic.bytes = 0;
    return seen;
  },
  /** a new device for passkeys, that says yes by itself, in place of the one before */
  authenticator: async (person) => {
    const wire = await debuggerOf(person);
    await wire.send('WebAuthn.enable');
    const { authenticatorId } = person;
    if (authenticatorId) await wire.send('WebAuthn.removeVirtualAuthenticator', { authenticatorId });
    const added = await wire.send('WebAuthn.addVirtualAuthenticator', {
      options: { protocol: 'ctap2', transport: 'internal', hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true },
    });
    person.authenticatorId = added.authenticatorId;
  },
  /** → what it holds, private keys and all */
  passkeys: async (person) => {
    const wire = await debuggerOf(person);
    return (await wire.send('WebAuthn.getCredentials', { authenticatorId: person.authenticatorId })).credentials;
  },
  /** {passkeys}: in place of what it holds */
  put_passkeys: async (person, { passkeys }) => {
    const wire = await debuggerOf(person);
    const { authenticatorId } = person;
    await wire.send('WebAuthn.clearCredentials', { authenticatorId });
    for (const credential of passkeys) await wire.send('WebAuthn.addCredential', { authenticatorId, credential });
  },
  /** {scripts?: false} → the number of a new person */
  new_context: async (_, { scripts = true }) => people.push(await newPerson(scripts)) - 1,
};

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  chromiumSandbox: false, // tests run as root, where Chromium's sandbox can't
  timeout: 60_000,
  args: [
    '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
    // Pages of a program that must work without the Internet may load nothing from it.
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost',
  ],
});
const people = [await newPerson()];

process.stdout.write(`${JSON.stringify({ ok: true, value: browser.version() })}\n`);
for await (const line of readline.createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.do === 'close') break;
  process.stdout.write(`${JSON.stringify(await answer(command))}\n`);
}
// A browser that hangs must not keep the test from ending.
setTimeout(() => process.exit(1), 5_000).unref();
await browser.close();

async function answer(command) {
  try {
    const run = COMMANDS[command.do];
    if (!run) throw new Error(`no such command: ${command.do}`);
    return { ok: true, value: await run(people[command.person ?? 0], command) ?? null };
  } catch (error) {
    return { ok: false, error: stripVTControlCharacters(error.message) };
  }
}

async function debuggerOf(person) {
  return person.wire ??= await person.context.newCDPSession(person.page);
}

async function evaluate(wire, expression) {
  const { result, exceptionDetails } = await wire.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
}

async function newPerson(scripts = true) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 800 }, javaScriptEnabled: scripts, permissions: ['clipboard-read', 'clipboard-write'],
  });
  context.setDefaultTimeout(PATIENCE_MS);
  return newTab(context, await context.newPage());
}

async function newTab(context, page) {
  const problems = [];
  const tabs = [];
  const asked = { texts: [], answer: undefined };
  page.on('popup', (tab) => tabs.push(tab));
  page.on('dialog', async (dialog) => {
    asked.texts.push(`${dialog.type()}: ${dialog.message()}`);
    if (asked.answer ?? dialog.type() === 'beforeunload') await dialog.accept(); else await dialog.dismiss();
  });
  page.on('console', (message) => { if (message.type() === 'error') problems.push(message.text()); });
  page.on('pageerror', (error) => problems.push(`uncaught: ${error.message}`));
  const traffic = { hosts: new Set(), bytes: 0 };
  page.on('requestfinished', async (request) => {
    if (!request.url().startsWith('http')) return;
    traffic.hosts.add(new URL(request.url()).host);
    const { responseHeadersSize, responseBodySize } = await request.sizes();
    traffic.bytes += responseHeadersSize + responseBodySize;
  });
  return { context, page, problems, traffic, tabs, asked };
}

function field(page, { label, selector }) {
  return selector ? page.locator(selector) : page.getByLabel(label, { exact: true });
}

function target(page, { role, name, selector }) {
  return selector ? page.locator(selector) : page.getByRole(role, { name, exact: true });
}
