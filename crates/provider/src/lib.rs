//! The provider language: definitions as data, parsed, checked and rendered, no I/O.
//!
//! A definition is one TOML file that says how an authorization server and its API behave. [`parse`] turns the text into a
//! [`Definition`] or names every error with its line; [`Definition::render`] puts a user's values in and gives the endpoints,
//! parameters and rules that `keyholder_oauth` needs. The language is described in `docs/provider-language.md`.
//!
//! The order of the modules, each using only what stands before it:
//! `error`, `endpoint`, `template`, `saved`, `definition`, `schema`, `source`, `values`, `extra`, `built_in`, `check`, `render`, `catalogue`, `draft`, `import`.

mod built_in;
mod catalogue;
mod check;
mod definition;
mod draft;
mod endpoint;
mod error;
mod extra;
pub mod import;
mod render;
pub mod saved;
mod schema;
mod source;
mod template;
mod values;

pub use catalogue::Catalogue;
pub use check::{parse, parse_over, read_text};
pub use definition::{
    AskedOf, Base, Definition, ErrorPhase, ExpiredWhen, FollowUpWhen, GrantKind, KeepAlive, Kind, KnownError, Limits,
    Method, Pattern, Pkce, PlaceOfToken, Presence, Recovery, RefreshLife, RefreshWith, ResetUnit, ResponseMode,
    RevokedToken, ScopeRules, Setup, TimeoutUnit, Values, Variable,
};
pub use draft::draft;
pub use error::{DefinitionError, RenderError, ValueError};
pub use extra::Extra;
pub use render::{
    Account, Api, Authorize, Callback, Choice, Choose, ConsentRequest, Credentials, Discovery, FollowUp, Learnt,
    Lookup, LookupError, Placement, Register, Rendered, Revoke, Tokens, Userinfo, Verify,
};
