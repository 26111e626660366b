//! Reading requests: what can't be read is refused with a problem document that names the field.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use keyholder_broker::clock::Clock;
use keyholder_broker::{Error, FieldError, Page};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::{ApiError, Refusal};

/// Most bytes of a JSON or form body.
pub(super) const BODY_LIMIT: usize = 1 << 20;
/// Most bytes of an answer that a provider has posted: what is longer is refused anyway.
const POSTED_LIMIT: usize = 20 << 10;
/// Such a body must be there within this.
const BODY_WITHIN: Duration = Duration::from_secs(15);

/// A JSON body; an empty one counts as `{}`.
pub(super) struct Input<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = read_body(request).await?;
        let text: &[u8] = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &body };
        serde_json::from_slice(text).map(Input).map_err(|error| refused_json(&error))
    }
}

/// The whole body, within [`BODY_LIMIT`] and [`BODY_WITHIN`].
pub(super) async fn read_body(request: Request) -> Result<bytes::Bytes, ApiError> {
    read_body_by(&Clock::System, BODY_LIMIT, request).await
}

/// The whole body of a request that anybody may send.
pub(super) async fn read_posted(request: Request) -> Result<bytes::Bytes, ApiError> {
    read_body_by(&Clock::System, POSTED_LIMIT, request).await
}

/// The whole body, up to so many bytes.
pub(super) async fn read_up_to(limit: usize, request: Request) -> Result<bytes::Bytes, ApiError> {
    read_body_by(&Clock::System, limit, request).await
}

async fn read_body_by(clock: &Clock, limit: usize, request: Request) -> Result<bytes::Bytes, ApiError> {
    let unreadable = |why: &str| Err(Refusal::Unreadable(why.to_owned()).into());
    match clock.timeout(BODY_WITHIN, Limited::new(request.into_body(), limit).collect()).await {
        None => unreadable("the body took too long to arrive; send it again, without pauses"),
        Some(Ok(body)) => Ok(body.to_bytes()),
        Some(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge(limit).into()),
        Some(Err(_)) => unreadable("the body broke off; send it again"),
    }
}

/// A wrong field is named; broken JSON says where it breaks. Values are never repeated: they may be secrets.
fn refused_json(error: &serde_json::Error) -> ApiError {
    use serde_json::error::Category;
    let place = format!("line {}, column {}", error.line(), error.column());
    let text = error.to_string();
    let quoted = text.split('`').nth(1).unwrap_or("body");
    // Only at its beginning is the text serde's own: further on it may quote a value.
    let known = text.starts_with("unknown field");
    if matches!(error.classify(), Category::Data) && (known || text.starts_with("missing field")) {
        let (reason, remedy) = if known {
            let expected =
                text.split_once("expected ").map_or("", |(_, rest)| rest.split(" at line").next().unwrap_or(""));
            ("there is no such field".to_owned(), format!("the fields are: {expected}"))
        } else {
            ("it is missing".to_owned(), "give it".to_owned())
        };
        return Error::Invalid(vec![FieldError::new(quoted, reason, remedy)]).into();
    }
    let detail = match error.classify() {
        Category::Data => {
            let expected = text
                .rsplit_once(", expected ")
                .map_or("another type", |(_, rest)| rest.split(" at line").next().unwrap_or(""));
            format!("the JSON has a value of the wrong type at {place}: expected {expected}")
        }
        Category::Syntax | Category::Eof | Category::Io => {
            format!("the body is not valid JSON at {place}; send a JSON object")
        }
    };
    Refusal::Unreadable(detail).into()
}

/// The one parameter of the path, decoded.
pub(super) struct InPath(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => Err(bad_path()),
        }
    }
}

/// The parameters of the path, decoded.
pub(super) struct InPaths<const N: usize>(pub(super) [String; N]);

impl<const N: usize, S: Send + Sync> FromRequestParts<S> for InPaths<N> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let texts = Path::<Vec<String>>::from_request_parts(parts, state).await.map_err(|_| bad_path())?.0;
        texts.try_into().map(Self).map_err(|_| bad_path())
    }
}

fn bad_path() -> ApiError {
    Refusal::Unreadable("the path isn't percent-encoded UTF-8; encode names as UTF-8".to_owned()).into()
}

/// One segment of a path, percent-decoded.
pub(super) fn decoded(segment: &str) -> Result<String, ApiError> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment;
    while let Some((plain, after)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            // A percent sign that encodes nothing stands for itself, as in the other paths.
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| bad_path())
}

/// The query, as a struct.
pub(super) struct InQuery<T>(pub(super) T);

impl<T: DeserializeOwned + 'static, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::of(&parts.uri)
    }
}

impl<T: DeserializeOwned> InQuery<T> {
    /// The query of this target.
    pub(super) fn of(uri: &http::Uri) -> Result<Self, ApiError> {
        match Query::<T>::try_from_uri(uri) {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                let why = format!("the query can't be read: {}", rejection.body_text());
                Err(Refusal::Unreadable(why).into())
            }
        }
    }
}

/// Which part of a list.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PageQuery {
    after: Option<String>,
    limit: Option<i64>,
}

impl PageQuery {
    /// From a query that has more than these two.
    pub(super) fn new(after: Option<String>, limit: Option<i64>) -> Self {
        Self { after, limit }
    }

    /// The page, one item longer than asked, so that the end is noticed.
    pub(super) fn page(&self) -> Result<Page, ApiError> {
        let limit = self.limit.unwrap_or(50);
        if !(1..=200).contains(&limit) {
            return Err(Error::Invalid(vec![FieldError::new(
                "limit",
                "it is not between 1 and 200",
                "give a number in that range",
            )])
            .into());
        }
        Ok(Page { after: self.after.clone().unwrap_or_default(), limit: limit + 1 })
    }
}

/// Cuts the extra item off and answers the cursor: the last shown id, when there is more.
pub(super) fn cut<T>(mut items: Vec<T>, page: &Page, id: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let shown = usize::try_from(page.limit - 1).unwrap_or(0);
    if items.len() <= shown {
        return (items, None);
    }
    items.truncate(shown);
    let next = items.last().map(id);
    (items, next)
}

/// `60`, `60s`, `5m`, `1h` as a duration.
pub(super) fn duration(field: &'static str, text: &str) -> Result<Duration, ApiError> {
    let bad = || -> ApiError {
        Error::Invalid(vec![FieldError::new(
            field,
            "it is not a duration",
            "write seconds like `60`, or `60s`, `5m`, `1h`",
        )])
        .into()
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let seconds = match &text[digits.len()..] {
        "" | "s" => number,
        "m" => number.saturating_mul(60),
        "h" => number.saturating_mul(3600),
        _ => return Err(bad()),
    };
    Ok(Duration::from_secs(seconds.min(366 * 24 * 3600)))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::FutureExt;
    use keyholder_broker::clock::ManualClock;

    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let manual = ManualClock::starting_at(0);
        let clock = Clock::Manual(manual.clone());
        let silent = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        let mut reading = std::pin::pin!(read_body_by(&clock, BODY_LIMIT, Request::new(Body::from_stream(silent))));
        assert!(reading.as_mut().now_or_never().is_none());
        manual.advance(BODY_WITHIN);
        let ApiError(problem) = reading.await.unwrap_err();
        assert_eq!((problem.status, problem.detail.contains("too long")), (400, true), "{}", problem.detail);
    }
}
