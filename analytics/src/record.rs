//! The table of fields: what can be said of one thing that happened, and how each
//! kind of activity says it. Every format is made from this table, and so is the
//! list in docs/roles/analytics.md.
//!
//! A new field is one line here. Formats that have no place of their own for it
//! show it among the unmapped fields, so it is exported at once.

use std::fmt;

use eventlog::Activity;
use model::activity::{ConnectorEvent, ProofMethod, RefusalCode, SignInOutcome};
use proto::v1::{Access, ActivityGap, ConnectorActivity, EventBody, Judgement, SignInAttempt, Verdict};
use uuid::Uuid;

/// One thing that happened: an event of ACTIVITY, or one access of those in an event.
pub struct Record<'a> {
    /// The same whenever the event is exported again.
    pub id: String,
    pub tenant: &'a str,
    /// UTC, milliseconds since 1970.
    pub time_ms: i64,
    pub what: What<'a>,
}

/// The kinds of activity.
#[derive(Clone, Copy)]
pub enum What<'a> {
    SignIn(&'a SignInAttempt),
    Access(&'a Access),
    Connector(&'a ConnectorActivity),
    Gap(&'a ActivityGap),
}

/// How much attention a record deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Information,
    Low,
    Medium,
}

impl<'a> Record<'a> {
    pub fn of(body: &'a EventBody, activity: &'a Activity) -> Vec<Self> {
        let id = Uuid::from_slice(&body.id).map_or(String::new(), |it| it.to_string());
        let one = |id, time_ms, what| Self { id, tenant: &body.tenant, time_ms, what };
        match activity {
            Activity::SignIn(it) => vec![one(id, body.time_ms, What::SignIn(it))],
            Activity::Access(it) => vec![one(id, body.time_ms, What::Access(it))],
            Activity::Accesses(all) => {
                let numbered = all.accesses.iter().enumerate();
                numbered.map(|(n, it)| one(format!("{id}.{n}"), it.time_ms, What::Access(it))).collect()
            }
            Activity::Connector(it) => vec![one(id, body.time_ms, What::Connector(it))],
            Activity::Gap(it) => vec![one(id, body.time_ms, What::Gap(it))],
        }
    }

    /// Fields this record has, in the table's order.
    pub fn fields(&self) -> impl Iterator<Item = (&'static Field, Value<'a>)> {
        let what = self.what;
        let said = FIELDS.iter().map(move |field| (field, field.value(what)));
        said.filter(|(_, value)| !matches!(value, Value::Absent))
    }
}

impl What<'_> {
    pub fn kind(self) -> &'static str {
        match self {
            Self::SignIn(_) => "sign_in",
            Self::Access(_) => "access",
            Self::Connector(_) => "connector",
            Self::Gap(_) => "gap",
        }
    }

    /// Signed in, or forwarded. An outcome of a newer release is a failure.
    pub fn is_success(self) -> bool {
        match self {
            Self::SignIn(it) => SignInOutcome::parse(&it.outcome) == Some(SignInOutcome::Success),
            Self::Access(it) => it.refusal.is_empty(),
            Self::Connector(_) | Self::Gap(_) => true,
        }
    }

    pub fn severity(self) -> Severity {
        match (self, self.is_success()) {
            (_, true) => Severity::Information,
            (Self::SignIn(_), false) => Severity::Medium,
            (Self::Access(_) | Self::Connector(_) | Self::Gap(_), false) => Severity::Low,
        }
    }
}

/// A row of the table: how each kind of activity says the field.
pub struct Field {
    pub name: &'static str,
    pub kind: Type,
    pub about: &'static str,
    sign_in: fn(&SignInAttempt) -> Value<'_>,
    access: fn(&Access) -> Value<'_>,
    connector: fn(&ConnectorActivity) -> Value<'_>,
    gap: fn(&ActivityGap) -> Value<'_>,
}

/// What values of a field are.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    Text,
    Number,
    Flag,
    List,
    /// Text of a closed set, listed by the function; a newer release may have added to it.
    Word(fn() -> Vec<&'static str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// This record does not say.
    Absent,
    Text(&'a str),
    Number(u64),
    Flag(bool),
    List(&'a [String]),
}

use Value::{Absent, Flag, List, Number, Text};

/// Fields beside `id`, `tenant`, `time_ms` and `kind`, which every record has.
#[rustfmt::skip]
pub static FIELDS: &[Field] = &[
    Field { sign_in: |it| given(&it.user), access: |it| Text(&it.user), ..text("user_id", "who; absent if the name at sign-in is nobody's") },
    Field { sign_in: |it| Text(&it.username), ..text("user_name", "name as it was typed at sign-in") },
    Field { sign_in: |it| given(&it.session), access: |it| Text(&it.session), ..text("session_id", "session that began or was used") },
    Field { sign_in: |it| Text(&it.app), access: |it| Text(&it.app), ..text("app_id", "application; with refusal `not_published`, the one whose page asked") },
    Field { sign_in: |it| Text(&it.address), access: |it| Text(&it.address), ..text("address", "IP address of the user; from a proxy that the application trusts, the one the proxy says") },
    Field { sign_in: |it| given(&it.user_agent), access: |it| given(&it.user_agent), ..text("user_agent", "browser or client, as it calls itself") },
    Field { sign_in: |it| Text(&it.outcome), ..word("outcome", outcomes, "how the sign-in ended") },
    Field { sign_in: |it| List(&it.methods), ..row("methods", Type::List, "proofs shown, RFC 8176: `pwd`, `otp`") },
    Field { sign_in: |it| Flag(has_second_factor(it)), ..row("mfa", Type::Flag, "whether a second factor was shown") },
    Field { sign_in: |it| List(&it.policies), access: |it| List(&it.policies), ..row("policies", Type::List, "ids of the policies that applied") },
    Field { access: |it| List(&it.report_only), ..row("report_only", Type::List, "ids of the report-only policies that would have applied") },
    Field { access: verdict, ..word("verdict", verdicts, "what policies decided when the request came; absent if they were not asked") },
    Field { access: missing, ..row("missing", Type::List, "of verdict `challenged`: what the sign-in had not shown") },
    Field { access: |it| Text(&it.request_id), ..text("request_id", "also in the response header `x-request-id`") },
    Field { access: |it| Text(&it.method), ..text("method", "HTTP method") },
    Field { access: |it| Text(&it.host), ..text("host", "host of the URL") },
    Field { access: |it| Text(&it.path_class), ..text("path", "first segment of the path, nothing of a query") },
    Field { access: |it| Number(it.status.into()), ..number("status", "HTTP status") },
    Field { access: |it| given(&it.refusal), ..word("refusal", refusals, "why the request was not forwarded, or not to its end") },
    Field { access: |it| Number(it.bytes_in), ..number("bytes_in", "bytes of the request body") },
    Field { access: |it| Number(it.bytes_out), ..number("bytes_out", "bytes of the response body") },
    Field { access: |it| Number(it.total_us.into()), ..number("total_us", "microseconds from the head of the request to the end of the response") },
    Field { access: |it| Number(it.wait_us.into()), ..number("wait_us", "microseconds waiting for a connector") },
    Field { access: |it| Number(it.origin_us.into()), ..number("origin_us", "microseconds until the application's response head") },
    Field { access: |it| Number(it.snapshot), ..number("snapshot", "position of CONFIG the decision was made at") },
    Field { access: |it| given(&it.trace_id), ..text("trace_id", "W3C trace id") },
    Field { access: |it| Text(&it.connector), connector: |it| Text(&it.connector), ..text("connector", "connector that carried the request, or that came or went") },
    Field { connector: |it| Text(&it.relay), ..text("relay", "relay that reports the connector") },
    Field { connector: |it| Text(&it.what), ..word("event", connector_events, "what happened to the connector") },
    Field { connector: |it| Text(&it.detail), ..text("detail", "when the connector's certificate ends, or why its link ended") },
    Field { gap: |it| Text(&it.writer), ..text("writer", "process that dropped activity") },
    Field { gap: |it| Number(it.dropped), ..number("dropped", "records lost because the log was too slow") },
];

impl Field {
    fn value<'a>(&self, what: What<'a>) -> Value<'a> {
        match what {
            What::SignIn(it) => (self.sign_in)(it),
            What::Access(it) => (self.access)(it),
            What::Connector(it) => (self.connector)(it),
            What::Gap(it) => (self.gap)(it),
        }
    }

    /// Kinds that can say it, found by a message in which every field is filled.
    fn kinds(&self) -> Vec<&'static str> {
        let filled = || "1".to_owned();
        let sign_in = SignInAttempt { user: filled(), session: filled(), user_agent: filled(), ..Default::default() };
        let missing = vec![filled()];
        let judgement = Some(Judgement { verdict: Verdict::Challenged.into(), missing, ..Default::default() });
        let access =
            Access { user_agent: filled(), refusal: filled(), trace_id: filled(), judgement, ..Default::default() };
        let (connector, gap) = (ConnectorActivity::default(), ActivityGap::default());
        let all = [What::SignIn(&sign_in), What::Access(&access), What::Connector(&connector), What::Gap(&gap)];
        all.into_iter().filter(|it| self.value(*it) != Absent).map(What::kind).collect()
    }
}

/// The row of docs/roles/analytics.md.
impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, about) = (self.name, self.about);
        write!(formatter, "| `{name}` | {} | {} | {about} |", self.kinds().join(", "), self.kind)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Flag => "flag",
            Self::List => "list",
            Self::Word(_) => "word",
        })
    }
}

const fn row(name: &'static str, kind: Type, about: &'static str) -> Field {
    Field { name, kind, about, sign_in: |_| Absent, access: |_| Absent, connector: |_| Absent, gap: |_| Absent }
}

const fn text(name: &'static str, about: &'static str) -> Field {
    row(name, Type::Text, about)
}

const fn number(name: &'static str, about: &'static str) -> Field {
    row(name, Type::Number, about)
}

const fn word(name: &'static str, words: fn() -> Vec<&'static str>, about: &'static str) -> Field {
    row(name, Type::Word(words), about)
}

fn outcomes() -> Vec<&'static str> {
    SignInOutcome::ALL.iter().map(|it| it.as_str()).collect()
}

const VERDICTS: [(Verdict, &str); 4] = [
    (Verdict::Granted, "granted"),
    (Verdict::NotAssigned, "not_assigned"),
    (Verdict::Challenged, "challenged"),
    (Verdict::Blocked, "blocked"),
];

fn verdicts() -> Vec<&'static str> {
    VERDICTS.iter().map(|(_, word)| *word).collect()
}

/// Absent for one of a newer release, which has no word here.
fn verdict(access: &Access) -> Value<'_> {
    let said = access.judgement.as_ref().map(Judgement::verdict);
    VERDICTS.iter().find(|(verdict, _)| Some(*verdict) == said).map_or(Absent, |(_, word)| Text(word))
}

fn missing(access: &Access) -> Value<'_> {
    let missing = access.judgement.as_ref().map(|it| &it.missing).filter(|it| !it.is_empty());
    missing.map_or(Absent, |it| List(it))
}

fn refusals() -> Vec<&'static str> {
    RefusalCode::ALL.iter().map(|it| it.as_str()).collect()
}

fn connector_events() -> Vec<&'static str> {
    ConnectorEvent::ALL.iter().map(|it| it.as_str()).collect()
}

fn given(text: &str) -> Value<'_> {
    if text.is_empty() { Absent } else { Text(text) }
}

fn has_second_factor(it: &SignInAttempt) -> bool {
    it.methods.iter().filter_map(|method| ProofMethod::parse(method)).any(ProofMethod::is_second_factor)
}
