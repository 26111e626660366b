//! A real browser, driven through `tests/browser/drive.mjs`.
//!
//! Everything here blocks. An async test that runs the server under test in its own process needs a runtime with more
//! than one thread (`#[tokio::test(flavor = "multi_thread")]`), or nobody is left to answer the browser.
//!
//! What acts on a page waits for its target (10 s at most) and panics, with the browser's reason and the place in the
//! test, when it does not come. So a test never sleeps.
#![allow(dead_code, reason = "helpers: no test needs all of them")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::peers::{require, tests_folder};

/// One person's window: cookies and storage of their own, one page.
pub struct Browser {
    wire: Arc<Mutex<Wire>>,
    person: u64,
}

/// What a screenshot should look like.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Width of the window in CSS pixels.
    pub width: u32,
    /// Height of the window in CSS pixels.
    pub height: u32,
    /// Whether the person prefers dark pages.
    pub dark: bool,
    /// The whole page, or what the window shows of it.
    pub whole: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self { width: 1280, height: 800, dark: false, whole: true }
    }
}

impl Browser {
    /// Starts Chromium (`$CHROMIUM`, else `/usr/bin/chromium`) with an empty profile. It reaches nothing but this machine.
    #[track_caller]
    pub fn start() -> Self {
        Self { wire: Arc::new(Mutex::new(Wire::start())), person: 0 }
    }

    /// Somebody else's window in the same browser, without the cookies of the first.
    #[track_caller]
    pub fn second_person(&self) -> Self {
        self.of(json!({ "do": "new_context" }))
    }

    /// Opens an address, waits until it is loaded, and returns the page's HTTP status after redirects.
    /// A refused connection panics: follow a link with [`Browser::click`] and [`Browser::wait_url`] instead.
    #[track_caller]
    pub fn goto(&self, url: &str) -> u16 {
        let status = self.ask(json!({ "do": "goto", "url": url }));
        status.as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(0)
    }

    /// Fills the field with exactly this label.
    #[track_caller]
    pub fn fill(&self, label: &str, value: &str) {
        self.ask(json!({ "do": "fill", "label": label, "value": value }));
    }

    /// Fills the field that a CSS selector names.
    #[track_caller]
    pub fn fill_selector(&self, selector: &str, value: &str) {
        self.ask(json!({ "do": "fill", "selector": selector, "value": value }));
    }

    /// Chooses an option, by its value or its text, of the list with this label.
    #[track_caller]
    pub fn select(&self, label: &str, option: &str) {
        self.ask(json!({ "do": "select", "label": label, "value": option }));
    }

    /// Sets or clears the box with this label.
    #[track_caller]
    pub fn check(&self, label: &str, on: bool) {
        self.ask(json!({ "do": "check", "label": label, "value": on }));
    }

    /// Clicks what has this ARIA role and exactly this name: `click("button", "Continue")`, `click("link", "Sign in")`.
    #[track_caller]
    pub fn click(&self, role: &str, name: &str) {
        self.ask(json!({ "do": "click", "role": role, "name": name }));
    }

    /// Clicks what a CSS selector names.
    #[track_caller]
    pub fn click_selector(&self, selector: &str) {
        self.ask(json!({ "do": "click", "selector": selector }));
    }

    /// Presses a key, for example `Tab`, `Enter` or `Control+a`.
    #[track_caller]
    pub fn press(&self, key: &str) {
        self.ask(json!({ "do": "press", "key": key }));
    }

    /// Types key by key into what has the focus.
    #[track_caller]
    pub fn type_text(&self, text: &str) {
        self.ask(json!({ "do": "type", "text": text }));
    }

    /// Presses Tab until what has this role and name has the focus.
    #[track_caller]
    pub fn tab_to(&self, role: &str, name: &str) {
        self.ask(json!({ "do": "tab_to", "role": role, "name": name }));
    }

    /// Goes to the page before.
    #[track_caller]
    pub fn back(&self) {
        self.ask(json!({ "do": "back" }));
    }

    /// Waits until this text can be seen.
    #[track_caller]
    pub fn see(&self, text: &str) {
        self.ask(json!({ "do": "see", "text": text }));
    }

    /// Waits until the address contains this, and returns the address. The page behind it need not answer.
    #[track_caller]
    pub fn wait_url(&self, contains: &str) -> String {
        self.ask_text(json!({ "do": "wait_url", "contains": contains }))
    }

    /// What a person can read on the page now.
    #[track_caller]
    pub fn text(&self) -> String {
        self.ask_text(json!({ "do": "text" }))
    }

    /// What a person can read in the one element that a CSS selector names.
    #[track_caller]
    pub fn text_of(&self, selector: &str) -> String {
        self.ask_text(json!({ "do": "text", "selector": selector }))
    }

    /// The page as it stands now, as HTML.
    #[track_caller]
    pub fn html(&self) -> String {
        self.ask_text(json!({ "do": "html" }))
    }

    /// The address now.
    #[track_caller]
    pub fn url(&self) -> String {
        self.ask_text(json!({ "do": "url" }))
    }

    /// The page's title.
    #[track_caller]
    pub fn title(&self) -> String {
        self.ask_text(json!({ "do": "title" }))
    }

    /// How many elements match a CSS selector now.
    #[track_caller]
    pub fn count(&self, selector: &str) -> u64 {
        self.ask(json!({ "do": "count", "selector": selector })).as_u64().expect("a number")
    }

    /// An attribute of the one element that a CSS selector names.
    #[track_caller]
    pub fn attribute(&self, selector: &str, name: &str) -> Option<String> {
        self.ask(json!({ "do": "attribute", "selector": selector, "name": name })).as_str().map(str::to_owned)
    }

    /// The value of a JavaScript expression in the page.
    #[track_caller]
    pub fn eval(&self, script: &str) -> Value {
        self.ask(json!({ "do": "eval", "script": script }))
    }

    /// This person's cookies: `{name, value, domain, path, expires, httpOnly, secure, sameSite}` each.
    #[track_caller]
    pub fn cookies(&self) -> Vec<Value> {
        self.ask(json!({ "do": "cookies" })).as_array().cloned().unwrap_or_default()
    }

    /// Presses no key and sends nothing: what axe-core finds on the page, WCAG 2.0 to 2.2, A and AA, and best practice.
    #[track_caller]
    pub fn axe(&self) -> Vec<Value> {
        self.ask(json!({ "do": "axe" })).as_array().cloned().unwrap_or_default()
    }

    /// Another size of the window.
    #[track_caller]
    pub fn size(&self, width: u32, height: u32) {
        self.ask(json!({ "do": "size", "width": width, "height": height }));
    }

    /// Whether the person prefers dark pages.
    #[track_caller]
    pub fn dark(&self, on: bool) {
        self.ask(json!({ "do": "dark", "on": on }));
    }

    /// `{role, name}` of what has the focus.
    #[track_caller]
    pub fn focused(&self) -> Value {
        self.ask(json!({ "do": "focused" }))
    }

    /// Takes the network away, or gives it back.
    #[track_caller]
    pub fn offline(&self, on: bool) {
        self.ask(json!({ "do": "offline", "on": on }));
    }

    /// How far what was there already has moved by itself since the page came: the cumulative layout shift.
    #[track_caller]
    pub fn shift(&self) -> f64 {
        self.ask(json!({ "do": "shift" })).as_f64().expect("a number")
    }

    /// What lies in the clipboard.
    #[track_caller]
    pub fn clipboard(&self) -> String {
        self.ask_text(json!({ "do": "clipboard" }))
    }

    /// What pages asked in dialogs since the last time, as `kind: text`. Nobody says how: pages may be left, all else is answered no.
    #[track_caller]
    pub fn dialogs(&self) -> Vec<String> {
        let asked = self.ask(json!({ "do": "dialogs" }));
        asked.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    }

    /// From now on dialogs are answered so.
    #[track_caller]
    pub fn answer_dialogs(&self, yes: bool) {
        self.ask(json!({ "do": "dialogs", "on": yes }));
    }

    /// A second tab of the same person.
    #[track_caller]
    pub fn tab(&self) -> Self {
        self.of(json!({ "do": "new_tab" }))
    }

    /// The tab that a link of this one has opened.
    #[track_caller]
    pub fn opened(&self) -> Self {
        self.of(json!({ "do": "opened" }))
    }

    #[track_caller]
    fn of(&self, command: Value) -> Self {
        let person = self.ask(command).as_u64().expect("a number");
        Self { wire: Arc::clone(&self.wire), person }
    }

    /// The hosts that this person's pages asked, and the bytes that came, since the last time.
    #[track_caller]
    pub fn traffic(&self) -> (Vec<String>, u64) {
        let seen = self.ask(json!({ "do": "traffic" }));
        let hosts = seen["hosts"].as_array().into_iter().flatten().filter_map(|host| host.as_str().map(str::to_owned));
        (hosts.collect(), seen["bytes"].as_u64().unwrap_or(0))
    }

    /// A new device of this person that can hold passkeys, and says yes by itself; the one before is gone.
    #[track_caller]
    pub fn authenticator(&self) {
        self.ask(json!({ "do": "authenticator" }));
    }

    /// The passkeys that the newest device holds, with their private keys.
    #[track_caller]
    pub fn passkeys(&self) -> Value {
        self.ask(json!({ "do": "passkeys" }))
    }

    /// Puts these in place of the passkeys that the newest device holds.
    #[track_caller]
    pub fn put_passkeys(&self, passkeys: &Value) {
        self.ask(json!({ "do": "put_passkeys", "passkeys": passkeys }));
    }

    /// Somebody whose browser runs no scripts.
    #[track_caller]
    pub fn without_scripts(&self) -> Self {
        self.of(json!({ "do": "new_context", "scripts": false }))
    }

    /// The page as a PNG file. The look stays until the next one.
    #[track_caller]
    pub fn screenshot(&self, path: &Path, look: Look) {
        let Look { width, height, dark, whole } = look;
        self.ask(
            json!({ "do": "screenshot", "path": path, "width": width, "height": height, "dark": dark, "whole": whole }),
        );
    }

    /// What went wrong in this person's pages so far: console errors, refusals by the content security policy, uncaught
    /// exceptions. Pages that work leave none.
    #[track_caller]
    pub fn console_errors(&self) -> Vec<String> {
        let problems = self.ask(json!({ "do": "console" }));
        problems.as_array().into_iter().flatten().map(|one| one.as_str().unwrap_or_default().to_owned()).collect()
    }

    #[track_caller]
    fn ask_text(&self, command: Value) -> String {
        self.ask(command).as_str().expect("a text").to_owned()
    }

    #[track_caller]
    fn ask(&self, mut command: Value) -> Value {
        command["person"] = self.person.into();
        // A panic elsewhere left a whole exchange behind it: the wire is still in step.
        let mut answer = self.wire.lock().unwrap_or_else(PoisonError::into_inner).exchange(&command);
        assert_eq!(
            answer["ok"],
            true,
            "the browser could not do {command}: {}",
            answer["error"].as_str().unwrap_or_default()
        );
        answer["value"].take()
    }
}

/// The driver's process: one line to it, one line from it.
struct Wire {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// The profile and everything else Chromium writes; removed last.
    _scratch: tempfile::TempDir,
}

impl Wire {
    fn start() -> Self {
        let folder = tests_folder().join("browser");
        require(&folder.join("node_modules"));
        let scratch = tempfile::tempdir().expect("a folder for the browser");
        let mut child = Command::new("node")
            .arg("drive.mjs")
            .current_dir(folder)
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("node does not start: {error}"));
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut wire = Self { child, to, from, _scratch: scratch };
        wire.read(); // it runs
        wire
    }

    fn exchange(&mut self, command: &Value) -> Value {
        let to = self.to.as_mut().expect("open until it is dropped");
        writeln!(to, "{command}").expect("the browser's driver listens");
        self.read()
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("the driver's stdout is UTF-8");
        serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("the browser's driver ended; its stderr says why (is Chromium there? `make prepare` installs it)")
        })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Closing stdin makes the driver close the browser and end; it gives up by itself after 5 s.
        drop(self.to.take());
        let _ = self.child.wait();
    }
}
