//! The history of changes, newest first, in sentences; and reverting one of them.

use std::collections::BTreeMap;

use eventlog::{Activity, Entry, Fact, wire};
use model::{Command, Event, KindName, Object, ObjectKey, Position, Tenant, event::Stream};
use proto::{
    Message,
    signed::body_hash,
    v1::{self, EventBody, SignedEvent, history_server::History},
};
use serde_json::Value;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::{
    Admin,
    apply::changed_fields,
    caller,
    objects::{self, named},
};
use crate::{
    callers::Caller,
    errors::{field, invalid},
    permits::Verb,
    resolve,
};

const SIZE: usize = 50;
const SIZE_MAX: usize = 500;
/// Events read at a time, going back.
const STEP: u64 = 512;
/// How far behind an event the one before it on its object is looked for, to say
/// what changed.
const LOOK_BEHIND: u64 = 16 * STEP;

#[tonic::async_trait]
impl History for Admin {
    async fn list(
        &self,
        request: Request<v1::ListHistoryRequest>,
    ) -> Result<Response<v1::ListHistoryResponse>, Status> {
        let caller = caller(&request)?;
        let it = request.into_inner();
        let streams = match it.stream.as_str() {
            "" if it.before_position > 0 => {
                return Err(field(Code::InvalidArgument, "before_position", "needs a stream: positions are its own"));
            }
            "" => Stream::STATE.to_vec(),
            name => vec![parse_stream(name)?],
        };
        let wanted = Wanted::of(&self.tenant(&caller), it)?;
        let mut entries = Vec::new();
        for stream in streams {
            entries.extend(self.happened(&caller, stream, &wanted).await?);
        }
        entries.sort_by_key(|it| std::cmp::Reverse((it.time_ms, it.position)));
        entries.truncate(wanted.size);
        Ok(Response::new(v1::ListHistoryResponse { entries }))
    }

    async fn revert(&self, request: Request<v1::RevertRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let stream = parse_stream(if it.stream.is_empty() { "config" } else { &it.stream })?;
        let (key, before) = self.before(&call.caller, stream, it.position).await?;
        let verb = if before.is_some() { Verb::Put } else { Verb::Remove };
        self.permits.require_for(&call.caller, &call.tenant, &key, verb, before.as_ref())?;
        let command = before.map_or_else(|| Command::Remove(key.clone()), Command::Put);
        let snapshot = self.writer.snapshot();
        self.carry_out(call, &snapshot, vec![command], &[key], it.dry_run).await.map(Response::new)
    }
}

fn parse_stream(name: &str) -> Result<Stream, Status> {
    let known = "is config, directory, risk or activity";
    Stream::parse(name).ok_or_else(|| field(Code::InvalidArgument, "stream", known))
}

/// What of a stream is asked for.
struct Wanted {
    size: usize,
    before: Position,
    subject_contains: String,
    kind: Option<KindName>,
    actor: String,
    times: std::ops::RangeInclusive<i64>,
}

impl Wanted {
    fn of(tenant: &Tenant, it: v1::ListHistoryRequest) -> Result<Self, Status> {
        let kind = Some(it.kind.as_str()).filter(|it| !it.is_empty()).map(objects::kind).transpose()?;
        let mut subject_contains = it.subject_contains;
        let of_kind = it.object.is_empty();
        if !it.object.is_empty() {
            let kind = kind.ok_or_else(|| field(Code::InvalidArgument, "kind", "is needed beside object"))?;
            // What is gone has no name any more; its id will do.
            let key = resolve::object(tenant, kind, &it.object);
            let is_id = Uuid::try_parse(&it.object).is_ok();
            subject_contains = match key {
                Ok(key) => key.subject().id,
                Err(_) if is_id => it.object,
                Err(error) => return Err(invalid(error)),
            };
        }
        let actor = match tenant.users.by_name(&it.actor) {
            Some(user) => format!("user:{}", user.id),
            None => it.actor,
        };
        Ok(Self {
            size: if it.size == 0 { SIZE } else { (it.size as usize).min(SIZE_MAX) },
            before: if it.before_position == 0 { Position::MAX } else { it.before_position },
            subject_contains,
            // Parts of an object are in its history.
            kind: kind.filter(|_| of_kind),
            actor,
            times: it.since_ms..=if it.until_ms == 0 { i64::MAX } else { it.until_ms },
        })
    }

    fn wants(&self, body: &EventBody) -> bool {
        let kind = || wire::meaning(&body.kind).map(|(kind, _)| kind);
        body.subject.contains(&self.subject_contains)
            && self.kind.is_none_or(|it| kind() == Some(it))
            && (self.actor.is_empty() || body.actor == self.actor || body.actor == format!("user:{}", self.actor))
            && self.times.contains(&body.time_ms)
    }
}

/// An event of a state stream, and where it is in the list that is made.
struct Open {
    at: usize,
    event: Event,
}

impl Admin {
    /// Newest first. What an object was before is found further behind.
    async fn happened(
        &self,
        caller: &Caller,
        stream: Stream,
        wanted: &Wanted,
    ) -> Result<Vec<v1::HistoryEntry>, Status> {
        let tenant = self.tenant(caller);
        let log = self.writer.journal().log();
        let head = log.head(stream).await.map_err(away)?;
        let mut before = wanted.before.min(head + 1);
        let mut entries = Vec::new();
        let mut open = BTreeMap::<String, Open>::new();
        let mut behind = 0;
        while before > 1 && (entries.len() < wanted.size || !open.is_empty() && behind < LOOK_BEHIND) {
            behind += if entries.len() < wanted.size { 0 } else { STEP };
            let from = before.saturating_sub(STEP + 1);
            let mut step = log.read(stream, from).await.map_err(away)?;
            step.retain(|entry| entry.position < before);
            for entry in step.iter().rev() {
                let Some(body) = body_of(entry).filter(|it| it.tenant == caller.tenant.as_str()) else { continue };
                let event = state(&body);
                if let Some(Open { at, event: later }) = open.remove(&body.subject) {
                    let entry: &mut v1::HistoryEntry = &mut entries[at];
                    entry.sentence = sentence(&tenant, entry, &later, event.as_ref());
                }
                if entries.len() == wanted.size || !wanted.wants(&body) {
                    continue;
                }
                let mut shown = show(&tenant, stream, entry, &body);
                if let Some(event) = event {
                    shown.sentence = sentence(&tenant, &shown, &event, None);
                    if body.version > 1 {
                        open.insert(body.subject, Open { at: entries.len(), event });
                    }
                }
                entries.push(shown);
            }
            before = from + 1;
        }
        Ok(entries)
    }

    /// The object that an event is about, and what it was before. The links of the
    /// chain are followed from what this process has verified.
    async fn before(
        &self,
        caller: &Caller,
        stream: Stream,
        position: Position,
    ) -> Result<(ObjectKey, Option<Object>), Status> {
        let log = self.writer.journal().log();
        let no_such = || field(Code::NotFound, "position", "is no event of an object; see postern history");
        let entries = log.read(stream, position.saturating_sub(1)).await.map_err(away)?;
        let entry = entries.into_iter().find(|it| it.position == position).ok_or_else(no_such)?;
        let body = body_of(&entry).filter(|it| it.tenant == caller.tenant.as_str()).ok_or_else(no_such)?;
        let event = state(&body).ok_or_else(no_such)?;
        let mut expected = self.writer.last_on(stream, &body.subject);
        let mut before = log.head(stream).await.map_err(away)? + 1;
        while before > 1 {
            let from = before.saturating_sub(STEP + 1);
            let mut step = log.read(stream, from).await.map_err(away)?;
            step.retain(|entry| entry.position < before);
            for entry in step.iter().rev() {
                let Some((found, hash)) = body_and_hash(entry).filter(|(it, _)| it.subject == body.subject) else {
                    continue;
                };
                if hash != expected {
                    return Err(Status::data_loss("an event of this object is not the one that was recorded"));
                }
                if entry.position < position {
                    let object = match state(&found) {
                        Some(Event::Put(object)) => Some(object),
                        Some(Event::Removed(_)) | None => None,
                    };
                    return Ok((event.key(), object));
                }
                expected = found.previous.to_vec();
            }
            before = from + 1;
        }
        Ok((event.key(), None))
    }
}

fn away(_: eventlog::LogError) -> Status {
    Status::unavailable("the event log does not answer")
}

fn body_of(entry: &Entry) -> Option<EventBody> {
    body_and_hash(entry).map(|(body, _)| body)
}

fn body_and_hash(entry: &Entry) -> Option<(EventBody, Vec<u8>)> {
    let event = SignedEvent::decode(entry.bytes.clone()).ok()?;
    let hash = body_hash(&event.body).to_vec();
    Some((EventBody::decode(event.body).ok()?, hash))
}

fn state(body: &EventBody) -> Option<Event> {
    match Fact::decode(&body.kind, &body.payload).ok()? {
        Fact::State(event) => Some(event),
        Fact::Activity(_) => None,
    }
}

fn show(tenant: &Tenant, stream: Stream, entry: &Entry, body: &EventBody) -> v1::HistoryEntry {
    v1::HistoryEntry {
        position: entry.position,
        time_ms: body.time_ms,
        actor_name: actor_name(tenant, &body.actor),
        actor: body.actor.clone(),
        kind: body.kind.clone(),
        subject: body.subject.clone(),
        version: body.version,
        cause: body.cause.clone(),
        id: Uuid::from_slice(&body.id).map_or(String::new(), |it| it.to_string()),
        summary: summary(body),
        sentence: String::new(),
        stream: stream.name().to_owned(),
    }
}

fn actor_name(tenant: &Tenant, actor: &str) -> String {
    let user = actor.strip_prefix("user:").and_then(|id| tenant.users.get(&model::UserId(Uuid::try_parse(id).ok()?)));
    user.map_or(actor, |it| it.username.as_str()).to_owned()
}

/// `alice changed application wiki: origin http://a -> http://b`. `before` is the
/// event before it on the object, where it was found.
fn sentence(tenant: &Tenant, entry: &v1::HistoryEntry, event: &Event, before: Option<&Event>) -> String {
    let key = event.key();
    let put = |event: &Event| match event {
        Event::Put(object) => Some(object.clone()),
        Event::Removed(_) => None,
    };
    let (was, is) = (before.and_then(put), put(event));
    let name = is.as_ref().or(was.as_ref()).and_then(|it| it.name().map(str::to_owned));
    let known = || tenant.get(&key).and_then(|(object, _)| object.name().map(str::to_owned));
    let name = objects::called(tenant, &key, name.or_else(known).as_deref());
    let (verb, fields) = match (&was, &is) {
        (_, None) => ("removed", vec![]),
        (Some(was), Some(is)) => ("changed", changed_fields(&named(tenant, was), &named(tenant, is))),
        (None, Some(_)) if before.is_some() || entry.version == 1 => ("created", vec![]),
        // What it was before is too far behind.
        (None, Some(_)) => ("changed", vec![]),
    };
    let plain = |json: &str| match serde_json::from_str(json) {
        Ok(Value::String(text)) => text,
        _ => json.to_owned(),
    };
    let changes: Vec<_> =
        fields.iter().map(|it| format!("{} {} -> {}", it.field, plain(&it.before), plain(&it.after))).collect();
    let colon = if changes.is_empty() { "" } else { ": " };
    format!("{} {verb} {} {name}{colon}{}", entry.actor_name, key.kind().title(), changes.join("; "))
}

/// The event as JSON, without what is sealed or hashed.
fn summary(body: &EventBody) -> String {
    let json = match Fact::decode(&body.kind, &body.payload) {
        Ok(Fact::State(Event::Put(object))) => wire::to_json(&object, &mut |_| {}),
        Ok(Fact::State(Event::Removed(key))) => wire::key_to_json(&key, &mut |_| {}),
        Ok(Fact::Activity(activity)) => match &activity {
            Activity::SignIn(it) => serde_json::to_value(it).unwrap_or_default(),
            Activity::Access(it) => serde_json::to_value(it).unwrap_or_default(),
            Activity::Accesses(it) => serde_json::to_value(it).unwrap_or_default(),
            Activity::Connector(it) => serde_json::to_value(it).unwrap_or_default(),
            Activity::Gap(it) => serde_json::to_value(it).unwrap_or_default(),
        },
        Err(_) => return String::new(),
    };
    json.to_string()
}
