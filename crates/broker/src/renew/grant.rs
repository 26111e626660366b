//! Which grant gives a new token, and what its request is made of.

use keyholder_oauth::{Grant, Secret, TokenEndpoint, TokenSet};
use keyholder_provider::GrantKind;

use crate::error::{Error, Result, invalid};
use crate::explain::Deed;
use crate::model::Connection;
use crate::plan::{PASSWORD, Plan};

/// What to do for a new token; `None`: only a person can.
pub(super) fn deed(plan: &Plan, old: Option<&TokenSet>, run_grant_anew: bool) -> Option<Deed> {
    let has_refresh_token = old.is_some_and(|tokens| tokens.refresh_token.is_some());
    match plan.rendered.grant {
        _ if has_refresh_token && !run_grant_anew => Some(Deed::Refresh),
        grant if grant.needs_a_person() => None,
        machine => Some(Deed::Machine(machine)),
    }
}

/// Endpoint, grant and scope of the request.
pub(super) fn request_parts<'a>(
    row: &'a Connection,
    plan: &'a Plan,
    refresh_token: Option<&'a Secret>,
    deed: Deed,
) -> Result<(&'a TokenEndpoint, Grant<'a>, Option<&'a str>)> {
    let scope = plan.rendered.scope.as_deref();
    match (deed, refresh_token) {
        (Deed::Refresh, Some(refresh_token)) => {
            let scope = scope.filter(|_| plan.rendered.refresh_sends_scope);
            Ok((&plan.rendered.refresh, Grant::RefreshToken { refresh_token }, scope))
        }
        (Deed::Machine(GrantKind::Password), _) => {
            let username = row.username.as_deref().ok_or_else(|| missing("username"))?;
            let password = plan.secrets.get(PASSWORD).ok_or_else(|| missing("password"))?;
            Ok((&plan.rendered.token, Grant::Password { username, password }, scope))
        }
        (Deed::Machine(grant), _) => {
            let grant = match grant {
                GrantKind::JwtBearer => Grant::JwtBearer,
                GrantKind::SamlBearer => Grant::SamlBearer,
                GrantKind::TokenExchange => Grant::TokenExchange,
                _ => Grant::ClientCredentials,
            };
            Ok((&plan.rendered.token, grant, scope))
        }
        (Deed::Refresh | Deed::Exchange, _) => Err(Error::Internal("there is nothing to renew with")),
    }
}

fn missing(field: &'static str) -> Error {
    invalid(
        field,
        "the connection has none (ending a connection deletes it)",
        "give it again with `keyholder connection edit` or PATCH /v1/connections/{id}",
    )
}

/// Granted scope; what was asked for where the provider is silent, which RFC 6749 §5.1 lets mean "as asked".
pub(crate) fn granted_scope(plan: &Plan, tokens: &TokenSet) -> Option<String> {
    match &tokens.scope {
        Some(scope) => Some(scope.join(" ")),
        None => Some(plan.rendered.requested_scopes.join(" ")).filter(|scope| !scope.is_empty()),
    }
}
