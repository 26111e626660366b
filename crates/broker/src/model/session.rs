//! What stands between the wish to connect and a confirmed connection.

use super::{ConnectionId, DeviceGrantId, IntegrationId, PendingId, SessionId, Tenant};

/// A short-lived invitation for one person to authorise one connection.
#[derive(Clone, Debug)]
pub struct ConnectSession {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Under which integration.
    pub integration: IntegrationId,
    /// The connection that will be authorised.
    pub connection: ConnectionId,
    /// Who the application says will consent.
    pub owner: Option<String>,
    /// Where the browser goes when done, with a one-time code.
    pub return_url: Option<String>,
    /// Skip the page when nothing has to be asked: the application's own redirect brought the person here.
    pub direct: bool,
    /// The session made the connection, so an unused session takes it along.
    pub made_connection: bool,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// When a consent begun here was completed, Unix milliseconds.
    pub used_at: Option<i64>,
}

/// Everything stored before the browser leaves for the provider; consumed once, by its state.
#[derive(Clone, Debug)]
pub struct Consent {
    /// SHA-256 of the `state` parameter (RFC 6749 §10.12).
    pub state_hash: [u8; 32],
    /// Whose it is.
    pub tenant: Tenant,
    /// The connection to authorise.
    pub connection: ConnectionId,
    /// The integration, which also names the callback.
    pub integration: IntegrationId,
    /// The session it was begun in.
    pub session: SessionId,
    /// Sealed PKCE verifier, nonce and what the person typed.
    pub sealed: Vec<u8>,
    /// Issuer recorded before the redirect (RFC 9207 §2.4).
    pub issuer: Option<String>,
    /// The answer must name its issuer.
    pub issuer_required: bool,
    /// Redirect URI that was sent; the token request repeats it (RFC 6749 §4.1.3).
    pub redirect_uri: String,
    /// SHA-256 of the cookie that binds it to one browser.
    pub browser_hash: [u8; 32],
    /// Sealed answer, where the provider has it posted; until the browser comes back with its cookie.
    pub answer: Option<Vec<u8>>,
    /// Unix milliseconds.
    pub expires_at: i64,
}

/// A grant whose tokens are sealed but wait for the person who started to complete.
#[derive(Clone, Debug)]
pub struct PendingGrant {
    /// Its id.
    pub id: PendingId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The connection it is for.
    pub connection: ConnectionId,
    /// The session it was begun in.
    pub session: SessionId,
    /// SHA-256 of the one-time code that the return URL carried.
    pub code_hash: Option<[u8; 32]>,
    /// SHA-256 of the cookie of the browser that began.
    pub browser_hash: [u8; 32],
    /// Sealed token set and what the person typed.
    pub sealed: Vec<u8>,
    /// The account at the provider, as far as it told.
    pub account: Option<String>,
    /// Unix milliseconds.
    pub expires_at: i64,
}

/// A grant that a person gives on another device (RFC 8628); one at a time for a connection.
#[derive(Clone, Debug)]
pub struct DeviceGrant {
    /// Its id.
    pub id: DeviceGrantId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The connection it is for.
    pub connection: ConnectionId,
    /// Under which integration.
    pub integration: IntegrationId,
    /// The session whose page shows the code, and SHA-256 of the cookie of its browser, which confirms; `None`: the API asked, and nobody confirms.
    pub page: Option<(SessionId, [u8; 32])>,
    /// Sealed device code and what the person typed.
    pub sealed: Vec<u8>,
    /// What the person types at the provider.
    pub user_code: String,
    /// Where they type it.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// Between two questions, milliseconds.
    pub interval_ms: i64,
    /// When the provider is asked next, by the database's clock, Unix milliseconds. Whoever asks moves it first.
    pub ask_at: i64,
    /// When the code ends, Unix milliseconds.
    pub expires_at: i64,
}
