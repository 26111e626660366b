//! Seventh phase: what is held and counted until the reply's last byte has gone.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};

use super::Call;
use crate::allowance::Turn;
use crate::egress::{Body, BoxError};

/// An API's reply as it streams back; the call is over when this has ended or is dropped.
pub struct Reply {
    body: Body,
    _turn: Turn,
}

/// The reply of a call, which is over when the reply's body is.
pub(super) fn close(call: Call<'_>, response: Response<Body>) -> Response<Reply> {
    response.map(|body| Reply { body, _turn: call.turn })
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
