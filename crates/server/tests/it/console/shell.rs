//! Becoming the owner, signing in and out.

use crate::app::App;
use crate::browser::Browser;

use super::{owner, sign_in, sound};

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_sets_up_signs_out_and_in() {
    let app = App::start().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        sound(&browser);
        browser.click("button", "Sign out");
        browser.wait_url("/console/sign-in");
        sound(&browser);
        sign_in(&app, &browser, "Anna");
        sound(&browser);
    });
}
