//! Commands for policies: what they ask, and what they would do.

use admin_client::lists::by_name;
use anyhow::Context as _;
use proto::{names, v1};
use serde_json::json;

use super::Context;
use crate::{
    cli::{PolicyCommand, StateName},
    objects,
    output::{self, Format, say},
};

pub(super) async fn policy(it: &Context, command: PolicyCommand) -> anyhow::Result<()> {
    match command {
        PolicyCommand::List => objects::list(it, "policy").await,
        PolicyCommand::Create { name, block, require, include, exclude, app, network, exclude_network, state } => {
            let asked = require
                .iter()
                .map(|text| text.parse::<model::Requirement>().map_err(|it| anyhow::anyhow!("--require {text}: {it}")));
            let asked = asked.collect::<anyhow::Result<Vec<_>>>()?;
            let (require, sign_in_within_minutes) = eventlog::wire::controls_to(&asked);
            let policy = v1::Policy {
                name,
                state: state_of(state).into(),
                include,
                exclude,
                apps: app,
                networks: network,
                exclude_networks: exclude_network,
                block,
                require,
                sign_in_within_minutes,
                ..Default::default()
            };
            objects::create(it, "policy", serde_json::to_value(&policy)?).await
        }
        PolicyCommand::State { policy, state } => {
            let state = names::policy_state::name(state_of(state).into());
            objects::change(it, "policy", json!({ "id": policy, "state": state }), "changed").await
        }
        PolicyCommand::Remove { policy } => objects::remove(it, "policy", by_name(&policy), "removed").await,
        PolicyCommand::WhatIf { user, app, address, satisfied, mfa } => {
            let control = |name: &String| {
                let known = names::control::parse(&name.replace('-', "_"));
                known.with_context(|| format!("--satisfied {name}: known are mfa and sign-in-within"))
            };
            let mut satisfied = satisfied.iter().map(control).collect::<anyhow::Result<Vec<_>>>()?;
            satisfied.extend(mfa.then_some(i32::from(v1::Control::Mfa)));
            let request = v1::WhatIfRequest { user, app, address, satisfied };
            let answer = it.admin.policies().what_if(request).await?.into_inner();
            if it.format == Format::Json {
                return output::show(it.format, &answer);
            }
            say(&format!("{}: {}", answer.decision, answer.reason));
            output::list(it.format, &answer.policies, &["name", "state", "applies", "why"])
        }
    }
}

fn state_of(state: StateName) -> v1::PolicyState {
    match state {
        StateName::On => v1::PolicyState::On,
        StateName::Off => v1::PolicyState::Off,
        StateName::ReportOnly => v1::PolicyState::ReportOnly,
    }
}
