//! What-if: what policies would decide about a user and an application, and why.

use eventlog::wire;
use model::{
    Facts, Policy, Tenant, Timestamp,
    policy::{Denied, Obstacle, Requirement, SignedIn, State},
};
use proto::v1::{self, policies_server::Policies};
use tonic::{Code, Request, Response, Status};

use super::{Admin, caller};
use crate::{
    errors::{field, invalid},
    resolve,
};

#[tonic::async_trait]
impl Policies for Admin {
    async fn what_if(&self, request: Request<v1::WhatIfRequest>) -> Result<Response<v1::WhatIfResponse>, Status> {
        let tenant = self.tenant(&caller(&request)?);
        let it = request.into_inner();
        let user = resolve::user(&tenant, "user", &it.user).map_err(invalid)?;
        let app = resolve::app(&tenant, "app", &it.app).map_err(invalid)?;
        let address = it.address.parse();
        let address = address.map_err(|_| field(Code::InvalidArgument, "address", "is an IP address"))?;
        let groups = tenant.groups_of(user);
        let shown = |control: v1::Control| it.satisfied.contains(&control.into());
        let satisfied = shown(v1::Control::Mfa).then_some(Requirement::Mfa).into_iter().collect();
        // A sign-in that satisfies is one of this moment.
        let now = Timestamp(0);
        let at = shown(v1::Control::SignInWithin).then_some(now);
        let who = SignedIn { user, groups: &groups, satisfied: &satisfied, at };
        let facts = Facts::new(app, address, Some(who), now);
        Ok(Response::new(what_if(&tenant, &facts)))
    }
}

/// The same judge that relays ask, with an explanation of every policy.
fn what_if(tenant: &Tenant, facts: &Facts<'_>) -> v1::WhatIfResponse {
    let (decision, missing, reason) = match tenant.authorize(facts) {
        Ok(_) => ("grant", vec![], "assigned, and every policy is satisfied".to_owned()),
        Err(Denied::NotAssigned) => ("deny", vec![], "the user is not assigned to the application".to_owned()),
        Err(Denied::Blocked { by, .. }) => {
            let name = tenant.policies.get(&by).map_or(String::new(), |it| it.name.to_string());
            ("deny", vec![], format!("policy {name} blocks"))
        }
        Err(Denied::Challenged { missing, .. }) => {
            let controls = missing.iter().map(|it| wire::control_to(*it).into()).collect();
            ("challenge", controls, format!("the user is asked for {}", Requirement::named(&missing)))
        }
    };
    let policies = tenant.policies.values().map(|it| explain(it, facts)).collect();
    v1::WhatIfResponse { decision: decision.to_owned(), missing, policies, reason }
}

fn explain(policy: &Policy, facts: &Facts<'_>) -> v1::PolicyExplanation {
    let obstacle = policy.obstacle(facts);
    let why = match (policy.state, obstacle) {
        (State::Off, _) => "is off".to_owned(),
        (_, Some(Obstacle::OtherApplication)) => "is for other applications".to_owned(),
        (_, Some(Obstacle::ExcludedApplication)) => "excludes this application".to_owned(),
        (_, Some(Obstacle::OtherUser)) => "is for other people".to_owned(),
        (_, Some(Obstacle::ExcludedUser)) => "excludes this user".to_owned(),
        (_, Some(Obstacle::OtherNetwork)) => "is for other networks".to_owned(),
        (_, Some(Obstacle::ExcludedNetwork)) => "excludes this network".to_owned(),
        (_, None) => policy.grant.asks(),
    };
    v1::PolicyExplanation {
        id: policy.id.to_string(),
        name: policy.name.to_string(),
        state: wire::policy_state_to(policy.state).into(),
        applies: policy.state != State::Off && obstacle.is_none(),
        why,
    }
}
