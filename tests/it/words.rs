//! What programs say to the people who run them.

use std::{io::Read, net::TcpListener, process::Command};

use admin_client::Credential;
use postern_tests::{
    cluster::Cluster,
    processes::{Folder, Running, binary},
};
use proto::v1;

#[tokio::test]
async fn a_lost_answer_comes_with_the_request_id_to_repeat_it_with() {
    let mut cluster = Cluster::start().await;
    let credential = cluster.folder.0.join("keys-controller-0/owner.json");
    let run = |arguments: &[&str]| {
        let output = Command::new(binary("postern")).arg("--credential").arg(&credential).args(arguments).output();
        let output = output.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    cluster.nats.kill();
    let (done, said) = run(&["group", "create", "staff"]);
    assert!(!done);
    let id = said.split("--request-id ").nth(1).unwrap_or_else(|| panic!("no id to repeat with: {said}"));
    let id = id.split_whitespace().next().unwrap().to_owned();
    // What reads has nothing to repeat.
    assert!(!run(&["key", "list"]).1.contains("--request-id"));

    cluster.restart_nats().await;
    for _ in 0..2 {
        let (done, said) = run(&["--request-id", &id, "group", "create", "staff"]);
        assert!(done, "{said}");
    }
    let groups: Vec<v1::Group> = cluster.admin.read_all("group").await.unwrap();
    assert_eq!(groups.iter().filter(|it| it.name == "staff").count(), 1);
}

#[tokio::test]
async fn an_error_of_a_connection_names_the_file_and_the_address() {
    // Somebody who accepts, listens, and hangs up: no TLS, no HTTP/2.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let hanging_up = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _hello = stream.read(&mut [0; 512]);
    });
    let folder = Folder::default();
    let path = folder.0.join("owner.json");
    credential(&format!("https://{address}"), 1).save(&path).unwrap();
    let run = || Command::new(binary("postern")).arg("--credential").arg(&path).args(["app", "list"]).output().unwrap();
    for _ in 0..2 {
        let said = String::from_utf8_lossy(&run().stderr).into_owned();
        for wanted in [path.to_str().unwrap(), &address.to_string()] {
            assert!(said.contains(wanted), "{wanted} is not in: {said}");
        }
    }
    hanging_up.join().unwrap();
    std::fs::remove_file(&path).unwrap();
    let said = String::from_utf8_lossy(&run().stderr).into_owned();
    assert!(said.contains(path.to_str().unwrap()), "a file that is not there is named: {said}");
}

#[test]
fn a_credential_that_has_ended_is_named_with_its_end() {
    let ended = credential("https://controller.example.com:8444", -1);
    let broke = tonic::Status::from_error("operation was canceled".into());
    let said = runtime::telemetry::chain(&ended.explain("owner.json".as_ref(), &broke));
    for wanted in ["https://controller.example.com:8444", "owner.json", "its certificate ended at 20"] {
        assert!(said.contains(wanted), "{wanted} is not in: {said}");
    }
    // What the controller answers needs no such words.
    let answered = tonic::Status::not_found("app: there is none");
    assert_eq!(ended.explain("owner.json".as_ref(), &answered).to_string(), "app: there is none");
}

/// With a certificate that ends so many days from now.
fn credential(controller: &str, days: i64) -> Credential {
    runtime::install_crypto();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    let end_s = runtime::Clock::default().now_ms() / 1000 + days * 24 * 3600;
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(end_s as u64);
    let pem = params.self_signed(&key).unwrap().pem();
    Credential {
        controller: controller.into(),
        authority: pem.clone(),
        certificate: Some(pem),
        key: Some(key.serialize_pem()),
        token: None,
    }
}

#[tokio::test]
async fn logs_in_files_have_no_colours() {
    let folder = Folder::default();
    let mut command = folder.program("postern");
    command.args(["up", "--no-demo", "--data"]).arg(folder.0.join("data")).env("POSTERN_LOG", "info");
    command.args(["--listen", "127.0.0.1:0", "--admin-api", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let mut up = Running::start("up", &mut command);
    up.line(|line| line.contains("INFO").then_some(())).await;
    up.line(|line| line.contains("postern publish").then_some(())).await;
    for line in up.said() {
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}
