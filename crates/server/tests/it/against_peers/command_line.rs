//! The program as its users meet it: the binary, the command line, a browser, a certified server.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use super::*;
use crate::browser::Browser;
use crate::process::{Server, keyholder, run};

/// What a command printed; it must have succeeded.
fn said(folder: &Path, server: &Server, arguments: &[&str]) -> String {
    let output = run(folder, &server.url, arguments);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

#[test]
fn from_nothing_to_a_call_with_commands_only() {
    let peer = OidcProvider::start(&[("AT_TTL", "60"), ("INTERACTIVE", "1")]);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = Server::start(folder, "warn");
    let (issuer, api) = (format!("issuer={}", peer.issuer), format!("api_base_url={}", peer.resource));
    let add = ["integration", "add", "login", "--provider", "oidc", "--client-id", "c-basic"];
    let secret = ["--client-secret", OidcProvider::SECRET, "--scope", "openid offline_access read"];
    let printed = said(folder, &server, &[&add[..], &secret, &["--var", &issuer, "--var", &api]].concat());
    assert!(printed.contains("/callback/"), "the redirect URI to register: {printed}");
    assert!(!printed.contains(OidcProvider::SECRET), "{printed}");

    let mut connecting = keyholder(folder);
    connecting.env("KEYHOLDER_URL", &server.url).args(["connect", "login", "--no-browser"]);
    let mut connecting = connecting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(connecting.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut links = lines.filter(|line| line.contains("/connect/"));
    let link = links.next().expect("a link for the person");
    let browser = Browser::start();
    browser.goto(link.trim());
    browser.click("button", "Continue to 127.0.0.1");
    browser.fill("Username", OidcProvider::ALICE.0);
    browser.fill("Password", OidcProvider::ALICE.1);
    browser.click("button", "Sign in");
    browser.click("button", "Continue");
    browser.click("button", "Yes, connect it");
    browser.see("is connected");
    let connected = connecting.wait_with_output().unwrap();
    let printed = String::from_utf8(connected.stdout).unwrap();
    assert!(connected.status.success() && printed.contains("alice"), "{printed}");

    let token = said(folder, &server, &["token", "login"]);
    assert_eq!(token.lines().count(), 1, "nothing but the token: {token}");
    let echo: Value = serde_json::from_str(&said(folder, &server, &["call", "login", "/contacts?limit=5"])).unwrap();
    assert_eq!((&echo["sub"], &echo["path"]), (&json!("alice"), &json!("/contacts?limit=5")));
    let posted = said(folder, &server, &["call", "login", "/contacts", "-d", "{\"name\": \"Ada\"}"]);
    let posted: Value = serde_json::from_str(&posted).unwrap();
    assert_eq!((&posted["method"], &posted["body"]), (&json!("POST"), &json!("{\"name\": \"Ada\"}")));

    assert!(said(folder, &server, &["connection", "list"]).contains("connected"));
    said(folder, &server, &["connection", "refresh", "login"]);
    assert_eq!(peer.token_requests("refresh_token"), 1);
    said(folder, &server, &["connection", "revoke", "login"]);
    assert_eq!(asked(&peer, "/token/revocation"), 1);
    let refused = run(folder, &server.url, &["token", "login"]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("revoked"));
}
