//! The person who connects: follows the link, agrees at the provider, comes back and confirms.

use keyholder_broker::model::ConnectionState;
use keyholder_broker::{Authorize, Completed, DeviceCode, Finished, View};
use keyholder_oauth::Secret;

use super::Rehearsal;

/// Connects, in the way of the method's grant; `brought` is the refresh token of whoever brings one.
pub(super) async fn connect(stage: &Rehearsal, name: &str, brought: Option<&str>) -> Result<(), String> {
    if let Some(brought) = brought {
        let done = stage.broker.bring_refresh_token(&stage.admin, name, &Secret::new(brought)).await;
        return done.map_err(|error| error.to_string());
    }
    let begun = stage.broker.authorize(&stage.admin, name, None, None).await.map_err(|error| error.to_string())?;
    match begun {
        Authorize::Done(_) => Ok(()),
        Authorize::Person(link) => consent(stage, &link.url).await,
        Authorize::Device(code) => on_another_device(stage, name, &code).await,
    }
}

/// The person types the code; then the provider is asked.
async fn on_another_device(stage: &Rehearsal, name: &str, code: &DeviceCode) -> Result<(), String> {
    if !stage.play.approve_device() {
        return Err("The provider knows of no device.".to_owned());
    }
    stage.clock.advance(code.interval);
    stage.broker.ask_devices_once().await.map_err(|error| error.to_string())?;
    let shown = stage.broker.connection(&stage.admin, name).await.map_err(|error| error.to_string())?;
    match &shown.connection.state {
        ConnectionState::Connected => Ok(()),
        state => Err(state.failure().map_or("The code was not exchanged.".to_owned(), |why| why.message.clone())),
    }
}

async fn consent(stage: &Rehearsal, link: &str) -> Result<(), String> {
    let broker = &stage.broker;
    let begun = broker.begin_consent(last_segment(link), None, &Default::default()).await.map_err(|e| e.to_string())?;
    let back = stage.play.visit(begun.redirect.as_str()).ok_or("The provider refused the authorization request.")?;
    let browser = Some(begun.browser.expose());
    let plain = |error: keyholder_broker::Error| error.to_string();
    let (address, query) = match &back.form {
        Some(form) => {
            let next = broker.receive_posted(last_segment(&back.url), form).await.map_err(plain)?;
            split(next.as_str())
        }
        None => split(&back.url),
    };
    let mut finished = broker.finish_consent(last_segment(&address), &query, browser).await.map_err(plain)?;
    loop {
        let token = match finished {
            Finished::Confirm(link) => last_segment(&link).to_owned(),
            Finished::Return(url) => return Err(format!("Consent ended with {}.", url.query().unwrap_or_default())),
        };
        match broker.open_link(&token, browser).await.map_err(plain)? {
            // The judge means the last one, so that nobody passes by taking the first.
            View::Choice { options, .. } => {
                let (value, _) = options.last().ok_or("There was nothing to choose from.")?;
                stage.play.choose_last();
                finished = broker.choose(&token, browser, value).await.map_err(plain)?;
            }
            _ => {
                return match broker.decide(&token, browser, true).await.map_err(plain)? {
                    Completed::Connected(_) => Ok(()),
                    Completed::Declined => Err("The connection was not confirmed.".to_owned()),
                };
            }
        }
    }
}

fn split(url: &str) -> (String, String) {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    (address.to_owned(), query.to_owned())
}

fn last_segment(address: &str) -> &str {
    address.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}
