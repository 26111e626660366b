//! The discovery documents, and the place where nobody should arrive.

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use crate::Sandbox;
use crate::faults::{Call, GRANTS, Kind, On};
use crate::options::SCOPES;
use crate::reply::Reply;

/// `GET /.well-known/openid-configuration` and `GET /.well-known/oauth-authorization-server` (RFC 8414): one document.
/// It names no `jwks_uri`, since the sandbox issues no ID token.
pub(crate) async fn document(State(sandbox): State<Sandbox>) -> Response {
    let call = Call::new(On::Discovery, "discovery");
    sandbox
        .answer(call, |_, kinds| {
            let base = sandbox.base_url();
            let issuer = if kinds.contains(&Kind::WrongIssuer) { WRONG_ISSUER } else { base };
            Reply::ok(json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{base}/authorize"),
                "token_endpoint": format!("{base}/token"),
                "revocation_endpoint": format!("{base}/revoke"),
                "introspection_endpoint": format!("{base}/introspect"),
                "userinfo_endpoint": format!("{base}/userinfo"),
                "scopes_supported": SCOPES.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": GRANTS,
                "subject_types_supported": ["public"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": true,
            }))
        })
        .await
}

/// `GET /.well-known/oauth-protected-resource/api` (RFC 9728): what the API says of itself.
pub(crate) async fn resource(State(sandbox): State<Sandbox>) -> Response {
    let call = Call::new(On::Discovery, "resource");
    sandbox
        .answer(call, |_, _| {
            let base = sandbox.base_url();
            Reply::ok(json!({
                "resource": format!("{base}/api"),
                "authorization_servers": [base],
                "scopes_supported": ["read", "write"],
                "bearer_methods_supported": ["header"],
                "resource_name": "The sandbox's API",
            }))
        })
        .await
}

/// Who the `wrong_issuer` fault pretends to be.
pub(crate) const WRONG_ISSUER: &str = "https://impostor.example";

/// `/elsewhere`: where the `redirect` fault leads. Its counter tells whether a client followed.
pub(crate) async fn elsewhere(State(sandbox): State<Sandbox>) -> Response {
    let call = Call::new(None, "elsewhere");
    sandbox.answer(call, |_, _| Reply::ok(json!({"message": "you followed a redirect"}))).await
}
