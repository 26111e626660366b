//! The console: pages for people. A page is a handler: it reads the request, calls the broker once, shapes what its template gets, and renders it.
//!
//! `session` stands in front of every page: who is signed in, what they may do; `proof` in front of dangerous forms. `forms` reads and shows forms, `render` answers, `places` knows the
//! addresses, `words` what is said in more than one place. What a template gets is ready: it decides nothing but layout.

pub(in crate::http) mod advice;
mod again;
pub(in crate::http) mod audit;
pub(in crate::http) mod callers;
pub(in crate::http) mod catalogue;
mod chart;
pub(in crate::http) mod connection;
pub(in crate::http) mod connections;
pub(in crate::http) mod events;
pub(in crate::http) mod forms;
pub(in crate::http) mod home;
pub(in crate::http) mod import;
pub(in crate::http) mod integration;
pub(in crate::http) mod integrations;
pub(in crate::http) mod passkeys;
pub(in crate::http) mod people;
pub(in crate::http) mod places;
mod proof;
pub(in crate::http) mod render;
pub(in crate::http) mod sandbox;
pub(in crate::http) mod session;
pub(in crate::http) mod settings;
pub(in crate::http) mod setup;
pub(in crate::http) mod sign_in;
pub(in crate::http) mod sources;
pub(in crate::http) mod test;
pub(in crate::http) mod usage;
pub(in crate::http) mod words;
pub(in crate::http) mod you;

use std::collections::BTreeMap;

use keyholder_broker::Tallies;
use keyholder_broker::model::{Said, Scope, Theme};

use super::problem::Problem;
use super::{App, assets};
use session::Person;
use words::Words;

/// What the frame of every page shows.
pub(in crate::http) struct Frame<'a> {
    pub(in crate::http) style: String,
    pub(in crate::http) script: String,
    pub(in crate::http) csrf: &'a str,
    /// Where this page is, for forms that come back here.
    pub(in crate::http) path: &'a str,
    pub(in crate::http) who: &'a str,
    /// Whose drafts are kept in the browser.
    pub(in crate::http) who_id: &'a str,
    /// Chosen colours.
    pub(in crate::http) theme: Option<&'static str>,
    pub(in crate::http) other_theme: &'static str,
    pub(in crate::http) menu: Vec<MenuItem>,
    pub(in crate::http) said: Vec<Said>,
    /// Nothing is renewed here.
    pub(in crate::http) fenced: bool,
    /// Where the page hears what happens.
    pub(in crate::http) events: Option<String>,
    pub(in crate::http) words: &'static Words,
}

/// An entry of the menu.
pub(in crate::http) struct MenuItem {
    pub(in crate::http) href: &'static str,
    pub(in crate::http) label: &'static str,
    /// This page belongs to it.
    pub(in crate::http) here: bool,
    /// How many there are, where there are some; of a thousand on it says no more.
    pub(in crate::http) count: Option<String>,
}

/// The parts of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Menu {
    Home,
    Connections,
    Integrations,
    Providers,
    Sources,
    Callers,
    Audit,
    Usage,
    Advice,
    Settings,
}

impl Menu {
    const ALL: [Menu; 10] = [
        Menu::Home,
        Menu::Connections,
        Menu::Integrations,
        Menu::Providers,
        Menu::Sources,
        Menu::Callers,
        Menu::Usage,
        Menu::Advice,
        Menu::Audit,
        Menu::Settings,
    ];

    fn label(self) -> &'static str {
        match self {
            Menu::Home => "Home",
            Menu::Connections => "Connections",
            Menu::Integrations => "Integrations",
            Menu::Providers => "Providers",
            Menu::Sources => "Data sources",
            Menu::Callers => "Callers",
            Menu::Usage => "Usage",
            Menu::Advice => "Advice",
            Menu::Audit => "Audit",
            Menu::Settings => "Settings",
        }
    }

    fn count(self, of: &Tallies) -> Option<String> {
        let count = match self {
            Menu::Connections => of.connections,
            Menu::Integrations => of.integrations,
            Menu::Sources => of.sources,
            Menu::Callers => of.keys,
            _ => 0,
        };
        match count {
            0 => None,
            1..1000 => Some(count.to_string()),
            _ => Some("1000+".to_owned()),
        }
    }

    fn href(self) -> &'static str {
        match self {
            Menu::Home => places::HOME,
            Menu::Connections => places::CONNECTIONS,
            Menu::Integrations => places::INTEGRATIONS,
            Menu::Providers => places::PROVIDERS,
            Menu::Sources => places::SOURCES,
            Menu::Callers => places::CALLERS,
            Menu::Usage => places::USAGE,
            Menu::Advice => places::ADVICE,
            Menu::Audit => places::AUDIT,
            Menu::Settings => places::SETTINGS,
        }
    }
}

/// The pages there are, with what whoever opens them must be allowed: the menu shows no others.
pub(in crate::http) type Pages = BTreeMap<&'static str, Scope>;

/// The frame of a page, with what it shall say.
pub(in crate::http) async fn frame<'a>(app: &App, person: &'a Person, here: Menu) -> Frame<'a> {
    let (style, script) = assets::console_paths();
    let may = |menu: &Menu| app.pages.get(menu.href()).is_some_and(|scope| person.may(*scope));
    let tallies = app.broker.tallies(&person.caller).await.unwrap_or_else(|error| {
        Problem::of(&error).log();
        Tallies::default()
    });
    let shown = |menu: Menu| MenuItem {
        href: menu.href(),
        label: menu.label(),
        here: menu == here,
        count: menu.count(&tallies),
    };
    Frame {
        style,
        script,
        csrf: &person.csrf,
        path: &person.path,
        who: &person.name,
        who_id: person.caller.key.as_str(),
        theme: person.theme.map(Theme::as_str),
        other_theme: if person.theme == Some(Theme::Dark) { "light" } else { "dark" },
        menu: Menu::ALL.into_iter().filter(may).map(shown).collect(),
        said: person.take_said(app).await,
        fenced: app.broker.fenced().is_some(),
        events: None,
        words: &words::ENGLISH,
    }
}

impl Frame<'_> {
    /// Its parts follow what happens, told at this address.
    pub(in crate::http) fn live(self, url: impl Into<String>) -> Self {
        Self { events: Some(url.into()), ..self }
    }
}
