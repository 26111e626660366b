//! `ANY /v1/connections/{connection}/proxy/{path}`.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use keyholder_broker::ProxyRequest;

use super::App;
use super::caller::Authenticated;
use super::problem::ApiError;

pub(super) async fn proxy(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Path((connection, _)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let proxied = ProxyRequest {
        method: head.method,
        path: raw_tail(head.uri.path()).to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        length: body.size_hint().exact(),
        body: body.map_err(Into::into).boxed_unsync(),
    };
    let response = app.broker.proxy(&caller, &connection, proxied).await?;
    Ok(response.map(Body::new))
}

/// What stands behind `/proxy`, still percent-encoded: decoding and encoding again could change what the API sees.
fn raw_tail(path: &str) -> &str {
    // `/v1/connections/{connection}/proxy/…`: the fifth slash begins the tail.
    path.match_indices('/').nth(4).map_or("/", |(at, _)| &path[at..])
}

#[cfg(test)]
mod tests {
    use super::raw_tail;

    #[test]
    fn the_tail_stays_as_it_was_sent() {
        assert_eq!(raw_tail("/v1/connections/a%2Fb/proxy/x%2Fy//z"), "/x%2Fy//z");
        assert_eq!(raw_tail("/v1/connections/proxy/proxy/proxy/"), "/proxy/");
    }
}
