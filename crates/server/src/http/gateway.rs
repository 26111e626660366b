//! `ANY /v1/connections/{connection}/proxy/{path}`, and the same of data sources.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::uri::PathAndQuery;
use keyholder_broker::{ProxyRequest, egress};

use super::App;
use super::caller::{Authenticated, Called};
use super::input::decoded;
use super::problem::ApiError;

pub(super) async fn proxy(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, ApiError> {
    let connection = name_of(request.uri().path())?;
    let request = proxied(request.map(egress::Body::boxed));
    let mut response = app.broker.proxy(&caller, &connection, request).await?.map(Body::new);
    response.extensions_mut().insert(Called);
    Ok(response)
}

pub(super) async fn proxy_source(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, ApiError> {
    let source = name_of(request.uri().path())?;
    let request = proxied(request.map(egress::Body::boxed));
    let mut response = app.broker.proxy_source(&caller, &source, request).await?.map(Body::new);
    response.extensions_mut().insert(Called);
    Ok(response)
}

/// A request as the gateway takes it.
pub(super) fn proxied(request: http::Request<egress::Body>) -> ProxyRequest {
    let (mut head, body) = request.into_parts();
    let target = head.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    ProxyRequest {
        method: head.method,
        tail: tail(target.path()),
        target,
        headers: head.headers,
        version: head.version,
        upgrade: head.extensions.remove(),
        body,
    }
}

/// Only this segment is decoded: what stands behind it belongs to the API, which may mean other bytes than UTF-8.
fn name_of(path: &str) -> Result<String, ApiError> {
    decoded(path.split('/').nth(3).unwrap_or_default())
}

/// Where what stands behind `/proxy` begins. It stays percent-encoded: decoding and encoding again could change what the API sees.
fn tail(path: &str) -> usize {
    // `/v1/connections/{connection}/proxy/…`, `/v1/data-sources/{source}/proxy/…`: the fifth slash begins the tail.
    path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').nth(4).map_or(path.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::{name_of, tail};

    #[test]
    fn the_connections_name_is_decoded_and_nothing_else() {
        assert_eq!(name_of("/v1/connections/a%20%C3%A4%zz%/proxy/%FF").unwrap(), "a ä%zz%");
        assert!(name_of("/v1/connections/%FF/proxy/x").is_err());
    }

    #[test]
    fn the_tail_stays_as_it_was_sent() {
        for (path, expected) in
            [("/v1/connections/a%2Fb/proxy/x%2Fy//z", "/x%2Fy//z"), ("/v1/connections/proxy/proxy/proxy/", "/proxy/")]
        {
            assert_eq!(&path[tail(path)..], expected);
        }
    }
}
