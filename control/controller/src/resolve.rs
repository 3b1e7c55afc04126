//! Administrators write names where ids are meant; here a name becomes an id.

use eventlog::wire::FieldError;
use model::{AppId, ConnectorGroupId, ConnectorId, KindName, ObjectKey, Tenant, UserId};
use uuid::Uuid;

type Found<T> = Result<T, FieldError>;

macro_rules! by_name_or_id {
    ($($name:ident -> $kind:ident($id:ident), $table:ident;)*) => {$(
        pub(crate) fn $name(tenant: &Tenant, field: &'static str, text: &str) -> Found<$id> {
            let by_id = Uuid::try_parse(text).ok().map($id).filter(|id| tenant.$table.contains_key(id));
            by_id.or_else(|| tenant.$table.named(text)).ok_or_else(|| missing(field, KindName::$kind, text))
        }
    )*};
}

by_name_or_id! {
    app -> App(AppId), apps;
    connector_group -> ConnectorGroup(ConnectorGroupId), connector_groups;
    connector -> Connector(ConnectorId), connectors;
    user -> User(UserId), users;
}

pub(crate) fn missing(field: &'static str, kind: KindName, text: &str) -> FieldError {
    let problem = format!("there is no {} {text:?}; list them, or check the spelling", kind.title());
    FieldError { field, problem }
}

/// An object of any kind that has an id or a name, or of which there is only one.
pub(crate) fn object(tenant: &Tenant, kind: KindName, text: &str) -> Found<ObjectKey> {
    let fields = serde_json::Map::from_iter([("id".to_owned(), text.into())]);
    let by_id = eventlog::wire::key_from_json(kind, &fields, &mut |_| Ok(())).ok();
    let alone = || eventlog::wire::key_from_json(kind, &Default::default(), &mut |_| Ok(())).ok();
    let by_id = by_id.filter(|key| tenant.contains(key)).or_else(|| tenant.named(kind, text));
    by_id
        .or_else(|| alone().filter(|key| tenant.contains(key) && text.is_empty()))
        .ok_or_else(|| missing("key", kind, text))
}
