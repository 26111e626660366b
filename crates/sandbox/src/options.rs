//! What a sandbox is started with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::faults::{BadInput, Fault};

pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:8790";

/// The scopes it knows, with what the consent page says of each. Any other is `invalid_scope`.
pub const SCOPES: &[(&str, &str)] = &[
    ("openid", "Know who you are"),
    ("profile", "See your name"),
    ("email", "See your e-mail address"),
    ("offline_access", "Stay connected while you are away"),
    ("read", "Read your data"),
    ("write", "Change your data"),
    ("admin", "Administer the service"),
];

/// The accounts it knows: name and password.
pub const USERS: &[(&str, &str)] = &[("alice", "wonderland"), ("bob", "builder")];

/// How a sandbox behaves. The default is a strict, well-behaved server.
#[derive(Clone)]
pub struct Options {
    /// The issuer and the root of every URL; `None`: the address it listens on.
    pub base_url: Option<String>,
    /// Life of an access token, seconds. 3600.
    pub access_ttl: u64,
    /// Life of a refresh token, seconds; `None`: no end. `None`.
    pub refresh_ttl: Option<u64>,
    /// What happens to a refresh token that was used. [`Rotation::Rotate`].
    pub rotation: Rotation,
    /// A renewal ends the older access tokens of the same grant. `false`.
    pub access_dies: bool,
    /// Authorization requests need a PKCE S256 challenge. `true`.
    pub require_pkce: bool,
    /// Any redirect URI is accepted, for demonstrations. `false`: only what is registered, compared exactly.
    pub any_redirect: bool,
    /// Redirect URIs registered for the built-in clients.
    pub redirect_uris: Vec<String>,
    /// This account allows every request at once, without a page; `None`: a person decides.
    pub auto_approve: Option<String>,
    /// Clients beside (or instead of, by the same id) the built-in ones.
    pub clients: Vec<Client>,
    /// Faults that are set from the start.
    pub faults: Vec<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            base_url: None,
            access_ttl: 3600,
            refresh_ttl: None,
            rotation: Rotation::Rotate,
            access_dies: false,
            require_pkce: true,
            any_redirect: false,
            redirect_uris: Vec::new(),
            auto_approve: None,
            clients: Vec::new(),
            faults: Vec::new(),
        }
    }
}

impl Options {
    /// The same, with `base_url` set to the listener's address if it was not set (loopback for an unspecified address).
    ///
    /// Errors: the listener's address can't be read.
    pub fn at(mut self, listener: &TcpListener) -> std::io::Result<Self> {
        if self.base_url.is_none() {
            let mut address = listener.local_addr()?;
            if address.ip().is_unspecified() {
                address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            self.base_url = Some(format!("http://{address}"));
        }
        Ok(self)
    }

    /// The built-in clients, then the added ones.
    pub(crate) fn all_clients(&self) -> Vec<Client> {
        let mut clients = built_in_clients();
        for client in &mut clients {
            client.redirect_uris.clone_from(&self.redirect_uris);
        }
        clients.extend(self.clients.iter().cloned());
        clients
    }
}

/// A registered client. Without `Debug`: it holds a secret.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The client id.
    pub id: String,
    /// What the consent page calls it; empty: its id.
    #[serde(default)]
    pub name: String,
    /// `None`: a public client.
    #[serde(default)]
    pub secret: Option<String>,
    /// The only method it may use; `None`: any that carries a secret, or none for a public client.
    #[serde(default)]
    pub auth: Option<ClientAuth>,
    /// Where consent may lead back to, compared exactly.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
}

impl Client {
    /// What a person reads.
    pub(crate) fn shown_name(&self) -> &str {
        if self.name.is_empty() { &self.id } else { &self.name }
    }
}

fn built_in_clients() -> Vec<Client> {
    let client = |id: &str, name: &str, auth: ClientAuth| Client {
        id: id.to_owned(),
        name: name.to_owned(),
        secret: (auth != ClientAuth::None).then(|| "sandbox-secret".to_owned()),
        auth: Some(auth),
        redirect_uris: Vec::new(),
    };
    vec![
        client("sandbox-basic", "Sandbox client (basic)", ClientAuth::Basic),
        client("sandbox-post", "Sandbox client (post)", ClientAuth::Post),
        client("sandbox-json", "Sandbox client (JSON)", ClientAuth::Json),
        client("sandbox-public", "Sandbox client (public)", ClientAuth::None),
    ]
}

/// How a client proves itself at the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// HTTP Basic, id and secret form-encoded first (RFC 6749 §2.3.1).
    Basic,
    /// `client_id` and `client_secret` in the form body.
    Post,
    /// The same two in a JSON body.
    Json,
    /// Only `client_id`: a public client.
    None,
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic => "basic",
            Self::Post => "post",
            Self::Json => "json",
            Self::None => "none",
        })
    }
}

/// What happens to a refresh token that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It stays; the reply carries no other.
    Static,
    /// It is replaced, and refused from then on.
    Rotate,
    /// It is replaced, and its reuse revokes the whole grant (RFC 9700 §4.14.2).
    Family,
    /// It is replaced, and still accepted for so many seconds.
    Window(u64),
    /// It is replaced, and still accepted until a token from its replacement is used.
    UntilUsed,
}

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static => f.write_str("static"),
            Self::Rotate => f.write_str("rotate"),
            Self::Family => f.write_str("family"),
            Self::Window(seconds) => write!(f, "window:{seconds}"),
            Self::UntilUsed => f.write_str("until_used"),
        }
    }
}

impl FromStr for Rotation {
    type Err = BadInput;

    fn from_str(text: &str) -> Result<Self, BadInput> {
        let window = || text.strip_prefix("window:").and_then(|seconds| seconds.parse().ok());
        Ok(match text {
            "static" => Self::Static,
            "rotate" => Self::Rotate,
            "family" => Self::Family,
            "until_used" => Self::UntilUsed,
            _ => Self::Window(window().ok_or_else(|| {
                BadInput::new(
                    "rotation",
                    format!("\"{text}\" is not a way to rotate"),
                    "use static, rotate, family, window:SECONDS or until_used",
                )
            })?),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rotation_reads_what_it_writes() {
        for text in ["static", "rotate", "family", "window:30", "until_used"] {
            assert_eq!(text.parse::<Rotation>().unwrap().to_string(), text);
        }
        let error = "window:soon".parse::<Rotation>().unwrap_err().to_string();
        assert_eq!(
            error,
            "rotation: \"window:soon\" is not a way to rotate; use static, rotate, family, window:SECONDS or until_used"
        );
    }
}
