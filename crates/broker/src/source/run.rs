//! Saved requests: run, and what came of it. They go the way of every call through the gateway.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use serde_json_path::JsonPath;

use super::fill::Filling;
use super::known::KnownSource;
use super::read::ReadRequest;
use crate::cause::Failing;
use crate::egress::full;
use crate::error::{Error, FieldError, Result, invalid};
use crate::explain::sentence;
use crate::gateway::{ProxyRequest, Reply, SourceAccess, Via};
use crate::live::Live;
use crate::model::{Caller, Values};
use crate::open::Broker;
use crate::test::{TestReport, TestStep, TestWish, Testing, exchange_of};

/// Most of a reply that is shown, in bytes.
const MOST_SHOWN: usize = 1 << 20;
/// As much is shown when nothing is said.
const SHOWN: usize = 64 << 10;
/// Most of a reply that is read to find something in it, in bytes; also most of what is found.
const READ: usize = 4 << 20;
/// A reply that goes on for longer is cut here: what streams without end has no end to wait for.
const WITHIN: Duration = Duration::from_secs(60);

/// How a saved request is run.
#[derive(Clone, Debug, Default)]
pub struct SourceRun {
    /// Values for its placeholders.
    pub variables: Values,
    /// Whose connection is meant, where each caller uses its own.
    pub owner: Option<String>,
    /// How many bytes of the reply to show, at most 1 MiB; 64 KiB when not given.
    pub limit: Option<usize>,
}

/// What an API answered to a saved request.
#[derive(Clone, Debug)]
pub struct RunReply {
    /// Status.
    pub status: u16,
    /// It is what the request expects: any success, where it says nothing.
    pub expected: bool,
    /// Headers; those of one name joined by commas.
    pub headers: Values,
    /// The body's beginning.
    pub preview: Preview,
    /// The whole body's length in bytes, as far as it is known.
    pub size: Option<u64>,
    /// The body is longer than what is shown.
    pub truncated: bool,
    /// What the request's JSONPath found.
    pub extracted: Option<Vec<Value>>,
    /// Why nothing could be looked for.
    pub problem: Option<String>,
    /// From the call's beginning to the last byte that was read, milliseconds.
    pub took_ms: i64,
}

/// A saved request that was run, and how it failed, if it did.
#[derive(Clone, Debug)]
pub struct Tried {
    /// What the API answered; `None`: nothing came back.
    pub reply: Option<RunReply>,
    /// What is probably wrong, and what to do.
    pub failed: Option<TestStep>,
}

/// The beginning of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preview {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl Broker {
    /// Runs a saved request of a data source.
    pub async fn run_source(
        &self,
        caller: &Arc<Caller>,
        id_or_name: &str,
        request: &str,
        run: SourceRun,
    ) -> Result<RunReply> {
        let limit = run.limit.unwrap_or(SHOWN);
        if !(1..=MOST_SHOWN).contains(&limit) {
            return Err(invalid("limit", format!("it is not between 1 and {MOST_SHOWN}"), "give a number of bytes"));
        }
        let known = self.known_source(caller, id_or_name).await?;
        let wanted = known.read.requests.get(request).ok_or_else(|| Error::not_found("saved request", request))?;
        check_arguments(&known, request, wanted, &run.variables)?;
        let live = self.connection_behind(caller, &known.read.source, run.owner.as_deref()).await?;
        self.run_request(caller, &known, wanted, live, &run.variables, limit).await
    }

    /// As [`Self::run_source`], and says what is probably wrong where it doesn't come to what it should, in a test's words. Mistakes in what was given are errors
    /// as they are there.
    pub async fn try_request(
        &self,
        caller: &Arc<Caller>,
        id_or_name: &str,
        request: &str,
        run: SourceRun,
    ) -> Result<Tried> {
        let known = self.known_source(caller, id_or_name).await?;
        let row = match self.row_behind(caller, &known.read.source, run.owner.as_deref()).await {
            Ok(row) => row,
            Err(error @ Error::NotPossible(_)) => {
                return Ok(Tried { reply: None, failed: Some(TestStep::without_connection(&error)) });
            }
            Err(error) => return Err(error),
        };
        let (told, owner) = (|_: &TestStep| (), run.owner.clone());
        let mut testing = Testing::begin(self, &row, &told);
        let reply = match self.run_source(caller, id_or_name, request, run).await {
            Ok(reply) => reply,
            Err(error) => {
                let step = step_of(&error).ok_or_else(|| error.clone())?;
                testing.know_settings().await;
                testing.fail(step, &error, Failing::Said);
                return Ok(Tried { reply: None, failed: testing.report().steps.pop() });
            }
        };
        if !reply.expected
            && let Some(wanted) = known.read.requests.get(request)
        {
            testing.know_settings().await;
            let path = known.read.source.spec.requests.get(request).map_or("", |saved| saved.path.as_str());
            let answered = Answered { what: "request", method: &wanted.method, path, reply: &reply };
            match self.connection_behind(caller, &known.read.source, owner.as_deref()).await {
                Ok(live) => self.judge(&mut testing, &known, answered, &live).await,
                Err(error) => testing.fail("token", &error, Failing::Said),
            };
        }
        Ok(Tried { reply: Some(reply), failed: testing.report().steps.pop() })
    }

    async fn run_request(
        &self,
        caller: &Arc<Caller>,
        known: &KnownSource,
        wanted: &ReadRequest,
        live: Arc<Live>,
        arguments: &Values,
        limit: usize,
    ) -> Result<RunReply> {
        let api = self.api_access(&live).await?;
        let behind = self.values_behind(known, &live, arguments, wanted.names().into_iter().collect()).await?;
        let filling = Filling::new(&known.read, arguments, &behind);
        filling.check(wanted.names())?;
        // The arguments of a run may stand in the headers and the query that all calls share, so these are its own.
        let access = Arc::new(filling.access(&api.api)?);
        let request = request_of(&filling, wanted, &access)?;
        let began = self.now_ms();
        let response = self.call_api(caller, live, Via::Source(&access), Box::new(request), None).await?;
        let looks = wanted.extract.is_some() || wanted.expect_found.is_some();
        let (head, mut body) = response.into_parts();
        let mut whole = Collected::default();
        let reading = whole.read(&mut body, if looks { READ.max(limit) } else { limit });
        self.clock.timeout(WITHIN, reading).await.unwrap_or(Ok(()))?;
        drop(body);
        let took_ms = self.now_ms() - began;
        let Collected { data, ended } = whole;
        let stated = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let (extracted, found, problem) = match (looks, ended) {
            (false, _) => (None, true, None),
            (true, false) => (
                None,
                wanted.expect_found.is_none(),
                Some("the reply is too long to look for something in it".to_owned()),
            ),
            (true, true) => look(wanted, data.clone()).await?,
        };
        Ok(RunReply {
            status: head.status.as_u16(),
            expected: is_expected(wanted, head.status) && found,
            headers: joined(&head.headers),
            truncated: !ended || data.len() > limit,
            size: if ended { Some(data.len() as u64) } else { stated },
            preview: preview(&data[..data.len().min(limit)], ended && data.len() <= limit),
            extracted,
            problem,
            took_ms,
        })
    }

    /// Tests a data source: is there a token, and does its health request get the answer that it expects? As [`Self::test`], with the token in hand unless
    /// `wish` has it renewed.
    pub async fn test_source(
        &self,
        caller: &Arc<Caller>,
        id_or_name: &str,
        owner: Option<&str>,
        wish: TestWish,
        told: &(dyn Fn(&TestStep) + Send + Sync),
    ) -> Result<TestReport> {
        let known = self.known_source(caller, id_or_name).await?;
        let source = &known.read.source;
        self.record(caller, "source.test", source.id.as_str(), "ok", None)?;
        let row = match self.row_behind(caller, source, owner).await {
            Ok(row) => row,
            // Nothing of the connection is told to a key that may not reach it.
            Err(error @ Error::Limited(_)) => return Err(error),
            Err(error) => {
                let step = TestStep::without_connection(&error);
                told(&step);
                return Ok(TestReport { ok: false, steps: vec![step] });
            }
        };
        let mut testing = Testing::begin(self, &row, told);
        if testing.settings().await?
            && let Some(live) = testing.token(wish, false).await
            && let Some(live) = testing.renewal(wish, live).await
        {
            self.test_health(&mut testing, caller, &known, live).await;
        }
        Ok(testing.report())
    }

    async fn test_health(
        &self,
        testing: &mut Testing<'_>,
        caller: &Arc<Caller>,
        known: &KnownSource,
        live: Arc<Live>,
    ) -> bool {
        let Some(health) = &known.read.health else {
            return match self.source_access(known, &live).await {
                Ok(_) => {
                    testing.hold("call", "The data source has no health request, so its API was not called.".to_owned())
                }
                Err(error) => testing.fail("call", &error, Failing::Said),
            };
        };
        match self.run_request(caller, known, health, Arc::clone(&live), &Values::new(), SHOWN).await {
            Ok(reply) => {
                let path = known.read.source.spec.health.as_ref().map_or("", |health| health.path.as_str());
                let answered = Answered { what: "health request", method: &health.method, path, reply: &reply };
                self.judge(testing, known, answered, &live).await
            }
            Err(error) => testing.fail("call", &error, Failing::Said),
        }
    }

    /// What the API answered to a request of a data source: whether that is what it expects, and what is probably wrong if not.
    async fn judge(&self, testing: &mut Testing<'_>, known: &KnownSource, it: Answered<'_>, live: &Arc<Live>) -> bool {
        testing.hide(live);
        let Answered { what, method, path, reply } = it;
        let path = path.split('?').next().unwrap_or_default();
        let answered = format!("{method} {path} answered {}", reply.status);
        let body = match &reply.preview {
            Preview::Text(text) => text.as_bytes(),
            Preview::Bytes(bytes) => bytes,
        };
        let base = known.read.source.base_url.as_deref().unwrap_or_default();
        let url = format!("{}{path}", base.trim_end_matches('/'));
        let headers = reply.headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        let (exchange, seen) = exchange_of(method, &url, reply.status, &headers.collect(), body, reply.took_ms);
        testing.note(exchange, seen);
        if reply.expected {
            return testing.hold("call", format!("{answered}."));
        }
        let (message, remedy) = match ((200..300).contains(&reply.status), &reply.problem) {
            (_, Some(problem)) => {
                (format!("{answered}. {}", sentence(problem.clone())), Some(format!("Correct the {what}'s `expect`.")))
            }
            (true, None) => (
                format!("{answered}, but not what the {what} expects."),
                Some(format!("Compare the answer with the {what}'s `expect`.")),
            ),
            (false, None) => (format!("{answered}."), None),
        };
        match self.api_access(live).await {
            Ok(api) => testing.refused_call(live, api, message, remedy),
            Err(error) => testing.fail("call", &error, Failing::Said),
        }
    }
}

/// What an API answered to a request of a data source.
struct Answered<'a> {
    /// Which kind of request, in words.
    what: &'static str,
    method: &'a Method,
    path: &'a str,
    reply: &'a RunReply,
}

/// A body, as far as it was read.
#[derive(Default)]
struct Collected {
    data: BytesMut,
    ended: bool,
}

impl Collected {
    /// Reads to the end, or until there is more than `most`.
    async fn read(&mut self, body: &mut Reply, most: usize) -> Result<()> {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Error::Gone("the API's answer broke off; try again"))?;
            if let Ok(data) = frame.into_data() {
                self.data.extend_from_slice(&data);
            }
            if self.data.len() > most {
                return Ok(());
            }
        }
        self.ended = true;
        Ok(())
    }
}

/// In which step of a test it would have failed; `None`: that is for whoever asked, or for who runs this installation.
fn step_of(error: &Error) -> Option<&'static str> {
    match error {
        Error::NotReady { .. } | Error::Exchange(_) | Error::StillRenewing | Error::Discovery { .. } => Some("token"),
        Error::DiscoveryUnreachable(_) | Error::Fenced(_) => Some("token"),
        Error::Egress(_)
        | Error::NotAllowed { .. }
        | Error::HostNotAllowed { .. }
        | Error::ApiLimited { .. }
        | Error::CallerLimited { .. }
        | Error::Render(_)
        | Error::Request(_)
        | Error::Gone(_) => Some("call"),
        _ => None,
    }
}

/// A run's values must be for this request's placeholders, and may not lead it elsewhere.
fn check_arguments(known: &KnownSource, name: &str, wanted: &ReadRequest, arguments: &Values) -> Result<()> {
    let own = wanted.names();
    let takes = |argument: &str| own.contains(argument) || known.read.shared_names().any(|shared| shared == argument);
    let mut errors = Vec::new();
    for argument in arguments.keys() {
        let field = format!("variables.{}", argument.chars().take(100).collect::<String>());
        if known.read.base_names().iter().any(|(base, _)| base == argument) {
            errors.push(FieldError::new(field, "it is part of the base URL", "change it in the data source"));
        } else if !takes(argument) {
            let known: Vec<&str> = own.iter().copied().collect();
            let remedy = match known.is_empty() {
                true => "leave it out: it has no placeholders".to_owned(),
                false => format!("use some of: {}", known.join(", ")),
            };
            errors.push(FieldError::new(
                field,
                format!("the request `{name}` has no placeholder of this name"),
                remedy,
            ));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}

/// The request with its values put in.
fn request_of(filling: &Filling<'_>, wanted: &ReadRequest, access: &SourceAccess) -> Result<ProxyRequest> {
    let missing = || invalid("path", "a value in it is missing", "give it with the request");
    let mut target = filling.path(wanted).ok_or_else(missing)?;
    for (name, value) in filling.params(&wanted.query) {
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str(&url::form_urlencoded::Serializer::new(String::new()).append_pair(name, &value).finish());
    }
    let mut request = ProxyRequest::new(wanted.method.clone(), &target)?;
    for (name, value) in filling.headers("headers", &wanted.headers)? {
        request.headers.insert(name, value);
    }
    if let Some((body, kind)) = filling.body(wanted) {
        if access.headers.iter().all(|(name, _)| *name != CONTENT_TYPE) {
            request.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
        }
        request.body = full(body);
    }
    Ok(request)
}

fn is_expected(wanted: &ReadRequest, status: StatusCode) -> bool {
    if wanted.expect_status.is_empty() { status.is_success() } else { wanted.expect_status.contains(&status.as_u16()) }
}

/// What is found in a reply, whether what must be there is there, and why nothing could be looked for.
async fn look(wanted: &ReadRequest, data: BytesMut) -> Result<(Option<Vec<Value>>, bool, Option<String>)> {
    let (extract, must) = (wanted.extract.clone(), wanted.expect_found.clone());
    // A large reply takes its time, which other callers don't have.
    let looking = tokio::task::spawn_blocking(move || {
        let Ok(reply) = serde_json::from_slice::<Value>(&data) else {
            return (None, must.is_none(), Some("the reply is not JSON, so nothing can be found in it".to_owned()));
        };
        let found = must.is_none_or(|path| !path.query(&reply).is_empty());
        let (mut room, mut problem) = (READ, None);
        let mut keep = |value: &&Value| {
            room = room.saturating_sub(value.to_string().len() + 1);
            if room == 0 {
                problem = Some("more was found than can be shown; narrow the JSONPath".to_owned());
            }
            room > 0
        };
        let all = |path: JsonPath| path.query(&reply).iter().copied().take_while(&mut keep).cloned().collect();
        let extracted = extract.map(all);
        (extracted, found, problem)
    });
    looking.await.map_err(|_| Error::Internal("a JSONPath could not be applied"))
}

fn joined(headers: &HeaderMap) -> Values {
    let mut joined = Values::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        joined
            .entry(name.to_string())
            .and_modify(|there: &mut String| {
                there.push_str(", ");
                there.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    joined
}

/// Text where it is UTF-8; what is cut may be cut in the middle of a character.
fn preview(data: &[u8], whole: bool) -> Preview {
    match std::str::from_utf8(data) {
        Ok(text) => Preview::Text(text.to_owned()),
        Err(error) if !whole && error.error_len().is_none() => {
            Preview::Text(String::from_utf8_lossy(&data[..error.valid_up_to()]).into_owned())
        }
        Err(_) => Preview::Bytes(data.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_is_text_where_it_can_be() {
        let text = "a\u{fc}b".as_bytes();
        assert_eq!(preview(text, true), Preview::Text("a\u{fc}b".to_owned()));
        assert_eq!(preview(&text[..2], false), Preview::Text("a".to_owned()), "cut in the middle of a character");
        assert_eq!(preview(&text[..2], true), Preview::Bytes(text[..2].to_vec()), "the whole body ends so");
        assert_eq!(preview(&[0xff, 0], false), Preview::Bytes(vec![0xff, 0]));
    }
}
