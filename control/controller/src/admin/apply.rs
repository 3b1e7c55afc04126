//! Many objects as one change: what is asked for becomes commands, and what
//! comes of them is shown before or after it is recorded.
//!
//! Names may be those of objects in the same request, in any order: first every
//! object gets its key, then each is read. The writer decides all of it again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use eventlog::wire::{self, FieldError, Parsed};
use model::{Command, Event, KindName, Object, ObjectKey, Snapshot, Step, Tenant, foresee, kind::Bond};
use proto::v1;
use serde_json::{Map, Value};
use tonic::{Code, Status};

use super::{
    Admin, AdminCall,
    objects::{Statuses, called, has_labels, kind, named, shown},
};
use crate::{
    errors::{about, field, invalid, refused, rejected},
    permits::Verb,
    resolve,
};

/// Objects that are returned; a file of thousands is not sent back.
const RETURNED_MAX: usize = 1000;

type Fields = Map<String, Value>;

impl Admin {
    pub(super) async fn apply_objects(
        &self,
        call: AdminCall,
        it: v1::ApplyRequest,
    ) -> Result<v1::ApplyResponse, Status> {
        let snapshot = self.writer.snapshot();
        let asked = [(Verb::Put, &it.objects), (Verb::Remove, &it.removed)];
        for (verb, objects) in asked {
            let kinds = objects.iter().map(|it| kind(&it.kind)).collect::<Result<BTreeSet<_>, _>>()?;
            for kind in kinds {
                self.permits.require_any(&call.caller, &call.tenant, kind, verb)?;
            }
        }
        let wanted = it.objects.iter().map(Wanted::read).collect::<Result<Vec<_>, _>>()?;
        let names = Names::of(&call, &wanted)?;
        // Of one object, the field says enough.
        let many = wanted.len() + it.removed.len() > 1;
        let mut commands = Vec::with_capacity(wanted.len());
        let mut keys = Vec::with_capacity(wanted.len());
        for wanted in &wanted {
            let object = self.object(&call, &names, wanted).await;
            let object = object.map_err(|it| if many { about(&wanted.title(), &it) } else { it })?;
            let key = object.key();
            self.permits.require_for(&call.caller, &call.tenant, &key, Verb::Put, Some(&object))?;
            keys.push(key);
            commands.push(match wanted.wish {
                v1::Wish::Put => Command::Put(object),
                v1::Wish::Create => Command::Create(object),
                v1::Wish::Change => Command::Change(object),
            });
        }
        let mut removed: BTreeSet<ObjectKey> =
            it.removed.iter().map(|it| Wanted::read(it)?.key(&call, &names)).collect::<Result<_, Status>>()?;
        removed.extend(pruned(&call.tenant, &it, &keys)?);
        for key in &removed {
            self.permits.require_for(&call.caller, &call.tenant, key, Verb::Remove, None)?;
        }
        commands.extend(removed.into_iter().map(Command::Remove));
        self.carry_out(call, &snapshot, commands, &keys, it.dry_run).await
    }

    pub(super) async fn carry_out(
        &self,
        call: AdminCall,
        snapshot: &Snapshot,
        commands: Vec<Command>,
        keys: &[ObjectKey],
        dry_run: bool,
    ) -> Result<v1::ApplyResponse, Status> {
        let refused = |it| if commands.len() > 1 { refused(&it) } else { rejected(&it.why) };
        let foreseen = foresee(snapshot, &call.caller.tenant, commands.iter().cloned());
        let (steps, after) = foreseen.map_err(refused)?;
        let after = after.tenant(&call.caller.tenant).cloned().unwrap_or_default();
        let differences = differences(&call.tenant, &after, &steps);
        if dry_run {
            return Ok(v1::ApplyResponse { position: snapshot.config, differences, objects: vec![] });
        }
        // Also when nothing differs: the expected position is looked at, and what
        // must follow an earlier try.
        let position = self.execute(&call, commands).await?;
        let (now, none) = (self.tenant(&call.caller), Statuses::new());
        let object = |key: &ObjectKey| now.get(key).map(|(object, version)| shown(&now, &object, version, &none));
        let objects = match keys.len() < RETURNED_MAX {
            true => keys.iter().filter_map(object).collect(),
            false => vec![],
        };
        Ok(v1::ApplyResponse { position, differences, objects })
    }

    /// What an object becomes when the fields that are given are written over it.
    async fn object(&self, call: &AdminCall, names: &Names, wanted: &Wanted) -> Result<Object, Status> {
        let id = names.id(call, wanted);
        let key = match &id {
            Some(id) => wanted.key_of_id(id).map_err(|_| resolve::missing("id", wanted.kind, id)),
            None => wanted.key_of_parts(call, names),
        };
        let key = key.map_err(invalid)?;
        let before = call.tenant.get(&key).map(|(object, _)| object);
        let mut fields = wanted.fields.clone();
        if before.is_none() && wanted.kind == KindName::App {
            super::apps::with_defaults(&mut fields, &call.tenant);
        }
        let mut resolve = |link: wire::Link<'_>| names.resolve(&call.tenant, link);
        let id = id.unwrap_or_default();
        let object = wire::from_json(wanted.kind, before.as_ref(), &fields, &id, &mut resolve).map_err(invalid)?;
        if let Object::App(app) = &object {
            for (external, _) in app.addresses() {
                self.domains(&call.caller).check(&call.tenant, &external.host).await?;
            }
        }
        Ok(object)
    }
}

/// One object of a request.
struct Wanted {
    kind: KindName,
    fields: Fields,
    wish: v1::Wish,
}

impl Wanted {
    fn read(it: &v1::ObjectFields) -> Result<Self, Status> {
        let bad = |problem: String| field(Code::InvalidArgument, "fields", &problem);
        let kind = kind(&it.kind)?;
        let fields = serde_json::from_str(&it.fields).map_err(|error| bad(format!("is no JSON object: {error}")))?;
        Ok(Self { kind, fields, wish: it.wish() })
    }

    fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.text(wire::name_field(self.kind))
    }

    /// As it was asked for, in errors.
    fn title(&self) -> String {
        let name = [self.name(), self.text("id")].into_iter().find(|it| !it.is_empty()).map(str::to_owned);
        let parts = || self.fields.values().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        format!("{} {}", self.kind.title(), name.unwrap_or_else(parts))
    }

    fn key_of_id(&self, id: &str) -> Parsed<ObjectKey> {
        let fields = Fields::from_iter([("id".to_owned(), id.into())]);
        wire::key_from_json(self.kind, &fields, &mut |_| Ok(()))
    }

    fn key_of_parts(&self, call: &AdminCall, names: &Names) -> Parsed<ObjectKey> {
        wire::key_from_json(self.kind, &self.fields, &mut |link| names.resolve(&call.tenant, link))
    }

    /// The key of something that is there.
    fn key(&self, call: &AdminCall, names: &Names) -> Result<ObjectKey, Status> {
        if wire::has_id(self.kind) {
            let text = if self.text("id").is_empty() { self.name() } else { self.text("id") };
            return crate::resolve::object(&call.tenant, self.kind, text).map_err(invalid);
        }
        self.key_of_parts(call, names).map_err(|it| about(&self.title(), &invalid(it)))
    }
}

/// Ids of the objects of a request, by kind and name in lower case.
struct Names(HashMap<(KindName, String), String>);

impl Names {
    fn of(call: &AdminCall, wanted: &[Wanted]) -> Result<Self, Status> {
        let mut names = Self(HashMap::new());
        for wanted in wanted.iter().filter(|it| wire::has_id(it.kind)) {
            if wanted.name().is_empty() && wanted.text("id").is_empty() {
                let name = wire::name_field(wanted.kind);
                return Err(field(Code::InvalidArgument, name, &format!("is missing in a {}", wanted.kind.title())));
            }
            if let Some(id) = names.id(call, wanted)
                && !wanted.name().is_empty()
            {
                names.0.insert((wanted.kind, wanted.name().to_lowercase()), id);
            }
        }
        Ok(names)
    }

    /// The id that was given, or of what has the name, or a new one.
    fn id(&self, call: &AdminCall, wanted: &Wanted) -> Option<String> {
        if !wire::has_id(wanted.kind) {
            return None;
        }
        let given = wanted.text("id");
        if !given.is_empty() {
            // A name may stand where an id is meant.
            let named = || call.tenant.named(wanted.kind, given).map(|it| it.subject().id);
            let id = uuid::Uuid::try_parse(given).map(|it| it.to_string()).ok();
            return Some(id.or_else(named).unwrap_or_else(|| given.to_owned()));
        }
        let name = wanted.name();
        let here = self.0.get(&(wanted.kind, name.to_lowercase())).cloned();
        // What is to be made is never what is there: its name would be taken.
        let is_new = wanted.wish == v1::Wish::Create;
        let there = || call.tenant.named(wanted.kind, name).filter(|_| !is_new).map(|it| it.subject().id);
        let new = || call.id_for(&format!("{} {name}", wanted.kind.as_str())).to_string();
        Some(here.or_else(there).unwrap_or_else(new))
    }

    /// Puts an id in place of a name, of this request or of what is there.
    fn resolve(&self, tenant: &Tenant, mut link: wire::Link<'_>) -> Parsed<()> {
        if link.is_empty_connector_group() {
            crate::bootstrap::DEFAULT_GROUP.clone_into(link.text);
        }
        if let Some((kind, name)) = link.target()
            && let Some(id) = self.0.get(&(kind, name.to_lowercase()))
        {
            link.put_id(id);
            return Ok(());
        }
        link.resolve(tenant).map_err(FieldError::from)
    }
}

/// What has all labels of a request, or is part of such an object, and is not in it.
fn pruned(tenant: &Tenant, it: &v1::ApplyRequest, kept: &[ObjectKey]) -> Result<Vec<ObjectKey>, Status> {
    if it.prune.is_empty() {
        return Ok(vec![]);
    }
    let mut kinds: BTreeSet<KindName> = kept.iter().map(ObjectKey::kind).collect();
    for name in &it.prune_kinds {
        kinds.insert(kind(name)?);
    }
    let kept: BTreeSet<&ObjectKey> = kept.iter().collect();
    let has = |key: &ObjectKey| tenant.get(key).is_some_and(|(object, _)| has_labels(&object, &it.prune));
    let is_meant = |object: &Object| match object.labels() {
        Some(_) => has_labels(object, &it.prune),
        None => object.refers_to().iter().any(|it| it.bond != Bond::Needs && has(&it.to)),
    };
    let all = kinds.iter().flat_map(|kind| tenant.objects(*kind, None)).map(|(object, _)| object);
    let meant: Vec<_> = all.filter(|object| !kept.contains(&object.key()) && is_meant(object)).collect();
    let keys: BTreeSet<_> = meant.iter().map(Object::key).collect();
    let lapses = |object: &Object| object.refers_to().iter().any(|it| it.bond == Bond::Lapses && keys.contains(&it.to));
    Ok(meant.into_iter().filter(|object| !lapses(object)).map(|it| it.key()).collect())
}

/// What a change comes to, an object a line, with names.
fn differences(before: &Arc<Tenant>, after: &Arc<Tenant>, steps: &[Step]) -> Vec<v1::Difference> {
    let mut last = BTreeMap::new();
    // What lapsed earlier was gone for everybody who looked.
    let is_seen = |event: &&Event| matches!(event, Event::Put(_)) || before.contains(&event.key());
    for event in steps.iter().flat_map(|step| &step.events).filter(is_seen) {
        last.insert(event.key(), event);
    }
    last.into_iter().map(|(key, event)| difference(before, after, &key, event)).collect()
}

pub(super) fn difference(before: &Tenant, after: &Tenant, key: &ObjectKey, event: &Event) -> v1::Difference {
    let was = before.get(key).map(|(object, _)| object);
    let (happened, is) = match (event, &was) {
        (Event::Put(object), None) => (v1::Happened::Created, Some(object)),
        (Event::Put(object), Some(_)) => (v1::Happened::Changed, Some(object)),
        (Event::Removed(_), _) => (v1::Happened::Removed, None),
    };
    let fields = match (&was, is) {
        (Some(was), Some(is)) => changed_fields(&named(before, was), &named(after, is)),
        _ => vec![],
    };
    let name = is.or(was.as_ref()).and_then(|it| it.name().map(str::to_owned));
    let names = if is.is_some() { after } else { before };
    let name = called(names, key, name.as_deref());
    v1::Difference { kind: key.kind().as_str().to_owned(), name, happened: happened.into(), fields }
}

pub(super) fn changed_fields(before: &Value, after: &Value) -> Vec<v1::FieldChange> {
    let empty = Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let fields: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let text = |value: Option<&Value>| value.map_or(String::new(), ToString::to_string);
    let differing = fields.into_iter().filter(|field| before.get(*field) != after.get(*field));
    let change = |field: &String| v1::FieldChange {
        field: field.clone(),
        before: text(before.get(field)),
        after: text(after.get(field)),
    };
    differing.map(change).collect()
}
