//! Assignments and policies: who may reach what.

use std::collections::BTreeSet;

use eventlog::wire;
use model::{
    Command, Decision, Facts, Policy, Tenant,
    policy::{self, Control, Denied, Obstacle, State},
};
use proto::v1::{self, assignments_server::Assignments, policies_server::Policies};
use tonic::{Code, Request, Response, Status};

use super::{Admin, Call, caller, page};
use crate::{
    errors::{field, invalid},
    resolve,
};

#[tonic::async_trait]
impl Assignments for Admin {
    async fn assign(&self, request: Request<v1::AssignmentRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let (app, principal) = assignment(&call, it.assignment)?;
        self.change(&call, Command::Assign { app, principal }).await
    }

    async fn unassign(&self, request: Request<v1::AssignmentRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let (app, principal) = assignment(&call, it.assignment)?;
        self.change(&call, Command::Unassign { app, principal }).await
    }

    async fn list(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::ListAssignmentsResponse>, Status> {
        let tenant = self.tenant(&caller(&request)?);
        let app = resolve::app(&tenant, "id", &request.get_ref().id).map_err(invalid)?;
        let of_app =
            |principal: &model::Principal| v1::Assignment { app: app.to_string(), principal: principal.to_string() };
        let assignments = tenant.assigned(app).into_iter().flatten().map(of_app).collect();
        Ok(Response::new(v1::ListAssignmentsResponse { assignments }))
    }
}

pub(super) fn assignment(
    call: &Call,
    wire: Option<v1::Assignment>,
) -> Result<(model::AppId, model::Principal), Status> {
    let wire = wire.unwrap_or_default();
    let app = resolve::app(&call.tenant, "assignment.app", &wire.app).map_err(invalid)?;
    let principal = resolve::principal(&call.tenant, "assignment.principal", &wire.principal).map_err(invalid)?;
    Ok((app, principal))
}

#[tonic::async_trait]
impl Policies for Admin {
    async fn create(&self, request: Request<v1::PutPolicyRequest>) -> Result<Response<v1::PolicyResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let mut wire = it.policy.unwrap_or_default();
        wire.id = call.id_or_new(&wire.id, "policy")?;
        let policy = parse(&call.tenant, wire)?;
        let answer = wire::policy_to(&policy);
        let position = self.execute(&call, vec![Command::CreatePolicy(policy)]).await?;
        Ok(Response::new(v1::PolicyResponse { policy: Some(answer), position }))
    }

    async fn update(&self, request: Request<v1::PutPolicyRequest>) -> Result<Response<v1::PolicyResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let mut wire = it.policy.unwrap_or_default();
        wire.id = resolve::policy(&call.tenant, "id", &wire.id).map_err(invalid)?.to_string();
        let policy = parse(&call.tenant, wire)?;
        let answer = wire::policy_to(&policy);
        let position = self.execute(&call, vec![Command::ChangePolicy(policy)]).await?;
        Ok(Response::new(v1::PolicyResponse { policy: Some(answer), position }))
    }

    async fn remove(&self, request: Request<v1::RemovePolicyRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let policy = resolve::policy(&call.tenant, "id", &it.id).map_err(invalid)?;
        self.change(&call, Command::RemovePolicy(policy)).await
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        let tenant = self.tenant(&caller(&request)?);
        let all = tenant.policies.iter().map(|it| wire::policy_to(it));
        let (policies, next_page_token) = page(request.into_inner().page, all, |it| it.id.clone())?;
        Ok(Response::new(v1::ListPoliciesResponse { policies, next_page_token }))
    }

    async fn what_if(&self, request: Request<v1::WhatIfRequest>) -> Result<Response<v1::WhatIfResponse>, Status> {
        let tenant = self.tenant(&caller(&request)?);
        let it = request.into_inner();
        let user = resolve::user(&tenant, "user", &it.user).map_err(invalid)?;
        let app = resolve::app(&tenant, "app", &it.app).map_err(invalid)?;
        let address = it.address.parse();
        let address = address.map_err(|_| field(Code::InvalidArgument, "address", "is an IP address"))?;
        let groups = tenant.groups_of(user);
        let satisfied = if it.mfa { BTreeSet::from([Control::Mfa]) } else { BTreeSet::new() };
        let facts = Facts { app, user: Some(user), groups: &groups, address, satisfied: &satisfied };
        Ok(Response::new(what_if(&tenant, &facts)))
    }
}

pub(super) fn parse(tenant: &Tenant, mut wire: v1::Policy) -> Result<Policy, Status> {
    wire.include = resolve::principals(tenant, "include", &wire.include).map_err(invalid)?;
    wire.exclude = resolve::principals(tenant, "exclude", &wire.exclude).map_err(invalid)?;
    wire.apps = resolve::apps(tenant, "apps", &wire.apps).map_err(invalid)?;
    wire.exclude_apps = resolve::apps(tenant, "exclude_apps", &wire.exclude_apps).map_err(invalid)?;
    wire::policy_from(wire).map_err(invalid)
}

/// The same judge that relays ask, with an explanation of every policy.
fn what_if(tenant: &Tenant, facts: &Facts<'_>) -> v1::WhatIfResponse {
    let (decision, missing, reason) = match policy::authorize(tenant, facts) {
        Ok(_) => ("grant", vec![], "assigned, and every policy is satisfied".to_owned()),
        Err(Denied::NotAssigned) => ("deny", vec![], "the user is not assigned to the application".to_owned()),
        Err(Denied::Policy(verdict)) => match verdict.decision {
            Decision::Deny(id) => {
                let name = tenant.policy(id).map_or(String::new(), |it| it.name.to_string());
                ("deny", vec![], format!("policy {name} blocks"))
            }
            Decision::Challenge(missing) => {
                let controls = missing.iter().map(|it| wire::control_to(*it).into()).collect();
                ("challenge", controls, "the user is asked for more proof".to_owned())
            }
            Decision::Grant => ("grant", vec![], String::new()),
        },
    };
    let policies = tenant.policies.iter().map(|it| explain(it, facts)).collect();
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
