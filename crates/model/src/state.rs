//! All that exists at one moment: the row, the replicas, what is on the wire, the provider; and what happened, for the properties to judge by.

use std::hash::{Hash, Hasher};

use crate::provider::{Answer, Provider, Token, Tokens};

/// A claim's id. Ids that nothing refers to any more are given again, so that the model stays small.
pub type Attempt = u8;
/// How often the row has been committed.
pub type Generation = u8;
/// Time, in ticks; see [`crate::Renewal`].
pub type Ticks = u8;

/// The connection's row in the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Commits so far.
    pub generation: Generation,
    /// The refresh token in place.
    pub token: Token,
    /// The claim that stands, and its age.
    pub attempt: Option<(Attempt, Ticks)>,
    /// `lost_at` is set: this token may have been used.
    pub lost: bool,
    /// Only a person can help.
    pub reconnect: bool,
}

/// What a replica that is about to claim saw in the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sight {
    pub(crate) generation: Generation,
    pub(crate) token: Token,
    pub(crate) dead: Option<Attempt>,
    pub(crate) lost: bool,
}

/// A claim in the hands of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    pub(crate) attempt: Attempt,
    pub(crate) generation: Generation,
    pub(crate) token: Token,
}

/// A renewed token set that is not in the row yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reply {
    pub(crate) generation: Generation,
    pub(crate) token: Token,
}

/// How far a process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Process {
    /// Does nothing for this connection.
    Idle,
    /// Has read the row and will claim.
    Seen(Sight),
    /// Has claimed this long ago, and not yet sent.
    Claimed(Claim, Ticks),
    /// Has sent, and waits.
    Waiting(Claim),
    /// Waits no longer, and doesn't know whether the provider acted.
    Unanswered(Claim),
    /// Has the provider's answer in memory only.
    Answered(Claim, Answer),
    /// Commits.
    Committing(Reply),
    /// Has committed, and removes the reply from escrow.
    Clearing,
    /// Crashed.
    Down,
    /// Crashed, and never comes back.
    Gone,
}

/// A process and its disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Replica {
    /// What a crash takes.
    pub process: Process,
    /// What it leaves: the reply in the data folder.
    pub escrow: Option<Reply>,
}

/// A request on its way, or its answer on the way back to who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Exchange {
    pub(crate) claim: Claim,
    pub(crate) age: Ticks,
    pub(crate) answer: Option<Answer>,
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Faults {
    /// Processes that die.
    pub crashes: u8,
    /// Requests and replies that are lost, reset or too slow.
    pub losses: u8,
    /// Writes that fail, on disk or in the database, or whose success is not heard of.
    pub writes: u8,
    /// Processes that stand still after their claim.
    pub delays: u8,
}

/// What the properties need to know of the past.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Past {
    /// The newest commit.
    pub newest: (Generation, Token),
    /// A renewed token set vanished before it was durable, or a disk with one.
    pub reply_lost: bool,
    /// An owner held a reply uncommitted for so long that its claim was taken over, patience included.
    pub overstayed: bool,
    /// A reply left escrow although nothing as new was in the row.
    pub dropped: bool,
    /// A second use ended a grant whose newest token was in our hands.
    pub killed_held: bool,
    /// A second use ended a grant whose access token was still valid.
    pub killed_valid: bool,
    /// A reply from before a crash was committed.
    pub recovered: bool,
    /// A dead owner's claim was taken over.
    pub taken_over: bool,
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The connection's row.
    pub row: Row,
    /// The processes.
    pub replicas: Vec<Replica>,
    /// What is on the wire.
    pub wire: Vec<Exchange>,
    /// The other side.
    pub provider: Provider,
    /// The access token in the row has expired.
    pub expired: bool,
    /// What may still go wrong.
    pub left: Faults,
    /// What was.
    pub past: Past,
}

impl Hash for State {
    /// Replicas are alike: states that differ only in which replica is which are one.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (mut replicas, mut wire) = (self.replicas.clone(), self.wire.clone());
        replicas.sort_unstable();
        wire.sort_unstable();
        (&self.row, replicas, wire, &self.provider, self.expired, self.left, &self.past).hash(state);
    }
}

impl State {
    /// Replies that are neither in the row nor lost: in memory, and on disk.
    pub fn uncommitted(&self) -> impl Iterator<Item = Reply> {
        self.replicas.iter().flat_map(|replica| {
            let in_memory = match replica.process {
                Process::Answered(claim, Answer::Tokens(token)) => Some(Reply { generation: claim.generation, token }),
                Process::Committing(reply) => Some(reply),
                _ => None,
            };
            in_memory.into_iter().chain(replica.escrow)
        })
    }

    /// Every refresh token in our hands, or on its way to one who waits for it.
    pub fn held(&self) -> Tokens {
        let arriving = self.wire.iter().filter_map(|exchange| match exchange.answer {
            Some(Answer::Tokens(token)) => Some(token),
            _ => None,
        });
        self.uncommitted().map(|reply| reply.token).chain(arriving).chain([self.row.token]).collect()
    }

    /// Who waits for this claim's answer.
    pub(crate) fn waiting(&self, claim: Claim) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.process == Process::Waiting(claim))
    }

    /// An id that nothing refers to.
    pub(crate) fn free_id(&self) -> Attempt {
        let used = |id| {
            let by_replica = self.replicas.iter().any(|replica| match replica.process {
                Process::Seen(sight) => sight.dead == Some(id),
                Process::Claimed(claim, _) | Process::Waiting(claim) | Process::Unanswered(claim) => {
                    claim.attempt == id
                }
                Process::Answered(claim, _) => claim.attempt == id,
                _ => false,
            });
            by_replica
                || self.row.attempt.is_some_and(|(attempt, _)| attempt == id)
                || self.wire.iter().any(|exchange| exchange.claim.attempt == id)
        };
        (0..).find(|id| !used(*id)).unwrap_or_default()
    }

    /// The token set that was renewed with this one, if it is in no other hands, is gone.
    pub(crate) fn vanishes(&mut self, reply: Option<Reply>) {
        self.past.reply_lost |= reply.is_some_and(|reply| reply.generation == self.row.generation);
    }
}
