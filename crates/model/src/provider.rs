//! The provider, as it is in truth: which refresh tokens it takes.

/// A refresh token: the how-manieth this provider gave out.
pub type Token = u8;

/// What a provider does with a refresh token that was used already: the definition's `recovery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It never changes.
    Static,
    /// It is taken for a while longer.
    Window,
    /// It is taken until one of its successors is used.
    UntilUsed,
    /// It is refused.
    SingleUse,
    /// It is refused, and the whole grant ends.
    Family,
    /// It is refused, and the access token before it has ended too.
    AccessDies,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 6] =
        [Self::Static, Self::Window, Self::UntilUsed, Self::SingleUse, Self::Family, Self::AccessDies];

    /// Could sending a refresh token twice cost something?
    pub fn second_use_harms(self) -> bool {
        matches!(self, Self::SingleUse | Self::Family | Self::AccessDies)
    }
}

/// What a token endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    /// An access token, and the refresh token to use next.
    Tokens(Token),
    /// `invalid_grant`.
    Refused,
}

/// A set of refresh tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Tokens(u16);

impl Tokens {
    /// With one more.
    pub fn with(self, token: Token) -> Self {
        Self(self.0 | 1 << token)
    }
    /// Without these.
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }
    /// What both hold.
    pub fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    /// Holds none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Token> for Tokens {
    fn from_iter<I: IntoIterator<Item = Token>>(tokens: I) -> Self {
        tokens.into_iter().fold(Self::default(), Self::with)
    }
}

/// A provider's memory of one grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Provider {
    /// What it takes.
    pub live: Tokens,
    /// What it takes only until the window closes.
    pub closing: Tokens,
    /// The last token that was used for the first time.
    newest_used: Token,
    issued: u8,
}

impl Provider {
    /// A fresh grant, with the refresh token 0.
    pub fn new() -> Self {
        Self { live: Tokens(1), closing: Tokens(0), newest_used: 0, issued: 1 }
    }

    /// A renewal request arrives.
    pub fn redeem(&mut self, class: Class, token: Token) -> Answer {
        let used = Tokens::default().with(token);
        if self.live.common(used).is_empty() {
            if class == Class::Family {
                self.live = Tokens(0);
            }
            return Answer::Refused;
        }
        if class == Class::Static {
            return Answer::Tokens(token);
        }
        let successor = self.issued;
        self.issued += 1;
        match class {
            Class::Window => self.closing = self.closing.with(token),
            // All others of its generation end with it.
            Class::UntilUsed if token != self.newest_used => self.live = used,
            Class::UntilUsed => {}
            _ => self.live = self.live.without(used),
        }
        self.newest_used = token;
        self.live = self.live.with(successor);
        Answer::Tokens(successor)
    }

    /// Tokens used before are taken no longer.
    pub fn close_window(&mut self) {
        self.live = self.live.without(self.closing);
        self.closing = Tokens(0);
    }
}

impl Default for Provider {
    fn default() -> Self {
        Self::new()
    }
}
