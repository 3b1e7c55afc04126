//! The portal: what a user may open. Its user is whoever the relay asserts.

use http::HeaderMap;
use model::{App, Tenant, hosts::port_suffix};
use tokens::{TokenFaults, TokenKind};

use crate::{
    current::Current,
    keys::verify_assertion,
    pages::{Answer, Page, Tile},
};

pub(crate) struct Portal {
    pub current: Current,
    /// Counts assertions that are refused.
    pub faults: TokenFaults,
}

impl Portal {
    pub(crate) fn page(&self, headers: &HeaderMap, port: Option<u16>) -> Answer {
        let tenant = self.current.tenant();
        let audience = format!("https://{}/", tenant.hosts().portal());
        let assertion = headers.get("postern-assertion").and_then(|it| it.to_str().ok());
        let verified = assertion.map(|it| verify_assertion(&tenant, &audience, it, self.current.now()));
        let user = verified.and_then(|it| self.faults.noted(TokenKind::Assertion, it).ok());
        let Some(user) = user.and_then(|id| tenant.active_user(id)) else {
            return Answer::error("Please sign in", "Open this page again to sign in.").unauthorized();
        };
        let name = match user.display_name.is_empty() {
            true => user.username.as_str().to_owned(),
            false => user.display_name.to_string(),
        };
        let tiles = tiles(&tenant, user.id, port);
        Answer::page(Page::portal(name, tiles, "/.postern/signout".to_owned()))
    }
}

fn home(app: &App) -> &str {
    match app.http_rules.home_path.as_str() {
        "/" => &app.external.path,
        chosen => chosen,
    }
}

fn tiles(tenant: &Tenant, user: model::UserId, port: Option<u16>) -> Vec<Tile> {
    let groups = tenant.groups_of(user);
    let port = port.map_or(String::new(), port_suffix);
    let mut tiles: Vec<Tile> = tenant
        .apps
        .values()
        // A wildcard is no place to go to.
        .filter(|app| !app.hidden && !app.external.is_wildcard() && tenant.is_assigned(app.id, user, &groups))
        .map(|app| Tile {
            name: app.name.to_string(),
            url: format!("https://{}{port}{}", app.external.host, home(app)),
            initial: app.name.as_str().chars().take(1).flat_map(char::to_uppercase).collect(),
        })
        .collect();
    tiles.sort_by_key(|tile| tile.name.to_lowercase());
    tiles
}
