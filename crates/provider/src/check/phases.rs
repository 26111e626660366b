//! The tables that say how requests are made and replies are read.

use std::mem::take;

use keyholder_oauth::{ExpiryUnit, Pointer, ReplyRules, SuccessRule};

use super::Checker;
use crate::definition::{
    ApiPhase, AuthorizePhase, CallbackPhase, Discover, GrantKind, Method, Phases, Recovery, RefreshLife, RequestPhase,
};
use crate::schema::{self, RecoveryName, Unit};
use crate::template::Placeholder;

impl Checker<'_> {
    /// Takes the tables out of the file as it was read.
    pub(super) fn phases(&self, raw: &mut schema::File, methods: &[Method]) -> Phases {
        let (discover, revoke) = (raw.discover.take(), raw.revoke.take());
        let (authorize, callback) = (take(&mut raw.authorize), take(&mut raw.callback));
        let (token, refresh, api) = (take(&mut raw.token), take(&mut raw.refresh), take(&mut raw.api));
        let needs_consent = methods.iter().any(|method| method.grant == GrantKind::AuthorizationCode);
        if needs_consent && authorize.url.is_none() && discover.is_none() {
            self.error(
                &["authorize", "url"],
                "the method authorization_code needs it",
                "give the URL, or a [discover] table",
            );
        }
        if token.url.is_none() && discover.is_none() {
            self.error(&["token", "url"], "it is missing", "give the URL, or a [discover] table");
        }
        let reply = self.reply(&token.reply);
        let token = self.token(token);
        let recovery = self.recovery(refresh.recovery, refresh.window.as_deref());
        let refresh_life = RefreshLife {
            idle: self.duration(&["refresh", "idle_life"], refresh.idle_life.as_deref()),
            absolute: self.duration(&["refresh", "absolute_life"], refresh.absolute_life.as_deref()),
        };
        let refresh_sends_scope = refresh.sends_scope;
        let refresh = self.refresh(refresh, &token);
        let revoke_token = revoke.as_ref().map(|revoke| revoke.token).unwrap_or_default();
        Phases {
            discover: discover.and_then(|discover| self.discover(discover)),
            authorize: self.authorize(authorize),
            callback: self.callback(callback),
            revoke: revoke.map(|revoke| self.revoke(revoke, &token)),
            token,
            reply,
            refresh,
            refresh_sends_scope,
            recovery,
            refresh_life,
            revoke_token,
            api: self.api(api),
        }
    }

    fn discover(&self, raw: schema::Discover) -> Option<Discover> {
        let Some(issuer) = raw.issuer else {
            self.error(&["discover", "issuer"], "it is missing", "give the issuer's URL");
            return None;
        };
        let issuer = self.url(&["discover", "issuer"], Some(issuer))?;
        Some(Discover { issuer, documents: raw.documents })
    }

    fn authorize(&self, raw: schema::Authorize) -> AuthorizePhase {
        for (scope, params) in &raw.scope_params {
            for (name, _) in params.iter().filter(|(_, value)| value.contains("{{")) {
                let path = ["authorize", "scope_params", scope, name];
                self.error(&path, "placeholders have no use here", "write a fixed value, or use [authorize.params]");
            }
        }
        AuthorizePhase {
            url: self.url(&["authorize", "url"], raw.url),
            params: self.params("authorize", raw.params),
            scope_params: raw.scope_params,
            renames: self.renames("authorize", raw.rename, raw.drop),
            pkce: raw.pkce,
            nonce: raw.nonce,
        }
    }

    fn callback(&self, raw: schema::Callback) -> CallbackPhase {
        CallbackPhase { issuer: self.url(&["callback", "issuer"], raw.issuer), issuer_required: raw.issuer_required }
    }

    fn token(&self, raw: schema::Token) -> RequestPhase {
        RequestPhase {
            url: self.url(&["token", "url"], raw.url),
            client_auth: raw.client_auth,
            body: raw.body,
            headers: self.headers("token", raw.headers),
            params: self.params("token", raw.params),
            renames: self.renames("token", raw.rename, raw.drop),
        }
    }

    /// What [refresh] does not say is as in [token], but for the parameters.
    fn refresh(&self, raw: schema::Refresh, token: &RequestPhase) -> RequestPhase {
        RequestPhase {
            url: self.url(&["refresh", "url"], raw.url),
            client_auth: raw.client_auth.or(token.client_auth),
            body: raw.body.or(token.body),
            headers: raw.headers.map_or_else(|| token.headers.clone(), |headers| self.headers("refresh", headers)),
            params: self.params("refresh", raw.params),
            renames: token.renames.clone(),
        }
    }

    fn revoke(&self, raw: schema::Revoke, token: &RequestPhase) -> RequestPhase {
        RequestPhase {
            url: self.url(&["revoke", "url"], raw.url),
            client_auth: raw.client_auth.or(token.client_auth),
            body: raw.body.or(token.body),
            headers: raw.headers.map_or_else(|| token.headers.clone(), |headers| self.headers("revoke", headers)),
            params: self.params("revoke", raw.params),
            renames: self.renames("revoke", raw.rename, raw.drop),
        }
    }

    fn recovery(&self, name: Option<RecoveryName>, window: Option<&str>) -> Recovery {
        let path = ["refresh", "window"];
        let length = self.duration(&path, window);
        match (name, window) {
            (Some(RecoveryName::Window), None) => {
                self.error(&path, "recovery is `window`, and its length is missing", "write it like \"60s\"")
            }
            (Some(RecoveryName::Window), Some(_)) | (_, None) => {}
            (_, Some(_)) => {
                self.error(&path, "recovery is not `window`", "remove it, or write `recovery = \"window\"`")
            }
        }
        match name {
            Some(RecoveryName::Static) => Recovery::Static,
            Some(RecoveryName::Window) => Recovery::Window(length.unwrap_or_default()),
            Some(RecoveryName::UntilUsed) => Recovery::UntilUsed,
            Some(RecoveryName::SingleUse) | None => Recovery::SingleUse,
            Some(RecoveryName::Family) => Recovery::Family,
            Some(RecoveryName::AccessDies) => Recovery::AccessDies,
        }
    }

    fn reply(&self, raw: &schema::Reply) -> ReplyRules {
        let standard = ReplyRules::default();
        let pointer = |field: &str, written: &Option<String>, standard: Pointer| {
            let Some(written) = written else {
                return standard;
            };
            if written.is_empty() || written.contains("//") || written.ends_with('/') {
                self.error(
                    &["token", "reply", field],
                    "it does not name a member of the reply",
                    "write a name, or a JSON pointer like \"/data/access_token\"",
                );
            }
            Pointer::new(written)
        };
        if raw.never_expires && raw.default_lifetime.is_some() {
            self.error(
                &["token", "reply", "default_lifetime"],
                "tokens that never expire have no lifetime",
                "remove it, or `never_expires`",
            );
        }
        ReplyRules {
            access_token: pointer("access_token", &raw.access_token, standard.access_token),
            refresh_token: pointer("refresh_token", &raw.refresh_token, standard.refresh_token),
            id_token: pointer("id_token", &raw.id_token, standard.id_token),
            token_type: pointer("token_type", &raw.token_type, standard.token_type),
            scope: pointer("scope", &raw.scope, standard.scope),
            expires_in: pointer("expires_in", &raw.expires_in, standard.expires_in),
            refresh_expires_in: pointer("refresh_expires_in", &raw.refresh_expires_in, standard.refresh_expires_in),
            error: pointer("error", &raw.error, standard.error),
            error_description: pointer("error_description", &raw.error_description, standard.error_description),
            expiry_unit: match raw.expiry_unit {
                Unit::Seconds => ExpiryUnit::Seconds,
                Unit::Milliseconds => ExpiryUnit::Milliseconds,
            },
            default_lifetime: self.duration(&["token", "reply", "default_lifetime"], raw.default_lifetime.as_deref()),
            never_expires: raw.never_expires,
            success: raw.success.as_ref().and_then(|success| self.success(success)),
            dead: raw.dead.clone(),
            retry: raw.retry.clone(),
            setup: raw.setup.clone(),
            keep: raw.keep.clone(),
        }
    }

    fn success(&self, raw: &schema::Success) -> Option<SuccessRule> {
        let path = ["token", "reply", "success"];
        let (Some(pointer), Some(equals)) = (&raw.pointer, &raw.equals) else {
            self.error(
                &path,
                "it needs both `pointer` and `equals`",
                "write it like { pointer = \"/ok\", equals = true }",
            );
            return None;
        };
        Some(SuccessRule { pointer: Pointer::new(pointer), equals: equals.clone() })
    }

    fn api(&self, raw: schema::Api) -> ApiPhase {
        let standard = ApiPhase::default();
        let base_url = self.url(&["api", "base_url"], raw.base_url);
        let from_reply = base_url.as_ref().is_some_and(|url| {
            url.placeholders().iter().any(|(placeholder, _)| matches!(placeholder, Placeholder::Reply(_)))
        });
        if from_reply && raw.hosts.is_empty() {
            self.error(
                &["api", "hosts"],
                "the base URL comes from a reply, and nothing says which hosts are the provider's",
                "list them, for example \"*.example.com\"",
            );
        }
        self.path(&["api", "verify"], raw.verify.as_deref());
        ApiPhase {
            base_url,
            hosts: raw
                .hosts
                .iter()
                .enumerate()
                .filter_map(|(index, host)| self.host(&["api", "hosts", &index.to_string()], host))
                .collect(),
            header: raw.header.and_then(|name| self.header_name(&["api", "header"], &name)).unwrap_or(standard.header),
            prefix: raw.prefix.inspect(|prefix| self.prefix(prefix)).unwrap_or(standard.prefix),
            headers: self.headers("api", raw.headers),
            verify: raw.verify,
        }
    }
}
