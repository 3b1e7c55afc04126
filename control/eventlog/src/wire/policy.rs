//! Policies on the wire.

use std::collections::BTreeSet;

use model::{
    AppId, Policy, Principal,
    policy::{Grant, Minutes, Requirement, Scope, Selection, State},
    text::Name,
};
use proto::v1;

use super::{Happened, Link, Parsed, Words, bad, parse, parse_all, parse_networks, strings};

impl Words for Policy {
    type Message = v1::Policy;
    const PAST: &'static [(&'static str, Happened)] =
        &[("PolicyCreated", Happened::Put), ("PolicyChanged", Happened::Put), ("PolicyRemoved", Happened::Removed)];

    fn to_wire(&self) -> v1::Policy {
        let (block, controls, require_any) = match &self.grant {
            Grant::Block => (true, &BTreeSet::new(), false),
            Grant::RequireAll(controls) => (false, controls, false),
            Grant::RequireAny(controls) => (false, controls, true),
        };
        v1::Policy {
            id: self.id.to_string(),
            name: self.name.to_string(),
            state: policy_state_to(self.state).into(),
            include: listed(&self.people),
            include_scope: scope_to(&self.people).into(),
            exclude: strings(&self.people.except),
            apps: listed(&self.apps),
            apps_scope: scope_to(&self.apps).into(),
            exclude_apps: strings(&self.apps.except),
            networks: listed(&self.networks),
            networks_scope: scope_to(&self.networks).into(),
            exclude_networks: strings(&self.networks.except),
            block,
            require: controls.iter().map(|it| control_to(*it).into()).collect(),
            sign_in_within_minutes: controls.iter().find_map(minutes_of).unwrap_or_default(),
            require_any,
            labels: self.labels.clone(),
        }
    }

    fn from_wire(wire: v1::Policy) -> Parsed<Self> {
        let state = match wire.state() {
            v1::PolicyState::On => State::On,
            v1::PolicyState::Off => State::Off,
            v1::PolicyState::ReportOnly => State::ReportOnly,
        };
        let controls = wire
            .require()
            .map(|control| match control {
                v1::Control::Mfa => Ok(Requirement::Mfa),
                v1::Control::SignInWithin => {
                    Ok(Requirement::SignInWithin(Minutes::recorded(wire.sign_in_within_minutes)))
                }
                v1::Control::Unspecified => Err(bad("require", "has an unknown control; known: mfa, sign_in_within")),
            })
            .collect::<Parsed<BTreeSet<_>>>()?;
        if wire.sign_in_within_minutes != 0 && !controls.iter().any(|it| minutes_of(it).is_some()) {
            return Err(bad("sign_in_within_minutes", "goes with sign_in_within in require"));
        }
        let grant = match (wire.block, controls.is_empty(), wire.require_any) {
            (true, true, _) => Grant::Block,
            (true, false, _) => return Err(bad("block", "cannot be combined with require; make two policies")),
            (false, true, _) => return Err(bad("require", "is empty: say block, or what to require")),
            (false, false, true) => Grant::RequireAny(controls),
            (false, false, false) => Grant::RequireAll(controls),
        };
        let scopes = (wire.include_scope(), wire.apps_scope(), wire.networks_scope());
        let (include_scope, apps_scope, networks_scope) = scopes;
        let include: Vec<Principal> = parse_all("include", &wire.include)?;
        let apps: Vec<AppId> = parse_all("apps", &wire.apps)?;
        Ok(Self {
            id: parse("id", &wire.id)?,
            name: Name::recorded(&wire.name),
            state,
            people: Selection {
                scope: people_scope(scope_from("include_scope", include_scope, include)?),
                except: parse_all("exclude", &wire.exclude)?,
            },
            apps: Selection {
                scope: scope_from("apps_scope", apps_scope, apps)?,
                except: parse_all("exclude_apps", &wire.exclude_apps)?,
            },
            networks: Selection {
                scope: scope_from("networks_scope", networks_scope, parse_networks("networks", &wire.networks)?)?,
                except: parse_networks("exclude_networks", &wire.exclude_networks)?.into_iter().collect(),
            },
            grant,
            labels: wire.labels,
        })
    }

    fn key_to_wire(key: &Self::Key) -> v1::Policy {
        v1::Policy { id: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::Policy) -> Parsed<Self::Key> {
        parse("id", &wire.id)
    }

    fn id(wire: &mut v1::Policy) -> Option<&mut String> {
        Some(&mut wire.id)
    }

    fn links(wire: &mut v1::Policy) -> Vec<Link<'_>> {
        let people = [("include", &mut wire.include), ("exclude", &mut wire.exclude)];
        let apps = [("apps", &mut wire.apps), ("exclude_apps", &mut wire.exclude_apps)];
        let people =
            people.into_iter().flat_map(|(field, list)| list.iter_mut().map(move |it| Link::principal(field, it)));
        people
            .chain(apps.into_iter().flat_map(|(field, list)| list.iter_mut().map(move |it| Link::app(field, it))))
            .collect()
    }
}

pub fn policy_state_to(state: State) -> v1::PolicyState {
    match state {
        State::On => v1::PolicyState::On,
        State::Off => v1::PolicyState::Off,
        State::ReportOnly => v1::PolicyState::ReportOnly,
    }
}

pub fn control_to(requirement: Requirement) -> v1::Control {
    match requirement {
        Requirement::Mfa => v1::Control::Mfa,
        Requirement::SignInWithin(_) => v1::Control::SignInWithin,
    }
}

/// The fields `require` and `sign_in_within_minutes`.
pub fn controls_to<'a>(asked: impl IntoIterator<Item = &'a Requirement>) -> (Vec<i32>, u32) {
    let asked: BTreeSet<_> = asked.into_iter().copied().collect();
    let minutes = asked.iter().find_map(minutes_of).unwrap_or_default();
    (asked.iter().map(|it| control_to(*it) as i32).collect(), minutes)
}

fn minutes_of(requirement: &Requirement) -> Option<u32> {
    match requirement {
        Requirement::Mfa => None,
        Requirement::SignInWithin(within) => Some(within.get()),
    }
}

fn listed<T: ToString>(selection: &Selection<T>) -> Vec<String> {
    selection.scope.listed().map(ToString::to_string).collect()
}

/// All is an empty list without a mark, so that naming somebody narrows it.
fn scope_to<T>(selection: &Selection<T>) -> v1::Scope {
    match &selection.scope {
        Scope::All => v1::Scope::Unspecified,
        Scope::Only(_) => v1::Scope::Only,
    }
}

fn scope_from<T: Ord>(field: &'static str, scope: v1::Scope, list: impl IntoIterator<Item = T>) -> Parsed<Scope<T>> {
    let list: BTreeSet<T> = list.into_iter().collect();
    match (scope, list.is_empty()) {
        (v1::Scope::Unspecified | v1::Scope::All, true) => Ok(Scope::All),
        (v1::Scope::All, false) => Err(bad(field, "says all, and the list names some: empty it, or say only")),
        (v1::Scope::Unspecified, false) | (v1::Scope::Only, _) => Ok(Scope::Only(list)),
    }
}

/// A list with `everyone` in it says all.
fn people_scope(scope: Scope<Principal>) -> Scope<Principal> {
    let names_everyone = scope.listed().any(|it| *it == Principal::Everyone);
    match names_everyone {
        true => Scope::All,
        false => scope,
    }
}
