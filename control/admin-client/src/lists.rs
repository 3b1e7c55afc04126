//! Lists of the admin API, read to their last page.

use proto::v1;
use tonic::Status;

use crate::Admin;

/// What a controller gives at most.
const PAGE_SIZE: u32 = 1000;

macro_rules! all {
    ($($name:ident => $service:ident, $field:ident, $item:ty);* $(;)?) => {$(
        /// Every page of the list.
        pub async fn $name(admin: &Admin) -> Result<Vec<$item>, Status> {
            let mut all = Vec::new();
            let mut token = String::new();
            loop {
                let page = Some(v1::Page { size: PAGE_SIZE, token });
                let answer = admin.$service().list(v1::ListRequest { page }).await?.into_inner();
                all.extend(answer.$field);
                if answer.next_page_token.is_empty() {
                    return Ok(all);
                }
                token = answer.next_page_token;
            }
        }
    )*};
}

all! {
    all_apps => applications, apps, v1::App;
    all_connector_groups => connector_groups, groups, v1::ConnectorGroup;
    all_users => users, users, v1::User;
    all_groups => groups, groups, v1::Group;
    all_policies => policies, policies, v1::Policy;
    all_certificates => certificates, certificates, v1::Certificate;
}
