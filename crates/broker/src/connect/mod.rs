//! Consent: from the wish to connect to a confirmed connection.
//!
//! | step | function |
//! | --- | --- |
//! | a link for one person | [`Broker::create_session`], or [`Broker::authorize`] for a redirect of the application's own |
//! | what the page shows and asks | [`Broker::open_link`] |
//! | everything stored, then off to the provider | [`Broker::begin_consent`] |
//! | back: state, browser, signature, issuer checked, code exchanged once, lookups made, tokens sealed as pending | [`Broker::finish_consent`] |
//! | the person chooses, where the account has several of what a connection needs one of | [`Broker::choose`] |
//! | a person on another device: a code to tell them, and the question whether they typed it | [`Broker::authorize`], `device` |
//! | a refresh token that somebody brings | [`Broker::bring_refresh_token`] |
//! | the person who started completes | [`Broker::complete`] by the application, [`Broker::decide`] in the browser that began |

mod account;
mod back;
mod brought;
mod confirm;
mod device;
mod exchange;
mod leave;
mod session;

pub use back::Finished;
pub use confirm::{Completed, CompletedBy};
pub use device::DeviceCode;
pub use leave::Begun;
pub use session::{Authorize, NewConnectSession, OpenSession, Question, SessionLink, View};
