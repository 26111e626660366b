//! The pages: server-rendered, without script, readable on a phone, light and dark.

use std::fmt::Write as _;

use crate::options::{Client, SCOPES, USERS};

/// Text as it may stand in HTML, between tags or in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The consent page. `hidden` is the request as the form sends it back.
pub(crate) fn consent(client: &Client, scope: &[String], hidden: &[(&str, &str)], login_hint: Option<&str>) -> String {
    let name = escape(client.shown_name());
    let mut form = String::new();
    for (name, value) in hidden {
        let _ = write!(form, r#"<input type="hidden" name="{}" value="{}">"#, escape(name), escape(value));
    }
    let accounts = USERS.iter().enumerate().fold(String::new(), |accounts, (at, (user, _))| {
        let chosen = login_hint.map_or(at == 0, |hint| hint == *user);
        accounts + &account(user, chosen)
    });
    let scopes = scope.iter().fold(String::new(), |scopes, scope| scopes + &scope_row(scope));
    let body = format!(
        r#"<h1>{name} wants to use your account</h1>
<p class="id">Client {id}</p>
<form method="post" action="/authorize/decision">{form}<input type="hidden" name="choose" value="1">
<fieldset><legend>Account</legend>{accounts}</fieldset>
<fieldset><legend>It may</legend>{scopes}</fieldset>
<div class="buttons"><button name="decision" value="deny">Deny</button><button class="main" name="decision" value="allow">Allow</button></div>
</form>
<p class="note">A practice server: nothing here is real.</p>"#,
        id = escape(&client.id),
    );
    page(&format!("Allow {name}?"), &body)
}

fn account(user: &str, chosen: bool) -> String {
    let initial = user.chars().next().unwrap_or('?').to_ascii_uppercase();
    let checked = if chosen { " checked" } else { "" };
    format!(
        r#"<label class="row"><input type="radio" name="account" value="{user}"{checked}><span class="face" aria-hidden="true">{initial}</span><span><b>{user}</b><small>{user}@sandbox.example</small></span></label>"#
    )
}

fn scope_row(scope: &str) -> String {
    let says = SCOPES.iter().find(|(known, _)| *known == scope).map_or("", |(_, says)| says);
    let scope = escape(scope);
    format!(
        r#"<label class="row"><input type="checkbox" name="granted" value="{scope}" checked><span>{says}<small><code>{scope}</code></small></span></label>"#
    )
}

/// The page that posts an answer to where the browser came from; `answer` is a form.
pub(crate) fn form_post(to: &str, answer: &str) -> String {
    let mut form = String::new();
    for (name, value) in url::form_urlencoded::parse(answer.as_bytes()) {
        let _ = write!(form, r#"<input type="hidden" name="{}" value="{}">"#, escape(&name), escape(&value));
    }
    let to = escape(to);
    let body = format!(
        r#"<h1>Back to the application</h1><form method="post" action="{to}">{form}<button class="main">Go</button></form>"#
    );
    page("Back", &body)
}

/// A refusal that is shown here because the redirect URI can't be trusted.
pub(crate) fn refusal(text: &str) -> String {
    let body = format!(
        r#"<h1>This request can't be answered</h1><p>{}</p><p class="note">You were not sent back, because the address to go back to can't be trusted.</p>"#,
        escape(text)
    );
    page("Request refused", &body)
}

/// The start page: what there is to try. All three arguments are rows of name and text.
pub(crate) fn home(
    base_url: &str,
    clients: &[(String, String)],
    endpoints: &[(&str, &str)],
    faults: &[String],
) -> String {
    let rows = |rows: &mut dyn Iterator<Item = (&str, &str)>| {
        rows.fold(String::new(), |all, (name, text)| {
            all + &format!("<dt><code>{}</code></dt><dd>{}</dd>", escape(name), escape(text))
        })
    };
    let clients = rows(&mut clients.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    let endpoints = rows(&mut endpoints.iter().copied());
    let accounts = rows(&mut USERS.iter().copied());
    let faults = match faults {
        [] => "<p>None: it behaves.</p>".to_owned(),
        faults => {
            faults.iter().fold(String::new(), |all, fault| all + &format!("<p><code>{}</code></p>", escape(fault)))
        }
    };
    let body = format!(
        "<h1>Sandbox</h1><p>An OAuth 2.0 authorization server and API that misbehaves on demand.</p>\
         <h2>Issuer</h2><p><code>{base}</code></p><h2>Faults</h2>{faults}\
         <h2>Clients</h2><dl>{clients}</dl><h2>Accounts and passwords</h2><dl>{accounts}</dl><h2>Endpoints</h2><dl>{endpoints}</dl>",
        base = escape(base_url)
    );
    page("Sandbox", &body)
}

/// `title` is HTML already.
fn page(title: &str, body: &str) -> String {
    format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark"><title>{title}</title><style>{STYLE}</style></head>
<body><main><p class="mark">Keyholder sandbox</p>{body}</main></body></html>
"#
    )
}

const STYLE: &str = "
:root{--ink:#1c2430;--soft:#5c6878;--line:#d9dfe7;--card:#fff;--ground:#eef2f6;--main:#1f5f8b;--on:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8edf3;--soft:#9fabba;--line:#364150;--card:#1d2530;--ground:#12171e;--main:#7db8e0;--on:#0d1620}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
main{max-width:27rem;margin:6vh auto;padding:1.5rem;background:var(--card);border:1px solid var(--line);border-radius:14px}
@media(max-width:30rem){main{margin:0;min-height:100vh;border:0;border-radius:0}}
.mark{margin:0 0 1.25rem;color:var(--soft);font-size:.85rem}
.id{margin:0 0 1.25rem;color:var(--soft);font-size:.85rem}
h1{margin:0 0 .25rem;font-size:1.35rem;line-height:1.25}
h2{margin:1.5rem 0 .25rem;font-size:1rem}
p{margin:.4rem 0}
fieldset{margin:0 0 1rem;padding:0;border:1px solid var(--line);border-radius:10px}
legend{margin-left:.75rem;padding:0 .35rem;color:var(--soft);font-size:.85rem}
.row{display:flex;gap:.75rem;align-items:center;padding:.6rem .9rem;min-height:3rem;cursor:pointer}
.row+.row{border-top:1px solid var(--line)}
.row input{flex:none;width:1.15rem;height:1.15rem;margin:0;accent-color:var(--main)}
small{display:block;color:var(--soft);font-size:.82rem}
code{font:.85em ui-monospace,monospace}
.face{flex:none;display:grid;place-items:center;width:2.2rem;height:2.2rem;border-radius:50%;background:var(--line);font-weight:600}
.buttons{display:flex;gap:.75rem}
button{flex:1;min-height:2.9rem;border:1px solid var(--line);border-radius:10px;background:none;color:inherit;font:inherit;font-weight:600;cursor:pointer}
button.main{background:var(--main);border-color:var(--main);color:var(--on)}
:focus-visible{outline:3px solid var(--main);outline-offset:2px}
.note{margin-top:1rem;color:var(--soft);font-size:.85rem}
dl{margin:0}dt{margin-top:.5rem}dd{margin:0;color:var(--soft);font-size:.9rem}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_request_becomes_markup() {
        let evil = "\"><script>alert('x')</script>&";
        let client = Client { id: evil.into(), name: evil.into(), secret: None, auth: None, redirect_uris: vec![] };
        let page = consent(&client, &["read".to_owned()], &[("state", evil)], Some(evil));
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;"));
        assert!(!refusal(evil).contains("<script"));
    }
}
