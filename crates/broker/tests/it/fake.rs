//! A provider that answers only when the test says so, and only what the test says.

use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// The provider.
pub struct Fake {
    pub address: SocketAddr,
    arrivals: mpsc::UnboundedReceiver<Arrived>,
}

/// A request that waits for its answer. Dropped, it is answered with 500.
pub struct Arrived {
    pub method: Method,
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
    answer: oneshot::Sender<Response<Body>>,
}

/// What a request said.
#[derive(Debug)]
pub struct Asked {
    pub query: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrive, arrivals) = mpsc::unbounded_channel();
        let router = axum::Router::new().fallback(receive).with_state(arrive);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, arrivals }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next request, as soon as it is there.
    pub async fn next(&mut self) -> Arrived {
        self.arrivals.recv().await.unwrap()
    }

    /// Answers as many requests as there are answers, each of which must be for its path; answers what was asked.
    pub async fn play(&mut self, answers: &[(&str, u16, &str)]) -> Vec<Asked> {
        let mut asked = Vec::new();
        for (path, status, body) in answers {
            let request = self.next().await;
            assert_eq!(request.path, *path, "request {}", asked.len() + 1);
            asked.push(Asked {
                query: request.query.clone().unwrap_or_default(),
                headers: request.headers.clone(),
                body: String::from_utf8(request.body.to_vec()).unwrap(),
            });
            let response = Response::builder().status(*status).header("content-type", "application/json");
            request.respond(response.body(Body::from((*body).to_owned())).unwrap());
        }
        asked
    }

    /// Whether a request arrived that nobody took.
    pub fn is_quiet(&self) -> bool {
        self.arrivals.is_empty()
    }
}

impl Arrived {
    /// A member of the form.
    pub fn member(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(&self.body);
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    pub fn json(self, status: u16, body: Value) {
        let response = Response::builder().status(status).header("content-type", "application/json");
        self.respond(response.body(Body::from(body.to_string())).unwrap());
    }

    pub fn respond(self, response: Response<Body>) {
        // A client that went away gets no answer.
        let _ = self.answer.send(response);
    }
}

async fn receive(
    State(arrive): State<mpsc::UnboundedSender<Arrived>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let (answer, answered) = oneshot::channel();
    let (path, query) = (uri.path().to_owned(), uri.query().map(str::to_owned));
    let _ = arrive.send(Arrived { method, path, query, headers, body, answer });
    answered.await.unwrap_or_else(|_| Response::builder().status(500).body(Body::empty()).unwrap())
}
