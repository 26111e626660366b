//! Values put in where a data source has placeholders.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use keyholder_oauth::Params;
use keyholder_provider::Api;
use keyholder_provider::saved::Text;
use url::Url;

use super::check_host;
use super::read::{ReadRequest, ReadSource};
use crate::error::{Error, FieldError, Result, invalid};
use crate::gateway::{Base, SourceAccess};
use crate::model::Values;

/// Secrets shorter than this are not looked for in replies: they stand by chance in lengths and dates.
const SHORTEST_HIDDEN: usize = 8;

/// A data source with the values at hand. What a run gives counts first, then the source's own, then its connection's and integration's, then defaults.
pub(crate) struct Filling<'a> {
    pub(super) read: &'a ReadSource,
    pub(super) arguments: &'a Values,
    /// The connection's and integration's, and what the provider said.
    pub(super) behind: &'a Values,
}

impl<'a> Filling<'a> {
    pub(crate) fn new(read: &'a ReadSource, arguments: &'a Values, behind: &'a Values) -> Self {
        Self { read, arguments, behind }
    }

    fn value(&self, name: &str) -> Option<Cow<'a, str>> {
        let declared = self.read.source.spec.variables.get(name);
        let secret = || self.read.source.secrets.get(name).map(keyholder_oauth::Secret::expose);
        let own = || declared.and_then(|it| it.value.as_deref()).or_else(secret);
        let behind = || self.behind.get(name).map(String::as_str);
        let default = || declared.and_then(|it| it.default.as_deref());
        let given = self.arguments.get(name).map(String::as_str);
        given.or_else(own).or_else(behind).or_else(default).filter(|value| !value.is_empty()).map(Cow::Borrowed)
    }

    /// Whether all that must be there is there and fits.
    pub(super) fn check<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<()> {
        let mut errors: Vec<FieldError> = Vec::new();
        for name in names {
            let required = self.read.source.spec.variables.get(name).is_none_or(|declared| declared.required);
            let error = match self.value(name) {
                Some(value) => self.read.check_value(name, &value).err(),
                None if required => Some(FieldError::new(
                    format!("variables.{name}"),
                    "it has no value",
                    "give it with the request, or set it in the data source or its connection",
                )),
                None => None,
            };
            errors.extend(error.filter(|new| errors.iter().all(|known| known.field != new.field)));
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
    }

    /// The base URL; `None` where the connection's own is meant, or a value is missing.
    pub(super) fn base_url(&self) -> Result<Option<Url>> {
        let Some(base) = &self.read.base else { return Ok(None) };
        let remedy = "correct the data source's base URL, or the variables in it";
        base.fill(|name: &str| self.value(name)).map_err(|reason| invalid("base_url", reason, remedy))
    }

    /// Refuses a base URL that the connection's credentials may not be sent to; nothing is said while values are missing.
    pub(crate) fn check_base(&self, api: &Api) -> Result<()> {
        match self.base_url()? {
            Some(base) => check_host(api, &base),
            None => Ok(()),
        }
    }

    /// How the source is called.
    pub(super) fn access(&self, api: &Api) -> Result<SourceAccess> {
        let own_base = api.base_url.as_ref().ok_or(Error::Internal("an API without a base URL is called"))?;
        let base_names: Vec<_> = self.read.base_names().into_iter().map(|(name, _)| name).collect();
        self.check(base_names.into_iter().chain(self.read.shared_names()))?;
        let base_url = match self.base_url()? {
            Some(base) => base,
            None => without_query(own_base),
        };
        check_host(api, &base_url)?;
        let mut query = Params::new();
        for (name, value) in self.params(&self.read.query) {
            query.push(name, value);
        }
        Ok(SourceAccess {
            id: self.read.source.id.clone(),
            generation: self.read.source.generation,
            name: self.read.source.name.clone(),
            below: below(own_base, &base_url),
            base: Base::new(&base_url)?,
            headers: self.headers("headers", &self.read.headers)?,
            query,
            secrets: self
                .read
                .source
                .secrets
                .values()
                .filter(|it| it.expose().len() >= SHORTEST_HIDDEN)
                .cloned()
                .collect(),
            rules: self.read.rules.clone(),
        })
    }

    /// Headers; those without a value are left out.
    pub(super) fn headers(
        &self,
        group: &str,
        headers: &[(HeaderName, Text)],
    ) -> Result<Vec<(HeaderName, HeaderValue)>> {
        let mut filled = Vec::new();
        for (name, text) in headers {
            let Some(value) = text.fill(|name: &str| self.value(name)) else { continue };
            let value = HeaderValue::from_str(&value).map_err(|_| {
                let remedy = "give values in ASCII, without line breaks";
                invalid(format!("{group}.{name}"), "a value in it has characters that a header may not have", remedy)
            })?;
            filled.push((name.clone(), value));
        }
        Ok(filled)
    }

    /// Parameters; those without a value are left out.
    pub(super) fn params<'t>(&self, params: &'t [(String, Text)]) -> Vec<(&'t str, String)> {
        let filled =
            |(name, text): &'t (String, Text)| Some((name.as_str(), text.fill(|name: &str| self.value(name))?));
        params.iter().filter_map(filled).collect()
    }

    /// The path with its query; `None` if a value is missing.
    pub(super) fn path(&self, request: &ReadRequest) -> Option<String> {
        request.path.fill(|name: &str| self.value(name))
    }

    /// The body with its usual content type.
    pub(super) fn body(&self, request: &ReadRequest) -> Option<(String, &'static str)> {
        let (body, kind) = request.body.as_ref()?;
        Some((body.fill(|name: &str| self.value(name), |name| self.read.is_bare(name))?, kind))
    }
}

fn without_query(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url
}

/// The path of `base` below `own`.
fn below(own: &Url, base: &Url) -> Option<String> {
    let rest = base.path().trim_end_matches('/').strip_prefix(own.path().trim_end_matches('/'))?;
    (own.origin() == base.origin() && (rest.is_empty() || rest.starts_with('/'))).then(|| rest.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_lies_below_the_connections_or_beside_it() {
        for (own, base, expected) in [
            ("https://a.example/v3", "https://a.example/v3/", Some("")),
            ("https://a.example/v3/", "https://a.example/v3/crm", Some("/crm")),
            ("https://a.example/", "https://a.example/v3", Some("/v3")),
            ("https://a.example/v3", "https://a.example/v33", None),
            ("https://a.example/v3", "https://a.example/", None),
            ("https://a.example/v3", "https://b.example/v3", None),
        ] {
            let found = below(&own.parse().unwrap(), &base.parse().unwrap());
            assert_eq!(found.as_deref(), expected, "{own} {base}");
        }
    }
}
