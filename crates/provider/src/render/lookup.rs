//! What is asked with a new token: whose account it is, and what the API's addresses need.

use http::{HeaderName, HeaderValue, Method, Request};
use keyholder_oauth::{Params, Pointer, Predicate, SecretBytes, TokenSet, as_text};
use serde_json::Value;
use url::Url;

use super::api::{Api, Call, below};
use super::inputs::Inputs;
use crate::definition::{BodyPhase, LookupPhase, Values};
use crate::error::RenderError;

/// Most choices that a person is shown.
const MAX_CHOICES: usize = 1000;

/// Longest text that is taken from an answer, in bytes.
const MAX_TEXT: usize = 8192;

/// Where the provider tells whose account it is.
#[derive(Clone, Debug)]
pub struct Userinfo {
    /// The endpoint (OpenID Connect Core §5.3).
    pub url: Url,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) query: Params,
    pub(super) account: Option<Pointer>,
    pub(super) name: Option<Pointer>,
    pub(super) email: Option<Pointer>,
}

/// Whose account it is, as far as the provider told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The account's identifier.
    pub account: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its email address.
    pub email: Option<String>,
}

/// A request after connecting, and what is taken from its answer.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// For people and messages.
    pub name: String,
    /// Whether there is no connection without what it learns.
    pub required: bool,
    /// Whether to ask again after each renewal.
    pub refresh: bool,
    /// Where it asks; `None` while something is missing that an earlier lookup learns.
    pub url: Option<Url>,
    method: Method,
    headers: Vec<(HeaderName, HeaderValue)>,
    query: Params,
    params: Params,
    json: bool,
    list: Pointer,
    filter: Option<Predicate>,
    extract: Vec<(String, Pointer)>,
    choose: Option<crate::definition::ChoosePhase>,
}

/// What an answer told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// `lookup.NAME` for [`Values`]; to be kept with the connection.
    Values(Values),
    /// A person must choose; then [`Lookup::chosen`] is told which.
    Choose(Vec<Choose>),
}

/// One of several items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choose {
    /// What is saved.
    pub value: String,
    /// For people.
    pub label: String,
}

/// Why an answer tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Another status than a success.
    #[error("the provider answered the request `{lookup}` with HTTP {status}; check the scopes, then connect again")]
    Status {
        /// The lookup's name.
        lookup: String,
        /// The status.
        status: u16,
    },
    /// The answer is not JSON.
    #[error("the provider's answer to the request `{lookup}` is not JSON; correct it in the definition")]
    NotJson {
        /// The lookup's name.
        lookup: String,
    },
    /// What the definition names is not in the answer, or is not as it may be.
    #[error(
        "the provider's answer to the request `{lookup}` has no usable `{value}`; the account may have no access to it, or the definition names the wrong place"
    )]
    Missing {
        /// The lookup's name.
        lookup: String,
        /// What is missing.
        value: String,
    },
}

impl Userinfo {
    /// As a discovery document gives it.
    pub(super) fn standard(url: Url) -> Self {
        Self { url, headers: Vec::new(), query: Params::new(), account: None, name: None, email: None }
    }

    /// The request, with the tokens in their places.
    ///
    /// # Errors
    /// [`RenderError`], as [`Api::credentials`].
    pub fn request(&self, api: &Api, tokens: &TokenSet) -> Result<Request<SecretBytes>, RenderError> {
        let call = Call {
            field: "userinfo.url",
            method: Method::GET,
            url: self.url.clone(),
            headers: &self.headers,
            query: &self.query,
            params: Params::new(),
            json: false,
        };
        api.request(call, tokens)
    }

    /// What the answer tells: where the definition says, else by the names of OpenID Connect Core §5.1.
    pub fn read(&self, body: &[u8]) -> Account {
        let Ok(data) = serde_json::from_slice::<Value>(body) else { return Account::default() };
        let find = |pointer: &Option<Pointer>, standard: &str| match pointer {
            Some(pointer) => fit(pointer.find(&data)?),
            None => fit(data.get(standard)?),
        };
        Account {
            account: find(&self.account, "sub"),
            name: find(&self.name, "name"),
            email: find(&self.email, "email"),
        }
    }
}

impl Lookup {
    /// The request, with the tokens in their places; `None` while something is missing that an earlier lookup learns.
    ///
    /// # Errors
    /// [`RenderError`], as [`Api::credentials`].
    pub fn request(&self, api: &Api, tokens: &TokenSet) -> Result<Option<Request<SecretBytes>>, RenderError> {
        let Some(url) = &self.url else { return Ok(None) };
        let call = Call {
            field: "after_connect.url",
            method: self.method.clone(),
            url: url.clone(),
            headers: &self.headers,
            query: &self.query,
            params: self.params.clone(),
            json: self.json,
        };
        api.request(call, tokens).map(Some)
    }

    /// What a person's choice is kept as, without `lookup.`; `None` if nobody has to choose.
    pub fn saves(&self) -> Option<&str> {
        self.choose.as_ref().map(|choose| choose.save.as_str())
    }

    /// What the answer tells.
    ///
    /// # Errors
    /// [`LookupError`], unless the lookup is not required: then nothing is learnt.
    pub fn read(&self, status: u16, body: &[u8]) -> Result<Learnt, LookupError> {
        let learnt = self.data(status, body).and_then(|data| self.learn(&data));
        match learnt {
            Err(_) if !self.required => Ok(Learnt::Values(Values::new())),
            learnt => learnt,
        }
    }

    /// What the same answer tells once a person has chosen.
    ///
    /// # Errors
    /// [`LookupError`], also if there was no such choice.
    pub fn chosen(&self, status: u16, body: &[u8], value: &str) -> Result<Values, LookupError> {
        let data = self.data(status, body)?;
        let Some(choose) = &self.choose else { return Err(self.missing("choice")) };
        let item =
            self.items(&data).iter().find(|item| choose.value.find(item).and_then(fit).as_deref() == Some(value));
        self.of_item(item.ok_or_else(|| self.missing(&choose.save))?)
    }

    fn data(&self, status: u16, body: &[u8]) -> Result<Value, LookupError> {
        if !(200..300).contains(&status) {
            return Err(LookupError::Status { lookup: self.name.clone(), status });
        }
        serde_json::from_slice(body).map_err(|_| LookupError::NotJson { lookup: self.name.clone() })
    }

    fn learn(&self, data: &Value) -> Result<Learnt, LookupError> {
        if let Some(choose) = &self.choose {
            let items = self.items(data).iter().take(MAX_CHOICES);
            let choices: Vec<(Choose, &Value)> = items
                .filter_map(|item| {
                    let value = choose.value.find(item).and_then(fit)?;
                    let label = choose.label.as_ref().and_then(|label| label.find(item)).and_then(fit);
                    Some((Choose { label: label.unwrap_or_else(|| value.clone()), value }, item))
                })
                .collect();
            return match choices.as_slice() {
                [] => Err(self.missing(&choose.save)),
                [(_, only)] => self.of_item(only).map(Learnt::Values),
                _ => Ok(Learnt::Choose(choices.into_iter().map(|(choice, _)| choice).collect())),
            };
        }
        let item = match &self.filter {
            Some(filter) => self.items(data).iter().find(|item| filter.holds(item)),
            None => self.list.find(data),
        };
        let first = self.extract.first().map_or("value", |(name, _)| name);
        self.of_item(item.ok_or_else(|| self.missing(first))?).map(Learnt::Values)
    }

    fn items<'d>(&self, data: &'d Value) -> &'d [Value] {
        self.list.find(data).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn of_item(&self, item: &Value) -> Result<Values, LookupError> {
        let chosen = self.choose.iter().map(|choose| (&choose.save, &choose.value));
        let places = self.extract.iter().map(|(name, pointer)| (name, pointer)).chain(chosen);
        let mut values = Values::new();
        for (name, pointer) in places {
            let value = pointer.find(item).and_then(fit).ok_or_else(|| self.missing(name))?;
            values.insert(format!("lookup.{name}"), value);
        }
        Ok(values)
    }

    fn missing(&self, value: &str) -> LookupError {
        LookupError::Missing { lookup: self.name.clone(), value: value.to_owned() }
    }
}

/// A text that may be kept: one line of bounded length.
fn fit(value: &Value) -> Option<String> {
    as_text(value).filter(|text| !text.is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control))
}

impl Inputs<'_> {
    pub(super) fn lookups(&self, api: &Api) -> Result<Vec<Lookup>, RenderError> {
        self.method.phases.lookups.iter().map(|phase| self.lookup(phase, api)).collect()
    }

    fn lookup(&self, phase: &LookupPhase, api: &Api) -> Result<Lookup, RenderError> {
        let request = &phase.request;
        let mut url = match &request.url {
            Some(template) => {
                let url = self.url("after_connect.url", template)?;
                if let Some(url) = &url {
                    api.must_allow(template, url)?;
                }
                url
            }
            None => None,
        };
        if let (Some(path), Some(base)) = (&phase.path, &api.base_url) {
            url = path.render(|placeholder| self.value(placeholder))?.map(|path| below(base, &path));
        }
        Ok(Lookup {
            name: phase.name.clone(),
            required: phase.required,
            refresh: phase.refresh,
            url,
            method: request.method.clone(),
            headers: self.headers(&request.headers)?,
            query: self.texts(&request.query)?,
            params: self.params(&request.params)?,
            json: request.body == Some(BodyPhase::Json),
            list: phase.list.clone(),
            filter: phase.filter.clone(),
            extract: phase.extract.clone(),
            choose: phase.choose.clone(),
        })
    }
}
