//! Objects of every kind: what there is, what becomes of it, what breaks a rule.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use eventlog::wire;
use futures_util::Stream;
use model::{KindName, Object, ObjectKey, Tenant};
use proto::v1::{self, objects_server::Objects};
use tonic::{Code, Request, Response, Status};

use super::{Admin, PAGE_SIZE, PAGE_SIZE_MAX, caller, watch};
use crate::{
    callers::Caller,
    errors::{field, invalid},
    permits::{Verb, app_of, owns},
    resolve,
};

#[tonic::async_trait]
impl Objects for Admin {
    async fn list_kinds(
        &self,
        _request: Request<v1::ListKindsRequest>,
    ) -> Result<Response<v1::ListKindsResponse>, Status> {
        let kind = |it: &KindName| v1::KindOfObject {
            name: it.as_str().to_owned(),
            title: it.title().to_owned(),
            plural: it.plural().to_owned(),
            name_field: wire::name_field(*it).to_owned(),
            read: self.permits.least(*it, Verb::Read),
            put: self.permits.least(*it, Verb::Put),
            remove: self.permits.least(*it, Verb::Remove),
        };
        Ok(Response::new(v1::ListKindsResponse { kinds: KindName::ALL.iter().map(kind).collect() }))
    }

    async fn get(&self, request: Request<v1::GetObjectRequest>) -> Result<Response<v1::Object>, Status> {
        let caller = caller(&request)?;
        let (tenant, it) = (self.tenant(&caller), request.into_inner());
        let kind = kind(&it.kind)?;
        let key = resolve::object(&tenant, kind, &it.key).map_err(invalid)?;
        self.require_read(&caller, &tenant, &key)?;
        let status = self.status(&caller, kind).await?;
        let (object, version) = tenant.get(&key).ok_or_else(|| Status::not_found("the object is gone"))?;
        Ok(Response::new(shown(&tenant, &object, version, &status)))
    }

    async fn list(
        &self,
        request: Request<v1::ListObjectsRequest>,
    ) -> Result<Response<v1::ListObjectsResponse>, Status> {
        let caller = caller(&request)?;
        let (tenant, it) = (self.tenant(&caller), request.into_inner());
        let kind = kind(&it.kind)?;
        let all = self.permits.permits(&caller, kind, Verb::Read);
        if !all {
            self.permits.require_any(&caller, &tenant, kind, Verb::Read)?;
        }
        let (size, after) = page(kind, it.page.unwrap_or_default())?;
        let status = self.status(&caller, kind).await?;
        let matches = |object: &v1::Object| it.contains.is_empty() || object.named.contains(&it.contains);
        let objects = tenant.objects(kind, after.as_ref()).filter(|(object, _)| {
            has_labels(object, &it.labels) && (all || self.owned(&caller, &tenant, &object.key()))
        });
        let mut objects: Vec<_> = objects
            .map(|(object, version)| (object.key(), shown(&tenant, &object, version, &status)))
            .filter(|(_, object)| matches(object))
            .take(size + 1)
            .collect();
        let more = objects.len() > size;
        objects.truncate(size);
        let next = objects.last().filter(|_| more).map(|(key, _)| wire::key_to_json(key, &mut |_| {}).to_string());
        let objects = objects.into_iter().map(|(_, object)| object).collect();
        Ok(Response::new(v1::ListObjectsResponse { objects, next_page_token: next.unwrap_or_default() }))
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        self.apply_objects(call, it).await.map(Response::new)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::ObjectChange, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner().kinds;
        let kinds = match asked.is_empty() {
            true => KindName::ALL.to_vec(),
            false => asked.iter().map(|it| kind(it)).collect::<Result<_, _>>()?,
        };
        let readable: Vec<_> =
            kinds.into_iter().filter(|kind| self.permits.permits(&caller, *kind, Verb::Read)).collect();
        if readable.is_empty() {
            return Err(Status::permission_denied("none of these kinds may be read with your role; ask an owner"));
        }
        Ok(Response::new(Box::pin(watch::changes(self.clone(), caller, readable))))
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Result<Response<v1::AuditResponse>, Status> {
        let tenant = self.tenant(&caller(&request)?);
        let all = KindName::ALL.iter().flat_map(|kind| tenant.objects(*kind, None));
        let findings = all.filter_map(|(object, _)| finding(&tenant, &object)).collect();
        Ok(Response::new(v1::AuditResponse { findings }))
    }
}

impl Admin {
    fn require_read(&self, caller: &Caller, tenant: &Tenant, key: &ObjectKey) -> Result<(), Status> {
        match self.owned(caller, tenant, key) {
            true => Ok(()),
            false => self.permits.require(caller, key.kind(), Verb::Read),
        }
    }

    /// Is it an application of the caller, or part of one?
    fn owned(&self, caller: &Caller, tenant: &Tenant, key: &ObjectKey) -> bool {
        app_of(key).and_then(|id| tenant.app(id)).is_some_and(|app| owns(caller, tenant, app))
    }
}

pub(super) fn kind(name: &str) -> Result<KindName, Status> {
    KindName::parse(name).ok_or_else(|| {
        let known: Vec<_> = KindName::ALL.iter().map(|it| it.as_str()).collect();
        field(Code::InvalidArgument, "kind", &format!("{name:?} is no kind of object; known: {}", known.join(", ")))
    })
}

/// What is known of objects besides what administrators said, by key.
pub(super) type Statuses = BTreeMap<ObjectKey, serde_json::Value>;

pub(super) fn shown(tenant: &Arc<Tenant>, object: &Object, version: u64, status: &Statuses) -> v1::Object {
    let key = object.key();
    v1::Object {
        kind: key.kind().as_str().to_owned(),
        key: key.subject().id,
        name: object.name().unwrap_or_default().to_owned(),
        fields: wire::to_json(object, &mut |_| {}).to_string(),
        named: named(tenant, object).to_string(),
        version,
        status: status.get(&key).map_or(String::new(), ToString::to_string),
    }
}

/// The fields of an object, with names in place of ids.
pub(super) fn named(tenant: &Tenant, object: &Object) -> serde_json::Value {
    wire::to_json(object, &mut |link| link.name(tenant))
}

pub(super) fn has_labels(object: &Object, wanted: &BTreeMap<String, String>) -> bool {
    let has = |(name, value): (&String, &String)| object.labels().is_some_and(|it| it.get(name) == Some(value));
    wanted.iter().all(has)
}

/// How people call an object: by its name, or by what its key is made of.
pub(super) fn called(tenant: &Tenant, key: &ObjectKey, name: Option<&str>) -> String {
    if let Some(name) = name {
        return name.to_owned();
    }
    let fields = wire::key_to_json(key, &mut |link| link.name(tenant));
    let values = fields.as_object().map(|it| it.values().filter_map(|it| it.as_str()).collect::<Vec<_>>());
    values.filter(|it| !it.is_empty()).map_or_else(|| key.subject().id, |it| it.join(" "))
}

/// Objects on a page, and the key of the last one before it.
fn page(kind: KindName, page: v1::Page) -> Result<(usize, Option<ObjectKey>), Status> {
    let size = match page.size as usize {
        0 => PAGE_SIZE,
        size if size <= PAGE_SIZE_MAX => size,
        _ => return Err(field(Code::InvalidArgument, "page.size", "is 1,000 at most")),
    };
    if page.token.is_empty() {
        return Ok((size, None));
    }
    let bad = || field(Code::InvalidArgument, "page.token", "is the next_page_token of the page before");
    let fields = serde_json::from_str(&page.token).map_err(|_| bad())?;
    let after = wire::key_from_json(kind, &fields, &mut |_| Ok(())).map_err(|_| bad())?;
    Ok((size, Some(after)))
}

/// Why an object could not be written today.
fn finding(tenant: &Tenant, object: &Object) -> Option<v1::Finding> {
    let (field, problem) = match object.check() {
        Err(broken) => (broken.field.to_owned(), broken.problem.to_owned()),
        Ok(()) => {
            let missing = object.refers_to().into_iter().find(|it| !tenant.contains(&it.to))?;
            let (kind, id) = (missing.to.kind(), missing.to.subject().id);
            (kind.as_str().to_owned(), format!("names the {} {id}, which does not exist", kind.title()))
        }
    };
    let key = object.key();
    let name = called(tenant, &key, object.name());
    Some(v1::Finding { kind: key.kind().as_str().to_owned(), name, field, problem })
}
