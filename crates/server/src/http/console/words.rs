//! Texts that stand on more than one page, and all that the script says. Pages themselves are English; a second language begins here.

/// What is said in more than one place.
pub(in crate::http) struct Words {
    // What console.js says.
    pub(in crate::http) copied: &'static str,
    pub(in crate::http) copy_by_hand: &'static str,
    pub(in crate::http) offline: &'static str,
    pub(in crate::http) restore: &'static str,
    pub(in crate::http) discard: &'static str,
    pub(in crate::http) draft: &'static str,
    pub(in crate::http) found: &'static str,
    pub(in crate::http) found_none: &'static str,
    pub(in crate::http) too_large: &'static str,
    pub(in crate::http) close: &'static str,
    pub(in crate::http) leave: &'static str,
    pub(in crate::http) attached: &'static str,
    // What forms say.
    pub(in crate::http) secrets_lost: &'static str,
    pub(in crate::http) unsaved: &'static str,
    pub(in crate::http) password_help: &'static str,
    // What passkey.js says.
    pub(in crate::http) passkey_failed: &'static str,
    pub(in crate::http) passkey_none: &'static str,
    pub(in crate::http) passkey_known: &'static str,
}

/// English.
pub(in crate::http) const ENGLISH: Words = Words {
    copied: "Copied.",
    copy_by_hand: "It is marked: copy it with the keyboard.",
    offline: "There is no network, so nothing was sent. What you typed stays here; try again when you are online.",
    restore: "Put it back",
    discard: "Throw it away",
    draft: "You left this form before it was saved. What you had typed, except secrets, is still here.",
    found: "{n} found",
    found_none: "Nothing found; try another word",
    too_large: "This file is too large.",
    close: "Close",
    leave: "What you typed here isn't saved. Close it all the same?",
    attached: "“{name}” was made and chosen.",
    secrets_lost: "Secrets are never sent back to the browser: please type them again.",
    unsaved: "Not saved yet",
    password_help: "At least 12 characters; a few words that don't belong together are easy to keep in mind.",
    passkey_failed: "That didn't work. Load the page again, and look whether this browser knows passkeys.",
    passkey_none: "No passkey came: it was cancelled, or took too long, or there is none here. Try again, or choose another way.",
    passkey_known: "This device has a passkey of yours already.",
};
