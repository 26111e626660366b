//! First phase: who calls, and what the call asks of the gateway itself.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::credential::KeptBody;
use super::{Call, ProxyRequest, Via};
use crate::model::Caller;

/// Chooses another of the definition's hosts than the base URL's.
pub(super) const HOST_CHOICE: HeaderName = HeaderName::from_static("keyholder-host");

/// A call as it begins.
pub(super) fn call<'a>(caller: &'a Arc<Caller>, via: Via<'a>, request: ProxyRequest) -> Call<'a> {
    Call { caller, via, request, body: KeptBody::Unread, turn: None, sent: 0 }
}

impl Call<'_> {
    /// Another of the definition's hosts, where the caller chose one.
    pub(super) fn host(&self) -> Option<&HeaderValue> {
        self.request.headers.get(HOST_CHOICE)
    }
}
