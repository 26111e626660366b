//! From the text of a definition to a checked [`Definition`]: every rule of the language that is not syntax.

mod computed;
mod fields;
mod head;
mod load;
mod phases;
mod placeholders;
mod reply;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::built_in::BUILT_IN;
use crate::definition::{Base, Computed, Definition, GrantKind, Kind, Method, Phases, ScopeRules, Setup, Variable};
use crate::error::DefinitionError;
use crate::schema::{self, PHASES};
use crate::source::{Node, Sources};
use crate::template::{UrlTemplate, is_variable_name};

/// Reads a definition, which may extend one that comes with the program. `file` is only for the errors; pass what the user
/// knows the text by. To extend others too, use [`Catalogue::parse`](crate::Catalogue::parse).
///
/// All errors are returned, in the order of the text, unless the syntax, a field's name or a type is wrong: then only the first.
pub fn parse(file: &str, text: &str) -> Result<Definition, Vec<DefinitionError>> {
    parse_with(file, text, &|id| {
        let (file, text) = BUILT_IN.iter().find(|(file, _)| file.strip_suffix(".toml") == Some(id))?;
        Some(((*file).to_owned(), (*text).to_owned()))
    })
}

/// Reads a definition that may extend only these, as [`Definition::bases`] gave them.
///
/// # Errors
/// As [`parse`].
pub fn parse_over(file: &str, text: &str, bases: &[Base]) -> Result<Definition, Vec<DefinitionError>> {
    parse_with(file, text, &|id| {
        let base = bases.iter().find(|base| base.id == id)?;
        Some((format!("{id}.toml"), base.text.to_string()))
    })
}

/// The text of a file; the error says where it is not UTF-8.
///
/// # Errors
/// The first byte that is none of UTF-8, by line and column.
pub fn read_text<'t>(file: &str, bytes: &'t [u8]) -> Result<&'t str, DefinitionError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        DefinitionError {
            file: file.to_owned(),
            line: valid.matches('\n').count() + 1,
            column: valid.rsplit('\n').next().unwrap_or("").chars().count() + 1,
            field: String::new(),
            reason: "the text is not UTF-8 from here on".to_owned(),
            remedy: "save the file as UTF-8".to_owned(),
        }
    })
}

/// Finds the file name and the text of a definition by its id.
pub(crate) type Bases<'b> = &'b dyn Fn(&str) -> Option<(String, String)>;

pub(crate) fn parse_with(file: &str, text: &str, bases: Bases<'_>) -> Result<Definition, Vec<DefinitionError>> {
    let mut sources = Sources::default();
    let (root, bases) = load::load(&mut sources, file, text, bases).map_err(|error| vec![error])?;
    let mut checker = Checker {
        sources,
        root,
        errors: RefCell::default(),
        used: RefCell::default(),
        declared: RefCell::default(),
        variables: Vec::new(),
        known: Known::default(),
        urls: RefCell::default(),
    };
    let definition = checker.definition(text, bases).map_err(|error| vec![error])?;
    let mut errors = checker.errors.into_inner();
    if errors.is_empty() {
        return Ok(definition);
    }
    // Errors of the file itself first; what several methods share is found once for each.
    errors.sort_by_key(|error| (error.file != file, error.file.clone(), error.line, error.column));
    errors.dedup();
    Err(errors)
}

/// The text as it counts, merged over what it extends; methods and phases are as they are written.
pub(crate) fn merged_with(file: &str, text: &str, bases: Bases<'_>) -> Result<serde_json::Value, Vec<DefinitionError>> {
    parse_with(file, text, bases)?;
    let (tree, _) = load::load(&mut Sources::default(), file, text, bases).map_err(|error| vec![error])?;
    Ok(tree.to_json())
}

/// Most errors that are told; who has made more has made one of them many times.
const MAX_ERRORS: usize = 100;

struct Checker {
    sources: Sources,
    /// What is being checked: the whole file, or the file as one method has it.
    root: Node,
    errors: RefCell<Vec<DefinitionError>>,
    /// What has a placeholder: variables by their name, the rest as `computed.NAME`.
    used: RefCell<BTreeSet<String>>,
    /// What must have one: its name, and where it stands in which tree.
    declared: RefCell<Vec<(String, Node, Vec<String>)>>,
    variables: Vec<Variable>,
    known: Known,
    /// Addresses that were read: methods share most of them.
    urls: RefCell<BTreeMap<String, UrlTemplate>>,
}

/// What placeholders may name in the method that is being checked, beside variables.
#[derive(Default)]
struct Known {
    captures: BTreeMap<String, Captured>,
    /// What lookups save, with the lookup's number.
    lookups: BTreeMap<String, usize>,
    computed: BTreeMap<String, Computed>,
    /// Names of the computed values that have errors of their own.
    broken: BTreeSet<String>,
    /// Names of the secondary tokens.
    secondary: BTreeSet<String>,
}

/// A capture of the callback.
struct Captured {
    kind: Kind,
    has_default: bool,
}

/// A method before its phases are read.
struct Draft {
    name: String,
    label: String,
    grant: GrantKind,
    /// Its number in the file.
    index: String,
    /// What it says in its own way.
    own: Node,
}

/// One reading of the phases.
#[derive(Clone)]
struct Parts {
    phases: Arc<Phases>,
    scopes: ScopeRules,
    setup: Setup,
    inputs: Arc<schema::Inputs>,
}

impl Checker {
    fn definition(&mut self, text: &str, bases: Vec<Base>) -> Result<Definition, DefinitionError> {
        let whole = self.root.clone();
        let mut head: schema::Head =
            self.sources.fields(&whole.only(|key| key != "methods" && !PHASES.contains(&key)))?;
        let drafts = self.drafts()?;
        self.variables = self.declared_variables(std::mem::take(&mut head.variables), &drafts);
        let shared = whole.only(|key| PHASES.contains(&key));
        let mut plain: Option<Parts> = None;
        let mut methods = Vec::new();
        for draft in &drafts {
            self.root = load::inherited(&shared.merged(&draft.own));
            let parts = match &plain {
                Some(parts) if draft.own.entries().is_empty() => parts.clone(),
                _ => self.parts()?,
            };
            if draft.own.entries().is_empty() && plain.is_none() {
                plain = Some(parts.clone());
            }
            self.needs(draft, &parts.phases);
            methods.push(Method {
                name: draft.name.clone(),
                label: draft.label.clone(),
                grant: draft.grant,
                inputs: self.inputs(draft, &parts),
                scopes: parts.scopes,
                setup: parts.setup,
                phases: parts.phases,
            });
        }
        let (scopes, setup) = match plain {
            Some(parts) => (parts.scopes, parts.setup),
            None => {
                self.root = shared.clone();
                let phases: schema::Phases =
                    self.sources.fields(&shared.only(|key| key == "scopes" || key == "setup"))?;
                (self.scopes(phases.scopes), self.setup(phases.setup))
            }
        };
        self.root = whole;
        // With a method that could not be read, what only it uses would seem to have no use.
        if self.root.member("methods").is_some_and(|methods| methods.items().len() == drafts.len()) {
            self.without_effect(&drafts);
            self.inputs_without_use(&methods);
            self.unused();
        }
        Ok(self.head(head, text, bases, methods, scopes, setup))
    }

    fn drafts(&self) -> Result<Vec<Draft>, DefinitionError> {
        let Some(methods) = self.root.member("methods").filter(|methods| !methods.items().is_empty()) else {
            self.error(&["methods"], "there is none", "add [[methods]] with a grant");
            return Ok(Vec::new());
        };
        let mut drafts: Vec<Draft> = Vec::new();
        for (index, item) in methods.items().iter().enumerate() {
            let index = index.to_string();
            let head: schema::MethodHead = self.sources.fields(&item.only(|key| !PHASES.contains(&key)))?;
            let Some(grant) = head.grant else {
                let known = GrantKind::ALL.map(GrantKind::as_str).join(", ");
                self.error(&["methods", &index, "grant"], "it is missing", format!("write one of: {known}"));
                continue;
            };
            let name = head.name.unwrap_or_else(|| grant.as_str().to_owned());
            if !is_variable_name(&name) || name.contains(|c: char| c.is_ascii_uppercase()) {
                self.error(
                    &["methods", &index, "name"],
                    "it has other characters than lower-case letters, digits and `_`",
                    "write it like `client_credentials`",
                );
            }
            if drafts.iter().any(|known| known.name == name) {
                self.error(
                    &["methods", &index],
                    format!("there are two methods `{name}`"),
                    "give each method its own name",
                );
            }
            let own = item.only(|key| PHASES.contains(&key));
            drafts.push(Draft { label: head.label.unwrap_or_else(|| name.clone()), name, grant, index, own });
        }
        Ok(drafts)
    }

    /// What a grant can't do without.
    fn needs(&self, draft: &Draft, phases: &Phases) {
        let missing = |path: &[&str], reason: String, remedy: &str| self.error(path, reason, remedy);
        let by_hand = self.root.member("discover").is_none();
        let has_url = |phase| self.root.member(phase).is_some_and(|phase| phase.member("url").is_some());
        let method = &draft.name;
        if by_hand && draft.grant == GrantKind::AuthorizationCode && !has_url("authorize") {
            let reason = format!("the method {method} needs it");
            missing(&["authorize", "url"], reason, "give the URL, or a [discover] table");
        }
        if by_hand && draft.grant == GrantKind::DeviceCode && !has_url("device") {
            let reason = format!("the method {method} needs it");
            missing(&["device", "url"], reason, "give the URL, or a [discover] table");
        }
        if by_hand && !has_url("token") {
            missing(&["token", "url"], "it is missing".to_owned(), "give the URL, or a [discover] table");
        }
        let params: &[&str] = match draft.grant {
            GrantKind::JwtBearer | GrantKind::SamlBearer => &["assertion"],
            GrantKind::TokenExchange => &["subject_token", "subject_token_type"],
            _ => &[],
        };
        for param in params {
            if !phases.token.params.iter().any(|(name, _)| name == param) {
                let reason = format!("the method {method} needs it");
                missing(
                    &["token", "params", param],
                    reason,
                    "say where it comes from, such as {{computed.NAME}} or a variable",
                );
            }
        }
    }

    /// Tables that no method reads.
    fn without_effect(&self, drafts: &[Draft]) {
        let only = [
            ("authorize", GrantKind::AuthorizationCode),
            ("callback", GrantKind::AuthorizationCode),
            ("device", GrantKind::DeviceCode),
        ];
        for (phase, grant) in only {
            let remedy = format!("remove it, or add a method with the grant {}", grant.as_str());
            if self.root.member(phase).is_some() && drafts.iter().all(|draft| draft.grant != grant) {
                self.error(&[phase], "no method has a use for it", remedy.as_str());
            }
            for draft in drafts.iter().filter(|draft| draft.grant != grant && draft.own.member(phase).is_some()) {
                self.error(
                    &["methods", &draft.index, phase],
                    format!("the grant {} has no use for it", draft.grant.as_str()),
                    "remove it",
                );
            }
        }
    }

    fn inputs_without_use(&self, methods: &[Method]) {
        for entry in self.root.member("inputs").map_or(&[][..], Node::entries) {
            if !methods.iter().any(|method| method.inputs.iter().any(|input| *input.name == *entry.key)) {
                self.error(&["inputs", &entry.key], "no method has a use for it", "remove it");
            }
        }
    }

    fn unused(&self) {
        for (name, root, path) in self.declared.take() {
            if !self.used.borrow().contains(&name) {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                let remedy = format!("remove it, or write {{{{{name}}}}} where it belongs");
                self.error_in(&root, &path, "no placeholder uses it", remedy);
            }
        }
    }

    /// Notes something that must have a placeholder somewhere.
    fn declare(&self, path: &[&str], name: &str) {
        let path = path.iter().map(|step| (*step).to_owned()).collect();
        self.declared.borrow_mut().push((name.to_owned(), self.root.clone(), path));
    }

    fn error(&self, path: &[&str], reason: impl Into<String>, remedy: impl Into<String>) {
        self.error_in(&self.root, path, reason, remedy);
    }

    fn error_in(&self, root: &Node, path: &[&str], reason: impl Into<String>, remedy: impl Into<String>) {
        let mut errors = self.errors.borrow_mut();
        if errors.len() < MAX_ERRORS {
            errors.push(self.sources.error(root, path, reason, remedy));
        }
    }
}

#[cfg(test)]
mod tests;
