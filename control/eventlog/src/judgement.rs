//! Judgements of policy as accesses record them: what was known of a request and
//! what was decided. Relays write them, and recorded traffic is judged again from
//! them: by the same configuration, or by a policy that somebody thinks of.
//!
//! `write` and `read` are each other's inverse. What cannot be judged again for
//! sure is an error that says why ([`NotJudged`]), and never facts with a gap.

use std::collections::BTreeSet;

use bytes::Bytes;
use model::{
    Facts, GroupId, PolicyId, Position, Requirement,
    policy::{Authorized, Denied, Involved, RecordedFacts},
    session::TOKEN_GROUPS_MAX,
};
use proto::v1::{Access, Judgement, Verdict};
use thiserror::Error;
use uuid::Uuid;

const ID_BYTES: usize = 16;

/// A judgement, read from an access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedJudgement {
    pub facts: RecordedFacts,
    /// Positions of the log it was judged by. Policies and assignments are those
    /// of CONFIG; the groups in the facts are those of DIRECTORY.
    pub config: Position,
    pub directory: Position,
    pub risk: Position,
    pub verdict: Result<Involved, Denied>,
}

/// Why the judgement of an access cannot be made again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotJudged {
    /// It was refused before, or an older release recorded it.
    #[error("policies were not asked, or it is not recorded what they knew")]
    NotRecorded,
    /// The same policies say the same again. One that names another group of the
    /// user would not know that they are in it.
    #[error("the user was in more groups than their token named")]
    GroupsLeftOut(Box<RecordedJudgement>),
    #[error("{0} of the access cannot be read; a newer release wrote it")]
    Unreadable(&'static str),
}

/// The groups of a session as its accesses record them. A clone shares the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedGroups {
    ids: Bytes,
    left_out: bool,
}

impl RecordedGroups {
    /// `left_out` when the user is in more than these. More than a token may
    /// have (`TOKEN_GROUPS_MAX`) are not recorded either.
    pub fn pack(groups: &BTreeSet<GroupId>, left_out: bool) -> Self {
        let ids = groups.iter().take(TOKEN_GROUPS_MAX).flat_map(|it| it.0.into_bytes()).collect();
        Self { ids, left_out: left_out || groups.len() > TOKEN_GROUPS_MAX }
    }
}

/// Where the facts of a judgement come from, beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub groups: RecordedGroups,
    pub directory: Position,
    pub risk: Position,
}

/// Writes a judgement into an access that says application, user and position of
/// CONFIG already.
pub fn write(access: &mut Access, facts: &Facts<'_>, sources: Sources, decided: &Result<Authorized, Denied>) {
    let mut judgement = Judgement {
        groups: sources.groups.ids,
        groups_left_out: sources.groups.left_out,
        satisfied: facts.satisfied.iter().map(ToString::to_string).collect(),
        signed_in_ago_s: facts.signed_in_ago_s,
        directory: sources.directory,
        risk: sources.risk,
        ..Default::default()
    };
    let involved = match decided {
        Ok(Authorized { involved, .. }) => {
            judgement.verdict = Verdict::Granted.into();
            Some(involved)
        }
        Err(Denied::NotAssigned) => {
            judgement.verdict = Verdict::NotAssigned.into();
            None
        }
        Err(Denied::Challenged { missing, involved }) => {
            judgement.verdict = Verdict::Challenged.into();
            judgement.missing = missing.iter().map(ToString::to_string).collect();
            Some(involved)
        }
        Err(Denied::Blocked { by, involved }) => {
            judgement.verdict = Verdict::Blocked.into();
            judgement.blocked_by = by.to_string();
            Some(involved)
        }
    };
    if let Some(involved) = involved {
        access.policies = involved.applied.iter().map(ToString::to_string).collect();
        access.report_only = involved.would_refuse.iter().map(ToString::to_string).collect();
    }
    // The connection's address, unless a proxy that the application trusts said another.
    if access.address.parse() != Ok(facts.address) {
        access.address = facts.address.to_string();
    }
    access.judgement = Some(judgement);
}

/// Reads the judgement of an access.
pub fn read(access: &Access) -> Result<RecordedJudgement, NotJudged> {
    let unreadable = NotJudged::Unreadable;
    let judgement = access.judgement.as_ref().ok_or(NotJudged::NotRecorded)?;
    let user = match access.user.as_str() {
        "" => None,
        id => Some(id.parse().map_err(|_| unreadable("user"))?),
    };
    let facts = RecordedFacts {
        app: access.app.parse().map_err(|_| unreadable("app"))?,
        user,
        groups: groups(&judgement.groups).ok_or(unreadable("groups"))?,
        address: access.address.parse().map_err(|_| unreadable("address"))?,
        // One that is not known here satisfies nothing here.
        satisfied: judgement.satisfied.iter().filter_map(|it| it.parse().ok()).collect(),
        signed_in_ago_s: judgement.signed_in_ago_s,
    };
    let read = RecordedJudgement {
        facts,
        config: access.snapshot,
        directory: judgement.directory,
        risk: judgement.risk,
        verdict: verdict(access, judgement)?,
    };
    match judgement.groups_left_out {
        true => Err(NotJudged::GroupsLeftOut(Box::new(read))),
        false => Ok(read),
    }
}

fn groups(ids: &[u8]) -> Option<BTreeSet<GroupId>> {
    let ids = ids.chunks(ID_BYTES).map(|id| Uuid::from_slice(id).map(GroupId));
    ids.collect::<Result<_, _>>().ok()
}

fn verdict(access: &Access, judgement: &Judgement) -> Result<Result<Involved, Denied>, NotJudged> {
    let unreadable = NotJudged::Unreadable;
    let ids = |ids: &[String]| ids.iter().map(|it| it.parse()).collect::<Result<Vec<PolicyId>, _>>();
    let involved = Involved {
        applied: ids(&access.policies).map_err(|_| unreadable("policies"))?,
        would_refuse: ids(&access.report_only).map_err(|_| unreadable("report_only"))?,
    };
    let missing = || judgement.missing.iter().map(|it| it.parse()).collect::<Result<BTreeSet<Requirement>, _>>();
    Ok(match judgement.verdict() {
        Verdict::Granted => Ok(involved),
        Verdict::NotAssigned => Err(Denied::NotAssigned),
        Verdict::Challenged => {
            Err(Denied::Challenged { missing: missing().map_err(|_| unreadable("missing"))?, involved })
        }
        Verdict::Blocked => {
            Err(Denied::Blocked { by: judgement.blocked_by.parse().map_err(|_| unreadable("blocked_by"))?, involved })
        }
        Verdict::Unspecified => return Err(unreadable("verdict")),
    })
}

#[cfg(test)]
mod tests;
