//! The rules of the house that a compiler can't hold. Each message says why the rule is there.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of ours: its path from the root of the repository, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines of code, numbered: no comments, and nothing from the tests at the end of the file on.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let before_tests = self.text.find("\nmod tests {").and_then(|at| self.text[..at].rfind("#[cfg(test)]"));
        let tests = before_tests.unwrap_or(self.text.len());
        let code = self.text[..tests].lines().enumerate().map(|(at, line)| (at + 1, line));
        code.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Where a line of code fits, as `path:line: text`.
    fn places(&self, fits: impl Fn(&str) -> bool) -> Vec<String> {
        let found = self.code().filter(|(_, line)| fits(line));
        found.map(|(at, line)| format!("{}:{at}: {}", self.path, line.trim())).collect()
    }

    fn is_below(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn collect(folder: &Path, fits: &dyn Fn(&str) -> bool, into: &mut Vec<Source>) {
    const NOT_OURS: [&str; 4] = ["node_modules", ".venv", "target", ".git"];
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !NOT_OURS.contains(&name.as_str()) {
                collect(&path, fits, into);
            }
        } else if fits(&name)
            && let Ok(text) = fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            into.push(Source { path, text });
        }
    }
}

/// The files below a folder whose names fit, in the order of their paths.
fn files(folder: &str, fits: impl Fn(&str) -> bool) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(folder), &fits, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "{folder} holds no such file: the rule has lost what it looks at");
    found
}

/// The Rust code of some crates, tests left out.
fn code_of(crates: &[&str]) -> Vec<Source> {
    let rust = |name: &str| name.ends_with(".rs") && name != "tests.rs";
    crates.iter().flat_map(|name| files(&format!("crates/{name}/src"), rust)).collect()
}

fn all_code() -> Vec<Source> {
    code_of(&["oauth", "provider", "broker", "server", "sandbox"])
}

#[track_caller]
fn none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}\n\n{}\n", found.join("\n"));
}

fn outside(sources: &[Source], places: &[&str], fits: impl Fn(&str) -> bool) -> Vec<String> {
    sources.iter().filter(|it| !it.is_below(places)).flat_map(|it| it.places(&fits)).collect()
}

fn has_any(line: &str, words: &[&str]) -> bool {
    words.iter().any(|word| line.contains(word))
}

#[test]
fn the_protocol_and_the_language_do_no_io() {
    const IO: [&str; 12] = [
        "tokio",
        "hyper",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "ToSocketAddrs",
        "std::fs",
        "std::env",
        "std::process",
        "SystemTime::now",
        "Instant::now",
        "rand::",
    ];
    none(
        "`oauth` and `provider` do no I/O and know no clock and no random source: so every rule of the protocol is a table test, and others can use them",
        outside(&code_of(&["oauth", "provider"]), &[], |line| has_any(line, &IO)),
    );
}

/// Cargo enforces the architecture as long as nobody adds the dependency that would let it be broken.
#[test]
fn a_crate_has_only_the_dependencies_of_its_place() {
    let forbidden: [(&str, &[&str]); 3] = [
        ("oauth", &["tokio", "hyper", "hyper-util", "axum", "rusqlite", "keyholder-provider", "keyholder-broker"]),
        ("provider", &["tokio", "hyper", "hyper-util", "axum", "rusqlite", "keyholder-broker"]),
        ("broker", &["axum", "askama", "clap", "schemars", "keyholder-sandbox"]),
    ];
    for (name, forbidden) in forbidden {
        let manifest = fs::read_to_string(root().join(format!("crates/{name}/Cargo.toml"))).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap();
        for crate_name in forbidden {
            assert!(
                !dependencies.contains_key(*crate_name),
                "{name} depends on {crate_name}: crates are cut where a set of dependencies ends, and this one doesn't belong there"
            );
        }
    }
    let sandbox: toml::Table = fs::read_to_string(root().join("crates/sandbox/Cargo.toml")).unwrap().parse().unwrap();
    let shared = sandbox["dependencies"].as_table().unwrap().keys().filter(|name| name.starts_with("keyholder-"));
    assert_eq!(shared.count(), 0, "the sandbox judges the others, so it shares no code with them");
}

#[test]
fn only_egress_opens_outbound_connections() {
    const OPENS: [&str; 7] = [
        "Client::builder",
        "TcpStream::connect",
        "TcpSocket",
        "lookup_host",
        "to_socket_addrs",
        "HttpConnector",
        "reqwest",
    ];
    none(
        "only `egress` opens an outbound connection: it checks addresses after DNS, pins them, and bounds sizes and times",
        outside(&all_code(), &["crates/broker/src/egress"], |line| has_any(line, &OPENS)),
    );
}

#[test]
fn only_the_store_holds_sql() {
    const SQL: [&str; 6] = ["SELECT ", "INSERT INTO ", "DELETE FROM ", "CREATE TABLE ", "PRAGMA ", "rusqlite::"];
    none(
        "only `store` holds SQL: one text a query, prepared in one test on both engines",
        outside(&all_code(), &["crates/broker/src/store"], |line| has_any(line, &SQL)),
    );
}

#[test]
fn only_the_vault_touches_ciphers() {
    none(
        "only `vault` touches ciphers: a value that is sealed elsewhere isn't tied to its place",
        outside(&all_code(), &["crates/broker/src/vault"], |line| line.contains("aead")),
    );
}

#[test]
fn only_the_table_of_routes_names_paths() {
    none(
        "only the route table names paths: router, permission check and OpenAPI are made from it",
        outside(
            &files("crates/server/src/http", |name| name.ends_with(".rs")),
            &["crates/server/src/http/routes.rs"],
            |line| has_any(line, &["\"/v1", ".route(", "Router::new"]),
        ),
    );
}

#[test]
fn only_problem_chooses_the_status_of_a_failure() {
    // Successes are the handlers' own; the probes and a form that comes back with remarks are pages, not failures.
    const SUCCESS: [&str; 5] =
        ["StatusCode::OK", "StatusCode::CREATED", "StatusCode::NO_CONTENT", "StatusCode::from_u16", "StatusCode)"];
    const PAGES: [&str; 3] = [
        "crates/server/src/http/health.rs",
        "crates/server/src/http/connect/page.rs",
        "crates/server/src/http/console/render.rs",
    ];
    let mut sources = files("crates/server/src/http", |name| name.ends_with(".rs"));
    for form in sources.iter_mut().filter(|it| it.is_below(&["crates/server/src/http/console/"])) {
        form.text = form.text.replace("StatusCode::UNPROCESSABLE_ENTITY", "");
    }
    let allowed = [&["crates/server/src/http/problem.rs"], &PAGES[..]].concat();
    none(
        "only problem.rs maps errors to status codes: two places would answer differently one day",
        outside(&sources, &allowed, |line| {
            // `status == …` asks, it doesn't choose.
            line.contains("StatusCode::") && !has_any(line, &SUCCESS) && !line.contains("== StatusCode::")
        }),
    );
}

#[test]
fn every_error_has_its_own_arm_in_the_mapping() {
    let problem = fs::read_to_string(root().join("crates/server/src/http/problem.rs")).unwrap();
    for function in ["pub fn of(", "pub fn of_refusal("] {
        let start = problem.find(function).unwrap();
        let end = start + problem[start..].find("\n    }\n").unwrap();
        assert!(
            !problem[start..end].contains("_ =>"),
            "`{function}…)` has a wildcard: a new error must be a compile error here, not an accidental 500"
        );
    }
}

/// Providers whose names are words of the language or of Rust; their hosts are looked for all the same.
const ORDINARY: [&str; 10] = ["box", "buffer", "close", "drip", "front", "line", "threads", "x", "oauth2", "oidc"];

#[test]
fn no_providers_name_stands_in_code() {
    let mut names = HashSet::new();
    let mut hosts = HashSet::new();
    for file in files("providers", |name| name.ends_with(".toml")) {
        let definition: toml::Table = file.text.parse().unwrap();
        names.insert(definition["id"].as_str().unwrap().to_owned());
        let urls = file.text.split("https://").skip(1);
        hosts.extend(urls.filter_map(|url| registered(url.split(['/', '"', '\'', ' ']).next()?)));
    }
    assert!(names.len() >= 200 && hosts.len() >= 200, "{} names, {} hosts", names.len(), hosts.len());
    names.retain(|name| !ORDINARY.contains(&name.as_str()));
    hosts.remove("example.com");
    let known = |line: &str| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
        let mut in_line = line.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-')));
        words.any(|word| names.contains(&word.to_ascii_lowercase()))
            || in_line.any(|host| registered(host).is_some_and(|host| hosts.contains(&host)))
    };
    none(
        "no provider's name and no host of one in Rust code: a quirk is a field of the provider language, so that the next provider needs no release",
        // An example in a help text is no logic, and neither is a table of tests.
        outside(&all_code(), &["crates/provider/src/render/bytes.rs"], |line| {
            !line.contains("Example:") && known(line)
        }),
    );
}

/// The last two labels of a host, as far as it has no placeholder.
fn registered(host: &str) -> Option<String> {
    let (rest, top) =
        host.to_ascii_lowercase().rsplit_once('.').map(|(rest, top)| (rest.to_owned(), top.to_owned()))?;
    let name = rest.rsplit('.').next().unwrap_or_default();
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (plain(name) && plain(&top) && top.len() > 1).then(|| format!("{name}.{top}"))
}

#[test]
fn there_are_no_globals() {
    const GLOBALS: [&str; 4] = ["static mut", "thread_local!", "lazy_static", "OnceCell::const_new"];
    // In a struct they are no globals.
    let is_global = |line: &str| {
        let of_static = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        has_any(line, &GLOBALS) || (of_static.starts_with("static ") && has_any(line, &["LazyLock<", "OnceLock<"]))
    };
    none(
        "no globals: two servers in one process, and two tests, must not know of each other",
        outside(&all_code(), &[], is_global),
    );
}

#[test]
fn a_lint_is_switched_off_only_with_a_reason() {
    let mut found = Vec::new();
    for source in all_code() {
        let code: Vec<_> = source.code().collect();
        for (index, (at, line)) in code.iter().enumerate() {
            if has_any(line, &["#[allow(", "#![allow(", "#[expect(", "#![expect("]) {
                let rest = code[index..].iter().map(|(_, line)| *line);
                let attribute = rest.scan(false, |over, line| {
                    let shown = (!*over).then_some(line);
                    *over |= line.trim_end().ends_with(")]");
                    shown
                });
                if !attribute.collect::<String>().contains("reason = ") {
                    found.push(format!("{}:{at}: {}", source.path, line.trim()));
                }
            }
        }
    }
    none("`#[allow(…)]` outside tests says why: otherwise nobody dares to take it away", found);
}

#[test]
fn templates_escape_everything_and_run_nothing_but_our_files() {
    // The console's own scripts, by their paths: the policy of its pages knows no other.
    const OURS: [&str; 2] = [
        r#"<script type="module" src="{{ page.script }}"{% block shown %} blocking="render"{% endblock %}></script>"#,
        r#"<script type="module" src="{{ passkey.script }}"></script>"#,
    ];
    let found: Vec<_> = files("crates/server/src/templates", |name| name.ends_with(".html"))
        .iter()
        .flat_map(|page| {
            let lines = page.text.lines().enumerate();
            let bad = lines.filter(|(_, line)| {
                has_any(
                    &OURS.iter().fold((*line).to_owned(), |line, ours| line.replace(ours, "")),
                    &["|safe", "| safe", "{% autoescape", "<script", " style=", "javascript:", "onclick", "onload"],
                )
            });
            bad.map(|(at, line)| format!("{}:{}: {line}", page.path, at + 1)).collect::<Vec<_>>()
        })
        .collect();
    none(
        "nothing of a provider's text is rendered as HTML, and the pages' policy forbids scripts and inline styles",
        found,
    );
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let machine = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("../sha", "red")];
    let mut found = Vec::new();
    for folder in ["crates", "providers", "migrations", "docs", "tests", ".config", "bench"] {
        let mut sources = Vec::new();
        collect(&root().join(folder), &|_| true, &mut sources);
        for source in sources {
            let lines = source.text.lines().enumerate().filter(|(_, line)| has_any(line, &machine));
            found.extend(lines.map(|(at, line)| format!("{}:{}: {line}", source.path, at + 1)));
        }
    }
    none("a committed file knows no path of one machine: it must work on a fresh one", found);
}

#[test]
fn main_only_dispatches() {
    let main = fs::read_to_string(root().join("crates/server/src/main.rs")).unwrap();
    assert!(
        main.lines().count() < 50,
        "main.rs parses, configures and dispatches in under 50 lines; the rest is a library that tests can call"
    );
}

#[test]
fn every_definition_says_which_language_it_is_written_in() {
    for file in files("providers", |name| name.ends_with(".toml")) {
        let definition: toml::Table = file.text.parse().unwrap();
        assert_eq!(
            definition.get("schema").and_then(toml::Value::as_integer),
            Some(1),
            "{}: `schema = 1` must stand there, or a later language can't be told apart",
            file.path
        );
    }
}

/// What a struct derives, its name, and its fields with their types.
type Struct = (String, String, Vec<(String, String)>);

/// The structs of a file.
fn structs(text: &str) -> Vec<Struct> {
    let mut found = Vec::new();
    let mut derives = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line.starts_with("#[derive(") {
            derives.push_str(line);
        } else if let Some((_, rest)) = line.split_once("struct ").filter(|_| line.ends_with('{')) {
            let name = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
            let fields = lines.by_ref().map(str::trim).take_while(|line| *line != "}");
            let fields = fields.filter_map(|line| line.trim_start_matches("pub ").split_once(": "));
            let fields =
                fields.map(|(name, kind)| (name.trim_start_matches("pub(crate) ").to_owned(), kind.to_owned()));
            found.push((std::mem::take(&mut derives), name, fields.collect()));
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            derives.clear();
        }
    }
    found
}

#[test]
fn a_secret_can_neither_be_printed_nor_serialised_by_accident() {
    const SECRET: [&str; 9] = [
        "access_token",
        "refresh_token",
        "id_token",
        "client_secret",
        "password",
        "secret",
        "verifier",
        "api_key",
        "key",
    ];
    let mut found = Vec::new();
    let mut seen = 0;
    for source in code_of(&["oauth", "provider", "broker", "server"]) {
        for (derives, name, fields) in structs(&source.text) {
            for (field, kind) in fields {
                let plain = kind.contains("String") && !kind.contains("Zeroizing") && !kind.contains("Map<");
                if !SECRET.contains(&field.as_str()) || !plain {
                    continue;
                }
                seen += 1;
                // The two replies whose purpose is to hand out what they hold.
                let way_out =
                    matches!((name.as_str(), field.as_str()), ("TokenReply", "access_token") | ("KeyBody", "key"));
                let printed = derives.contains("Debug");
                let written = derives.contains("Serialize") && !way_out;
                if printed || written {
                    found.push(format!("{}: {name}.{field}: {kind} under {derives}", source.path));
                }
            }
        }
    }
    assert!(seen >= 4, "the rule no longer finds the fields it looks at ({seen})");
    none("a secret has a type that prints as `****`; as a plain text it would end in a log or a reply one day", found);
}

#[test]
fn no_test_sleeps() {
    let sleeps = [concat!("time::", "sleep("), concat!("thread::", "sleep(")];
    let mut found = Vec::new();
    for name in ["oauth", "provider", "broker", "server"] {
        let mut sources = Vec::new();
        collect(&root().join(format!("crates/{name}/tests")), &|file| file.ends_with(".rs"), &mut sources);
        found.extend(outside(&sources, &[], |line| has_any(line, &sleeps)));
    }
    none("a test that sleeps is slow on a fast machine and false on a slow one: wait for the event itself", found);
}
