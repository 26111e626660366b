//! What can be wrong with a definition, with a value, and with the two together.

/// An error in the text of a definition. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {}{reason}; {remedy}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct DefinitionError {
    /// The name given to [`crate::parse`].
    pub file: String,
    /// Line of the field, or of the table that should have it.
    pub line: usize,
    /// Column of the value, or of the key if the key is what is wrong.
    pub column: usize,
    /// The field's path, such as `token.params.audience` or `methods[0].name`; empty if the text is not TOML.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

/// A value that does not fit its variable. The text never repeats the value, which may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("variable `{variable}`: {reason}; {remedy}")]
pub struct ValueError {
    /// The variable's name as the user wrote it.
    pub variable: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

/// Why a definition and its values do not make requests. All of them are errors of set-up, none passes by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The definition has no such method.
    #[error("provider `{provider}` has no method `{method}`; use one of: {}", known.join(", "))]
    UnknownMethod {
        /// Id of the definition.
        provider: String,
        /// The name that was asked for.
        method: String,
        /// Names that would do.
        known: Vec<String>,
    },
    /// A value does not fit its variable, or a required one is missing.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// Neither the definition, nor the values, nor the discovery document name an endpoint that the method needs.
    #[error(
        "{field} is not known: neither the definition nor a discovery document gives it; set it in the definition or by its variable"
    )]
    NoEndpoint {
        /// Field of the definition, such as `token.url`.
        field: &'static str,
    },
    /// An endpoint is made of what the provider says when a person connects.
    #[error(
        "{field} is made of {{{{{what}}}}}, which the provider tells when a person connects; authorise the connection first"
    )]
    NotSaidYet {
        /// Field of the definition, such as `token.url`.
        field: &'static str,
        /// The placeholder, such as `callback.server`.
        what: String,
    },
    /// An endpoint is only in the discovery document, which was not passed.
    #[error("{field} comes from the discovery document; fetch that first")]
    NeedsDiscovery {
        /// Field of the definition.
        field: &'static str,
    },
    /// A URL that credentials must not be sent to (RFC 6749 §3.1.2.1, §3.2: TLS is a must).
    #[error(
        "{field}: {reason}; give an absolute https:// URL without user name, password and fragment (http:// is for loopback only)"
    )]
    BadUrl {
        /// Field of the definition, or of the discovery document.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// A header value with characters that HTTP does not allow.
    #[error(
        "header `{header}`: the value has characters that a header may not have; remove line breaks and control characters"
    )]
    BadHeader {
        /// The header's name.
        header: String,
    },
    /// A scope with a space or a control character inside (RFC 6749 §3.3).
    #[error("scope number {position} has characters that a scope may not have; give each scope by itself")]
    BadScope {
        /// Counted from 1 among the requested ones.
        position: usize,
    },
    /// The provider's reply named an API host that the definition does not list.
    #[error(
        "the provider named `{host}` as its API host, which `api.hosts` does not list; add it to the definition if it belongs to the provider"
    )]
    HostNotListed {
        /// The host in the reply.
        host: String,
    },
    /// A computed value could not be made.
    #[error("computed.{name}: {reason}")]
    Computed {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Calls need a token that the connection does not have.
    #[error("the connection has no token `{name}`; connect again with the scopes that bring it")]
    MissingToken {
        /// The secondary token's name.
        name: String,
    },
    /// The authorization server offers only client authentication that is not supported here.
    #[error("the authorization server offers only these client authentications: {}; set client_auth by hand if it accepts another", offered.join(", "))]
    ClientAuth {
        /// `token_endpoint_auth_methods_supported` of the discovery document.
        offered: Vec<String>,
    },
}
