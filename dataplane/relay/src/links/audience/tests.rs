//! Who is told of a change, and who is not.

use std::time::Instant;

use model::{
    App, Connector, Event, JoinTokenId, Object, ObjectKey,
    app::{ExternalUrl, Name, Origin},
    kinds::TenantSettings,
};
use uuid::Uuid;

use super::*;

/// A log that is folded by hand, and an audience that hears of it.
struct World {
    view: View,
    audience: Arc<Audience>,
    version: u64,
}

const GROUPS: u128 = 4;

fn app_id(n: u128) -> AppId {
    AppId(Uuid::from_u128(n))
}

fn group(n: u128) -> ConnectorGroupId {
    ConnectorGroupId(Uuid::from_u128(n))
}

fn app(n: u128, of: u128) -> App {
    let external = ExternalUrl::parse(&format!("https://a{n}.example.com/")).unwrap();
    let origin = Origin::parse("http://10.0.0.1:8080").unwrap();
    App::new(app_id(n), Name::parse(&format!("app {n}")).unwrap(), external, origin, group(of))
}

fn connector(n: u128, of: u128, revoked: bool) -> Connector {
    Connector {
        id: ConnectorId(Uuid::from_u128(n)),
        name: Name::parse("c").unwrap(),
        group: group(of),
        public_key: vec![],
        join_token: JoinTokenId(Uuid::from_u128(n)),
        revoked,
    }
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a view says when it was confirmed")]
    fn new() -> Self {
        let view = View {
            snapshot: Arc::default(),
            confirmed: Instant::now(),
            quarantine: None,
            signed_apps: Arc::default(),
            signed_tenants: Arc::default(),
            signed_keys: Arc::default(),
        };
        Self { view, audience: Arc::default(), version: 0 }
    }

    /// Nobody is told before `tell`.
    fn happens(&mut self, event: Event) {
        self.version += 1;
        let signed = |what: String| Bytes::from(format!("{} {what}", self.version));
        let tenant = TenantId::default_tenant();
        if let Event::Put(Object::App(app)) = &event {
            let signed = signed(format!("{} {}", app.id, app.group));
            Arc::make_mut(&mut self.view.signed_apps).insert(app.id, signed);
        } else if let Event::Removed(ObjectKey::App(id)) = &event {
            Arc::make_mut(&mut self.view.signed_apps).insert(*id, signed(format!("{id} retired")));
        } else if let Event::Put(Object::TenantSettings(_)) = &event {
            Arc::make_mut(&mut self.view.signed_tenants).insert(tenant.clone(), signed("tenant".into()));
        } else if let Event::Removed(ObjectKey::Key(id)) = &event {
            let keys = Arc::make_mut(&mut self.view.signed_keys).entry(tenant.clone()).or_default();
            Arc::make_mut(keys).insert(id.clone(), signed(format!("{id} retired")));
        }
        Arc::make_mut(&mut self.view.snapshot).apply(&tenant, event, self.version);
    }

    fn tell(&self) {
        self.audience.tell(&self.view);
    }

    fn link(&self, of: u128) -> LinkOf {
        let news = self.audience.of_group(&TenantId::default_tenant(), group(of));
        LinkOf { group: group(of), news, told: GroupNews::default(), knows: BTreeMap::new() }
    }

    fn signed(&self, id: AppId) -> Bytes {
        self.view.signed_apps.get(&id).unwrap().clone()
    }
}

/// A link, and what its connector has been sent.
struct LinkOf {
    group: ConnectorGroupId,
    news: watch::Receiver<GroupNews>,
    told: GroupNews,
    /// By application: in which group it is.
    knows: BTreeMap<String, String>,
}

impl LinkOf {
    fn hears(&mut self) -> Vec<Bytes> {
        let news = self.news.borrow_and_update().clone();
        let apps = news.apps_since(&self.told);
        self.told = news;
        for signed in &apps {
            let words: Vec<_> = std::str::from_utf8(signed).unwrap().split(' ').map(str::to_owned).collect();
            self.knows.insert(words[1].clone(), words[2].clone());
        }
        apps
    }
}

#[test]
fn a_change_wakes_the_links_of_its_group_and_no_others() {
    let mut world = World::new();
    for n in 0..100 {
        world.happens(Event::put(app(n, n % GROUPS)));
    }
    world.tell();
    let (mut one, mut other) = (world.link(1), world.link(2));
    assert_eq!((one.hears().len(), other.hears().len()), (25, 25), "all there is, at the beginning");
    world.happens(Event::put(app(1, 1)));
    world.tell();
    assert!(one.news.has_changed().unwrap() && !other.news.has_changed().unwrap());
    assert_eq!(one.hears(), [world.signed(app_id(1))]);
    // Nor does anything that is no application.
    world.happens(Event::put(connector(7, 1, false)));
    world.tell();
    assert!(!one.news.has_changed().unwrap() && !other.news.has_changed().unwrap());
    // What moves is told to both, what retires to those who had it.
    world.happens(Event::put(app(1, 2)));
    world.happens(Event::Removed(ObjectKey::App(app_id(5))));
    world.tell();
    assert_eq!(one.hears(), [world.signed(app_id(1)), world.signed(app_id(5))]);
    assert_eq!(other.hears(), [world.signed(app_id(1))]);
}

#[test]
fn every_link_knows_what_a_walk_over_all_applications_would_tell_it() {
    let mut world = World::new();
    let mut links: Vec<LinkOf> = Vec::new();
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |max: u128| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u128::from(dice >> 33) % max
    };
    for step in 0..2_000 {
        let n = below(60);
        let published =
            world.view.snapshot.tenant(&TenantId::default_tenant()).is_some_and(|it| it.app(app_id(n)).is_some());
        match (published, below(4)) {
            (true, 0) => world.happens(Event::Removed(ObjectKey::App(app_id(n)))),
            (true, _) => world.happens(Event::put(app(n, below(GROUPS)))),
            (false, _) => world.happens(Event::put(app(n, below(GROUPS)))),
        }
        // Views come together, and links come and go.
        if below(3) == 0 {
            world.tell();
        }
        if step % 50 == 0 {
            world.tell();
            links.push(world.link(below(GROUPS)));
        }
        for link in &mut links {
            if below(2) == 0 {
                link.hears();
            }
        }
    }
    world.tell();
    let tenant = world.view.snapshot.tenant(&TenantId::default_tenant()).unwrap().clone();
    assert!(tenant.apps.len() > 20);
    for link in &mut links {
        link.hears();
        let mine = link.group.to_string();
        let here = tenant.apps.values().filter(|it| it.group == link.group).map(|it| it.id.to_string());
        let known = link.knows.iter().filter(|(_, group)| **group == mine).map(|(id, _)| id.clone());
        assert_eq!(known.collect::<Vec<_>>(), here.collect::<Vec<_>>());
        let told: Vec<_> = link.told.apps.iter().map(|(id, signed)| (*id, signed.clone())).collect();
        assert!(told.iter().all(|(id, signed)| *signed == world.signed(*id)), "and as it is now");
    }
}

#[tokio::test]
async fn a_connector_is_welcome_until_it_is_revoked_or_moves() {
    let mut world = World::new();
    let of_connector =
        |world: &World, n| world.audience.of_connector(&TenantId::default_tenant(), ConnectorId(Uuid::from_u128(n)));
    let over = async |membership: &mut Membership, n| {
        tokio::select! {
            biased;
            () = membership.ends(group(n)) => true,
            () = std::future::ready(()) => false,
        }
    };
    world.happens(Event::put(connector(1, 1, false)));
    world.tell();
    let (mut mine, mut twin, mut stranger) =
        (of_connector(&world, 1), of_connector(&world, 1), of_connector(&world, 2));
    assert!(!over(&mut mine, 1).await);
    assert!(over(&mut stranger, 1).await, "nobody enrolled it");
    world.happens(Event::put(connector(2, 1, false)));
    world.tell();
    assert!(!over(&mut mine, 1).await && !over(&mut stranger, 1).await);
    world.happens(Event::put(connector(1, 1, true)));
    world.tell();
    assert!(over(&mut mine, 1).await && over(&mut twin, 1).await, "every link of it");
    assert!(over(&mut of_connector(&world, 1), 1).await, "and the next");
    world.happens(Event::put(connector(2, 3, false)));
    world.tell();
    assert!(over(&mut stranger, 1).await);
    drop((mine, twin, stranger));
    assert!(world.audience.lock().connectors.is_empty(), "nothing is kept of those who have gone");
}

#[test]
fn where_relays_are_is_told_to_links_old_and_new() {
    let mut world = World::new();
    world.happens(Event::put(app(1, 1)));
    let settings =
        |port| Event::put(TenantSettings { domain: "example.com".into(), public_port: port, relays: vec![] });
    world.happens(settings(443));
    world.tell();
    let (mut old, told) = (world.link(1), GroupNews::default());
    let first = old.news.borrow_and_update().clone();
    assert!(first.tenant_since(&told).is_some());
    world.happens(settings(8443));
    world.tell();
    assert!(old.news.has_changed().unwrap());
    let second = old.news.borrow_and_update().tenant_since(&first).unwrap();
    assert_eq!(world.link(2).news.borrow().tenant_since(&told), Some(second), "a group nobody knew says the same");
}

#[test]
fn keys_of_user_statements_are_told_to_links_old_and_new() {
    let mut world = World::new();
    world.happens(Event::Removed(ObjectKey::Key("k1".into())));
    world.tell();
    let (mut old, told) = (world.link(1), GroupNews::default());
    let first = old.news.borrow_and_update().clone();
    assert_eq!(first.keys_since(&told), ["1 k1 retired"]);
    world.happens(Event::Removed(ObjectKey::Key("k2".into())));
    world.tell();
    assert!(old.news.has_changed().unwrap());
    assert_eq!(old.news.borrow_and_update().keys_since(&first), ["2 k2 retired"], "what is known is not told again");
    assert_eq!(world.link(2).news.borrow().keys_since(&told).len(), 2, "a group nobody knew hears of both");
}
