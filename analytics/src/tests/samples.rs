//! One activity of each kind and shape, for every test of a format.

use eventlog::Activity;
use proto::v1::{Access, Accesses, ActivityGap, ConnectorActivity, EventBody, Judgement, SignInAttempt, Verdict};
use uuid::Uuid;

pub(crate) fn body() -> EventBody {
    EventBody {
        id: Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001).as_bytes().to_vec().into(),
        tenant: "default".into(),
        time_ms: 1_700_000_000_123,
        ..Default::default()
    }
}

pub(crate) fn all() -> Vec<Activity> {
    let success = success();
    let failure = SignInAttempt {
        user: String::new(),
        session: String::new(),
        user_agent: String::new(),
        outcome: "wrong_password".into(),
        methods: vec![],
        policies: vec![],
        ..success.clone()
    };
    let newer = SignInAttempt { outcome: "of a newer release".into(), methods: vec!["hwk".into()], ..success.clone() };
    let forwarded = forwarded();
    let refused = Access {
        user: String::new(),
        session: String::new(),
        refusal: "not_assigned".into(),
        status: 403,
        method: "PROPFIND".into(),
        user_agent: String::new(),
        connector: String::new(),
        policies: vec![],
        ..forwarded.clone()
    };
    let cut = Access { refusal: "cut".into(), time_ms: 1_700_000_000_456, ..forwarded.clone() };
    let connector = ConnectorActivity {
        connector: "0198f000-0000-7000-8000-00000000000c".into(),
        relay: "r-1".into(),
        what: "unlinked".into(),
        detail: "certificate expired".into(),
    };
    let judgement = Judgement {
        verdict: Verdict::Challenged.into(),
        missing: vec!["mfa".into(), "sign-in-within:4h".into()],
        ..Default::default()
    };
    let challenged = Access { status: 303, judgement: Some(judgement), ..forwarded.clone() };
    vec![
        Activity::SignIn(success),
        Activity::SignIn(failure),
        Activity::SignIn(newer),
        Activity::Access(forwarded),
        Activity::Accesses(Accesses { accesses: vec![refused, cut] }),
        Activity::Connector(connector),
        Activity::Gap(ActivityGap { writer: "relay:r-1".into(), dropped: 15 }),
        Activity::Access(challenged),
    ]
}

pub(crate) fn success() -> SignInAttempt {
    SignInAttempt {
        user: "0198f000-0000-7000-8000-00000000000a".into(),
        username: "alice".into(),
        session: "0198f000-0000-7000-8000-00000000000b".into(),
        app: "0198f000-0000-7000-8000-00000000000d".into(),
        address: "192.0.2.7".into(),
        user_agent: "Mozilla/5.0 (X11)".into(),
        outcome: "success".into(),
        methods: vec!["pwd".into(), "otp".into()],
        policies: vec!["0198f000-0000-7000-8000-00000000000e".into()],
    }
}

pub(crate) fn forwarded() -> Access {
    Access {
        request_id: "req-1".into(),
        app: "0198f000-0000-7000-8000-00000000000d".into(),
        user: "0198f000-0000-7000-8000-00000000000a".into(),
        session: "0198f000-0000-7000-8000-00000000000b".into(),
        address: "2001:db8::7".into(),
        method: "GET".into(),
        path_class: "/reports".into(),
        status: 200,
        bytes_in: 12,
        bytes_out: 3456,
        total_us: 98_765,
        wait_us: 7,
        origin_us: 54_321,
        policies: vec!["0198f000-0000-7000-8000-00000000000e".into()],
        report_only: vec!["p1".into(), "p2".into()],
        snapshot: 42,
        connector: "0198f000-0000-7000-8000-00000000000c".into(),
        user_agent: "curl/8".into(),
        host: "wiki.example.com".into(),
        time_ms: 1_700_000_000_300,
        ..Default::default()
    }
}
