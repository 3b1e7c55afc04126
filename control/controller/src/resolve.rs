//! Administrators write names where ids are meant; here a name becomes an id.

use eventlog::wire::FieldError;
use model::{AppId, ConnectorGroupId, ConnectorId, GroupId, PolicyId, Principal, Tenant, UserId};

type Found<T> = Result<T, FieldError>;

fn missing(field: &'static str, what: &str, text: &str) -> FieldError {
    FieldError { field, problem: format!("there is no {what} {text:?}; list them, or check the spelling") }
}

fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

pub(crate) fn app(tenant: &Tenant, field: &'static str, text: &str) -> Found<AppId> {
    let by_id = text.parse().ok().filter(|id| tenant.apps.contains_key(id));
    let by_name = || tenant.apps.values().find(|it| same(it.app.name.as_str(), text)).map(|it| it.app.id);
    by_id.or_else(by_name).ok_or_else(|| missing(field, "application", text))
}

pub(crate) fn connector_group(tenant: &Tenant, field: &'static str, text: &str) -> Found<ConnectorGroupId> {
    let by_id = text.parse().ok().filter(|id| tenant.groups.contains_key(id));
    let by_name = || tenant.groups.values().find(|it| same(it.name.as_str(), text)).map(|it| it.id);
    by_id.or_else(by_name).ok_or_else(|| missing(field, "connector group", text))
}

pub(crate) fn connector(tenant: &Tenant, field: &'static str, text: &str) -> Found<ConnectorId> {
    let by_id = text.parse().ok().filter(|id| tenant.connectors.contains_key(id));
    // Names of connectors may repeat; then only the id will do.
    let mut named = tenant.connectors.values().filter(|it| same(it.name.as_str(), text));
    let by_name = named.next().filter(|_| named.next().is_none()).map(|it| it.id);
    by_id.or(by_name).ok_or_else(|| missing(field, "connector (or more than one) called", text))
}

pub(crate) fn user(tenant: &Tenant, field: &'static str, text: &str) -> Found<UserId> {
    let by_id = text.parse().ok().filter(|id| tenant.users.contains_key(id));
    let by_name = || tenant.user_by_name(&text.to_lowercase()).map(|it| it.id);
    by_id.or_else(by_name).ok_or_else(|| missing(field, "user", text))
}

pub(crate) fn group(tenant: &Tenant, field: &'static str, text: &str) -> Found<GroupId> {
    let by_id = text.parse().ok().filter(|id| tenant.user_groups.contains_key(id));
    let by_name = || tenant.user_groups.values().find(|it| same(it.name.as_str(), text)).map(|it| it.id);
    by_id.or_else(by_name).ok_or_else(|| missing(field, "group", text))
}

pub(crate) fn policy(tenant: &Tenant, field: &'static str, text: &str) -> Found<PolicyId> {
    let by_id = text.parse().ok().filter(|id| tenant.policy(*id).is_some());
    let by_name = || tenant.policies.iter().find(|it| same(it.name.as_str(), text)).map(|it| it.id);
    by_id.or_else(by_name).ok_or_else(|| missing(field, "policy", text))
}

/// `user:NAME`, `group:NAME`, `everyone`, with ids in place of names if wished.
pub(crate) fn principal(tenant: &Tenant, field: &'static str, text: &str) -> Found<Principal> {
    match text.split_once(':') {
        None if text == "everyone" => Ok(Principal::Everyone),
        Some(("user", name)) => user(tenant, field, name).map(Principal::User),
        Some(("group", name)) => group(tenant, field, name).map(Principal::Group),
        None | Some(_) => {
            Err(FieldError { field, problem: format!("{text:?} is not user:NAME, group:NAME or everyone") })
        }
    }
}

pub(crate) fn principals(tenant: &Tenant, field: &'static str, texts: &[String]) -> Found<Vec<String>> {
    texts.iter().map(|text| principal(tenant, field, text).map(|it| it.to_string())).collect()
}

pub(crate) fn apps(tenant: &Tenant, field: &'static str, texts: &[String]) -> Found<Vec<String>> {
    texts.iter().map(|text| app(tenant, field, text).map(|it| it.to_string())).collect()
}
