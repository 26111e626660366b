//! The person who connects: follows the link, agrees at the provider, comes back and confirms.

use keyholder_broker::{Authorize, Completed, Finished, View};

use super::Rehearsal;

/// Connects, in the way of the method's grant.
pub(super) async fn connect(stage: &Rehearsal, name: &str) -> Result<(), String> {
    let begun = stage.broker.authorize(&stage.admin, name, None, None).await.map_err(|error| error.to_string())?;
    match begun {
        Authorize::Done(_) => Ok(()),
        Authorize::Person(link) => consent(stage, &link.url).await,
        Authorize::Device(_) => Err("In a rehearsal, this version does not run the grant device_code.".to_owned()),
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
