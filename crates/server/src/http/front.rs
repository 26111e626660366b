//! In front of the router: the routes that nearly all requests are for are answered without it, and without its layers. What memory alone can
//! answer is answered at once, in place; everything else is a future.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body as RouterBody;
use axum::response::IntoResponse;
use axum::{BoxError, Router};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use keyholder_broker::model::Caller;
use keyholder_broker::{AtHand, LastKey, ProxyRequest, egress};
use keyholder_oauth::SecretBytes;

use super::api::connections;
use super::clients::{Client, UnderWay};
use super::input::InQuery;
use super::problem::ApiError;
use super::routes::{self, Hot, HotScopes};
use super::{App, caller, gateway};

/// What is shorter has arrived with its head.
const LONG_BODY: u64 = 8 << 10;

/// Answers requests; clones share all.
#[derive(Clone)]
pub(super) struct Front(Arc<Inner>);

struct Inner {
    app: App,
    router: TowerToHyperService<Router>,
    scopes: HotScopes,
}

impl Front {
    pub(super) fn new(app: App) -> Self {
        Self(Arc::new(Inner {
            router: TowerToHyperService::new(routes::router(app.clone())),
            scopes: HotScopes::of_table(),
            app,
        }))
    }

    /// The service of one client's connection.
    pub(super) fn connection(&self, client: &Arc<Client>) -> Connection {
        Connection { front: Arc::clone(&self.0), client: Arc::clone(client), last_key: RefCell::default() }
    }
}

/// One client's connection.
pub(super) struct Connection {
    front: Arc<Inner>,
    client: Arc<Client>,
    last_key: RefCell<LastKey>,
}

impl Service<Request<Incoming>> for Connection {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        self.client.asks();
        let Some(hot) = routes::hot(request.method(), request.uri().path()) else {
            return self.routed(request);
        };
        let caller = caller::shown_key(request.headers())
            .and_then(|key| self.front.app.broker.recognise(key, &mut self.last_key.borrow_mut()));
        let at_hand = match (&hot, &caller) {
            (Hot::Token(connection), Some(caller)) if request.uri().query().is_none() => {
                self.at_hand(caller, connection)
            }
            _ => None,
        };
        match at_hand {
            Some(at_hand) => Answer::Now(Some(handed_out(&at_hand, request.into_parts().0.headers))),
            None => {
                let hot = hot.kept();
                self.in_turn(hot, caller, request)
            }
        }
    }
}

impl Connection {
    fn at_hand(&self, caller: &Arc<Caller>, connection: &str) -> Option<AtHand> {
        if !caller.may(self.front.scopes.token) {
            return None;
        }
        self.front.app.broker.token_at_hand(caller, connection)
    }

    /// What has to wait, or to be refused.
    fn in_turn(&self, hot: Hot<Box<str>>, caller: Option<Arc<Caller>>, request: Request<Incoming>) -> Answer {
        let (front, under_way) = (Arc::clone(&self.front), UnderWay::new(&self.client));
        let long = is_long(request.body());
        let request = Box::new(gateway::proxied(request.map(egress::Body::from_incoming)));
        Answer::Later(Box::pin(async move {
            let mut response = match front.hot(hot, caller, request).await {
                Ok(response) => response,
                Err(error) => {
                    let mut refused = error.into_response().map(Content::Routed);
                    said_last(&mut refused, long);
                    refused
                }
            };
            if !matches!(response.body(), Content::Called(_)) {
                caller::not_kept(response.headers_mut());
            }
            response.map(|content| Reply { content, under_way: Some(under_way) })
        }))
    }

    fn routed(&self, request: Request<Incoming>) -> Answer {
        let long = is_long(request.body());
        let (answer, under_way) = (self.front.router.call(request), UnderWay::new(&self.client));
        Answer::Later(Box::pin(async move {
            match answer.await {
                Ok(mut response) => {
                    if response.status().is_client_error() {
                        said_last(&mut response, long);
                    }
                    response.map(|body| Reply { content: Content::Routed(body), under_way: Some(under_way) })
                }
                Err(never) => match never {},
            }
        }))
    }
}

impl Inner {
    /// As the router's way: who calls, what they may, the handler.
    async fn hot(
        &self,
        hot: Hot<Box<str>>,
        caller: Option<Arc<Caller>>,
        request: Box<ProxyRequest>,
    ) -> Result<Response<Content>, ApiError> {
        let caller = match caller {
            Some(caller) => caller,
            // Boxed, as all that is seldom: else each call's future would have room for it.
            None => Box::pin(caller::authenticated(&self.app, &request.headers)).await?,
        };
        let broker = &self.app.broker;
        match hot {
            Hot::Token(connection) => {
                broker.require(&caller, self.scopes.token)?;
                let InQuery(query) = InQuery::of(&request.target.into())?;
                let reply = Box::pin(connections::read_token(&self.app, &caller, &connection, query)).await?;
                Ok(reply.into_response().map(Content::Routed))
            }
            Hot::Proxy(connection) => {
                broker.require(&caller, self.scopes.proxy)?;
                Ok(broker.proxy(&caller, &connection, request).await?.map(Content::Called))
            }
            Hot::Source(source) => {
                broker.require(&caller, self.scopes.source)?;
                Ok(broker.proxy_source(&caller, &source, request).await?.map(Content::Called))
            }
        }
    }
}

/// The reply with a token at hand. Its text is written once for a token set, up to the seconds that are left.
fn handed_out(at_hand: &AtHand, mut headers: HeaderMap) -> Response<Reply> {
    let begun = at_hand.written(|token| SecretBytes::new(connections::written_up_to_expires_in(token)));
    let mut rest = [0; 24];
    let mut room = &mut rest[..];
    // Twenty digits at most fit.
    let _ = match at_hand.expires_in() {
        Some(seconds) => write!(room, "{seconds}}}"),
        None => write!(room, "null}}"),
    };
    let rest_length = 24 - room.len();
    let mut body = Vec::with_capacity(begun.len() + rest_length);
    body.extend_from_slice(begun.expose());
    body.extend_from_slice(&rest[..rest_length]);
    let mut response = Response::new(Reply { content: Content::Whole(Some(body.into())), under_way: None });
    // The request's map serves again, so that none is made.
    headers.clear();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    *response.headers_mut() = headers;
    response
}

/// Whether a client may still be sending this body when its refusal is there already.
fn is_long(body: &Incoming) -> bool {
    body.size_hint().upper().is_none_or(|length| length > LONG_BODY)
}

/// Where the rest of a body isn't read, the connection ends with the answer, and the client had better know before its next request
/// (RFC 9112 §9.6).
fn said_last<B>(refused: &mut Response<B>, long: bool) {
    if long {
        refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// A reply's body.
pub(super) struct Reply {
    content: Content,
    /// `None` where it is there already.
    under_way: Option<UnderWay>,
}

#[expect(clippy::large_enum_variant, reason = "a box would be an allocation a call")]
enum Content {
    /// There already.
    Whole(Option<Bytes>),
    /// A called API's.
    Called(keyholder_broker::Reply),
    /// A handler's behind the router.
    Routed(RouterBody),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = match &mut this.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Called(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Content::Routed(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
        };
        if let Some(under_way) = &mut this.under_way {
            under_way.gives(matches!(polled, Poll::Ready(Some(Ok(_)))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Called(body) => body.is_end_stream(),
            Content::Routed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Called(body) => body.size_hint(),
            Content::Routed(body) => body.size_hint(),
        }
    }
}

/// A reply, or the way to it.
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation in each hand-out, and there is one of these a connection"
)]
pub(super) enum Answer {
    Now(Option<Response<Reply>>),
    Later(Pin<Box<dyn Future<Output = Response<Reply>> + Send>>),
}

impl Future for Answer {
    type Output = Result<Response<Reply>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Answer::Now(response) => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                // Asked again after its end, which no future has to answer.
                None => Poll::Pending,
            },
            Answer::Later(response) => response.as_mut().poll(context).map(Ok),
        }
    }
}
