//! Devices that show a code, and people who type one.

use std::process::Command;

use admin_client::Credential;
use postern_tests::{
    processes::{Running, binary},
    world::World,
};
use url::Url;

#[tokio::test]
async fn the_address_a_device_shows_is_the_one_to_open() {
    let world = World::start().await;
    let data = world.folder.0.join("data");
    let (_, owner) = Credential::find(Some(&data.join("owner.json"))).unwrap();
    let mut login = Command::new(binary("postern"));
    login
        .args(["login", "--device", "--url", &world.url("login", ""), "--controller", &owner.controller, "--ca"])
        .arg(data.join("authority.pem"))
        .arg("--save")
        .arg(world.folder.0.join("login.json"));
    let mut login = Running::start("postern login", &mut login);
    let shown = login.line(|line| Some(line.strip_prefix("Open ")?.strip_suffix(" and type")?.to_owned())).await;
    assert_eq!(shown, world.url("login", "/device"));
    let page = world.browser().get(&shown).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("user_code"), "{}", page.text());
}

#[tokio::test]
async fn guessing_codes_is_slowed_down_like_guessing_passwords() {
    let world = World::start().await;
    let mut browser = world.browser();
    let device = Url::parse(&world.url("login", "/device")).unwrap();
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(browser.form(&device, &[("user_code", "BCDF-BCDF")]).await.status.as_u16());
    }
    assert_eq!(answers, [400, 400, 400, 400, 400, 429, 429, 429]);
    // Who signs in from there with a password is not slowed down by it.
    let signed_in = world.browser().sign_in(&world.url("demo", "/"), "admin", &world.password).await;
    assert_eq!(signed_in.status, 200);
}
