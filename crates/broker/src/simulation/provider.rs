//! The provider of a simulation: what a refresh token does there, by recovery class, and the truth about every token it gave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a provider does with a refresh token that is used a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Static,
    Window,
    UntilUsed,
    SingleUse,
    Family,
    AccessDies,
}

/// How long the used token is accepted again by [`Class::Window`].
pub(super) const WINDOW: Duration = Duration::from_secs(60);

impl Class {
    pub(super) const ALL: [Class; 6] =
        [Class::Static, Class::Window, Class::UntilUsed, Class::SingleUse, Class::Family, Class::AccessDies];

    /// As the provider language writes it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Class::Static => "static",
            Class::Window => "window",
            Class::UntilUsed => "until_used",
            Class::SingleUse => "single_use",
            Class::Family => "family",
            Class::AccessDies => "access_dies",
        }
    }
}

/// One grant, and all its tokens by number.
pub(super) struct Grant {
    pub(super) class: Class,
    /// How long an access token lives.
    pub(super) life: Duration,
    /// A reuse has ended it.
    pub(super) ended: bool,
    refresh: BTreeMap<u64, Refresh>,
    access: BTreeMap<u64, Access>,
    last: u64,
}

#[derive(Default)]
struct Refresh {
    /// Given for this one.
    parent: Option<u64>,
    used_at: Option<Duration>,
    /// Not accepted any more.
    spent: bool,
}

struct Access {
    expires_at: Duration,
    dead: bool,
}

/// What the provider answers to a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A new access token of this number, and a refresh token of the same number unless the old one stays.
    Tokens(u64),
    /// `invalid_grant`.
    Refused,
    /// `invalid_grant`, and this use has ended the grant.
    Ended,
}

impl Grant {
    /// A grant whose first token set, number 1, is given at `now`.
    pub(super) fn new(class: Class, life: Duration, now: Duration) -> Self {
        let mut grant = Self { class, life, ended: false, refresh: BTreeMap::new(), access: BTreeMap::new(), last: 0 };
        grant.give(None, now);
        grant
    }

    /// What happens when refresh token `number` is sent and arrives at `now`.
    pub(super) fn renew(&mut self, number: u64, now: Duration) -> Answer {
        let class = self.class;
        let Some(token) = self.refresh.get_mut(&number).filter(|_| !self.ended) else { return Answer::Refused };
        if let (Class::Window, Some(used_at)) = (class, token.used_at)
            && now > used_at + WINDOW
        {
            token.spent = true;
        }
        if token.spent {
            if class == Class::Family {
                self.ended = true;
                self.access.values_mut().for_each(|access| access.dead = true);
                return Answer::Ended;
            }
            return Answer::Refused;
        }
        token.used_at.get_or_insert(now);
        let parent = token.parent;
        match class {
            Class::Static => {
                self.last += 1;
                self.access.insert(self.last, Access { expires_at: now + self.life, dead: false });
                return Answer::Tokens(self.last);
            }
            Class::Window => {}
            // The use of a successor is what ends the token before it, and its other successors.
            Class::UntilUsed => {
                let others: Vec<u64> = self
                    .refresh
                    .iter()
                    .filter(|(it, token)| **it != number && token.parent == parent)
                    .map(|(it, _)| *it)
                    .collect();
                for other in others.into_iter().chain(parent) {
                    self.refresh.entry(other).and_modify(|token| token.spent = true);
                }
            }
            Class::SingleUse | Class::Family => token.spent = true,
            Class::AccessDies => {
                token.spent = true;
                self.access.values_mut().for_each(|access| access.dead = true);
            }
        }
        Answer::Tokens(self.give(Some(number), now))
    }

    fn give(&mut self, parent: Option<u64>, now: Duration) -> u64 {
        self.last += 1;
        self.refresh.insert(self.last, Refresh { parent, ..Refresh::default() });
        self.access.insert(self.last, Access { expires_at: now + self.life, dead: false });
        self.last
    }

    /// Refresh tokens that would be accepted at `now`.
    pub(super) fn honoured(&self, now: Duration) -> BTreeSet<u64> {
        let in_time = |token: &Refresh| {
            self.class != Class::Window || token.used_at.is_none_or(|used_at| now <= used_at + WINDOW)
        };
        let good = self.refresh.iter().filter(|(_, token)| !self.ended && !token.spent && in_time(token));
        good.map(|(number, _)| *number).collect()
    }

    /// Those of `honoured` that were given for `number`, or for what was given for it.
    pub(super) fn heirs(&self, number: u64, now: Duration) -> BTreeSet<u64> {
        let descends = |mut heir: u64| loop {
            match self.refresh.get(&heir).and_then(|token| token.parent) {
                Some(parent) if parent == number => return true,
                Some(parent) => heir = parent,
                None => return false,
            }
        };
        self.honoured(now).into_iter().filter(|heir| descends(*heir)).collect()
    }

    /// Would this refresh token end the grant, and with it an access token that came with it and is valid?
    pub(super) fn would_end(&self, number: u64, now: Duration) -> bool {
        let spent = self.refresh.get(&number).is_some_and(|token| token.spent);
        self.class == Class::Family && !self.ended && spent && self.accepts(number, now)
    }

    /// Does the API take this access token at `now`?
    pub(super) fn accepts(&self, access: u64, now: Duration) -> bool {
        self.access.get(&access).is_some_and(|access| !access.dead && access.expires_at > now)
    }

    /// Until when this access token was said to live; `None`: it was never given.
    pub(super) fn expires_at(&self, access: u64) -> Option<Duration> {
        self.access.get(&access).map(|access| access.expires_at)
    }
}
